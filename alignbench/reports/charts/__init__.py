"""Charts: what is drawn, in the page and in papers, drawn once. Part of `reports`, floor 5.

`data`, `two_parts` and `suite` say which numbers stand against which, with their limits; `axes` how they are called and
how far they go. `drawing` makes a `picture` of them: marks in `looks`. `svg` writes it for a page or alone; `files`
saves it.
"""
