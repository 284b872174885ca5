"""Aligners that put next-token probabilities under a rule, step by step. Part of `aligners`, one file an aligner.

`constrained` masks tokens by words, regular expressions and grammars; the masks are in `generators/masked/`.
`head` weighs them by a head that a training left, see `generators.head`.
"""

from alignbench.aligners.guidance import constrained as constrained
from alignbench.aligners.guidance import head as head
