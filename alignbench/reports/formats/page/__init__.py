"""The parts of leaderboard.html: what `html` puts together. Floor 5, as `reports`.

`sections` says what a section of the page shows; `svg` draws trade-offs and curves, whose labels `places` keeps apart;
`strips` draws the bars in cells; `drawn` has example draws as JSON that no string can leave. The templates, the style
and the script beside them are put into the page itself.
"""
