"""The law: a model plus its decoding settings, as one object that samples and scores, so that they cannot disagree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from alignbench.errors import UsageError
from alignbench.generators.base import Model, State, Vocab
from alignbench.seeds import Seed
from alignbench.types import Array, Draws

BLOCK = 128
"""Ids in a block of the two-stage draw: 384 block sums replace a cumulative sum over 49,152 ids."""

CHUNK_BYTES = 512 * 2**20
"""Most memory that one teacher-forced (b, T, V) tensor may take, with the copies that its reduction makes."""


@dataclass(frozen=True)
class Warp:
    """Decoding settings, applied in transformers' order: temperature, top-k, top-p, min-p; ties are kept.

    The defaults change nothing; in particular no top-k of 50 (which transformers applies when none is given).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise UsageError(f"{name}={value}: must be a number")
        if not self.temperature > 0 or self.temperature == float("inf"):
            raise UsageError(f"temperature={self.temperature}: must be above 0 (a law at 0 is greedy: a point mass)")
        if not float(self.top_k).is_integer() or self.top_k < 0:
            raise UsageError(f"top_k={self.top_k}: must be a whole number >= 0 (0 keeps every token)")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"top_p={self.top_p}: must be in (0, 1] (1 keeps every token)")
        if not 0 <= self.min_p < 1:
            raise UsageError(f"min_p={self.min_p}: must be in [0, 1) (0 keeps every token)")
        for name, value in asdict(self).items():  # 1 and 1.0 are one law, with one identity
            object.__setattr__(self, name, int(value) if name == "top_k" else float(value))

    @property
    def truncates(self) -> bool:
        """Whether some tokens may get probability 0."""
        return self.top_k > 0 or self.top_p < 1 or self.min_p > 0

    def __call__(self, log_probs: torch.Tensor) -> torch.Tensor:
        """(…, V) nats, normalised, after the settings; −inf where a token was cut."""
        if self == Warp():
            return log_probs
        x = (log_probs / self.temperature).log_softmax(-1)
        if 0 < self.top_k < x.shape[-1]:
            x = _cut_below(x, x.topk(self.top_k).values[..., -1:])
        if self.top_p < 1:
            x = _cut_below(x, _nucleus_edge(x, self.top_p))
        if self.min_p > 0:
            x = _cut_below(x, x.max(-1, keepdim=True).values + float(np.log(self.min_p)))
        return x


def _cut_below(x: torch.Tensor, edge: torch.Tensor) -> torch.Tensor:
    """Nats renormalised over the tokens at or above `edge`."""
    return x.masked_fill(x < edge, -torch.inf).log_softmax(-1)


def _nucleus_edge(x: torch.Tensor, top_p: float) -> torch.Tensor:
    """The log-probability of the last token of the smallest set that holds `top_p` of the mass."""
    ordered = x.sort(-1, descending=True).values
    before = ordered.exp().cumsum(-1) - ordered.exp()
    kept = (before < top_p).sum(-1, keepdim=True).clamp(min=1)
    return ordered.gather(-1, kept - 1)


def pick(log_probs: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """(R,) ids drawn from (R, V) nats with (R, 2) uniforms: one picks a block of 128 ids, one the id inside it.

    Sums run in the uniforms' dtype, float64 where the device has it, so that rounding in the last bits of a logit
    moves a draw only where a uniform lies within about 1e-7 of an edge.
    """
    rows, size = log_probs.shape
    probs = torch.nn.functional.pad(log_probs.exp(), (0, -size % BLOCK)).view(rows, -1, BLOCK)
    block = _invert(probs.sum(-1, dtype=uniforms.dtype), uniforms[:, :1])
    inside = probs.gather(1, block[:, :, None].expand(-1, 1, BLOCK)).squeeze(1).to(uniforms.dtype)
    return (block * BLOCK + _invert(inside, uniforms[:, 1:])).squeeze(1)


def _invert(mass: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """(R, 1) the cell whose cumulative mass first exceeds uniform × total; never a cell of mass 0."""
    edges = mass.cumsum(-1)
    total = edges[:, -1:]
    point = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(edges, point, right=True)


@dataclass(frozen=True)
class LawState:
    """A model's state seen through a law."""

    state: State
    warp: Warp

    @property
    def model_log_probs(self) -> torch.Tensor:
        """(R, V) nats of the model before the law."""
        return self.state.log_probs

    @property
    def log_probs(self) -> torch.Tensor:
        """(R, V) nats under the law."""
        return self.warp(self.state.log_probs)

    def extend(self, tokens: torch.Tensor) -> LawState:
        """See `State.extend`."""
        return replace(self, state=self.state.extend(tokens))

    def select(self, rows: torch.Tensor) -> LawState:
        """See `State.select`."""
        return replace(self, state=self.state.select(rows))


@dataclass(frozen=True)
class Law:
    """What `model` with these settings really samples from: an `Autoregressive` distribution over continuations.

    `template` wraps each prompt ("{prompt}" stands for it) before the model renders it, so that a prompted model is
    a law over continuations of the original prompt.
    """

    model: Model
    warp: Warp = Warp()
    template: str = "{prompt}"

    @property
    def vocab(self) -> Vocab:
        """See `Autoregressive.vocab`."""
        return self.model.vocab

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model.name

    @property
    def truncates(self) -> bool:
        """Whether it may give probability 0 to what the model can say."""
        return self.warp.truncates or bool(getattr(self.model, "truncates", False))

    def identity(self) -> Mapping[str, Any]:
        """All that a draw depends on besides prompt, length and seed."""
        return {"model": self.model.identity(), "law": asdict(self.warp), "template": self.template}

    def warped(self, **settings: Any) -> Law:
        """The same model with some settings changed."""
        return replace(self, warp=replace(self.warp, **settings))

    def render(self, prompt: str) -> str:
        """The text that conditions the model; empty where neither prompt nor template says anything."""
        return self.model.render(self.template.replace("{prompt}", prompt))

    def check(self, prompts: Sequence[str], max_tokens: int) -> None:
        """Raise UsageError where a prompt is unknown to the model or does not fit its context window."""
        check_max_tokens(max_tokens)
        for prompt in prompts:
            self.model.encode(self.render(prompt), max_tokens)

    def start(self, prompts: Sequence[str], *, max_tokens: int) -> LawState:
        """See `Autoregressive.start`; raises UsageError where a prompt does not fit."""
        return LawState(self.model.start([self.render(p) for p in prompts], max_tokens=max_tokens), self.warp)

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`: (prompt, index) → the same draw, whatever the batch, order or resume."""
        check_max_tokens(max_tokens)
        rows = np.asarray(rows)
        rows = rows[np.argsort(rows[:, 0], kind="stable")]
        for begin in range(0, len(rows), self.model.batch_size):
            with torch.inference_mode():
                yield _Batch(self, prompts, rows[begin : begin + self.model.batch_size], max_tokens, seed).run()

    def log_prob(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) nats of the sampled ids under the law; −inf off its support. Raises UsageError on another tokenizer."""
        return np.asarray(self.token_log_prob(prompts, draws).sum(1))

    def token_log_prob(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B, T) nats by token, 0 after the end."""
        self.check_vocab(draws)
        assert draws.tokens is not None
        out = np.zeros(draws.tokens.shape)
        for rows, part in _chunks(draws, len(self.vocab)):
            out[rows, : _width(part)] = gather(self.warp(self._forced(prompts, part)), part)
        return out

    def check_vocab(self, draws: Draws) -> None:
        """Raise UsageError unless `draws` are ids of this law's tokenizer."""
        if draws.tokens is None or draws.vocab != self.vocab.fingerprint:
            raise UsageError(
                f"{self.name}: these draws are ids of another tokenizer ({draws.vocab or 'none'}, here "
                f"{self.vocab.fingerprint}); a log-probability or KL across two tokenizers is not defined"
            )

    def _forced(self, prompts: Sequence[str], draws: Draws) -> torch.Tensor:
        with torch.inference_mode():
            return self.model.forced([self.render(prompts[i]) for i in draws.prompt], draws)


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

    Raises UsageError when the two have different tokenizers.
    """
    gen.check_vocab(draws)
    base.check_vocab(draws)
    shared = gen.model is base.model and gen.template == base.template
    out = np.zeros((3, len(draws)))
    for rows, part in _chunks(draws, len(gen.vocab)):
        raw = gen._forced(prompts, part)
        log_gen = gen.warp(raw)
        log_base = base.warp(raw if shared else base._forced(prompts, part))
        inside = np.arange(_width(part)) < part.length[:, None]
        out[0, rows] = gather(log_gen, part).sum(1)
        out[1, rows] = gather(log_base, part).sum(1)
        out[2, rows] = np.where(inside, kl_by_step(log_gen, log_base).cpu().double().numpy(), 0).sum(1)
    return out[0], out[1], out[2]


def kl_by_step(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """(…,) KL(p ‖ q) in nats over the last axis, never negative: Σ p log(p/q) − p + q, each term of which is >= 0.

    Without the masses, which cancel, fp32 gives laws that nearly agree down to −6e-7 nats a step (V = 4,096).
    """
    p = log_p.exp()
    terms = (log_p - log_q).mul_(p).masked_fill_(log_p == -torch.inf, 0).sub_(p)
    return terms.add_(torch.exp(log_q, out=p)).clamp_(min=0).sum(-1)


def gather(log_probs: torch.Tensor, draws: Draws) -> Array:
    """(b, T) float64 nats of the drawn ids from (b, T, V), 0 after each draw's end."""
    assert draws.tokens is not None
    width = log_probs.shape[1]
    ids = torch.as_tensor(draws.tokens[:, :width], device=log_probs.device)
    picked = log_probs.gather(-1, ids.clamp(min=0)[..., None]).squeeze(-1).cpu().double().numpy()
    return np.where(np.arange(width) < draws.length[:, None], picked, 0.0)


def _width(draws: Draws) -> int:
    return int(draws.length.max())


def _chunks(draws: Draws, vocab: int) -> Iterator[tuple[Array, Draws]]:
    """Rows and their draws, shortest first, cut so that (b, T, V) fits the memory budget."""
    order = np.argsort(draws.length, kind="stable")
    begin = 0
    while begin < len(order):
        end = begin + 1
        while end < len(order) and (end + 1 - begin) * int(draws.length[order[end]]) * vocab * 16 <= CHUNK_BYTES:
            end += 1
        rows = order[begin:end]
        yield rows, draws.take(rows)
        begin = end


class _Batch:
    """One batch on its way from prompts to draws."""

    def __init__(self, law: Law, prompts: Sequence[str], rows: Array, max_tokens: int, seed: Seed) -> None:
        self.law, self.rows = law, rows
        self.unique, self.which = np.unique(rows[:, 0], return_inverse=True)
        self.rendered = [law.render(prompts[i]) for i in self.unique]
        device = law.model.device
        self.state = law.start([prompts[i] for i in self.unique], max_tokens=max_tokens)
        self.state = self.state.select(torch.as_tensor(self.which, device=device))
        draws = [seed.uniforms(self.rendered[w], i, max_tokens) for w, i in zip(self.which, rows[:, 1], strict=True)]
        exact = torch.float32 if device.type == "mps" else torch.float64
        self.uniforms = torch.as_tensor(np.stack(draws), device=device, dtype=exact)
        self.tokens = torch.full((len(rows), max_tokens), -1, device=device)
        self.log_prob = torch.zeros((2, len(rows), max_tokens), device=device, dtype=exact)
        self.eos = torch.as_tensor(sorted(law.vocab.eos), device=device, dtype=torch.long)
        self.ended = torch.zeros(len(rows), device=device, dtype=torch.bool)

    def run(self) -> Draws:
        held = torch.arange(len(self.rows), device=self.tokens.device)  # the row of each of the state's prefixes
        for step in range(self.tokens.shape[1]):
            ids = self._step(held, step)
            live = ~self.ended[held]
            count = int(live.sum())
            if count == 0 or step == self.tokens.shape[1] - 1:
                break
            if count <= 0.75 * len(held):  # copying the cache pays once a quarter of the rows has ended
                self.state, held, ids = self.state.select(live.nonzero()[:, 0]), held[live], ids[live]
            self.state = self.state.extend(ids)
        return self._finish()

    def _step(self, held: torch.Tensor, step: int) -> torch.Tensor:
        """Draw one token for every prefix; rows that have ended keep what they had."""
        raw = self.state.model_log_probs
        law = self.law.warp(raw)
        ids = pick(law, self.uniforms[held, step])
        live = ~self.ended[held]
        rows = held[live]
        self.tokens[rows, step] = ids[live]
        for k, source in enumerate((law, raw)):
            self.log_prob[k, rows, step] = source.gather(1, ids[:, None])[live, 0].to(self.log_prob.dtype)
        self.ended[rows] = torch.isin(ids[live], self.eos)
        return ids

    def _finish(self) -> Draws:
        tokens, (by_token, model) = self.tokens.cpu().numpy(), self.log_prob.cpu().double().numpy()
        length = (tokens >= 0).sum(1)
        texts = [""] * len(tokens)
        for w, rendered in enumerate(self.rendered):
            rows = np.flatnonzero(self.which == w)
            decoded = self.law.model.decode(rendered, [tokens[r, : length[r]] for r in rows])
            for row, text in zip(rows, decoded, strict=True):
                texts[row] = text
        return Draws(
            prompt=self.rows[:, 0], index=self.rows[:, 1], texts=tuple(texts), tokens=tokens, length=length,
            finished=self.ended.cpu().numpy(), log_prob=by_token.sum(1), token_log_prob=by_token,
            model_log_prob=model.sum(1), vocab=self.law.vocab.fingerprint,
        )  # fmt: skip
