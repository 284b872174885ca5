"""Aligners that draw from a proposal and keep some of the draws. Part of `aligners`, one file an aligner.

`proposal` and `rounds` are what they share: the weights log P − log q, and drawing until each wanted draw has one kept.
"""

from alignbench.aligners.selection import best_of_n as best_of_n
from alignbench.aligners.selection import quasi_rejection as quasi_rejection
from alignbench.aligners.selection import rejection as rejection
from alignbench.aligners.selection import sir as sir
