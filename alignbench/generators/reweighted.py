"""Guided decoding: the base's next token weighed by a rule, each step normalised; sampled, stepped and scored alike.

It is a `Model`, so that `Law` samples and scores it; the rule's memory travels with the base's state.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from typing import Any, Generic, TypeVar

import numpy as np
import torch

from alignbench.errors import Unsupported, UsageError
from alignbench.generators.base import (
    Decoder,
    Filling,
    Forced,
    KeepsHidden,
    Keyed,
    Positions,
    Reading,
    Rule,
    Slotted,
    Vocab,
)
from alignbench.generators.history import Before, WithHidden, WithHiddenStates, after, history_of, seen_of
from alignbench.generators.law import Law, LawState, gather, together
from alignbench.generators.law import law_of as law_of  # rules are written with it
from alignbench.generators.warp import at_least_float32, log_normalised
from alignbench.types import Array, Draws, Sampler

_LOG = logging.getLogger(__name__)

S = TypeVar("S")
_Nats = tuple[torch.Tensor, torch.Tensor | None]
"""(n, V) nats, and (n,) bool: where a rule left nothing, so that the base's row stands. None: it never does."""
_Look = Callable[[slice, torch.Tensor], None]
"""Given (part, where nothing was left): notes whether that is where the law can come to."""


def reweighted(base: Sampler, rule: Rule[Any], max_tokens: int | None = None) -> Law:
    """The law π(v | prefix) ∝ the rule's weights of the base's next-token probabilities, normalised each step alone.

    That is what guided decoding does, and why it is not p. `max_tokens` is that of the draws where the rule needs to
    know it, else None: draws of any length. Where the rule leaves nothing, the base's row stands; drawing logs it once.
    Raises Unsupported where the base has no next-token probabilities.
    """
    law = law_of(base, rule.name)
    kind = SlottedReweighted if isinstance(law.model, Slotted) else Reweighted
    return Law(kind(law, rule, max_tokens))


@dataclass(frozen=True, eq=False)
class Reweighted(Generic[S]):
    """See `reweighted`."""

    base: Law
    rule: Rule[S]
    max_tokens: int | None = None
    batch_size: int = field(init=False)
    _prompts: dict[str, str] = field(default_factory=dict, init=False, repr=False)  # rendered → the original
    _keys: dict[str, object] = field(default_factory=dict, init=False, repr=False)
    _lengths: dict[str, int] = field(default_factory=dict, init=False, repr=False)  # rendered → tokens last asked for

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise UsageError(f"{self.name}: max_tokens={self.max_tokens}: must be at least 1")
        object.__setattr__(self, "batch_size", self.base.model.batch_size)

    @property
    def name(self) -> str:
        """The base's name and the rule's."""
        return f"{self.base.name} {self.rule.name}"

    @property
    def truncates(self) -> bool:
        """Whether the rule may give 0 to what the base can say."""
        return self.rule.truncates

    @property
    def vocab(self) -> Vocab:
        """See `Model.vocab`."""
        return self.base.vocab

    @property
    def device(self) -> torch.device:
        """See `Model.device`."""
        return self.base.model.device

    def identity(self) -> Mapping[str, Any]:
        """The base, the rule, and the tokens that it knows of."""
        rest = {"base": self.base.identity(), "max_tokens": self.max_tokens}
        return {"kind": "reweighted", **self.rule.identity(), **rest}

    def render(self, prompt: str) -> str:
        """See `Model.render`; raises UsageError where two prompts that the rule begins otherwise become one text."""
        rendered = self.base.render(prompt)
        key = self.rule.key(prompt, self.max_tokens) if isinstance(self.rule, Keyed) else prompt
        if self._keys.setdefault(rendered, key) != key:
            raise UsageError(
                f"{self.name}: two prompts become the same text '{rendered}', which its rule begins otherwise for each"
            )
        self._prompts.setdefault(rendered, prompt)
        return rendered

    def encode(self, rendered: str, max_tokens: int) -> Sequence[int]:
        """See `Model.encode`; raises UsageError where a draw is to have other than the tokens it was made for."""
        if max_tokens and self.max_tokens not in (None, max_tokens):
            raise UsageError(f"{self.name}: made for max_tokens={self.max_tokens}, asked for {max_tokens}")
        if max_tokens:
            self._lengths[rendered] = max_tokens
        return self.base.model.encode(rendered, max_tokens)

    def history(self, rendered: str) -> Sequence[int]:
        """See `Remembering.history`: what stands before the base's draws."""
        return history_of(self.base.model, rendered)

    def decode(self, rendered: str, tokens: Sequence[Array]) -> list[str]:
        """See `Model.decode`."""
        return self.base.model.decode(rendered, tokens)

    def begun(self, rendered: Sequence[str]) -> S:
        """The rule's memory before the first token of each prompt (R)."""
        return self.rule.start(self.originals(rendered), self.max_tokens)

    def originals(self, rendered: Sequence[str]) -> list[str]:
        """The task's prompts, of which these texts were made."""
        return [self._prompts[text] for text in rendered]

    @property
    def reads(self) -> bool:
        """Whether the rule weighs by hidden states."""
        return isinstance(self.rule, Reading)

    def nats(self, log_probs: torch.Tensor, memory: S, hidden: torch.Tensor | None = None) -> _Nats:
        """(R, V) nats of the base's law weighed by the rule in these rows of memory, and normalised; see `_Nats`.

        `hidden` (R, D): the base's last hidden states, for a rule that reads them. Raises Unsupported without them.
        """
        if not isinstance(self.rule, Reading):
            weighed = self.rule.weigh(log_probs, memory)
        elif hidden is None:
            raise Unsupported(f"{self.name}: its rule reads hidden states, and {self.base.name} shows none")
        else:
            weighed = self.rule.weigh_by(log_probs, memory, hidden)
        if not self.rule.truncates:
            return log_normalised(weighed), None
        none_left = (weighed == -torch.inf).all(-1)
        return log_normalised(torch.where(none_left[:, None], log_probs, weighed)), none_left

    def _warn(self) -> None:
        """Log, once for each law, that its rule left nothing where the law can come to."""
        _warn_once(self.name, self._who)

    @cached_property
    def _who(self) -> str:
        """The identity, as text."""
        return str(self.identity())

    @cached_property
    def _eos(self) -> torch.Tensor:
        """The ids that end a draw."""
        return torch.as_tensor(sorted(self.vocab.eos), dtype=torch.long, device=self.device)

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> ReweightedState[S]:
        """See `Model.start`."""
        for prompt in set(rendered):
            self.encode(prompt, max_tokens)
        live = torch.ones(len(rendered), dtype=torch.bool, device=self.device)
        return ReweightedState(self, self.base.begun(rendered, max_tokens=max_tokens), self.begun(rendered), live)

    def forced(self, rendered: Sequence[str], draws: Draws) -> Positions:
        """See `Model.forced`: one teacher-forced pass of the base, weighed as it is cut."""
        base = Before.of(self.base.model, rendered, draws, remembers=self.base.warp.remembers)
        if isinstance(self.rule, Forced):
            memory = self.rule.forced(self.originals(rendered), draws, self.max_tokens)
            walked: Walked[S] = AtOnce(self.rule, memory, int(draws.length.sum()))
        else:
            walked = Steps.of(self.rule, self.begun(rendered), draws, self.device)
        return Weighed(self, base.places, base.said, walked)

    def together(self, prompt: int, width: int) -> int:
        """See `Grouped.together`."""
        return together(self.base.model, prompt, width)


@cache
def _warn_once(name: str, who: str) -> None:
    """Log that the rule of the law called `name` left nothing, once for each `who`: a run makes a law for each seed."""
    _LOG.warning(f"{name}: at some step its rule left no token to say; the base's probabilities stood there")


class Walked(Generic[S]):
    """The rule's memory before each of P tokens of draws, draw by draw."""

    def weigh(
        self, model: Reweighted[S], log_probs: torch.Tensor, part: slice, hidden: torch.Tensor | None = None
    ) -> _Nats:
        """(n, V) nats of the base at these places, weighed and normalised; see `Reweighted.nats`."""
        raise NotImplementedError


@dataclass(frozen=True)
class AtOnce(Walked[S]):
    """Of P rows, as a rule has it that scores given draws itself."""

    rule: Rule[S]
    memory: S
    rows: int  # P

    def weigh(
        self, model: Reweighted[S], log_probs: torch.Tensor, part: slice, hidden: torch.Tensor | None = None
    ) -> _Nats:
        """See `Walked.weigh`; a memory that is all wanted is not copied."""
        if len(log_probs) == self.rows:
            return model.nats(log_probs, self.memory, hidden)
        rows = torch.arange(*part.indices(self.rows), device=log_probs.device)
        return model.nats(log_probs, self.rule.select(self.memory, rows), hidden)


@dataclass(frozen=True)
class Steps(Walked[S]):
    """Of B rows after each number of tokens: all draws walked side by side."""

    rule: Rule[S]
    memories: list[S]
    row: torch.Tensor  # (P,) the draw of each place
    step: torch.Tensor  # (P,) the tokens of it that stand before

    @staticmethod
    def of(rule: Rule[S], memory: S, draws: Draws, device: torch.device) -> Steps[S]:
        """After each token; those beyond a draw's end are arbitrary."""
        assert draws.tokens is not None
        width = int(draws.length.max())
        tokens = torch.as_tensor(np.maximum(draws.tokens[:, :width], 0), device=device)
        memories = [memory]
        for t in range(width - 1):
            memories.append(rule.extend(memories[-1], tokens[:, t]))
        row, step = (torch.as_tensor(x, device=device) for x in np.nonzero(np.arange(width) < draws.length[:, None]))
        return Steps(rule, memories, row, step)

    def weigh(
        self, model: Reweighted[S], log_probs: torch.Tensor, part: slice, hidden: torch.Tensor | None = None
    ) -> _Nats:
        """See `Walked.weigh`."""
        row, step, out = self.row[part], self.step[part], torch.empty_like(log_probs)
        none_left = torch.zeros(len(out), dtype=torch.bool, device=out.device) if self.rule.truncates else None
        for t in sorted(set(step.tolist())):
            here = (step == t).nonzero()[:, 0]
            mine = None if hidden is None else hidden[here]
            out[here], none_here = model.nats(log_probs[here], self.rule.select(self.memories[t], row[here]), mine)
            if none_left is not None and none_here is not None:
                none_left[here] = none_here
        return out, none_left


@dataclass(frozen=True)
class Weighed(Generic[S]):
    """See `Positions`: nats at P places of the base, weighed by the rule as they are cut."""

    model: Reweighted[S]
    places: Positions  # of the base's model
    seen: Positions | None  # (P, V) bool: the tokens said before, where the base's settings remember
    walked: Walked[S]
    look: _Look | None = None

    def __getitem__(self, part: slice) -> torch.Tensor:
        x, warp = self.places[part], self.model.base.warp
        x = at_least_float32(x)
        log_probs = warp(log_normalised(x)) if self.seen is None else warp(x, self.seen[part])
        hidden = self.places.hidden[part] if self.model.reads and isinstance(self.places, WithHiddenStates) else None
        nats, none_left = self.walked.weigh(self.model, log_probs, part, hidden)
        if none_left is not None and self.look is not None:
            self.look(part, none_left)
        return nats


@dataclass(frozen=True)
class ReweightedState(Generic[S]):
    """R prefixes of the base, and the rule's memory of them."""

    model: Reweighted[S]
    base: LawState
    memory: S
    live: torch.Tensor  # (R,) bool: has not ended, and the law can say it; known where the rule truncates

    @cached_property
    def log_probs(self) -> torch.Tensor:
        """See `State.log_probs`."""
        state = self.base.state
        hidden = state.last_hidden if self.model.reads and isinstance(state, WithHidden) else None
        nats, none_left = self.model.nats(self.base.log_probs, self.memory, hidden)
        if none_left is not None and (none_left & self.live).any():  # a GPU waits, as it does at each step by states
            self.model._warn()
        return nats

    def extend(self, tokens: torch.Tensor) -> ReweightedState[S]:
        """See `State.extend`."""
        base, memory, live = self.base.extend(tokens), self.model.rule.extend(self.memory, tokens), self.live
        if self.model.rule.truncates:
            live = live & ~torch.isin(tokens, self.model._eos) & (gather(self.log_probs, tokens) > -torch.inf)
        return replace(self, base=base, memory=memory, live=live)

    def select(self, rows: torch.Tensor) -> ReweightedState[S]:
        """See `State.select`."""
        base, memory = self.base.select(rows), self.model.rule.select(self.memory, rows)
        return replace(self, base=base, memory=memory, live=self.live[rows])


@dataclass(frozen=True, eq=False)
class SlottedReweighted(Reweighted[S]):
    """See `reweighted`; over a model with decoders of its own."""

    def decoder(self, rows: int, width: int) -> ReweightedDecoder[S]:
        """See `Slotted.decoder`."""
        return ReweightedDecoder(self, self._slotted.decoder(min(rows, self.batch_size), width))

    def give_back(self, decoder: Decoder) -> None:
        """See `Slotted.give_back`."""
        assert isinstance(decoder, ReweightedDecoder)
        if decoder.none_left:
            self._warn()
        self._slotted.give_back(decoder.inner)

    def too_many(self, rows: int, width: int) -> None:
        """See `Slotted.too_many`."""
        self._slotted.too_many(rows, width)

    def forget(self) -> None:
        """See `Slotted.forget`."""
        self._slotted.forget()

    @property
    def _slotted(self) -> Slotted:
        assert isinstance(self.base.model, Slotted)
        return self.base.model


class ReweightedDecoder(Generic[S]):
    """See `Decoder`: the base's slots, and the rule's memory of each.

    A slot that holds nothing, or whose draw has ended, goes on with whatever memory it had. A rule that cannot fill
    slots anew is decoded in waves.

    Whether the rule left nothing is kept on the device and read when the decoder is given back, since to read it at
    each step makes a GPU wait. So it is not told of a decoder that is never given back, as where memory ran out.
    """

    memory: S
    first: S

    def __init__(self, model: Reweighted[S], inner: Decoder) -> None:
        self.model, self.inner = model, inner
        self.refills, self.unwatched = inner.refills and isinstance(model.rule, Filling), inner.unwatched
        if model.reads and isinstance(inner, KeepsHidden):
            inner.keep_hidden()
        self.begun = False
        self.seen: torch.Tensor | None = None  # (slots, V) bool: the tokens said before, where it matters
        # (slots,) tokens still to draw; below 1 where a slot holds nothing, or its draw has ended
        self.left = torch.zeros(self.slots, dtype=torch.long, device=model.device)
        self.none_left = torch.zeros((), dtype=torch.bool, device=model.device)  # in a slot with tokens still to draw

    @property
    def slots(self) -> int:
        """See `Decoder.slots`."""
        return self.inner.slots

    def shape(self, rows: int) -> int:
        """See `Decoder.shape`."""
        return self.inner.shape(rows)

    def prefill(self, rendered: Sequence[str]) -> Positions:
        """See `Decoder.prefill`."""
        self.prompts, self.first = self.model.originals(rendered), self.model.begun(rendered)
        if not self.begun:
            self.memory, self.begun = self.model.begun([rendered[0]] * self.slots), True
        logits, first = self.inner.prefill(rendered), None
        if self.model.base.warp.remembers:
            first = seen_of(self.model.base.model, rendered)
            self.seen = first[:1].expand(self.slots, -1).clone() if self.seen is None else self.seen
        self.seen_first = first
        lengths = [self.model._lengths.get(text, 0) for text in rendered]
        self.lengths = torch.tensor(lengths, dtype=torch.long, device=self.left.device)
        walked = AtOnce(self.model.rule, self.first, len(rendered))
        return Weighed(self.model, logits, first, walked, partial(self._look, self.lengths))[:]

    def fill(self, slots: torch.Tensor, which: torch.Tensor) -> None:
        """See `Decoder.fill`."""
        self.inner.fill(slots, which)
        self.left[slots] = self.lengths[which]
        rule = self.model.rule
        if isinstance(rule, Filling):
            prompts = [self.prompts[i] for i in which.tolist()]
            self.memory = rule.fill(self.memory, slots, prompts, self.model.max_tokens)
        else:
            places = torch.zeros(self.slots, dtype=torch.long, device=which.device)
            places[slots] = which
            self.memory = rule.select(self.first, places)
        if self.seen is not None and self.seen_first is not None:
            self.seen[slots] = self.seen_first[which]

    def step(self, ids: torch.Tensor) -> Positions:
        """See `Decoder.step`."""
        self.memory = self.model.rule.extend(self.memory, ids)
        self.seen = None if self.seen is None else after(self.seen, ids)
        if self.model.rule.truncates:
            self.left = torch.where(torch.isin(ids, self.model._eos), 0, self.left - 1)
        walked = AtOnce(self.model.rule, self.memory, self.slots)
        return Weighed(self.model, self.inner.step(ids), self.seen, walked, partial(self._look, self.left))

    def _look(self, left: torch.Tensor, part: slice, none_left: torch.Tensor) -> None:
        """Note whether the rule left nothing in a row with tokens `left` to draw; nothing waits for the device."""
        self.none_left = self.none_left | (none_left & (left[part] > 0)).any()

    def keep(self, rows: torch.Tensor) -> None:
        """See `Decoder.keep`."""
        self.inner.keep(rows)
        self.memory = self.model.rule.select(self.memory, rows)
        self.seen = None if self.seen is None else self.seen[rows]
        self.left = self.left[rows]
