"""Aligners that change what the model reads, and score against the base on the original prompt. Part of `aligners`.

`prompt` puts an instruction around each prompt, `few_shot` examples of what is wanted before it.
"""

from alignbench.aligners.prompting import few_shot as few_shot
from alignbench.aligners.prompting import prompt as prompt
