"""A network as it is now, in training or not, as a law that is measured."""

from __future__ import annotations

from typing import Any

from alignbench.generators.checkpoint import weights_digest
from alignbench.generators.hf.causal import HFModel
from alignbench.generators.hf.encoder_decoder import HFEncoderDecoder
from alignbench.generators.law import Law


def live(network: Any, tokenizer: Any, name: str, *, chat: bool = False) -> Law:
    """The law of a network as it is now, in training or not; an adapter of peft on it acts.

    It is put into evaluation mode, without dropout, and shares the network's memory.
    """
    bare = network.get_base_model() if hasattr(network, "get_base_model") else network
    kind = HFEncoderDecoder if bare.config.is_encoder_decoder else HFModel
    return Law(kind(bare, tokenizer, name, weights_digest(bare.named_parameters()), chat=chat))
