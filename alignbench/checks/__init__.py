"""Do the harness and a model keep their laws? Floor 5.

`selfcheck` runs every estimator in worlds whose truth is known; `modelcheck` tries whether a user's own model samples
and scores by one law. A check of a model is a function from a `Trial` to `Finding`s, entered in `modelcheck.CHECKS`.
"""
