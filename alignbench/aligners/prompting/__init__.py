"""Aligners that change what the model reads: instructions, examples. Part of `aligners`, one file an aligner."""

from alignbench.aligners.prompting import few_shot as few_shot
from alignbench.aligners.prompting import prompt as prompt
