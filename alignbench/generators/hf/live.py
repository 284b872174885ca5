"""A network as it is now, in training or not, as a law that is measured."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import torch

from alignbench.generators.hf.causal import HFModel
from alignbench.generators.hf.encoder_decoder import HFEncoderDecoder
from alignbench.generators.law import Law


def live(network: Any, tokenizer: Any, name: str, *, chat: bool = False) -> Law:
    """The law of a network as it is now, in training or not; an adapter of peft on it acts.

    It is put into evaluation mode, without dropout, and shares the network's memory.
    """
    bare = network.get_base_model() if hasattr(network, "get_base_model") else network
    kind = HFEncoderDecoder if bare.config.is_encoder_decoder else HFModel
    return Law(kind(bare, tokenizer, name, fingerprint(bare), chat=chat))


def fingerprint(network: Any) -> str:
    """16 hex digits of a network's numbers as they are now."""
    found = sha256()
    for name, p in sorted(network.named_parameters()):
        found.update(f"{name} {p.dtype} {tuple(p.shape)}\0".encode())
        found.update(p.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]
