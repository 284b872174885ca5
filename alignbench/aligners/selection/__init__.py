"""Aligners that draw from a proposal and keep some of the draws. Part of `aligners`, one file an aligner.

`best_of_n` keeps the draw of n that ranks highest, `sir` one of n by its weight; `rejection` goes on until a draw is
one of p, `quasi_rejection` until it is one of min(P, βq), `filtered` until it keeps the hard constraints. They share
`proposal`, which says what draws weigh (log P − log q), and `rounds`, which draws until each wanted draw has one that
is kept.
"""

from alignbench.aligners.selection import best_of_n as best_of_n
from alignbench.aligners.selection import filtered as filtered
from alignbench.aligners.selection import quasi_rejection as quasi_rejection
from alignbench.aligners.selection import rejection as rejection
from alignbench.aligners.selection import sir as sir
