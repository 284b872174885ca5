"""The output layer of a network by itself: logits of last hidden states, made a slice at a time.

So that neither scoring nor a gradient ever holds a tensor of draws × tokens × vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPast

from alignbench.generators.gradient import inference
from alignbench.generators.warp import at_least_float32, log_normalised


def body_of(network: Any) -> Any:
    """The part of a network that ends in the last hidden states of what is said: all of it, or the decoder."""
    return network.get_decoder() if network.config.is_encoder_decoder else getattr(network, network.base_model_prefix)


class _Given(BaseModelOutputWithPast):  # type: ignore[misc]
    """What a body would return, with nothing but its last hidden states."""

    def __getattr__(self, name: str) -> None:
        """None: cross-attentions, router logits and their like were not asked for."""
        if name.startswith("__"):
            raise AttributeError(name)


def head(network: Any, hidden: torch.Tensor) -> torch.Tensor:
    """(n, V) logits of last hidden states (n, D), with whatever the network does after its body (scaling, capping).

    The body is another for that moment, so that two threads cannot run one network.
    """
    body = body_of(network)
    given = _Given(last_hidden_state=hidden[None])
    dummy = torch.zeros((1, len(hidden)), dtype=torch.long, device=hidden.device)
    inputs: dict[str, Any] = {"input_ids": dummy}
    if network.config.is_encoder_decoder:
        read = BaseModelOutput(last_hidden_state=hidden[None, :1])
        inputs = {"decoder_input_ids": dummy, "encoder_outputs": read, "return_dict": True}
    before = body.__dict__.get("forward")
    body.forward = lambda *args, **kwargs: given
    try:
        with inference():
            return network(use_cache=False, **inputs).logits[0]  # type: ignore[no-any-return]
    finally:
        if before is None:
            del body.forward
        else:
            body.forward = before


@contextmanager
def last_hidden_of(network: Any) -> Iterator[list[torch.Tensor]]:
    """Inside, the list has what its logits are made of in each pass: last hidden states (n, T, D).

    The list stays empty where the network has no such part. The body is another for that moment, as in `head`.
    """
    body, hidden = getattr(network, network.base_model_prefix, None), list[torch.Tensor]()
    if body is None:
        yield hidden
        return
    own, before = body.forward, body.__dict__.get("forward")

    def forward(*args: Any, **kwargs: Any) -> Any:
        found = own(*args, **kwargs)
        hidden.append(found[0])
        return found

    body.forward = forward
    try:
        yield hidden
    finally:
        if before is None:
            del body.forward
        else:
            body.forward = before


@dataclass(frozen=True)
class Logits:
    """See `Positions`: logits of last hidden states (P, D), made as they are cut; −inf for ids `never` said."""

    network: Any
    hidden: torch.Tensor
    never: Sequence[int] = ()

    @property
    def trained(self) -> bool:
        """See `OfHidden.trained`."""
        return any(p.requires_grad for p in self.network.get_output_embeddings().parameters())

    def on(self, hidden: torch.Tensor) -> Logits:
        """See `OfHidden.on`."""
        return replace(self, hidden=hidden)

    def __getitem__(self, part: slice) -> torch.Tensor:
        found = head(self.network, self.hidden[part])
        if not self.never:
            return found
        banned = torch.zeros(found.shape[-1], dtype=torch.bool, device=found.device)
        banned[list(self.never)] = True
        return found.masked_fill(banned, -torch.inf)


@dataclass(frozen=True)
class Nats:
    """See `Positions`: nats at P places, of logits that are made as they are cut."""

    logits: Logits

    @property
    def hidden(self) -> torch.Tensor:
        """See `OfHidden.hidden`."""
        return self.logits.hidden

    @property
    def trained(self) -> bool:
        """See `OfHidden.trained`."""
        return self.logits.trained

    def on(self, hidden: torch.Tensor) -> Nats:
        """See `OfHidden.on`."""
        return Nats(self.logits.on(hidden))

    def __getitem__(self, part: slice) -> torch.Tensor:
        with inference():
            return log_normalised(at_least_float32(self.logits[part]))
