"""Arrays in, `Estimate` out: the numbers of alignbench and their errors.

Lives here: pure functions on arrays of draws. `intervals` and `jackknife` are the tools, `weights` the gates,
`normaliser`, `divergences`, `overlap` (TV, JS), `selection`, `wins`, `quasi`, `filtered`, `cells`, `bounds` and
`moments` the quantities, `frontier` MAUVE of draws in buckets, `mixture` the reference draws of a rare target,
`discrete` the same quantities on exact masses, `compare` the difference of two.
May import: numpy, scipy, arviz_stats and `alignbench.types`; never a model, a task or a file.
To add one: a function whose docstring opens with the quantity and its unit, which averages over the prompts given with
equal weights, and refuses (`Estimate.missing`, an infinity, a bound) where its number would not be true; then a test
against an exact world and a planted bug that the test catches.
"""
