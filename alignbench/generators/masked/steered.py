"""Locally constrained decoding as a rule: the base's next token among those that masks allow, renormalised alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from alignbench.errors import UsageError, brief
from alignbench.generators.described import identity_of
from alignbench.generators.law import Law
from alignbench.generators.masked.masks import ANY_LEFT, Masks
from alignbench.generators.reweighted import Reweighted, reweighted
from alignbench.types import Array, Draws, Sampler


def masked(base: Law, masks: Masks, *, max_tokens: int | None = None) -> Law:
    """The base's next token among those that `masks` allows, each step renormalised alone.

    That is what grammar-constrained decoding does and why it is not p (Park et al. 2024). `max_tokens` is that of the
    draws where the masks look ahead, else None. Where the base gives nothing to what is left, it goes on unmasked,
    which is logged.
    """
    if masks.vocab.fingerprint != base.vocab.fingerprint:
        raise UsageError(f"{base.name} constrained: the automaton reads other tokens than {base.name} says")
    return reweighted(base, Masking(masks), max_tokens)


def masks(law: Sampler, base: Sampler) -> bool:
    """Whether `law` is `base` with tokens masked, each step renormalised, and nothing else changed.

    Then log a − log q <= 0 wherever this one, q, says anything.
    """
    if not isinstance(law, Law) or not isinstance(law.model, Reweighted) or law != Law(law.model):
        return False
    return isinstance(law.model.rule, Masking) and law.model.base.identity() == identity_of(base)


class Where(NamedTuple):
    """Of R rows: the states of the masks, how many tokens were said, and how many a draw has."""

    states: Array  # (R,)
    said: Array  # (R,)
    most: int | None

    @property
    def left(self) -> Array:
        """(R,) tokens still to draw, as far as the masks need to know."""
        return np.full(len(self.said), ANY_LEFT) if self.most is None else np.maximum(self.most - self.said, 1)


@dataclass(frozen=True, eq=False)
class Masking:
    """The rule that leaves what masks allow."""

    masks: Masks
    name = "constrained"
    truncates = True

    def identity(self) -> Mapping[str, Any]:
        """The masks."""
        return {"kind": "constrained", "masks": dict(self.masks.identity())}

    def key(self, prompt: str, max_tokens: int | None) -> int:
        """See `Keyed.key`; raises UsageError where masks that look ahead leave no first token."""
        state = self.masks.start(prompt)
        if max_tokens is not None and not self.masks.allowed(np.array([state]), max_tokens).any():
            raise UsageError(
                f"constrained: no draw of {max_tokens} tokens after the prompt {brief(prompt)} keeps what is asked"
            )
        return state

    def start(self, prompts: Sequence[str], max_tokens: int | None) -> Where:
        """See `Rule.start`."""
        begin = {prompt: self.masks.start(prompt) for prompt in set(prompts)}
        return Where(np.array([begin[prompt] for prompt in prompts]), np.zeros(len(prompts), dtype=int), max_tokens)

    def extend(self, memory: Where, tokens: torch.Tensor) -> Where:
        """See `Rule.extend`."""
        return Where(self.masks.after(memory.states, tokens.cpu().numpy()), memory.said + 1, memory.most)

    def select(self, memory: Where, rows: torch.Tensor) -> Where:
        """See `Rule.select`."""
        at = rows.cpu().numpy()
        return Where(memory.states[at], memory.said[at], memory.most)

    def fill(self, memory: Where, rows: torch.Tensor, prompts: Sequence[str], max_tokens: int | None) -> Where:
        """See `Filling.fill`."""
        at, first = rows.cpu().numpy(), self.start(prompts, max_tokens)
        memory.states[at], memory.said[at] = first.states, 0
        return memory

    def forced(self, prompts: Sequence[str], draws: Draws, max_tokens: int | None) -> Where:
        """See `Forced.forced`."""
        assert draws.tokens is not None
        width, state, before = int(draws.length.max()), self.start(prompts, max_tokens).states, []
        for t in range(width):
            before.append(state)
            inside = t < draws.length
            state = state.copy()
            state[inside] = self.masks.after(state[inside], draws.tokens[inside, t])
        inside = np.arange(width) < draws.length[:, None]
        said = np.broadcast_to(np.arange(width), inside.shape)[inside]
        return Where(np.stack(before, 1)[inside], said, max_tokens)

    def weigh(self, log_probs: torch.Tensor, memory: Where) -> torch.Tensor:
        """See `Rule.weigh`; each pair of state and tokens left is asked for once."""
        left, allowed = memory.left, np.empty(tuple(log_probs.shape), dtype=bool)
        for tokens in np.unique(left):
            mine = np.flatnonzero(left == tokens)
            unlike, which = np.unique(memory.states[mine], return_inverse=True)
            allowed[mine] = self.masks.allowed(unlike, int(tokens))[which]
        return log_probs.masked_fill(~torch.as_tensor(allowed, device=log_probs.device), -torch.inf)
