"""Aligners that change how the next token is chosen, and know nothing of the target. Part of `aligners`.

`settings` has those that are one decoding setting each (temperature, top-k, …), `search` greedy and beam search,
`attention_window` what a token may see.
"""

from alignbench.aligners.decoding import attention_window as attention_window
from alignbench.aligners.decoding import search as search
from alignbench.aligners.decoding import settings as settings
