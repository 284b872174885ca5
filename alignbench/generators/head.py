"""A light head over a base's last hidden states that reweights its next token: π(v | prefix) ∝ a(v | prefix)·e^{Q(v)}.

It is a rule, so that it guides any base that shows hidden states; and it is trained, with no gradient through the base.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from safetensors.torch import load, save
from torch import nn
from torch.utils.checkpoint import checkpoint

from alignbench.errors import StoreError, Unsupported, UsageError
from alignbench.files import check_writable, dump, write_atomic
from alignbench.generators.checkpoint import weights_digest
from alignbench.generators.gradient import differentiable, inference
from alignbench.generators.hf.policy import adapter
from alignbench.generators.history import Before, WithHiddenStates
from alignbench.generators.law import Law, gather
from alignbench.generators.policy import Scorer, TrainedLaw
from alignbench.generators.reweighted import Reweighted, SlottedReweighted, reweighted
from alignbench.types import Draws

TOLD, TENSORS = "head.json", "head.safetensors"


@runtime_checkable
class WithHiddenWidth(Protocol):
    """A model that says how many numbers its last hidden states have."""

    @property
    def hidden_width(self) -> int | None:
        """D; None where its logits are not made of hidden states."""
        ...


class QHead(nn.Module):
    """Q (n, V), nats, from hidden states (n, D): up·down·h with `rank` numbers in between; and a value (n,).

    Where the rank is that of any matrix, there is one. Q and value are 0 at first; `down` is drawn by `seed`.
    """

    def __init__(self, width: int, size: int, rank: int, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.down: nn.Parameter | None = None
        if rank < min(width, size):
            source = torch.Generator().manual_seed(seed)
            self.down = nn.Parameter(torch.randn(width, rank, generator=source, dtype=dtype) / width**0.5)
        self.up = nn.Parameter(torch.zeros(width if self.down is None else rank, size, dtype=dtype))
        self.value = nn.Parameter(torch.zeros(width, dtype=dtype))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n, V) Q of each token."""
        given = hidden.to(self.up.dtype)
        return (given if self.down is None else given @ self.down) @ self.up

    def state_value(self, hidden: torch.Tensor) -> torch.Tensor:
        """(n,) the value."""
        return hidden.to(self.value.dtype) @ self.value

    def digest(self) -> str:
        """16 hex digits of its numbers as they are now."""
        return weights_digest(self.named_parameters())


@dataclass(frozen=True, eq=False)
class ByHead:
    """The rule: Q added to the base's nats. It remembers nothing."""

    head: QHead
    name = "head"
    truncates = False

    def identity(self) -> Mapping[str, Any]:
        """The head's numbers."""
        return {"rule": self.name, "weights": self.head.digest()}

    def start(self, prompts: Sequence[str], max_tokens: int | None) -> torch.Tensor:
        """See `Rule.start`: (R, 0)."""
        return self.head.up.new_zeros((len(prompts), 0))

    def extend(self, memory: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """See `Rule.extend`."""
        return memory

    def select(self, memory: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """See `Rule.select`."""
        return memory[rows]

    def fill(
        self, memory: torch.Tensor, rows: torch.Tensor, prompts: Sequence[str], max_tokens: int | None
    ) -> torch.Tensor:
        """See `Filling.fill`."""
        return memory

    def forced(self, prompts: Sequence[str], draws: Draws, max_tokens: int | None) -> torch.Tensor:
        """See `Forced.forced`."""
        return self.head.up.new_zeros((int(draws.length.sum()), 0))

    def weigh(self, log_probs: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        """See `Rule.weigh`: without hidden states there is no Q."""
        raise Unsupported(f"a {self.name} reads hidden states")

    def weigh_by(self, log_probs: torch.Tensor, memory: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """See `Reading.weigh_by`."""
        with inference():
            q: torch.Tensor = self.head(hidden)
            return log_probs + q


@adapter("head")
@dataclass(frozen=True)
class Head:
    """What is trained of a policy: a `QHead` of this rank over the base's last hidden states, and nothing of the base.

    Raises UsageError on a rank below 1.
    """

    rank: int = 64

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise UsageError(f"head: rank={self.rank}: must be at least 1")

    def on(self, base: Law, seed: int) -> HeadedLaw:
        """The policy that begins as the base; raises Unsupported where that shows no hidden states."""
        width = width_of(base)
        dtype = torch.float64 if base.model.device.type == "cpu" and base.enumerable else torch.float32
        return headed(base, QHead(width, len(base.vocab), self.rank, seed=seed, dtype=dtype).to(base.device))


def width_of(base: Law) -> int:
    """How many numbers the base's last hidden states have; raises Unsupported where it shows none."""
    width = base.model.hidden_width if isinstance(base.model, WithHiddenWidth) else None
    if width is None:
        raise Unsupported(f"{base.name}: has no hidden states for a head; a decoder of transformers has")
    return width


def no_head(folder: str | Path) -> UsageError:
    """That there is none."""
    return UsageError(f"{folder}: no head in this folder ({TENSORS} is missing); soft_q and q_learning leave one")


def load_head(folder: str | Path, base: Law) -> QHead:
    """The head that a training left in `folder`, for a base.

    Raises UsageError where there is none, or one for another tokenizer or width; StoreError where it is damaged.
    """
    width, place = width_of(base), Path(folder).expanduser()
    if not (place / TENSORS).is_file():
        raise no_head(folder)
    try:
        told = json.loads((place / TOLD).read_text(encoding="utf-8"))
        tensors = load((place / TENSORS).read_bytes())
        up, vocab = tensors["up"], told["vocab"]
        found = tensors.get("down", up).shape[0]
        head = QHead(found, up.shape[1], up.shape[0], dtype=up.dtype)
        head.load_state_dict(tensors)
    except Exception as error:  # whatever reading a damaged file raises
        raise StoreError(f"{folder}: its head cannot be read ({error}): train it anew") from error
    if vocab != base.vocab.fingerprint:
        raise UsageError(f"{folder}: its head is for another tokenizer than that of {base.name}")
    if found != width:
        raise UsageError(f"{folder}: its head reads {found} numbers, and hidden states of {base.name} have {width}")
    return head.requires_grad_(False).to(base.device)


def headed(base: Law, head: QHead) -> HeadedLaw:
    """The law π ∝ a·e^Q of a base, to be trained."""
    made = reweighted(base, ByHead(head))
    kind = SlottedHeaded if isinstance(made.model, SlottedReweighted) else Headed
    return HeadedLaw(kind(base, ByHead(head)))


class Headed(Reweighted[torch.Tensor]):
    """See `Reweighted`; with what a `Learner` has."""

    rule: ByHead

    @property
    def network(self) -> QHead:
        """See `Learner.network`: the head."""
        return self.rule.head

    def save(self, folder: Path) -> None:
        """Write the head's numbers, and whose tokens it weighs; raises StoreError."""
        check_writable(folder)
        tensors = {name: p.detach().cpu().contiguous() for name, p in self.rule.head.named_parameters()}
        write_atomic(folder / TENSORS, save(tensors))
        write_atomic(folder / TOLD, dump({"kind": "head", "vocab": self.vocab.fingerprint}))


class SlottedHeaded(Headed, SlottedReweighted[torch.Tensor]):
    """The same over a model with decoders of its own."""


@dataclass(frozen=True)
class HeadedLaw(TrainedLaw):
    """A policy of which a head is trained."""

    @property
    def head(self) -> QHead:
        """What is trained."""
        found = self.learner.network
        assert isinstance(found, QHead)
        return found

    @cached_property
    def module(self) -> Scorer:
        """See `Policy.module`."""
        return LogPi(self)


@dataclass(frozen=True)
class Valued:
    """What heads say of B draws of T tokens, nats, 0 after the end; with gradients but for those of the target."""

    log_pi: torch.Tensor
    log_t: torch.Tensor  # log(π/a) of the token, Q − V
    v: torch.Tensor  # log Σ a·e^Q before the token
    state_value: torch.Tensor  # the value before the token
    soft: torch.Tensor  # v, of the target head
    q_max: torch.Tensor  # the largest Q of what the base can say, of the target head
    q: torch.Tensor  # Q of the token, of the target head

    @staticmethod
    def of(columns: torch.Tensor) -> Valued:
        """From (B, T, 7), as `Values` gives it."""
        return Valued(*columns.unbind(-1))


class Values(Scorer):
    """(prompts, draws) → (B, T, 7) what `Valued` has, with one pass of the base, of which nothing has a gradient.

    `target` is another head; of none what it would say is 0.
    """

    law: HeadedLaw

    def __init__(self, law: HeadedLaw, target: QHead | None = None) -> None:
        super().__init__(law)
        self.target = [target]  # in a list: no part of this module

    def forward(self, prompts: Sequence[str], draws: Draws) -> torch.Tensor:
        """See the class."""
        self.law.check_vocab(draws)
        assert draws.tokens is not None and isinstance(self.law.model, Reweighted)
        base, shape = self.law.model.base, (*draws.tokens.shape, 7)
        if not len(draws):  # one process's share of few draws: the others wait for its gradient
            nothing = sum(0 * p.flatten()[:1].sum() for p in self.law.parameters)
            return torch.as_tensor(nothing).expand(shape)
        inside = np.arange(draws.tokens.shape[1]) < draws.length[:, None]
        ids = torch.as_tensor(draws.tokens[inside], device=self.law.device)
        with torch.no_grad(), differentiable():
            raw = base.before(prompts, draws, base.warp.remembers)
        if not isinstance(raw.places, WithHiddenStates):
            raise Unsupported(f"{base.name}: has no hidden states for a head")
        parts = [
            checkpoint(self._numbers, raw, raw.places.hidden, ids, cut, use_reentrant=False, preserve_rng_state=False)
            for cut in self._cuts(ids)
        ]
        found = torch.cat(parts)
        where = torch.as_tensor(inside, device=found.device)[..., None]
        return found.new_zeros(shape).masked_scatter(where.expand(shape), found)

    def _numbers(self, raw: Before, hidden: torch.Tensor, ids: torch.Tensor, cut: slice) -> torch.Tensor:
        """(n, 7) at some places; in the head's own precision, as it samples."""
        assert isinstance(self.law.model, Reweighted)
        head, [target] = self.law.head, self.target
        with torch.no_grad(), differentiable(), torch.autocast(hidden.device.type, enabled=False):
            log_a = self.law.model.base.warp(*raw[cut]).to(head.up.dtype)
            told = [torch.zeros_like(log_a[:, 0])] * 3
            if target is not None:
                theirs = target(hidden[cut])
                most = theirs.masked_fill(log_a == -torch.inf, -torch.inf).amax(-1)
                told = [(log_a + theirs).logsumexp(-1), most, gather(theirs, ids[cut])]
        with torch.autocast(hidden.device.type, enabled=False):
            q = head(hidden[cut])
            v = (log_a + q).logsumexp(-1)
            log_t = gather(q, ids[cut]) - v
            value = head.state_value(hidden[cut])
        return torch.stack([gather(log_a, ids[cut]) + log_t, log_t, v, value, *told], -1)


class LogPi(Values):
    """(prompts, draws) → (B, T) nats by token, see `Scorer`."""

    def forward(self, prompts: Sequence[str], draws: Draws) -> torch.Tensor:
        """See the class."""
        return super().forward(prompts, draws)[..., 0]
