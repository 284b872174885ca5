"""Words as tokens: what the exact worlds share, whichever model says the words."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch

from alignbench.errors import UsageError, brief, did_you_mean
from alignbench.generators.base import Positions, State, Vocab
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


class WordModel:
    """What a model whose tokens are words says of them; each brings `words`, its EOS comes last."""

    words: tuple[str, ...]

    @cached_property
    def vocab(self) -> Vocab:
        """The words and one EOS."""
        return vocab_of(self.words)

    @property
    def device(self) -> torch.device:
        """The CPU: worlds are small."""
        return torch.device("cpu")

    def render(self, prompt: str) -> str:
        """The prompt as it is."""
        return prompt

    def spell(self, text: str) -> list[int]:
        """See `Spelling.spell`."""
        return ids_of(self.words, text, "text")

    def encode(self, rendered: str, max_tokens: int) -> list[int]:
        """The words' ids; raises UsageError on a word that the world does not know."""
        return ids_of(self.words, rendered)

    def decode(self, rendered: str, tokens: Sequence[Array]) -> list[str]:
        """The words, a space before each; EOS leaves no text."""
        return [text_of(self.words, ids) for ids in tokens]

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> State:
        """See `Model.start`."""
        raise NotImplementedError

    def forced(self, rendered: Sequence[str], draws: Draws) -> Positions:
        """See `Model.forced`."""
        return walked(self.start(rendered, max_tokens=int(draws.length.max())), draws)


def walked(state: State, draws: Draws) -> torch.Tensor:
    """(P, V) nats before each token of each draw, by walking the states; see `Model.forced`."""
    assert draws.tokens is not None
    tokens, steps = torch.as_tensor(draws.tokens), []
    for t in range(int(draws.length.max())):
        steps.append(state.log_probs)
        state = state.extend(tokens[:, t].clamp(min=0))
    return torch.stack(steps, 1)[torch.as_tensor(np.arange(len(steps)) < draws.length[:, None])]
