"""Do the harness and a model keep their laws? Floor 5.

`selfcheck` runs every estimator in a few worlds whose truth is known, `fuzz` in random ones, which `worlds` makes;
`seen` is one estimate beside the truth. `modelcheck` tries whether a user's own model samples and scores by one law, by
the functions of `alignbench.testing`. May import: floors 0 to 4. To add a check of a model, write a function from a
`Trial` to `Finding`s and enter it in `modelcheck.CHECKS`; a kind of target or of law for random worlds, in
`worlds.KINDS` or `worlds.LAWS`.
"""
