"""A causal transformer as next-token distributions: its forward passes, its states.

Two ways through the network. Where its layers keep plain keys and values (`slots.Trial`), sampling and scoring write
them in place and compute a prompt once for all its draws; any other network is run as transformers runs it.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache

from alignbench.errors import UsageError
from alignbench.generators.base import Decoder, Positions
from alignbench.generators.budget import bucket
from alignbench.generators.gradient import inference
from alignbench.generators.hf.heads import Logits, Nats, body_of, last_hidden_of
from alignbench.generators.hf.pretrained import (
    CHUNK_BYTES,
    TOGETHER,
    LogitsState,
    Pretrained,
    Whole,
    fork,
    normalised,
    shown,
)
from alignbench.generators.hf.slots import Slots, Trial, apart, forced
from alignbench.generators.sampling import Stepwise
from alignbench.generators.warp import at_least_float32
from alignbench.generators.window import Window, as_mask, seen
from alignbench.types import Array, Draws


@dataclass(eq=False)
class HFModel(Pretrained):
    """A causal language model of transformers with its tokenizer, as raw next-token distributions.

    Position ids are explicit; pad tokens are masked and never scored, so that a pad id that is also an EOS id costs no
    EOS term.
    """

    _idle: Slots | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        accepted = inspect.signature(self.network.forward).parameters
        self._positions = "position_ids" in accepted
        self._keep = "logits_to_keep" in accepted

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> HFState:
        """See `Model.start`."""
        return self._begun([self.encode(p, max_tokens) for p in rendered])

    def _begun(self, encoded: Sequence[list[int]]) -> HFState:
        ids, mask = self._left_padded(encoded)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        # under a window masks say what is seen: layers with a window of their own must not forget keys
        cache = {"past_key_values": DynamicCache()} if self.window else {}
        return self._state(ids, mask, positions, **cache)

    def _state(self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, **cache: Any) -> HFState:
        """The state after ids (R, T); `mask` (R, L) marks the real tokens among all that stand in the cache then."""
        with last_hidden_of(self.network) as found:
            out = self._forward(ids, mask, positions, use_cache=True, keep=1, **cache)
        logits = at_least_float32(out.logits[:, -1])
        last = found[0][:, -1] if found else logits[:, :0]
        return HFState(self, out.past_key_values, mask, positions[:, -1] + 1, logits, last)

    def decoder(self, rows: int, width: int) -> Slots | Stepwise:
        """Slots for at most `rows` rows of `width` tokens; its states where the network cannot be run by slots."""
        most = self.budget.rows(self._row_bytes(width), self.batch_size, self.device)
        if not self._by_slots(width):
            return Stepwise(self, min(rows, most), 0)
        batches = -(-rows // most)  # of equal size: a small last one would be slow
        slots = -(-rows // batches)
        if self.network.dtype != torch.float32:
            slots = min(most, bucket(slots))
        held, self._idle = self._idle, None
        if held is not None and held.fits(slots, width):
            held.empty(slots)
            return held
        del held  # before as much again is taken
        model = weakref.proxy(self)  # else it and the decoder that it keeps would hold each other
        return Slots(self.network, lambda text: model.encode(text, 0), slots, width, self.window)

    def give_back(self, decoder: Decoder) -> None:
        """Keep a decoder that is not used any more for the next one who asks: its memory, and on a GPU its graphs."""
        if isinstance(decoder, Slots):
            decoder.empty(decoder.rows)
            self._idle = decoder

    def forget(self) -> None:
        """Let go of the memory that is kept for the next decoder."""
        self._idle = None

    @cached_property
    def trial(self) -> Trial:
        """Whether the network can be run by slots."""
        return Trial.of(self.network, self.window)

    def refuse_unrunnable(self) -> None:
        """Raise UsageError where neither way is right: no keys and values by row, or a row that sees its padding."""
        if not self.trial.works:
            super().refuse_unrunnable()

    def _padding_gap(self) -> torch.Tensor:
        """Nats between two rows side by side, token by token, and each alone and whole."""
        encoded = [[i % len(self.vocab) for i in ids] for ids in ([1, 3, 2, 5, 4], [2])]
        said = [i % len(self.vocab) for i in (3, 4)]
        state = self._begun(encoded).select(torch.tensor([0, 1], device=self.device))
        after = state.extend(torch.tensor(said, device=self.device))
        found, gaps = torch.stack([state.log_probs, after.log_probs], 1), []
        for i, ids in enumerate(encoded):
            gaps.append(apart(self._whole([*ids, said[i]])[-2:], found[i]))
        return torch.cat(gaps)

    def _whole(self, ids: list[int]) -> torch.Tensor:
        """See `Pretrained._whole`; where no mask is needed, with nothing but the ids."""
        given = torch.tensor([ids], device=self.device)
        if self.window is None:
            with inference():
                return normalised(self.network(input_ids=given).logits[0])
        positions = torch.arange(len(ids), device=self.device)[None]
        return normalised(self._forward(given, torch.ones_like(given), positions, use_cache=False, keep=0).logits[0])

    def windowed(self, window: Window) -> HFModel:
        """See `Pretrained.windowed`."""
        window.refuse_source(self.name)
        return super().windowed(window)

    def _row_bytes(self, width: int) -> int:
        """What a row of `width` tokens takes: keys and values, with its prompt's before, and copies of its logits."""
        return 2 * width * self.trial.position_bytes + 4 * 4 * len(self.vocab)

    def too_many(self, rows: int, width: int) -> None:
        """Remember that a batch of so many rows did not fit."""
        self.forget()
        self.budget.halve(rows, self._row_bytes(width))

    def together(self, prompt: int, width: int) -> int:
        """See `Grouped.together`."""
        if not self._by_slots(prompt + width):  # then logits of all positions may be made at once
            return max(1, CHUNK_BYTES // (16 * width * len(self.vocab)))
        most = max(1, TOGETHER.get(self.device.type, 4096) // width)
        return self.budget.rows(self._row_bytes(prompt + width), most, self.device)

    def _by_slots(self, width: int) -> bool:
        return self.trial.works and width <= self.trial.window

    def forced(self, rendered: Sequence[str], draws: Draws) -> Positions:
        """See `Model.forced`: hidden states now, next-token distributions as they are asked for."""
        width = int(draws.length.max())
        texts = list(dict.fromkeys(rendered))
        encoded = [self.encode(text, width) for text in texts]
        place = {text: i for i, text in enumerate(texts)}
        which = np.array([place[text] for text in rendered])
        if self._by_slots(max(map(len, encoded)) + width):
            return Nats(Logits(self.network, forced(self.network, encoded, which, draws, self.window)))
        return self._forced_whole([encoded[i] for i in which], draws)

    def _forced_whole(self, encoded: Sequence[list[int]], draws: Draws) -> Positions:
        """Nats by one pass over prompt + draw, the last T positions kept."""
        assert draws.tokens is not None
        width = int(draws.length.max())
        ids, mask = self._left_padded(encoded)
        said = torch.as_tensor(draws.tokens[:, : width - 1], device=self.device)
        ids = torch.cat([ids, said.clamp(min=0)], 1)
        mask = torch.cat([mask, torch.ones_like(said)], 1)
        inside = torch.as_tensor(np.arange(width) < draws.length[:, None], device=self.device)
        if not self.headed:
            return Whole(self._run(self.network, ids, mask, keep=width).logits[:, -width:][inside])
        hidden = self._run(body_of(self.network), ids, mask).last_hidden_state
        return Nats(Logits(self.network, hidden[:, -width:][inside]))

    def _hidden(self, ids: list[int]) -> torch.Tensor:
        """See `Pretrained._hidden`; beside a longer row, as rows are scored."""
        found: torch.Tensor = self._run(
            body_of(self.network), *self._left_padded([ids, [*ids, *ids]])
        ).last_hidden_state
        return found[0, -len(ids) :]

    def _run(self, part: Any, ids: torch.Tensor, mask: torch.Tensor, keep: int | None = None) -> Any:
        """What the network, or its body, says of whole rows, without a cache."""
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return self._forward(ids, mask, positions, keep=keep, part=part, use_cache=False)

    def encode(self, rendered: str, max_tokens: int) -> list[int]:
        """Token ids that condition the model; an empty prompt becomes BOS. Raises UsageError where it cannot fit."""
        ids = self._all_ids(rendered)
        if len(ids) + max_tokens > self.context:
            raise UsageError(
                f"{self.name}: {shown(rendered)} has {self._counted(ids)}; with max_tokens {max_tokens} that is more "
                f"than the model's context window of {self.context}"
            )
        return ids

    @property
    def context(self) -> float:
        """See `Pretrained.context`."""
        return getattr(self.network.config.get_text_config(), "max_position_embeddings", None) or np.inf

    def history(self, rendered: str) -> list[int]:
        """See `Remembering.history`: virtual tokens say nothing."""
        return self._ids(rendered)

    def decode(self, rendered: str, tokens: Sequence[Array]) -> list[str]:
        """Continuation texts: what the decoded whole has beyond the decoded prompt, so that a first space is kept."""
        prompt = self.history(rendered)[-8:]  # a few ids of context are enough for spacing rules
        before = self._text(prompt)
        texts = []
        for ids in tokens:
            whole = self._text([*prompt, *(int(i) for i in ids)])
            texts.append(whole[len(before) :] if whole.startswith(before) else self._text([int(i) for i in ids]))
        return texts

    def _left_padded(self, encoded: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, encoded))
        ids = torch.tensor([[0] * (width - len(e)) + e for e in encoded], device=self.device)
        mask = torch.tensor([[0] * (width - len(e)) + [1] * len(e) for e in encoded], device=self.device)
        return ids, mask

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *, keep: int | None, part: Any = None,
        **more: Any,
    ) -> Any:  # fmt: skip
        """What the network, or its body as `part`, says of ids; the last `keep` positions' logits (0: all)."""
        if self._positions:
            more["position_ids"] = positions
        if self._keep and keep is not None:
            more["logits_to_keep"] = keep
        with inference():
            return (part or self.network)(input_ids=ids, attention_mask=self._mask(mask, ids.shape[1]), **more)

    def _mask(self, real: torch.Tensor, count: int) -> torch.Tensor:
        """What the last `count` of L columns see of those that are `real` (R, L): (R, 1, count, L) under a window."""
        if self.window is None:
            return real
        width = real.shape[1]
        at = torch.arange(width - count, width, device=real.device)
        itself = torch.arange(width, device=real.device) == at[:, None]  # a pad too: what sees nothing is NaN
        return as_mask(self.network, (seen(at, width, self.window) & real[:, None, None].bool()) | itself)


@dataclass(frozen=True)
class HFState(LogitsState):
    """R prefixes with their key-value cache; a new state shares the tensors of the old one and never writes to them."""

    model: HFModel
    cache: Any
    mask: torch.Tensor  # (R, L) 1 where a real token stands
    position: torch.Tensor  # (R,) position of the next token
    logits: torch.Tensor  # (R, V)
    last: torch.Tensor  # (R, D) what the network's body said last

    @property
    def last_hidden(self) -> torch.Tensor | None:
        """See `WithHidden.last_hidden`; None where logits are not made of them alone."""
        return self.last if self.model.headed else None

    def extend(self, tokens: torch.Tensor) -> HFState:
        """See `State.extend`."""
        mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        cache = fork(self.cache)
        return self.model._state(tokens[:, None], mask, self.position[:, None], past_key_values=cache)

    def select(self, rows: torch.Tensor) -> HFState:
        """See `State.select`."""
        cache = fork(self.cache)
        cache.batch_select_indices(rows)
        return HFState(self.model, cache, self.mask[rows], self.position[rows], self.logits[rows], self.last[rows])
