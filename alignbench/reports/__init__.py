"""Tidy rows in, something to read out. Floor 5: pandas, jinja2, rich, tabulate; never torch.

`rows` is the schema of the results table and its CSV file; `table` arranges rows into leaderboards; `numbers` spells a
number with its error; `terminal`, `markdown`, `html`, `latex` and `strict_json` each render one format, and `render`
writes them all. Every word is harmless by three hands: `board.plain_text` takes out what commands a terminal, each
format escapes (`tex` for LaTeX), `spreadsheet` guards the CSV. `readme` keeps a table between two marks of any file.
A renderer is a function from a `Leaderboard` to text that knows nothing of statistics: whatever a table says is decided
in `table`. To add a format, write such a function and enter it in `render.FORMATS`.
"""
