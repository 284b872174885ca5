"""The sampling loop: rows of a queue into draws, many side by side. Knows nothing of networks, only of decoders.

A draw is a function of (rendered prompt, seed, index): which rows share a batch, which slot a row gets and when, cannot
change it. Log-probabilities of the law and of the model before it are collected on the way, so that nothing is scored
twice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from alignbench.errors import RunError
from alignbench.generators.base import Decoder, Model, Positions, Slotted
from alignbench.generators.budget import ran_out
from alignbench.generators.history import seen_of, shown_by
from alignbench.generators.replicas import merged, replicas_of, shares
from alignbench.generators.warp import PLAIN, Warp, at_least_float32, cached_rows, log_normalised
from alignbench.seeds import Seed
from alignbench.types import Array, Draws

_LOG = logging.getLogger(__name__)

BLOCK = 128
"""Ids in a block of the two-stage draw: 384 block sums replace a cumulative sum over 49,152 ids."""
AT_ONCE = 128
"""Rows whose logits are made at once on a CPU: 25 MB at 49,152 ids. Above 32 MiB the C library gives memory back each
time and gets it again page by page: 70 ms for 256 rows at once, 60 in two halves."""
UNEVEN = 1.5
"""Prompts go side by side while the longest row is at most so many times the shortest: each row's slot is as wide."""
NO_NUMBER = "the network's output is no number (NaN); try dtype=float32"
SHRINK = 0.75
"""The batch is made smaller once so few of its rows are live: moving the cache pays then."""


def draw(
    logits: Positions, uniforms: torch.Tensor, warp: Warp, seen: torch.Tensor | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(R,) ids, their nats under the law, and under the model, from (R, V) logits and (R, 2) uniforms.

    Logits need not be normalised, nor made before they are cut. `seen` (R, V): what was said before, where the settings
    remember.
    """
    on_cpu = uniforms.device.type == "cpu"
    made = AT_ONCE if on_cpu else len(uniforms)
    parts = []
    for begin in range(0, len(uniforms), made):
        few, coins = logits[begin : begin + made], uniforms[begin : begin + made]
        said = None if seen is None else seen[begin : begin + made]
        step = cached_rows(few.shape[-1]) if on_cpu else len(uniforms)
        for i in range(0, len(coins), step):
            part = slice(i, i + step)
            parts.append(_drawn(few[part], coins[part], warp, None if said is None else said[part]))
    ids, law, model = (torch.cat(part) for part in zip(*parts, strict=True))
    return ids, law, model


def _drawn(
    logits: torch.Tensor, uniforms: torch.Tensor, warp: Warp, seen: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x = at_least_float32(logits)
    if warp != PLAIN:
        raw = log_normalised(x)
        law = warp(raw) if seen is None else warp(x, seen)
        ids = pick(law, uniforms)
        return ids, law.gather(1, ids[:, None])[:, 0], raw.gather(1, ids[:, None])[:, 0]
    mass = (x - x.amax(-1, keepdim=True)).exp_()
    ids, total = _pick(mass, uniforms)
    nats = (mass.gather(1, ids[:, None])[:, 0].to(total.dtype) / total).log()
    return ids, nats, nats


def pick(log_probs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """(R,) ids drawn from (R, V) nats with (R, 2) uniforms: one picks a block of 128 ids, one the id inside it.

    A block's 128 masses are summed in their own dtype, the sums in the uniforms', float64 where the device has it: so
    rounding in the last bits of a logit moves a draw only where a uniform lies within about 1e-7 of an edge.
    """
    return _pick(log_probs.exp(), uniforms)[0]


def _pick(mass: torch.Tensor, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(R,) ids and (R,) total mass of (R, V) masses, which need not sum to 1."""
    rows, size = mass.shape
    padded = torch.nn.functional.pad(mass, (0, -size % BLOCK)) if size % BLOCK else mass  # padding by 0 copies too
    blocks = padded.view(rows, -1, BLOCK)
    sums = blocks.sum(-1).to(uniforms.dtype)
    block = _invert(sums, uniforms[:, :1])
    inside = blocks.gather(1, block[:, :, None].expand(-1, 1, BLOCK)).squeeze(1).to(uniforms.dtype)
    ids = (block * BLOCK + _invert(inside, uniforms[:, 1:])).squeeze(1)
    return ids.clamp_(max=size - 1), sums.sum(-1)  # beyond it only where masses are no numbers


def _invert(mass: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """(R, 1) the cell whose cumulative mass first exceeds uniform × total; never a cell of mass 0.

    Masses that are no numbers give the last cell; their draw has no finite log-probability and is refused.
    """
    edges = mass.cumsum(-1)
    total = edges[:, -1:]
    point = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(edges, point, right=True).clamp_(max=mass.shape[-1] - 1)


@dataclass(frozen=True)
class Order:
    """What is wanted of a model: `rows` (R, 2) = (prompt, index), each prompt with the text that conditions it."""

    rendered: Sequence[str]  # by prompt; only those that `rows` name are read
    rows: Array
    max_tokens: int
    seed: Seed


def sample(model: Model, warp: Warp, order: Order) -> Iterator[Draws]:
    """The draws of an order, yielded as they finish, a batch's worth or less at a time.

    Where memory runs out, the rows under way are begun again in a batch half the size; raises RunError where a single
    row is too much. A model with copies on other devices shares the rows with them.
    """
    models = replicas_of(model)
    if len(models) == 1:
        yield from _sample(model, warp, order)
        return
    rows = order.rows[np.lexsort((order.rows[:, 1], order.rows[:, 0]))]
    hands = [replace(order, rows=rows[hand]) for hand in shares(len(rows), len(models))]
    yield from merged([_sample(one, warp, hand) for one, hand in zip(models, hands, strict=False)])


def _sample(model: Model, warp: Warp, order: Order) -> Iterator[Draws]:
    known = {c: len(model.encode(order.rendered[c], order.max_tokens)) for c in np.unique(order.rows[:, 0]).tolist()}
    size = np.array([known[c] for c in order.rows[:, 0].tolist()])
    place = {text: i for i, text in enumerate(dict.fromkeys(order.rendered))}  # equal texts are one prompt
    text = np.array([place[order.rendered[c]] for c in order.rows[:, 0].tolist()], dtype=int)
    queue = order.rows[np.lexsort((order.rows[:, 1], order.rows[:, 0], text, size))]
    for wave in _waves(queue, known, order.max_tokens, model.batch_size):
        yield from _carry_out(model, warp, replace(order, rows=wave), known)


def _waves(queue: Array, size: dict[int, int], max_tokens: int, rows: int) -> Iterator[Array]:
    """The queue cut where rows get so much longer that they would widen the slots of all, and attention with them.

    No piece but the last is below a quarter of a batch, which would waste more than it saves.
    """
    begin = 0
    width = np.array([size[c] + max_tokens for c in queue[:, 0].tolist()])
    for end in range(1, len(queue) + 1):
        if end == len(queue) or (width[end] > UNEVEN * width[begin] and 4 * (end - begin) >= rows):
            yield queue[begin:end]
            begin = end


def _carry_out(model: Model, warp: Warp, order: Order, size: dict[int, int]) -> Iterator[Draws]:
    """The draws of one wave; after running out of memory, what is left of it in smaller batches."""
    left, most = order.rows, len(order.rows)
    while len(left):
        width = max(size[c] for c in np.unique(left[:, 0]).tolist()) + order.max_tokens
        decoder = _decoder(model, min(len(left), most), width, order.max_tokens)
        queue, rows = left if decoder.refills else left[: decoder.slots], decoder.slots
        batch, left = _Batch(model, warp, replace(order, rows=queue), decoder), left[len(queue) :]
        try:
            yield from batch.run()
            if isinstance(model, Slotted):
                model.give_back(decoder)
            continue
        except Exception as error:
            if not ran_out(error):
                raise
        left = np.concatenate([batch.unfinished(), left])
        done = batch.finished()
        del batch, decoder  # what they hold is what is missing
        yield from done
        most = _shrink(model, rows, width)


def _decoder(model: Model, rows: int, width: int, max_tokens: int) -> Decoder:
    """The model's own decoder for so many rows of `width` tokens, else one over its states."""
    if isinstance(model, Slotted):
        return model.decoder(rows, width)
    return Stepwise(model, min(rows, model.batch_size), max_tokens)


def _shrink(model: Model, rows: int, width: int) -> int:
    """How many rows to go on with where so many did not fit; the model is told. Raises RunError after a single row."""
    if rows <= 1:
        raise RunError(f"{model.name}: memory ran out with a single row of {width} tokens")
    _LOG.info(f"{model.name}: memory ran out with {rows} rows of {width} tokens; going on with half as many")
    if isinstance(model, Slotted):
        model.too_many(rows, width)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return rows // 2


class _Batch:
    """Rows on their way from prompts to draws: a slot each, refilled from the queue as soon as a row has ended."""

    def __init__(self, model: Model, warp: Warp, order: Order, decoder: Decoder) -> None:
        self.model, self.warp, self.order, self.decoder = model, warp, order, decoder
        self.next = 0  # the first row of the queue that has not begun
        self.texts: list[str] = [order.rendered[c] for c in order.rows[:, 0].tolist()]
        self.known: dict[str, int] = {}  # prompt → its place in the decoder's last prefill
        self.first: torch.Tensor | None = None  # (U, V) logits of the first token of those prompts
        self.held = np.full(decoder.slots, -1)  # row of the queue in each slot, -1: none
        self.done: list[Draws] = []
        self.allocated = False

    @property
    def slots(self) -> int:
        """Rows side by side."""
        return len(self.held)

    def _allocate(self) -> None:
        device, rows, steps = self.model.device, self.slots, self.order.max_tokens
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.uniforms = torch.zeros((rows, steps, 2), device=device, dtype=exact)
        # one column more than a draw has: rows that have ended, or hold nothing, write there
        self.tokens = torch.full((rows, steps + 1), -1, device=device)
        self.log_prob = torch.zeros((rows, steps + 1, 2), device=device, dtype=exact)
        self.step = torch.zeros(rows, dtype=torch.long, device=device)
        self.last = torch.zeros(rows, dtype=torch.long, device=device)
        self.live = torch.zeros(rows, dtype=torch.bool, device=device)
        size = len(self.model.vocab) if self.warp.remembers else 0
        self.seen = torch.zeros((rows, size), dtype=torch.bool, device=device)  # what was said before, where it matters
        self.eos = torch.as_tensor(sorted(self.model.vocab.eos), device=device, dtype=torch.long)
        self.every = torch.arange(rows, device=device)
        self.allocated = True

    def run(self) -> Iterator[Draws]:
        """All draws of the order, half a batch or more at a time."""
        while self._turn():
            if sum(map(len, self.done)) >= max(1, self.slots // 2):
                yield from self.finished()
        yield from self.finished()

    @torch.inference_mode()  # here and not around `run`: between two yields the caller's code runs
    def _turn(self) -> bool:
        """Refill, decode, take out what has ended; False when nothing is left to do."""
        if not self.allocated:
            self._allocate()
        self._refill()
        if not (self.held >= 0).any():
            return self.next < len(self.order.rows)
        self._compact()
        for _ in range(min(self.decoder.unwatched, self.order.max_tokens - 1)):  # between two looks at what has ended
            self._draw(self.decoder.step(self.last), self.every)
        self._harvest()
        return True

    def finished(self) -> list[Draws]:
        """The draws that have ended since they were last asked for, as one batch."""
        joined = [Draws.concat(self.done)] if self.done else []  # may run out of memory: nothing is forgotten before
        self.done = []
        return joined

    def unfinished(self) -> Array:
        """(R, 2) the rows under way and those not begun."""
        return np.concatenate([self.order.rows[self.held[self.held >= 0]], self.order.rows[self.next :]])

    def _refill(self) -> None:
        """Put the next rows of the queue into the slots that hold nothing, and draw their first tokens.

        Where many draws end at once, a batch of them is enough for a turn.
        """
        while self.next < len(self.order.rows) and sum(map(len, self.done)) < self.slots:
            free = np.flatnonzero(self.held < 0)
            if not len(free):
                return
            if self.texts[self.next] not in self.known:
                self._prefill(len(free))
            self._fill(free)
            self._harvest()  # a first token may be the last

    def _prefill(self, free: int) -> None:
        """Compute the next prompts: those of the rows that fit now, or an eighth of the batch's where few do."""
        ahead = self.texts[self.next : self.next + max(free, self.slots // 8)]
        prompts = list(dict.fromkeys(ahead))
        self.first = self.decoder.prefill(prompts)[:]
        self.known = {prompt: i for i, prompt in enumerate(prompts)}

    def _fill(self, free: Array) -> None:
        """Begin the next rows whose prompts are computed, in the free slots."""
        assert self.first is not None
        ready = self.texts[self.next : self.next + len(free)]
        count = next((k for k, text in enumerate(ready) if text not in self.known), len(ready))
        rows = np.arange(self.next, self.next + count)
        slots = torch.as_tensor(free[:count], device=self.model.device)
        which = torch.as_tensor([self.known[text] for text in ready[:count]], device=self.model.device)
        self.next += count
        self.held[free[:count]] = rows
        self.decoder.fill(slots, which)
        self._begin(slots, rows)
        few = cached_rows(self.first.shape[-1]) if self.model.device.type == "cpu" else count
        for i in range(0, count, few):  # a prompt's logits are repeated for its draws
            self._draw(self.first[which[i : i + few]], slots[i : i + few])

    def _begin(self, slots: torch.Tensor, rows: Array) -> None:
        order = self.order
        drawn = [order.seed.uniforms(self.texts[r], int(order.rows[r, 1]), order.max_tokens) for r in rows]
        self.uniforms[slots] = _sent(np.stack(drawn), self.uniforms)
        self.tokens[slots], self.step[slots], self.live[slots] = -1, 0, True
        self.log_prob[slots] = 0
        if self.warp.remembers:
            self.seen[slots] = seen_of(self.model, [self.texts[r] for r in rows])

    def _draw(self, logits: Positions, slots: torch.Tensor) -> None:
        """Draw one token in each of `slots`; a row that has ended keeps what it had. Nothing waits for the device."""
        live, step = self.live[slots], self.step[slots]
        last = self.tokens.shape[1] - 1
        seen = self.seen[slots] if self.warp.remembers else None
        ids, *nats = draw(logits, self.uniforms[slots, step.clamp(max=last - 1)], self.warp, seen)
        if seen is not None:
            self.seen[slots, ids] = True
        column = torch.where(live, step, last)
        self.tokens[slots, column] = ids
        self.log_prob[slots, column] = torch.stack(nats, 1).to(self.log_prob.dtype)
        self.last[slots] = ids
        self.step[slots] = step + live
        self.live[slots] = live & ~torch.isin(ids, self.eos) & (step + 1 < last)

    def _harvest(self) -> None:
        """Take the draws that have ended out of their slots."""
        slots = np.flatnonzero((self.held >= 0) & ~self.live.cpu().numpy())
        if len(slots):
            self.done.append(self._draws(slots))
            self.held[slots] = -1

    def _draws(self, slots: Array) -> Draws:
        at = torch.as_tensor(slots, device=self.model.device)
        rows, length = self.held[slots], self.step[at].cpu().numpy()
        tokens = self.tokens[at, :-1].cpu().numpy()
        law, model = self.log_prob[at, :-1].permute(2, 0, 1).cpu().double().numpy()
        if not np.isfinite(law).all():
            raise RunError(f"{self.model.name}: {NO_NUMBER}")
        ended = np.isin(tokens[np.arange(len(rows)), length - 1], self.eos.cpu().numpy())
        return Draws(
            prompt=self.order.rows[rows, 0], index=self.order.rows[rows, 1], texts=self._decoded(rows, tokens, length),
            tokens=tokens, length=length, finished=ended, log_prob=law.sum(1), token_log_prob=law,
            model_log_prob=model.sum(1), vocab=self.model.vocab.fingerprint,
        )  # fmt: skip

    def _decoded(self, rows: Array, tokens: Array, length: Array) -> tuple[str, ...]:
        texts = [""] * len(rows)
        prompts = [self.texts[r] for r in rows]
        for prompt in set(prompts):
            mine = [k for k, text in enumerate(prompts) if text == prompt]
            decoded = self.model.decode(prompt, [tokens[k, : length[k]] for k in mine])
            for k, text in zip(mine, decoded, strict=True):
                texts[k] = text
        return tuple(texts)

    def _compact(self) -> None:
        """Make the batch smaller where nothing is left to refill it with."""
        live = int((self.held >= 0).sum())
        size = self.decoder.shape(live)
        if self.next < len(self.order.rows) or not live or size > SHRINK * self.slots:
            return
        kept = np.flatnonzero(self.held[:size] >= 0)
        spare = np.setdiff1d(np.arange(size), kept)
        rows = np.arange(size)
        moved = np.flatnonzero(self.held[size:] >= 0) + size
        rows[spare[: len(moved)]] = moved
        keep = torch.as_tensor(rows, device=self.model.device)
        self.decoder.keep(keep)
        self.held, self.every = self.held[rows], self.every[:size]
        for name in ("uniforms", "tokens", "log_prob", "step", "last", "live", "seen"):
            setattr(self, name, getattr(self, name)[keep])


def _sent(values: Array, like: torch.Tensor) -> torch.Tensor:
    """The values as a tensor like another; a GPU fetches them from pinned memory while the CPU goes on."""
    tensor = torch.as_tensor(values)
    if like.device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device=like.device, dtype=like.dtype, non_blocking=True)


@dataclass
class Stepwise:
    """A decoder over any model's states; states cannot be joined, so that its slots are filled once and together."""

    model: Model
    slots: int
    max_tokens: int
    refills = False
    unwatched = 1

    def shape(self, rows: int) -> int:
        """Any number of rows."""
        return rows

    def prefill(self, rendered: Sequence[str]) -> Positions:
        """See `Decoder.prefill`."""
        self.prompts = self.model.start(rendered, max_tokens=self.max_tokens)
        return shown_by(self.prompts)

    def fill(self, slots: torch.Tensor, which: torch.Tensor) -> None:
        """See `Decoder.fill`."""
        self.state = self.prompts.select(which)

    def step(self, ids: torch.Tensor) -> Positions:
        """See `Decoder.step`."""
        self.state = self.state.extend(ids)
        return shown_by(self.state)

    def keep(self, rows: torch.Tensor) -> None:
        """See `Decoder.keep`."""
        self.state, self.slots = self.state.select(rows), len(rows)
