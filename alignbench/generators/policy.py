"""Policies: laws whose model is trained. What samples and scores is what gives the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from alignbench.errors import Unsupported
from alignbench.files import digest
from alignbench.generators.base import Learner, Trainable
from alignbench.generators.described import called
from alignbench.generators.gradient import differentiable, trainable_parameters
from alignbench.generators.hf.policy import recipe_of
from alignbench.generators.history import Before, OfHidden
from alignbench.generators.law import Law, cuts, gather
from alignbench.generators.warp import at_least_float32
from alignbench.types import Draws, Sampler


def policy_of(base: Sampler, adapter: str = "lora:r=16", *, seed: int = 0) -> TrainedLaw:
    """A policy that begins as `base`, with its decoding settings and prompts, and shares its tensors.

    `adapter` says what is trained: `lora:r=16,alpha=32` low-rank additions to the linear layers (A is drawn by `seed`),
    `prompt:tokens=20` embeddings that are read before each prompt, `full` a copy of all weights, `head:rank=64` a head
    over its last hidden states that reweights its next token. With `prompt` it does not begin as `base`: its embeddings
    are at first those of words, drawn by `seed`. The base stays as it is. Raises Unsupported where there is nothing to
    be trained, and UsageError on an unknown adapter.
    """
    recipe = recipe_of(adapter)
    if isinstance(recipe, OnLaw) and isinstance(base, Law):
        return recipe.on(base, seed)
    if not isinstance(base, Law) or not isinstance(base.model, Trainable):
        raise Unsupported(f"{called(base)}: has no weights that can be trained; a language model of transformers has")
    return TrainedLaw(base.model.trainable(adapter, seed), base.warp, base.template, base.frame)


@runtime_checkable
class OnLaw(Protocol):
    """What is trained of a policy, put on a law as a whole."""

    def on(self, base: Law, seed: int) -> TrainedLaw:
        """The policy; raises Unsupported where the base has not what it needs."""
        ...


@dataclass(frozen=True)
class TrainedLaw(Law):
    """See `Policy`: a law over a model whose weights change; its identity tells them as they are now."""

    said: str = ""  # of what it was trained to, see `remark`

    @property
    def remark(self) -> str:
        """See `Evidence.remark`."""
        return "; ".join(filter(None, (self.said, super().remark)))

    @property
    def learner(self) -> Learner:
        """The model."""
        assert isinstance(self.model, Learner)
        return self.model

    @property
    def digest(self) -> str:
        """16 hex digits of its identity, weights included."""
        return digest(dict(self.identity()))

    @property
    def parameters(self) -> list[nn.Parameter]:
        """What an optimiser is given."""
        return list(trainable_parameters(self.learner.network).values())

    @cached_property
    def module(self) -> Scorer:
        """(prompts, draws) → (B, T) nats with their gradient; its parameters that require one are trained."""
        return Scorer(self)

    def save(self, folder: str | Path) -> None:
        """Write what `peft=` (an adapter) or `pretrained=` (all weights) of `hf` loads; raises StoreError.

        How prompts are rendered and draws decoded is no part of it. A table's is what `load_table` reads.
        """
        self.learner.save(Path(folder))


class Scorer(nn.Module):
    """(prompts, draws) → (B, T) nats by token under the law that samples, 0 after the end, with their gradient.

    That is of the law after its settings; where they truncate, the tokens kept are taken as given. Next-token
    distributions are made in parts, and again for the gradient, so that memory does not hold draws × tokens ×
    vocabulary; but where a network's logits cannot be made of its last hidden states.
    """

    def __init__(self, law: TrainedLaw) -> None:
        super().__init__()
        self.network: nn.Module = law.learner.network
        self.law = law
        self.eval()

    def train(self, mode: bool = True) -> Scorer:
        """As torch does, but for the network: under dropout it would be another law than the one that samples."""
        super().train(mode)
        self.network.eval()
        return self

    def forward(self, prompts: Sequence[str], draws: Draws) -> torch.Tensor:
        """See the class; raises UsageError on draws of another tokenizer."""
        self.law.check_vocab(draws)
        assert draws.tokens is not None
        if not len(draws):  # one process's share of few draws: the others wait for its gradient
            nothing = sum(0 * p.flatten()[:1].sum() for p in self.law.parameters)
            return at_least_float32(torch.as_tensor(nothing)).expand(draws.tokens.shape)
        inside = np.arange(draws.tokens.shape[1]) < draws.length[:, None]
        ids = torch.as_tensor(draws.tokens[inside], device=self.law.device)
        with differentiable():
            raw = self.law.before(prompts, draws, self.law.warp.remembers)
        places = raw.places
        if torch.is_grad_enabled() and isinstance(places, OfHidden) and not places.trained:
            found = self._by_hidden(raw, places, ids)
        else:
            parts = [
                checkpoint(self._nats, raw, ids, cut, use_reentrant=False, preserve_rng_state=False)
                for cut in self._cuts(ids)
            ]
            found = torch.cat(parts)
        where = torch.as_tensor(inside, device=found.device)
        return found.new_zeros(inside.shape).masked_scatter(where, found)

    def _cuts(self, ids: torch.Tensor) -> list[slice]:
        return list(cuts(len(ids), self.law.device, len(self.law.vocab)))

    def _nats(self, raw: Before, ids: torch.Tensor, cut: slice) -> torch.Tensor:
        """(n,) nats of the tokens at some places."""
        with differentiable():  # here too: a GPU's backward pass makes them again in a thread of its own
            return gather(self.law.warp(*raw[cut]), ids[cut])

    def _by_hidden(self, raw: Before, places: OfHidden, ids: torch.Tensor) -> torch.Tensor:
        """(P,) nats, each with its derivative by its hidden state: next-token distributions are made once, not twice.

        That does not depend on the loss, as each place has one number, which its own hidden state alone makes.
        """
        hidden = places.hidden.detach().requires_grad_()
        apart, found = replace(raw, places=places.on(hidden)), []
        for cut in self._cuts(ids):
            part = self._nats(apart, ids, cut)
            torch.autograd.backward(part.sum(), inputs=[hidden])
            found.append(part.detach())
        assert hidden.grad is not None
        answer: torch.Tensor = _Known.apply(places.hidden, torch.cat(found), hidden.grad)  # type: ignore[no-untyped-call]
        return answer


class _Known(torch.autograd.Function):
    """Numbers (P,) whose derivatives (P, D) by hidden states are known."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, numbers: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(slope)
        return numbers

    @staticmethod
    def backward(ctx: Any, by_numbers: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slope,) = ctx.saved_tensors
        return by_numbers[:, None].to(slope.dtype) * slope, None, None
