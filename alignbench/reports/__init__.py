"""Tidy rows in, something to read out. Floor 5: pandas, jinja2, rich, tabulate; never torch.

`rows` is the schema of the results table and its CSV file (`spreadsheet` guards it, `faults` finds what somebody
changed); `gather` reads the rows of any number of runs, `folders` those of one output folder; `examples` picks draws to
show (`shown` is what one is, `asked` what is looked for in it, `draws` the file of those that are published); `publish`
makes rows fit to publish.

    table/    rows → tables: which rows, which columns, ranks and ties
    formats/  tables → text: terminal, Markdown, HTML, LaTeX, JSON
    charts/   tables → charts
    compare/  generators side by side, draw by draw

Every word is harmless by three hands: `table.board.plain_text` takes out what commands a terminal, each format escapes,
and `spreadsheet` guards the CSV.
"""
