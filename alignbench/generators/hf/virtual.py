"""Virtual tokens: ids beyond all words', with trained embeddings, that stand before prompts (Lester et al. 2021).

Positions, masks, caches and the context window see them as tokens like others. Only prompts hold them: the output layer
stays as it is, so that none is ever said.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from alignbench.generators.budget import ran_out
from alignbench.generators.gradient import inference
from alignbench.generators.warp import at_least_float32, log_normalised

FIRST = 2**30
"""The first virtual id: further on than any vocabulary, so that a tokenizer's id for which a network has no embedding
is an error, and not a virtual token."""
TRIED = 4
"""Virtual tokens that a network is tried with: fewer than any context window holds."""


class VirtualTokens(nn.Module):
    """Embeddings (…, D) of ids: from `FIRST` on the rows of `prompt`, below it the network's own.

    The rows are what the network's own embedding layer would return: where that scales what it looks up, they are not
    scaled again.
    """

    def __init__(self, own: Any, rows: torch.Tensor) -> None:
        super().__init__()
        self.own = own
        self.prompt = nn.Embedding(len(rows), rows.shape[1], _weight=rows)  # after `own`, whose dtype is the network's

    @property
    def weight(self) -> torch.Tensor:
        """The network's own embeddings: some networks ask where they are."""
        return self.own.weight  # type: ignore[no-any-return]

    @property
    def ids(self) -> list[int]:
        """The virtual tokens, in order."""
        return [FIRST + i for i in range(self.prompt.num_embeddings)]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """(…, D) of ids (…)."""
        virtual = ids >= FIRST
        own: torch.Tensor = self.own(ids.masked_fill(virtual, 0))
        rows = self.prompt((ids - FIRST).masked_fill(~virtual, 0))
        return torch.where(virtual[..., None], rows.to(own.dtype), own)


def virtual_ids(network: Any) -> list[int]:
    """The ids that stand before each prompt; none where a network has no virtual tokens."""
    return next((layer.ids for layer in network.modules() if isinstance(layer, VirtualTokens)), [])


def embedding_shape(network: Any) -> tuple[int, int]:
    """(V, D): how many ids a prompt may hold, virtual ones left out, and the size of their embeddings."""
    found = _reader(network).get_input_embeddings().weight.shape
    return int(found[0]), int(found[1])


def embedded(network: Any, ids: torch.Tensor) -> torch.Tensor:
    """(n, D) embeddings of ids (n,), as what reads a prompt looks them up."""
    with torch.no_grad():
        found: torch.Tensor = _reader(network).get_input_embeddings()(ids.to(network.device))
    return found.detach().clone()


def put_before(network: Any, rows: torch.Tensor) -> VirtualTokens:
    """The layer, now the network's, that makes `rows` (n, D) virtual tokens.

    Raises ValueError where the network cannot be read so: where it has no such layer, or does more with an id than to
    look it up there.
    """
    try:
        reader = _reader(network)
        layer = VirtualTokens(reader.get_input_embeddings(), rows.to(network.device))
        reader.set_input_embeddings(layer)
        fits = network.device.type == "meta" or _reads_embeddings_alone(network, layer)
    except Exception as error:  # whatever a network's own code raises
        if ran_out(error):
            raise
        raise ValueError((str(error) or type(error).__name__).splitlines()[0]) from error
    if not fits:
        raise ValueError("it reads more of an id than its embedding")
    return layer


def _reader(network: Any) -> Any:
    """The part of a network that reads prompts: all of it, or the encoder."""
    return network.get_encoder() if network.config.is_encoder_decoder else network


def _reads_embeddings_alone(network: Any, layer: VirtualTokens) -> bool:
    """Whether virtual tokens given as ids and as embeddings are one: tried, not guessed."""
    from alignbench.generators.hf.slots import agree, apart  # loads transformers

    ids = torch.tensor([layer.ids[:TRIED]], device=network.device)
    more = {"decoder_input_ids": torch.zeros_like(ids[:, :1])} if network.config.is_encoder_decoder else {}
    with inference():
        ways = {"input_ids": ids}, {"inputs_embeds": layer(ids)}
        one, other = (log_normalised(at_least_float32(network(**way, **more).logits)) for way in ways)
    return agree(apart(one, other), network.dtype)
