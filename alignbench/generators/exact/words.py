"""Words as tokens: what the exact worlds share, whichever model says the words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from alignbench.errors import UsageError, brief, did_you_mean
from alignbench.generators.base import State, Vocab
from alignbench.types import Array, Draws

EOS = "</s>"


def vocab_of(words: Sequence[str]) -> Vocab:
    """The words by id and one EOS, the last id."""
    return Vocab((*words, EOS), frozenset({len(words)}))


def ids_of(words: Sequence[str], text: str, what: str = "prompt") -> list[int]:
    """The ids of the words of `text`; raises UsageError on a word that the world does not know.

    `what` is what the text is called in that message.
    """
    known = {w: i for i, w in enumerate(words)}
    for word in text.split():
        if word not in known:
            raise UsageError(f"{what} {brief(text)}: the world has no word '{word}'.{did_you_mean(word, known)}")
    return [known[w] for w in text.split()]


def text_of(words: Sequence[str], ids: Array) -> str:
    """The words, a space before each; EOS leaves no text."""
    return "".join(" " + words[i] for i in ids if i < len(words))


def walked(state: State, draws: Draws) -> torch.Tensor:
    """(P, V) nats before each token of each draw, by walking the states; see `Model.forced`."""
    assert draws.tokens is not None
    tokens, steps = torch.as_tensor(draws.tokens), []
    for t in range(int(draws.length.max())):
        steps.append(state.log_probs)
        state = state.extend(tokens[:, t].clamp(min=0))
    return torch.stack(steps, 1)[torch.as_tensor(np.arange(len(steps)) < draws.length[:, None])]
