"""Do the harness and a model keep their laws? Floor 5.

`selfcheck` runs every estimator in worlds whose truth is known; `modelcheck` tries whether a user's own model samples
and scores by one law, measured by the functions of `alignbench.testing`. May import: floors 0 to 4. To add a check of a
model, write a function from a `Trial` to `Finding`s and enter it in `modelcheck.CHECKS`.
"""
