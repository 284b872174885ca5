"""Formats: a leaderboard as text, one file each. Part of `reports`, floor 5.

`terminal`, `markdown`, `html` (its parts in `page`), `latex` (its escapes in `tex`) and `strict_json`; `render` writes
them all, `readme` keeps a table between two marks of any file, `checks` and `fuzz` show
selfchecks in a terminal. A renderer is a
function from a `Leaderboard` to text that knows nothing of statistics. To add a format, write one and enter it in
`render.FORMATS`.
"""
