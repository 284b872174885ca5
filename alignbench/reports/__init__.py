"""Tidy rows in, something to read out. Floor 5: pandas, jinja2, rich, tabulate; never torch.

`rows` is the schema of the results table and its CSV file, `gather` reads those of any number of runs. `table` arranges
rows into what `board` defines: `groups` says which share a table, `columns` and `lines` what it shows, `labels` how an
aligner is called, `standing` its ranks, ties and front, `deltas` its differences to a baseline, `suite` what several
tasks say together. `numbers` spells a number with its error; `terminal`, `markdown`, `html`, `latex` and `strict_json`
each render one format, and `render` writes them all. A renderer is a function from a `Leaderboard` to text that knows
nothing of statistics. To add a format, write such a function and enter it in `render.FORMATS`.
"""
