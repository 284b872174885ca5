"""Tables: tidy rows arranged into what every format renders. Part of `reports`, floor 5.

`leaderboards` arranges rows into what `board` defines. `groups` says which rows share a table, `columns` and `lines`
what it shows, `labels` and `families` how aligners are called and which belong together, `cells` and `numbers` how a
number is spelled with its error and notes. `pairs` says which rows may be compared and by how much they differ,
`standing` gives ranks, ties and front, `deltas` differences to a baseline, `seeds` means over seeds, `suite` what
several tasks say together.
"""
