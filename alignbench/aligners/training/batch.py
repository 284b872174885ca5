"""What a step learns from: draws, and what base and target say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from alignbench.types import Array, Draws

ARRAYS = ("log_ratio", "log_base", "log_proposal", "weight", "group", "values", "base_by_token", "hidden", "own")
"""Fields of a batch with a number for each draw, or one for each of its tokens."""


@dataclass(frozen=True)
class Batch:
    """B draws to learn from; arrays are (B,) in nats.

    `log_base` is NaN where nothing depends on it: a draw of P = 0 weighs 0 whatever the base says.
    """

    draws: Draws
    prompts: Sequence[str]
    log_ratio: Array  # log P − log a
    log_base: Array  # log a
    log_proposal: Array | None = None  # log q of the law that drew them; None: the policy itself, as it is now
    weight: Array | None = None  # what else they weigh; None: 1 each
    group: Array | None = None  # the number of the pair, or the set, in which a draw is compared with others
    values: Array | None = None  # (B, T) a baseline for each token, see `prefixes`
    base_by_token: Array | None = None  # (B, T) log a by token, where a baseline asks for it
    hidden: Array | None = None  # (B, T, D) the base's hidden state before each token, where values are learned of it
    own: Array | None = None  # whether the policy drew it, now or some steps before; None: nobody asked

    def __len__(self) -> int:
        return len(self.draws)

    def take(self, rows: Array) -> Batch:
        """The draws at `rows`, in that order."""
        arrays: dict[str, Any] = {
            name: None if (value := getattr(self, name)) is None else value[rows] for name in ARRAYS
        }
        return replace(self, draws=self.draws.take(rows), **arrays)

    def log_p(self, log_z: Array) -> Array:
        """(B,) log p by log Z of each prompt (C,), nats; −inf where a hard constraint forbids the draw."""
        allowed = self.log_ratio > -np.inf
        return np.where(allowed, self.log_base + self.log_ratio - log_z[self.draws.prompt], -np.inf)

    @staticmethod
    def concat(parts: Sequence[Batch]) -> Batch:
        """All draws of `parts` in order."""
        known = [name for name in ARRAYS if getattr(parts[0], name) is not None]
        draws = Draws.concat([p.draws for p in parts])
        arrays = {name: np.concatenate([_padded(getattr(p, name), draws) for p in parts]) for name in known}
        return parts[0]._with(draws, arrays)

    def _with(self, draws: Draws, arrays: Mapping[str, Any]) -> Batch:
        return replace(self, draws=draws, **arrays)


def _padded(values: Array, draws: Draws) -> Array:
    """Numbers by token with as many columns as the tokens of `draws` have."""
    if values.ndim == 1 or draws.tokens is None:
        return values
    return np.pad(values, ((0, 0), (0, draws.tokens.shape[1] - values.shape[1]), *[(0, 0)] * (values.ndim - 2)))


@dataclass(frozen=True)
class Known:
    """The numbers of a batch as tensors (B,), for losses; all processes' draws together."""

    prompt: torch.Tensor
    log_ratio: torch.Tensor
    log_base: torch.Tensor
    log_proposal: torch.Tensor | None
    weight: torch.Tensor
    inside: torch.Tensor  # (B, T) whether a token is drawn there
    group: torch.Tensor | None = None
    values: torch.Tensor | None = None  # (B, T)
    log_base_by_token: torch.Tensor | None = None  # (B, T)
    log_q_by_token: torch.Tensor | None = None  # (B, T); None where the policy itself drew, or nobody asked

    @staticmethod
    def of(batch: Batch, like: torch.Tensor) -> Known:
        """The numbers of a batch, of the kind and on the device of another tensor."""

        def sent(values: Array) -> torch.Tensor:
            return torch.as_tensor(np.asarray(values), dtype=like.dtype, device=like.device)

        draws = batch.draws
        assert draws.tokens is not None
        inside = np.arange(draws.tokens.shape[1]) < draws.length[:, None]
        return Known(
            prompt=torch.as_tensor(draws.prompt, device=like.device), log_ratio=sent(batch.log_ratio),
            log_base=sent(batch.log_base),
            log_proposal=None if batch.log_proposal is None else sent(batch.log_proposal),
            weight=sent(np.ones(len(batch)) if batch.weight is None else batch.weight),
            inside=torch.as_tensor(inside, device=like.device),
            group=None if batch.group is None
            else torch.as_tensor(batch.group.astype(np.int64), device=like.device),
            values=None if batch.values is None else sent(batch.values),
            log_base_by_token=None if batch.base_by_token is None else sent(batch.base_by_token),
            log_q_by_token=None if batch.log_proposal is None or draws.token_log_prob is None
            else sent(draws.token_log_prob),
        )  # fmt: skip

    def log_q(self, log_pi: torch.Tensor) -> torch.Tensor:
        """Log q of each draw: of the law that drew it, the policy as it is now where that is None."""
        return log_pi.detach() if self.log_proposal is None else self.log_proposal

    def log_p(self, log_z: Array) -> torch.Tensor:
        """Log p of each draw by log Z of each prompt (C,); −inf where a hard constraint forbids it."""
        gone, of_prompt = self.log_ratio == -torch.inf, torch.as_tensor(log_z).to(self.log_ratio)[self.prompt]
        return torch.where(gone, self.log_ratio, self.log_base + self.log_ratio - of_prompt)
