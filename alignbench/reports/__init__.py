"""Tidy rows in, something to read out. Floor 5: pandas, jinja2, rich, tabulate; never torch.

`rows` is the schema of the results table and its CSV file, `gather` reads those of any number of runs. `table` arranges
rows into what `board` defines: `groups` says which share a table, `columns` and `lines` what it shows, `labels` how an
aligner is called, `standing` its ranks, ties and front, `deltas` its differences to a baseline, `suite` what several
tasks say together; `pairs` says which rows may be compared and by how much they differ. `charts` has what is drawn, in
the page (`page/`, put together by `html`) and for papers (`plots/`); `comparison/` sets generators side by side, and
`publish` makes rows fit to publish. `numbers` spells a number with its error; `terminal`, `markdown`, `html`, `latex`
and `strict_json` each render one format, and `render` writes them all. A renderer is a function from a `Leaderboard` to
text that knows nothing of statistics. To add a format, write such a function and enter it in `render.FORMATS`.

Every word is harmless by three hands: `board.plain_text` takes out what commands a terminal, each format escapes (`tex`
for LaTeX), and `spreadsheet` guards the CSV. `readme` keeps a table between two marks of any file.
"""
