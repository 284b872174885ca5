"""Worlds that can be listed: the truth that estimators and aligners are proven against. Part of `generators`, floor 1.

`world` is the generator `exact` (n-gram models, every continuation enumerated), `hidden` a model with a longer memory;
`words` is what they share. `automaton` computes a feature in one pass over the tokens, and `dynamic` sums over all
continuations where they are too many to list.
"""

from alignbench.generators.exact.world import NGram as NGram
from alignbench.generators.exact.world import enumerate_draws as enumerate_draws
from alignbench.generators.exact.world import exact as exact
