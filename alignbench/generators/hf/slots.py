"""Decoding and scoring with keys and values written in place: a slot a row, each at its own position.

A row's tokens stand at the left of its slot, so that rows of any length share a batch, a row that has ended is replaced
by another without moving anything, and a prompt is computed once and copied to all its draws. Pads stand on the right,
where no token looks.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import (
    Cache,
    CacheLayerMixin,
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
)

from alignbench.generators.base import Positions
from alignbench.generators.budget import bucket, ran_out
from alignbench.generators.gradient import inference
from alignbench.generators.hf.graphs import Graphs
from alignbench.generators.hf.heads import Logits, body_of, head
from alignbench.generators.hf.precision import HALVES
from alignbench.generators.history import LogitsAndHidden
from alignbench.generators.warp import log_normalised
from alignbench.generators.window import MASKED, Window, as_mask, seen
from alignbench.types import Array, Draws

_LOG = logging.getLogger(__name__)

PROMPTS = 4096
"""Tokens in one pass over prompts."""
CLOSE = 1e-3
"""Nats: the two ways through a float32 network stay within 1e-4; a forgotten mask is whole nats off."""
HALF = 0.25
"""Nats, in half precision: the mean of what differs."""
STRIDE = 64
"""Slots are read in widths of a multiple of this many tokens on a GPU: a CUDA graph is made for each width."""

CAPTURED = ("cuda",)
"""Devices whose steps become graphs, and that no look at what they have done should make wait."""


class Place:
    """Where the next keys and values go: set before a forward pass, read by every layer."""

    def __init__(self) -> None:
        self.at: torch.Tensor | None = None  # (n, T) positions in the slots; None: from the slot's beginning
        self.rows: torch.Tensor | None = None  # (n, 1)
        self.width = 0  # positions that attention sees


class SlotLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values (rows, heads, width, d) of one layer."""

    is_sliding = False

    def __init__(self, place: Place, rows: int, width: int) -> None:
        super().__init__()
        self.place, self.rows, self.width = place, rows, width

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Zeros: what is masked is still multiplied by 0, and must be finite."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            x.new_zeros((self.rows, x.shape[1], self.width, x.shape[3])) for x in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write at each row's position; all that attention may see."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        return self._write(self.keys, key_states), self._write(self.values, value_states)

    def _write(self, held: torch.Tensor, new: torch.Tensor) -> torch.Tensor:
        place, rows = self.place, held[: len(new)]
        if place.at is None:
            rows[:, :, : new.shape[2]] = new
        else:
            rows[place.rows, :, place.at] = new.transpose(1, 2)
        return rows[:, :, : place.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Of a pass from the slot's beginning; any other brings its own mask."""
        return query_length, 0

    def get_seq_length(self) -> int:
        """0: positions are always given."""
        return 0

    def get_max_length(self) -> int:
        """Tokens in a slot."""
        return self.width


class SlotCache:
    """The keys and values of `rows` slots of `width` tokens, and the passes that read and write them."""

    def __init__(self, network: Any, rows: int, width: int, window: Window | None = None) -> None:
        self.network, self.place, self.window = network, Place(), window
        count = len(DynamicCache(config=network.config).layers)
        self.layers = [SlotLayer(self.place, rows, width) for _ in range(count)]
        self.cache = Cache(layers=list(self.layers))

    def run(self, ids: torch.Tensor, at: torch.Tensor | None, width: int) -> torch.Tensor:
        """(n, T, D) last hidden states of `ids` (n, T), which follow `at` (n,) tokens; they see `width` positions.

        `at` None: the ids stand at the beginning.
        """
        steps = torch.arange(ids.shape[1], device=ids.device)
        positions = steps.expand(ids.shape) if at is None else at[:, None] + steps
        self.place.width = width
        self.place.at = None if at is None else positions
        self.place.rows = torch.arange(len(ids), device=ids.device)[:, None]
        mask = None if at is None and self.window is None else self._mask(positions, width)
        return _hidden(self.network, input_ids=ids, attention_mask=mask, position_ids=positions,
                       past_key_values=self.cache)  # fmt: skip

    def _mask(self, positions: torch.Tensor, width: int) -> torch.Tensor:
        """(n, 1, T, width) what each id may see, in the form that the network's attention takes."""
        return as_mask(self.network, seen(positions[:, None], width, self.window))

    def copy(self, source: SlotCache, which: torch.Tensor, slots: torch.Tensor, width: int) -> None:
        """Rows `which` of another cache, their first `width` tokens, into `slots` of this one."""
        for mine, theirs in zip(self.layers, source.layers, strict=True):
            if not mine.is_initialized:
                mine.lazy_initialization(theirs.keys, theirs.values)
            mine.keys[slots, :, :width] = theirs.keys[which, :, :width]
            mine.values[slots, :, :width] = theirs.values[which, :, :width]

    def keep(self, rows: torch.Tensor, width: int) -> None:
        """Slot i becomes what slot rows[i] was; only those that move are copied, their first `width` tokens."""
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero()[:, 0]
        for layer in self.layers:
            layer.keys[moved, :, :width] = layer.keys[rows[moved], :, :width]
            layer.values[moved, :, :width] = layer.values[rows[moved], :, :width]

    @property
    def position_bytes(self) -> int:
        """Bytes of one position of one slot."""
        return sum(
            x.shape[1] * x.shape[3] * x.element_size() for layer in self.layers for x in (layer.keys, layer.values)
        )

    def logits(self, ids: torch.Tensor, at: torch.Tensor, width: int) -> torch.Tensor:
        """(n, V) logits after one more id (n,) in each slot; see `run`."""
        return head(self.network, self.run(ids[:, None], at, width)[:, 0])

    def both(self, ids: torch.Tensor, at: torch.Tensor, width: int) -> torch.Tensor:
        """(n, V + D) the same, and the last hidden states behind: one tensor, for a CUDA graph."""
        hidden = self.run(ids[:, None], at, width)[:, 0]
        return torch.cat([head(self.network, hidden), hidden], 1)


@dataclass(frozen=True)
class Prompts:
    """Prompts that were run: their keys and values, their lengths, and the hidden state before the first token."""

    cache: SlotCache
    length: torch.Tensor  # (U,)
    last: torch.Tensor  # (U, D)


def run_prompts(network: Any, encoded: Sequence[list[int]], window: Window | None = None) -> Prompts:
    """The prompts, each run once, in passes of bounded size."""
    width = max(map(len, encoded))
    cache = SlotCache(network, len(encoded), width, window)
    length = torch.tensor([len(e) for e in encoded], device=network.device)
    ids = torch.tensor([e + [0] * (width - len(e)) for e in encoded], device=network.device)
    step, last = max(1, PROMPTS // width), []
    for begin in range(0, len(encoded), step):
        part = slice(begin, begin + step)
        one = cache if step >= len(encoded) else SlotCache(network, len(ids[part]), width, window)
        hidden = one.run(ids[part], None, width)
        last.append(hidden[torch.arange(len(hidden)), length[part] - 1])
        if one is not cache:
            rows = torch.arange(len(hidden), device=network.device)
            cache.copy(one, rows, rows + begin, width)
    return Prompts(cache, length, torch.cat(last))


def forced(
    network: Any, encoded: Sequence[list[int]], which: Array, draws: Draws, window: Window | None = None
) -> torch.Tensor:
    """(P, D) hidden states before each token of each draw, draw by draw; prompt `which[i]` is that of draw i.

    One pass over the prompts, one over the draws, which begin where their prompts end.
    """
    assert draws.tokens is not None
    device, steps = network.device, int(draws.length.max())
    prompts = run_prompts(network, encoded, window)
    place = torch.as_tensor(which, device=device)
    hidden = prompts.last[place][:, None]
    if steps > 1:
        longest = int(prompts.length.max())
        cache = SlotCache(network, len(draws), longest + steps - 1, window)
        cache.copy(prompts.cache, place, torch.arange(len(draws), device=device), longest)
        ids = torch.as_tensor(draws.tokens[:, : steps - 1], device=device).clamp(min=0)
        said = cache.run(ids, prompts.length[place], longest + steps - 1)
        hidden = torch.cat([hidden, said], 1)
    inside = torch.as_tensor(np.arange(steps) < draws.length[:, None], device=device)
    return hidden[inside]


class Slots:
    """See `Decoder`: rows of at most `width` tokens, their prompts included."""

    refills = True

    def __init__(
        self, network: Any, encode: Callable[[str], list[int]], slots: int, width: int, window: Window | None = None
    ) -> None:
        self.network, self.encode, self.rows, self.width, self.window = network, encode, slots, width, window
        captured = network.device.type in CAPTURED
        self.unwatched = 8 if captured else 1
        self.cache = SlotCache(network, slots, width, window)
        # not a method of this object: a cycle would hold its memory until Python looks for cycles
        self.graphs = Graphs(self.cache.logits) if captured else None
        self.keeps_hidden = False
        self.empty(slots)

    def empty(self, slots: int) -> None:
        """Begin anew with so many slots, which hold nothing; on a GPU with all there are, whose graphs are made."""
        self.prompts: Prompts | None = None
        self.slots = self.rows if self.graphs is not None else slots
        self.at = torch.zeros(self.slots, dtype=torch.long, device=self.network.device)
        self.reach = np.zeros(self.slots, dtype=int)  # the same on the host: no need to ask the device

    def fits(self, slots: int, width: int) -> bool:
        """Whether it has room for so many rows of so many tokens, and not far too much."""
        return slots <= self.rows <= 4 * slots and width <= self.width <= 2 * width

    def shape(self, rows: int) -> int:
        """As few as possible; in half precision from a short list; on a GPU what it is, whose graphs are made."""
        if self.graphs is not None:
            return self.slots
        return rows if self.network.dtype == torch.float32 else min(self.slots, bucket(rows))

    def keep_hidden(self) -> None:
        """See `KeepsHidden.keep_hidden`; graphs are made anew."""
        if self.graphs is not None and not self.keeps_hidden:
            self.graphs, self.keeps_hidden = Graphs(self.cache.both), True

    def prefill(self, rendered: Sequence[str]) -> Positions:
        """See `Decoder.prefill`."""
        self.prompts = run_prompts(self.network, [self.encode(text) for text in rendered], self.window)
        return Logits(self.network, self.prompts.last)

    def fill(self, slots: torch.Tensor, which: torch.Tensor) -> None:
        """See `Decoder.fill`."""
        assert self.prompts is not None
        length = self.prompts.length[which]
        self.cache.copy(self.prompts.cache, which, slots, int(self.prompts.length.max()))
        self.at[slots] = length
        self.reach[slots.cpu().numpy()] = length.cpu().numpy()

    def step(self, ids: torch.Tensor) -> Positions:
        """See `Decoder.step`."""
        width = int(self.reach.max()) + 1
        logits: Positions
        if self.graphs is None:
            logits = Logits(self.network, self.cache.run(ids[:, None], self.at, width)[:, 0])
        else:
            logits = self.graphs(ids, self.at, min(self.width, -(-width // STRIDE) * STRIDE))
            if self.keeps_hidden and self.prompts is not None:
                size = logits.shape[1] - self.prompts.last.shape[1]
                logits = LogitsAndHidden(logits[:, :size], logits[:, size:])
        # a slot that holds nothing goes on writing, at its end
        self.at = (self.at + 1).clamp_(max=self.width - 1)
        self.reach = np.minimum(self.reach + 1, self.width - 1)
        return logits

    def keep(self, rows: torch.Tensor) -> None:
        """See `Decoder.keep`."""
        self.cache.keep(rows, int(self.reach.max()) + 1)
        self.at, self.reach, self.slots = self.at[rows], self.reach[rows.cpu().numpy()], len(rows)


def _hidden(network: Any, **inputs: Any) -> torch.Tensor:
    with inference():
        return body_of(network)(use_cache=True, **inputs).last_hidden_state  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Trial:
    """Whether a network can be run by slots, and how many tokens a slot may have then."""

    works: bool
    window: float = np.inf
    position_bytes: int = 0

    @staticmethod
    def of(network: Any, window: Window | None = None) -> Trial:
        """Tried, not guessed: two prompts and a few tokens both ways must agree, under a window by one of 2.

        What a network does with positions, masks and its last layer is its own; a config does not say all of it.
        """
        try:
            own = _window(network)
            if own < 16:
                return _refused("its layers keep something else than all keys and values")
            gap, cache = _gap(network, window and Window(2))
        except Exception as error:  # whatever a network's own code raises: it is then run as transformers runs it
            if ran_out(error):
                raise
            return _refused(str(error) or type(error).__name__)
        if not agree(gap, network.dtype):
            return _refused(f"the fast way is {float(gap.max()):.2g} nats off")
        return Trial(True, own, cache.position_bytes)


def _refused(why: str) -> Trial:
    """A network that is run as transformers runs it, and said: it is slower."""
    _LOG.info(f"this network is run as transformers runs it, which is slower: {why.splitlines()[0]}")
    return Trial(False)


def apart(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """|one − other| in nats; 0 where both are −inf, as a network may make what it never says."""
    return (one - other).abs().masked_fill(one == other, 0)


def agree(gap: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether two ways through a network that are `gap` nats apart are one: the largest, in half precision the mean."""
    return bool(gap.mean() <= HALF if dtype in HALVES else gap.max() <= CLOSE)


def _window(network: Any) -> float:
    """Tokens that every layer sees whole; 0 where slots cannot hold what a layer keeps."""
    if network.config._attn_implementation not in MASKED or network.config.is_encoder_decoder:
        return 0
    return own_window(network)


def own_window(network: Any) -> float:
    """Tokens that every layer of the decoder sees whole; 0 where one keeps something else than keys and values."""
    # GPT-Neo's local layers count from the last key on: its cache does not know
    window: float = getattr(network.config, "window_size", None) or np.inf
    for layer in DynamicCache(config=network.config).layers:
        if type(layer) is DynamicSlidingWindowLayer:
            window = min(window, layer.sliding_window)
        elif type(layer) is not DynamicLayer:
            return 0
    return window


def _gap(network: Any, window: Window | None) -> tuple[torch.Tensor, SlotCache]:
    """Nats between the two ways, and the cache of the one."""
    device, size = network.device, network.get_output_embeddings().weight.shape[0]
    encoded = [[i % size for i in (1, 3, 2, 5, 4)], [2 % size]]
    said = torch.tensor([[i % size for i in (3, 1)], [i % size for i in (4, 1)]], device=device)
    prompts = run_prompts(network, encoded, window)
    cache = SlotCache(network, 2, 7, window)
    both = torch.arange(2, device=device)
    cache.copy(prompts.cache, both, both, 5)
    rows = [prompts.last[:, None], cache.run(said[:, :1], prompts.length, 6)]
    rows.append(cache.run(said[:, 1:], prompts.length + 1, 7))
    found = log_normalised(head(network, torch.cat(rows, 1).flatten(0, 1)).float())
    gaps = []
    for i, prompt in enumerate(encoded):
        ids = torch.tensor([[*prompt, *said[i].tolist()]], device=device)
        mask = window and as_mask(
            network, seen(torch.arange(ids.shape[1], device=device), ids.shape[1], window)[None, None]
        )
        with inference():
            whole = network(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
        plain = log_normalised(whole[len(prompt) - 1 :].float())
        gaps.append(apart(plain, found[3 * i : 3 * i + 3]))
    return torch.cat(gaps), cache
