"""The parts of leaderboard.html: what `html` puts together. Floor 5, as `reports`.

`sections` says what the page shows of each table and suite; `cards` has its rows for narrow screens; `drawn` has
example draws as JSON that no string can leave. Pictures come from `charts`. The templates, the style and the script
beside them are put into the page itself.
"""
