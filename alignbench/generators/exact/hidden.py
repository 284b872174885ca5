"""Hidden Markov models: the second kind of exact world, whose memory is longer than any n-gram's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from alignbench.errors import UsageError
from alignbench.generators.exact.words import WordModel, ids_of
from alignbench.generators.warp import PLAIN, Warp
from alignbench.types import Array


@dataclass(frozen=True, eq=False)
class HiddenMarkov(WordModel):
    """P(x) = Σ over hidden paths of Π P(word | state) · P(next state | state), in float64 (Rabiner 1989).

    `first` (H,) is the law of the state that says the prompt's first word, `moves` (H, H) that of the next state,
    `says` (H, V) that of the word, V = words + EOS. A live prefix is its forward vector P(state | words so far).
    """

    words: tuple[str, ...]
    first: Array
    moves: Array
    says: Array
    name: str = "exact"
    batch_size: int = 4096
    enumerable = True

    def __post_init__(self) -> None:
        hidden, size = len(self.first), len(self.words) + 1
        for what, shape in (("first", (hidden,)), ("moves", (hidden, hidden)), ("says", (hidden, size))):
            table = np.asarray(getattr(self, what))
            if table.shape != shape:
                raise UsageError(f"{self.name}: `{what}` has shape {table.shape}, not {shape}")
            if (table < 0).any() or not np.allclose(table.sum(-1), 1, atol=1e-12):
                raise UsageError(f"{self.name}: each row of `{what}` must be probabilities that sum to 1")

    def identity(self) -> Mapping[str, Any]:
        """The words and the tables."""
        digest = sha256()
        for table in (self.first, self.moves, self.says):
            digest.update(np.ascontiguousarray(table, float).tobytes())
        return {"kind": "hidden", "words": list(self.words), "hidden": len(self.first),
                "tables": digest.hexdigest()[:16]}  # fmt: skip

    def encode(self, rendered: str, max_tokens: int) -> list[int]:
        """The words' ids; raises UsageError on a word that the world does not know, or a prompt it never says."""
        ids = ids_of(self.words, rendered)
        self._forward(rendered, ids)
        return ids

    def belief(self, rendered: str) -> Array:
        """(H,) P(state | the prompt's words)."""
        return self._forward(rendered, ids_of(self.words, rendered))

    def _forward(self, rendered: str, ids: Sequence[int]) -> Array:
        state = np.asarray(self.first, float)
        for word in ids:
            state = (state * self.says[:, word]) @ self.moves
            if not state.sum() > 0:
                raise UsageError(f"prompt '{rendered}': this world never says it")
            state = state / state.sum()
        return state

    def steps(self, warp: Warp) -> Array:
        """(H, V, H) P(say the word, then be in the second state | the first); plain decoding only.

        Raises UsageError under other settings: they act on the word's law given all words so far, and there a prefix
        is not summed up by finitely many states.
        """
        if warp != PLAIN:
            raise UsageError(f"{self.name}: a hidden Markov model under {warp} can be listed, not summed by state")
        return np.asarray(self.says[:, :, None] * self.moves[:, None, :])

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> HiddenState:
        """See `Model.start`."""
        known = {prompt: self.belief(prompt) for prompt in set(rendered)}
        belief = torch.as_tensor(np.stack([known[prompt] for prompt in rendered]))
        return HiddenState(torch.as_tensor(self.moves), torch.as_tensor(self.says), belief)


@dataclass(frozen=True)
class HiddenState:
    """R forward vectors."""

    moves: torch.Tensor
    says: torch.Tensor
    belief: torch.Tensor  # (R, H) P(state | prefix)

    @property
    def log_probs(self) -> torch.Tensor:
        """See `State.log_probs`."""
        return (self.belief @ self.says).log()

    def extend(self, tokens: torch.Tensor) -> HiddenState:
        """See `State.extend`; after a word that cannot be said, the state is as before."""
        joint = self.belief * self.says.T[tokens]
        mass = joint.sum(1, keepdim=True)
        joint = torch.where(mass > 0, joint / mass, self.belief)
        return replace(self, belief=joint @ self.moves)

    def select(self, rows: torch.Tensor) -> HiddenState:
        """See `State.select`."""
        return replace(self, belief=self.belief[rows])
