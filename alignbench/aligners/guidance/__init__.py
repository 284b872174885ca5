"""Aligners that reweight next-token probabilities by a rule, step by step. Part of `aligners`, one file an aligner."""

from alignbench.aligners.guidance import constrained as constrained
