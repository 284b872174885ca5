"""The law: a model plus its decoding settings, as one object that samples and scores, so that they cannot disagree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Protocol

import numpy as np
import torch

from alignbench.errors import RunError, Unsupported, UsageError, brief
from alignbench.generators.base import (
    Chatting,
    Conversing,
    Grouped,
    Listable,
    Model,
    Slotted,
    Spelling,
    State,
    Steering,
    Truncating,
    Turns,
    Vocab,
)
from alignbench.generators.budget import ran_out
from alignbench.generators.described import Description, described
from alignbench.generators.history import Before, after, logits_of, seen_of
from alignbench.generators.replicas import at_once, replicas_of, shares
from alignbench.generators.sampling import Order, sample
from alignbench.generators.token_bytes import token_bytes
from alignbench.generators.warp import PLAIN, Warp
from alignbench.seeds import Seed
from alignbench.types import Array, Distribution, Draws, Sampler

CHUNK_BYTES = {"cpu": 24 * 2**20, "cuda": 512 * 2**20}
"""Most memory of the next-token distributions made at once. On a CPU below 32 MiB, above which the C library returns
memory to the system each time and gets it back page by page."""
Room = Callable[[int], int]
"""How many draws of so many tokens may be scored at once."""
ALIKE = 16
"""Draws are scored beside others whose length in tokens is within so much of theirs."""


@dataclass(frozen=True)
class LawState:
    """A model's state seen through a law."""

    state: State
    warp: Warp
    seen: torch.Tensor | None = None  # (R, V) bool: the tokens said before, where the settings remember

    @property
    def log_probs(self) -> torch.Tensor:
        """(R, V) nats under the law."""
        if self.seen is None:
            return self.warp(self.state.log_probs)
        return self.warp(logits_of(self.state), self.seen)

    def extend(self, tokens: torch.Tensor) -> LawState:
        """See `State.extend`."""
        seen = None if self.seen is None else after(self.seen, tokens)
        return replace(self, state=self.state.extend(tokens), seen=seen)

    def select(self, rows: torch.Tensor) -> LawState:
        """See `State.select`."""
        return replace(self, state=self.state.select(rows), seen=None if self.seen is None else self.seen[rows])


class Frame(Protocol):
    """What a law puts around a prompt where a text with "{prompt}" in it cannot say it: turns of a chat, examples."""

    @property
    def remark(self) -> str:
        """See `Evidence.remark`; "" for nothing."""
        ...

    @property
    def uncounted(self) -> str:
        """See `Cost.uncounted`; "" for nothing."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """All that `fill` depends on, as plain data; making it draws nothing."""
        ...

    def fill(self, template: str, prompt: str) -> str | Turns:
        """The text, or the conversation, that stands for `prompt` put into `template`."""
        ...


@dataclass(frozen=True)
class Law:
    """What `model` with these settings really samples from: an `Autoregressive` distribution over continuations.

    `template` wraps each prompt ("{prompt}" stands for it), and `frame` the outcome, before the model renders it, so
    that a prompted model is a law over continuations of the original prompt.
    """

    model: Model
    warp: Warp = PLAIN
    template: str = "{prompt}"
    frame: Frame | None = None

    @property
    def vocab(self) -> Vocab:
        """See `Autoregressive.vocab`."""
        return self.model.vocab

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def device(self) -> torch.device:
        """Where the model's tensors live."""
        return self.model.device

    @property
    def rows_at_once(self) -> int:
        """Rows that the model decodes side by side."""
        return self.model.batch_size

    @property
    def plain(self) -> bool:
        """Whether nothing is changed about the model's next-token probabilities."""
        return self.warp == PLAIN

    @property
    def chats(self) -> bool:
        """Whether the model renders its prompts in a chat template."""
        return isinstance(self.model, Chatting) and bool(self.model.chat)

    @property
    def enumerable(self) -> bool:
        """Whether every continuation of the model can be listed."""
        return isinstance(self.model, Listable) and bool(self.model.enumerable)

    def token_bytes(self) -> tuple[bytes, ...]:
        """See `Spelled.token_bytes`."""
        return token_bytes(self.model)

    def forget(self) -> None:
        """See `Forgetful.forget`."""
        if isinstance(self.model, Slotted):
            self.model.forget()

    def beside(self, base: Distribution, prompts: Sequence[str], draws: Draws) -> tuple[Array, Array, Array] | None:
        """See `Stepwise.beside`; raises UsageError where the two have different tokenizers."""
        return compare(self, base, prompts, draws) if isinstance(base, Law) else None

    def spell(self, text: str) -> list[int]:
        """See `Spelling.spell`; raises Unsupported where the model cannot be told what to say."""
        if not isinstance(self.model, Spelling):
            raise Unsupported(f"{self.name}: a {type(self.model).__name__} cannot be told what to say")
        return self.model.spell(text)

    def token(self, text: str) -> int:
        """The id that says `text`; raises UsageError where no single token does."""
        ids = self.spell(text)
        tokens = ", ".join(repr(self.vocab.tokens[i]) for i in ids) or "none"
        if len(ids) != 1:
            raise UsageError(f"{self.name}: {brief(text)} takes {len(ids)} tokens ({tokens}): give a text of one token")
        [said] = self.model.decode(text, [np.array(ids)])
        if not said or said.split() != text.split():  # an unknown word: many tokenizers have one token for all of them
            raise UsageError(f"{self.name}: {brief(text)} is read as {tokens}, which says {said!r}: give another text")
        return ids[0]

    @property
    def truncates(self) -> bool:
        """Whether it may give probability 0 to what the model can say."""
        return self.warp.truncates or (isinstance(self.model, Truncating) and bool(self.model.truncates))

    def identity(self) -> Mapping[str, Any]:
        """All that a draw depends on besides prompt, length and seed."""
        frame = {} if self.frame is None else {"frame": self.frame.identity()}
        return {"model": self.model.identity(), "law": self.warp.identity(), "template": self.template, **frame}

    @property
    def remark(self) -> str:
        """See `Evidence.remark`."""
        return "; ".join(filter(None, (one.remark for one in self._sayers)))

    @property
    def uncounted(self) -> str:
        """See `Cost.uncounted`."""
        return "; ".join(filter(None, (one.uncounted for one in self._sayers)))

    @property
    def _sayers(self) -> list[Frame | Description]:
        """Who has something to say besides the law itself: its frame, and the law that its model steers."""
        steered = [described(self.model.base)] if isinstance(self.model, Steering) else []
        return [*([] if self.frame is None else [self.frame]), *steered]

    def warped(self, **settings: Any) -> Law:
        """The same model with some settings changed."""
        return replace(self, warp=replace(self.warp, **settings))

    def render(self, prompt: str) -> str:
        """The text that conditions the model; empty where neither prompt nor template says anything."""
        if self.frame is None:
            return self.model.render(self.template.replace("{prompt}", prompt))
        filled = self.frame.fill(self.template, prompt)
        return self.model.render(filled) if isinstance(filled, str) else _conversing(self.model).converse(filled)

    def framed(self, frame: Frame, *, chat: bool) -> Law:
        """The law that reads its prompts inside `frame`, in turns of a chat if `chat`.

        Raises Unsupported where it reads them inside another one already, and UsageError without a chat template.
        """
        if self.frame is not None:
            raise Unsupported(
                f"{self.name}: its prompts already stand in a chat or after examples; only one of these can be had"
            )
        return replace(self, frame=frame, model=_conversing(self.model).conversing() if chat else self.model)

    def check(self, prompts: Sequence[str], max_tokens: int) -> None:
        """Raise UsageError where a prompt is unknown to the model or does not fit its context window."""
        check_max_tokens(max_tokens)
        for prompt in prompts:
            self.model.encode(self.render(prompt), max_tokens)

    def start(self, prompts: Sequence[str], *, max_tokens: int) -> LawState:
        """See `Autoregressive.start`; raises UsageError where a prompt does not fit."""
        return self.begun([self.render(p) for p in prompts], max_tokens=max_tokens)

    def begun(self, rendered: Sequence[str], *, max_tokens: int) -> LawState:
        """`start` on prompts that are rendered."""
        state = self.model.start(rendered, max_tokens=max_tokens)
        return LawState(state, self.warp, seen_of(self.model, rendered) if self.warp.remembers else None)

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`: (prompt, index) → the same draw, whatever the batch, order or resume."""
        check_max_tokens(max_tokens)
        rows = np.asarray(rows).reshape(-1, 2)
        used = set(rows[:, 0].tolist())
        rendered = [self.render(text) if i in used else "" for i, text in enumerate(prompts)]
        yield from sample(self.model, self.warp, Order(rendered, rows, max_tokens, seed))

    def texts_of(self, prompts: Sequence[str], draws: Draws) -> tuple[str, ...]:
        """See `Speaking.texts_of`."""
        assert draws.tokens is not None
        texts = [""] * len(draws)
        for c in np.unique(draws.prompt):
            mine = np.flatnonzero(draws.prompt == c)
            said = [draws.tokens[k, : draws.length[k]] for k in mine]
            for k, text in zip(mine, self.model.decode(self.render(prompts[c]), said), strict=True):
                texts[k] = text
        return tuple(texts)

    def log_prob(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) nats of the sampled ids under the law; −inf off its support. Raises UsageError on another tokenizer."""
        return np.asarray(self.token_log_prob(prompts, draws).sum(1))

    def token_log_prob(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B, T) nats by token, 0 after the end."""
        self.check_vocab(draws)
        assert draws.tokens is not None
        out = np.zeros(draws.tokens.shape)
        laws = [replace(self, model=model) for model in replicas_of(self.model)]
        hands = shares(len(draws), len(laws))
        jobs = [partial(law._own_scores, prompts, draws.take(hand)) for law, hand in zip(laws, hands, strict=False)]
        for hand, found in zip(hands, at_once(jobs), strict=True):
            out[hand] = found
        return out

    def _own_scores(self, prompts: Sequence[str], draws: Draws) -> Array:
        """`token_log_prob` by this very copy of the model."""
        assert draws.tokens is not None
        out = np.zeros(draws.tokens.shape)
        for rows, by_token in scored(draws, self.room(prompts, draws), partial(self._scores, prompts)):
            out[rows, : by_token.shape[1]] = by_token[..., 0]
        return out

    def room(self, prompts: Sequence[str], draws: Draws) -> Room:
        """How many draws of a width the model takes at once, after the longest of these prompts."""
        longest = max(len(self.model.encode(self.render(prompts[i]), 0)) for i in np.unique(draws.prompt))
        return partial(together, self.model, longest)

    def _scores(self, prompts: Sequence[str], draws: Draws) -> Array:
        raw = self.before(prompts, draws, self.warp.remembers)
        return by_position(draws, self.device, len(self.vocab), lambda part, ids: [gather(self.warp(*raw[part]), ids)])

    def check_vocab(self, draws: Draws) -> None:
        """Raise UsageError unless `draws` are ids of this law's tokenizer."""
        if draws.tokens is None or draws.vocab != self.vocab.fingerprint:
            raise UsageError(
                f"{self.name}: these draws are ids of another tokenizer ({draws.vocab or 'none'}, here "
                f"{self.vocab.fingerprint}); a log-probability or KL across two tokenizers is not defined"
            )

    def before(self, prompts: Sequence[str], draws: Draws, remembers: bool) -> Before:
        """What settings need of the places before each token of each draw; see `Before`."""
        return Before.of(self.model, [self.render(prompts[i]) for i in draws.prompt], draws, remembers=remembers)


def law_of(base: Sampler, aligner: str) -> Law:
    """`base` as a law whose decoding settings can change; raises Unsupported for a black box."""
    if not isinstance(base, Law):
        raise Unsupported(
            f"aligner '{aligner}' changes next-token probabilities, and {type(base).__name__} has none to change "
            "(a point mass, as of greedy and beam, can only be the last step of a chain)"
        )
    return base


def _conversing(model: Model) -> Conversing:
    """The model as one that can be spoken to in turns; raises Unsupported where it cannot."""
    if not isinstance(model, Conversing):
        raise Unsupported(f"{model.name} has no chat template: leave out chat=true")
    return model


def together(model: Model, prompt: int, width: int) -> int:
    """How many draws of `width` tokens, after prompts of at most `prompt`, one call of `forced` may take."""
    if isinstance(model, Grouped):
        return model.together(prompt, width)
    return max(1, CHUNK_BYTES["cpu"] // (8 * width * len(model.vocab)))


def check_max_tokens(max_tokens: int) -> None:
    """Raise UsageError unless at least one token may be drawn."""
    if max_tokens < 1:
        raise UsageError(f"max_tokens={max_tokens}: must be at least 1, else there is nothing to draw")


def whole_rows(batch_size: int | str, auto: int) -> int:
    """The rows that `batch_size` asks for, `auto` where it says so; raises UsageError unless a whole number >= 1."""
    if batch_size == "auto":
        return auto
    try:
        rows = int(str(batch_size))
    except ValueError:
        rows = 0
    if rows < 1:
        raise UsageError(f"batch_size={batch_size}: must be 'auto' or a whole number >= 1")
    return rows


def compare(gen: Law, base: Law, prompts: Sequence[str], draws: Draws) -> tuple[Array, Array, Array]:
    """(log π, log a, Σ_t KL(π(·|x_<t) ‖ a(·|x_<t))) of each draw in nats; the sum runs to the EOS step, if drawn.

    One pass of each model; one in all where both are the same model. Raises UsageError when the two have different
    tokenizers.
    """
    gen.check_vocab(draws)
    base.check_vocab(draws)
    pairs = [(replace(gen, model=g), replace(base, model=b))
             for g, b in zip(replicas_of(gen.model), replicas_of(base.model), strict=False)]  # fmt: skip
    hands = shares(len(draws), len(pairs))
    jobs = [partial(_compare, *pair, prompts, draws.take(hand)) for pair, hand in zip(pairs, hands, strict=False)]
    out = np.zeros((3, len(draws)))
    for hand, found in zip(hands, at_once(jobs), strict=True):
        out[:, hand] = found
    return out[0], out[1], out[2]


def _compare(gen: Law, base: Law, prompts: Sequence[str], draws: Draws) -> Array:
    """(3, B): see `compare`; by these very copies of the models."""
    shared = gen.model is base.model and gen.template == base.template and gen.frame == base.frame
    remember = gen.warp.remembers or base.warp.remembers

    def both(part: Draws) -> Array:
        raw = gen.before(prompts, part, remember)
        other = raw if shared else base.before(prompts, part, remember)

        def one(cut: slice, ids: torch.Tensor) -> list[torch.Tensor]:
            mine = raw[cut]
            log_gen, log_base = gen.warp(*mine), base.warp(*(mine if shared else other[cut]))
            return [gather(log_gen, ids), gather(log_base, ids), kl_by_step(log_gen, log_base)]

        return by_position(part, gen.device, len(gen.vocab), one)

    out = np.zeros((3, len(draws)))
    rooms = [law.room(prompts, draws) for law in (gen, base)]
    for rows, by_token in scored(draws, lambda width: min(room(width) for room in rooms), both):
        out[:, rows] = by_token.sum(1).T
    return out


def scored(draws: Draws, room: Room, work: Callable[[Draws], Array]) -> Iterator[tuple[Array, Array]]:
    """(rows, what `work` says of these draws), over parts that cover all draws.

    A part for which memory runs out is tried again in halves, and later parts are no larger than those; raises RunError
    where one draw is too much.
    """
    parts, most = list(_parts(draws, room))[::-1], len(draws)
    while parts:
        rows = parts.pop()
        if len(rows) > most:
            parts += [rows[most:], rows[:most]]
            continue
        try:
            done = work(draws.take(rows))
        except Exception as error:
            if not ran_out(error):
                raise
            if len(rows) == 1:
                raise RunError("memory ran out scoring one draw: a smaller model, or shorter prompts") from None
            parts, most = [*parts, rows], len(rows) // 2
            continue
        yield rows, done


def _parts(draws: Draws, room: Room) -> Iterator[Array]:
    """Rows of like length, those of one prompt side by side, as many at once as there is room for."""
    order = np.lexsort((draws.prompt, -(-draws.length // ALIKE)))
    lengths, known = draws.length[order].tolist(), cache(room)
    begin = longest = 0
    for end, length in enumerate([*lengths[1:], 0], 1):
        longest = max(longest, lengths[end - 1])
        if end == len(lengths) or end - begin >= known(max(longest, length)):
            yield order[begin:end]
            begin, longest = end, 0


@torch.inference_mode()
def by_position(
    draws: Draws, device: torch.device, vocab: int, work: Callable[[slice, torch.Tensor], list[torch.Tensor]]
) -> Array:
    """(b, T, K) float64: the K numbers that `work(positions, ids)` says of each token, 0 after each draw's end."""
    assert draws.tokens is not None
    width = int(draws.length.max())
    inside = np.arange(width) < draws.length[:, None]
    ids = torch.as_tensor(draws.tokens[:, :width][inside], device=device)
    parts = [torch.stack([x.double() for x in work(cut, ids[cut])], 1) for cut in cuts(len(ids), device, vocab)]
    found = torch.cat(parts)
    out = np.zeros((*inside.shape, found.shape[1]))
    out[inside] = found.cpu().numpy()
    return out


def cuts(places: int, device: torch.device, vocab: int) -> list[slice]:
    """Parts of so many places whose next-token distributions take at most `CHUNK_BYTES`."""
    step = max(1, CHUNK_BYTES.get(device.type, CHUNK_BYTES["cpu"]) // (4 * vocab))
    return [slice(begin, begin + step) for begin in range(0, places, step)]


def kl_by_step(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """(…,) KL(p ‖ q) in nats over the last axis, never negative: Σ p log(p/q) − p + q, each term of which is >= 0.

    Without the masses, which cancel, fp32 gives laws that nearly agree down to −6e-7 nats a step (V = 4,096).
    """
    p, gap = log_p.exp(), log_p - log_q
    terms = torch.where(gap == torch.inf, gap, gap * p)  # infinite too where p is so small that it is 0 in fp32
    terms = terms.masked_fill_(log_p == -torch.inf, 0).sub_(p)
    return terms.add_(torch.exp(log_q, out=p)).clamp_(min=0).sum(-1)


def gather(log_probs: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """(n,) nats of `ids` (n,) in (n, V)."""
    return log_probs.gather(-1, ids[:, None])[:, 0]
