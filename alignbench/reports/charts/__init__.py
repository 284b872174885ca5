"""Charts: what is drawn, in the page and in papers. Part of `reports`, floor 5.

`data` says which numbers stand against which, with their limits; `axes` how they are called and how far they go.
`plots` draws them for papers; the page draws them by `formats.page.svg`.
"""
