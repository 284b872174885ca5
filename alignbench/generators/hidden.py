"""What a network has in mind before each token: the last hidden states of given draws, beside their nats."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alignbench.errors import Unsupported
from alignbench.generators.history import OfHidden
from alignbench.generators.law import Law, by_position, gather, scored
from alignbench.types import Array, Draws


def read(law: Law, prompts: Sequence[str], draws: Draws) -> tuple[Array, Array]:
    """(B, T) nats by token under the law, and (B, T, D) float32 the model's last hidden states before each; 0 after.

    Raises Unsupported of a model without hidden states, and UsageError on draws of another tokenizer.
    """
    law.check_vocab(draws)
    assert draws.tokens is not None
    nats, hidden = np.zeros(draws.tokens.shape), np.zeros((*draws.tokens.shape, 0), np.float32)

    def both(part: Draws) -> Array:
        raw = law.before(prompts, part, law.warp.remembers)
        if not isinstance(raw.places, OfHidden):
            raise Unsupported(f"{law.name}: has no hidden states to learn values from; a network of transformers has")
        states = raw.places.hidden.float().cpu().numpy()
        found = by_position(part, law.device, len(law.vocab), lambda cut, ids: [gather(law.warp(*raw[cut]), ids)])
        inside = np.arange(found.shape[1]) < part.length[:, None]
        out = np.zeros((*inside.shape, 1 + states.shape[1]), np.float64)
        out[..., :1] = found
        out[inside, 1:] = states
        return out

    for rows, found in scored(draws, law.room(prompts, draws), both):
        if not hidden.shape[2]:
            hidden = np.zeros((*draws.tokens.shape, found.shape[2] - 1), np.float32)
        nats[rows, : found.shape[1]] = found[..., 0]
        hidden[rows, : found.shape[1]] = found[..., 1:]
    return nats, hidden
