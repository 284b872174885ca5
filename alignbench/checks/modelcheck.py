"""Does a user's own model keep the laws that the numbers stand on? Each check is one line: what was found, and why.

Sampling and scoring must agree with each other, with themselves in other batches and beside longer prompts, and an EOS
must cost what it costs. Works on any distribution over tokens; what only a law over a network knows is read where it is
there, and what cannot be tried is said.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeGuard

import numpy as np

from alignbench.errors import Unsupported
from alignbench.generators.base import Autoregressive, Modelled, Networked, Tokenized, WithTokenizer
from alignbench.generators.described import called, described, identity_of
from alignbench.generators.described import check as check_prompts
from alignbench.registry import generator as generators
from alignbench.scoring.trust import EDGE, HALF
from alignbench.seeds import Seed
from alignbench.spec import Spec
from alignbench.testing import differing, gap, goes_on, nats
from alignbench.types import Array, Draws, Progress, Sampler, collect, rows_of

PROMPTS = (
    "It rained",
    "The nurse said that",
    "Once upon a time, in a small village by the sea, there lived a girl who",
)
"""Of different lengths, so that some are padded."""
CLOSE = 1e-3
"""Nats a draw in float32: SmolLM2-135M stays within 7e-5 on 24 tokens; a tiny GPT-2 without position ids is 6 off."""
BATCHES = (1, 7)
"""Batch sizes that are compared with the model's own."""


@dataclass(frozen=True)
class Finding:
    """What one check found. "said": worth knowing, and no fault."""

    check: str
    verdict: Literal["ok", "FAIL", "said"]
    found: str
    reason: str


@dataclass(frozen=True)
class Trial:
    """A law, what it is asked for, and how to load it in float32 (None: it is, or cannot be)."""

    law: Tokenized
    prompts: Sequence[str] = PROMPTS
    draws: int = 4  # per prompt
    max_tokens: int = 24
    seed: Seed = field(default_factory=Seed)
    in_float32: Callable[[], Tokenized] | None = None

    @cached_property
    def drawn(self) -> Draws:
        """Draws in the law's own batch size."""
        return self.sample(self.law)

    def sample(self, law: Sampler, prompts: Sequence[str] | None = None) -> Draws:
        """`draws` draws of each prompt."""
        wanted = self.prompts if prompts is None else prompts
        rows = rows_of(len(wanted), self.draws)
        return collect(law.sample(wanted, rows, max_tokens=self.max_tokens, seed=self.seed))

    @property
    def dtype(self) -> str:
        """The dtype that the law computes in; empty where it does not say."""
        found = identity_of(self.law) or {}
        model = found.get("model")
        return str((model if isinstance(model, Mapping) else found).get("dtype", ""))

    @property
    def limit(self) -> float:
        """Nats a draw that two ways to one log-probability may differ by: in half precision what a run trusts."""
        return HALF * self.max_tokens if self.dtype in ("bfloat16", "float16") else CLOSE

    @cached_property
    def exact(self) -> Trial:
        """The same model in float32, which tells a mistake from rounding; itself where it is or cannot be."""
        return self if self.in_float32 is None else replace(self, law=self.in_float32(), in_float32=None)

    @property
    def half(self) -> str:
        """What to add where numbers are coarse."""
        return "" if self.limit == CLOSE else f"; {self.dtype} rounds differently in other batch shapes"


def load(spec: Spec, **supplied: Any) -> Trial:
    """The model of a spec, ready to be tried; raises UsageError where it has no density or no tokens."""
    law = spec.build(generators, "--model", **supplied)
    if not isinstance(law, Tokenized) or described(law).fingerprint is None:
        raise Unsupported(f"selfcheck: '{spec.name}' makes no law that both samples and scores; --model hf does")
    trial = Trial(law)
    again = Spec(spec.name, {**spec.arguments, "dtype": "float32"})
    other = trial.dtype not in ("", "float32", "float64") and "dtype" in generators.find(spec.name).parameters
    return replace(trial, in_float32=lambda: again.build(generators, "--model", **supplied)) if other else trial


def check(trial: Trial, progress: Progress) -> list[Finding]:
    """All findings on a model, in order; raises UsageError where a prompt does not fit."""
    _check(trial, trial.prompts)
    found = []
    with progress(f"checking {called(trial.law)}", len(CHECKS)) as advance:
        for one in CHECKS:
            found += list(one(trial))
            advance(1)
    return found


def rescoring(trial: Trial) -> Iterator[Finding]:
    """Whether `log_prob` of its own draws is what sampling said."""
    again, drawn = trial.law.log_prob(trial.prompts, trial.drawn), nats(trial.drawn)
    impossible = float(np.mean(again == -np.inf))
    off = gap(again[again != -np.inf], drawn[again != -np.inf])  # NaN is further off than any limit
    found = f"{len(drawn)} draws, max |Δ log-prob| {off:.1e} nats"
    if impossible > EDGE:
        yield Finding("rescoring", "FAIL", found, f"it calls {impossible:.0%} of its own draws impossible")
        return
    yield _judged("rescoring", off <= trial.limit, found, "scoring agrees with sampling",
                  f"scoring and sampling disagree by more than {trial.limit:g} nats", trial)  # fmt: skip


def batches(trial: Trial) -> Iterator[Finding]:
    """Whether draws stay the same in batches of other sizes."""
    for rows in BATCHES:
        law = with_batches_of(trial.law, rows)
        if law is None:
            yield Finding(f"batch of {rows}", "said", "not tried", "the model's batch size cannot be set")
            continue
        other = trial.sample(law)
        yield _same(f"batch of {rows}", trial, trial.drawn, other, "the batch size")


def padding(trial: Trial) -> Iterator[Finding]:
    """Whether the shortest prompt's draws and scores are the same alone and beside a longer prompt, in float32."""
    trial = trial.exact
    size = {prompt: _length(trial.law, prompt) for prompt in trial.prompts}
    short, long = min(size, key=size.__getitem__), max(size, key=size.__getitem__)
    pair = [short, long if size[long] > size[short] else f"{long} {long}"]
    _check(trial, pair)
    law = with_batches_of(trial.law, 2 * trial.draws) or trial.law  # both prompts in one batch
    alone, both = trial.sample(law, pair[:1]), trial.sample(law, pair)
    beside = both.take(both.prompt == 0)
    yield _same("padding, sampling", trial, alone, beside, "a longer prompt beside it")
    scored = law.log_prob(pair, Draws.concat([alone, both.take(both.prompt == 1)]))[: len(alone)]
    off = gap(law.log_prob(pair[:1], alone), scored)
    fine, found = off <= trial.limit, f"max |Δ log-prob| {off:.1e} nats"
    bad = "padding changes the score: mask or position ids are wrong"
    yield _judged("padding, scoring", fine, found, "padding changes no score", bad, trial)


def endings(trial: Trial) -> Iterator[Finding]:
    """Whether the EOS ids are known, end draws, and are charged for; in float32."""
    trial = trial.exact
    eos = trial.law.vocab.eos
    yield _known(trial.law)
    if not eos:
        return
    ended, beyond = int(trial.drawn.finished.sum()), int(goes_on(trial.drawn, eos).sum())
    yield _judged("after EOS", beyond == 0, f"{ended} of {len(trial.drawn)} draws ended, {beyond} go on after an EOS",
                  "a draw ends at its first EOS", "draws go on after an EOS")  # fmt: skip
    if not isinstance(trial.law, Autoregressive):
        yield Finding("EOS term", "said", "not tried", "it gives no next-token probabilities")
        return
    law = trial.law
    off = max(abs(_charged(trial, prompt, i) - _costs(trial, law, prompt, i))
              for prompt in range(len(trial.prompts)) for i in sorted(eos)[:4])  # fmt: skip
    yield _judged("EOS term", off <= trial.limit, f"max |Δ| {off:.1e} nats", "scoring charges what an EOS costs",
                  "scoring does not charge what an EOS costs: masked as padding?", trial)  # fmt: skip


def rounding(trial: Trial) -> Iterator[Finding]:
    """How far the loaded dtype is from float32, in nats a draw: it belongs to the model's identity."""
    if trial.in_float32 is None:
        known = Finding("dtype", "ok", trial.dtype, "nothing is lost to half precision")
        yield known if trial.dtype else Finding("dtype", "said", "not said", "whether anything is lost is not known")
        return
    mine = trial.law.log_prob(trial.prompts, trial.drawn)
    off = np.abs(trial.exact.law.log_prob(trial.prompts, trial.drawn) - mine)
    found = f"{trial.dtype} and float32: mean {off.mean():.2g}, max {off.max():.2g} nats a draw"
    finite = bool(np.all(np.isfinite(off)))
    reason = "two dtypes are two models: compare rows of one" if finite else "not a number in this dtype"
    yield Finding("dtype", "said" if finite else "FAIL", found, reason)


CHECKS: tuple[Callable[[Trial], Iterator[Finding]], ...] = (rescoring, batches, padding, endings, rounding)


def _check(trial: Trial, prompts: Sequence[str]) -> None:
    """Raise UsageError where a prompt does not fit, as far as the law can tell."""
    check_prompts(trial.law, prompts, trial.max_tokens)


def _has_model(law: Sampler) -> TypeGuard[Modelled]:
    """Whether a law is one over a model that can be asked; an engine may call a name its `model`."""
    return isinstance(law, Modelled) and not isinstance(law.model, str)


def _length(law: Sampler, prompt: str) -> int:
    """Of a prompt: in tokens where the law encodes prompts, else in characters."""
    return len(law.model.encode(law.render(prompt), 0)) if _has_model(law) else len(prompt)


def with_batches_of(law: Tokenized, rows: int) -> Tokenized | None:
    """The same law in batches of `rows`, the weights shared; None where the model's batch size cannot be set."""
    if not _has_model(law):
        return None
    parts: Any = law  # perhaps a dataclass
    try:
        made: Tokenized = replace(parts, model=replace(parts.model, batch_size=rows))
        return made
    except (TypeError, ValueError):  # no dataclass, or one that sets it itself
        return None


def _judged(check: str, fine: bool, found: str, good: str, bad: str, trial: Trial | None = None) -> Finding:
    more = trial.half if trial else ""
    return Finding(check, "ok" if fine else "FAIL", found, good if fine else bad + more)


def _same(check: str, trial: Trial, one: Draws, other: Draws, what: str) -> Finding:
    """The finding on draws of the same rows, drawn under two circumstances."""
    moved = differing(one, other)
    off = gap(nats(one)[~moved], nats(other)[~moved])
    found = f"{int(moved.sum())} of {len(moved)} draws differ, max |Δ log-prob| {off:.1e} nats"
    if moved.any() and off <= trial.limit and trial.half:
        return Finding(check, "said", found, f"{what} changes draws{trial.half}")
    return _judged(check, off <= trial.limit and not moved.any(), found, f"{what} changes nothing",
                   f"{what} changes draws or their log-probability")  # fmt: skip


def _known(law: Tokenized) -> Finding:
    """The EOS ids beside those of the network's generation_config and of the tokenizer, where there are such."""
    model = law.model if _has_model(law) else None
    ids = {i: law.vocab.tokens[i] for i in sorted(law.vocab.eos)}
    found = ", ".join(f"{i} {token}" for i, token in ids.items()) or "none"
    if not ids:
        return Finding("EOS ids", "said", found, "no EOS id is known: every draw is cut at max_tokens")
    config = getattr(model.network if isinstance(model, Networked) else None, "generation_config", None)
    asked = _as_set(getattr(config, "eos_token_id", None))
    missing = sorted(i for i in asked - ids.keys() if i < len(law.vocab))
    if missing:
        return Finding("EOS ids", "FAIL", found, f"generation_config also ends at {missing}")
    said = list(_remarks(model.tokenizer if isinstance(model, WithTokenizer) else None, ids))
    return Finding("EOS ids", "said" if said else "ok", found, "; ".join(said) or "those of the model")


def _remarks(tokenizer: Any, ids: Collection[int]) -> Iterator[str]:
    pad: Any = getattr(tokenizer, "pad_token_id", None)
    if pad in ids:
        yield "pad == eos: pads are masked by place, never by id"
    own = getattr(tokenizer, "eos_token_id", None)
    if own is not None and own not in ids:
        yield f"the tokenizer's own EOS, {own}, does not end a draw of this model"


def _as_set(ids: Any) -> set[int]:
    return set() if ids is None else set(ids) if isinstance(ids, (list, tuple)) else {int(ids)}


def _prefix(trial: Trial, prompt: int) -> Array:
    """The ids before the end of a prompt's first draw, with room for one more."""
    first = trial.drawn.take(np.flatnonzero(trial.drawn.prompt == prompt)[:1])
    assert first.tokens is not None
    return np.asarray(first.tokens[0, : min(int(first.length[0] - first.finished[0]), trial.max_tokens - 1)])


def _charged(trial: Trial, prompt: int, eos: int) -> float:
    """What scoring takes for an EOS after a prefix: log-probability with it less that without it, in nats."""
    ids = _prefix(trial, prompt)
    with_it = _score(trial, prompt, [*ids, eos], finished=True)
    return with_it - (_score(trial, prompt, list(ids), finished=False) if len(ids) else 0.0)


def _score(trial: Trial, prompt: int, ids: list[int], *, finished: bool) -> float:
    one = trial.drawn.take(np.array([0]))
    draws = replace(one, prompt=np.array([prompt]), tokens=np.array([ids]), length=np.array([len(ids)]),
                    finished=np.array([finished]))  # fmt: skip
    return float(trial.law.log_prob(trial.prompts, draws)[0])


def _costs(trial: Trial, law: Autoregressive, prompt: int, eos: int) -> float:
    """The log-probability of an EOS after a prefix by walking the states, one prompt alone: no padding, no batch."""
    state = law.start([trial.prompts[prompt]], max_tokens=trial.max_tokens)
    for i in _prefix(trial, prompt):
        state = state.extend(state.log_probs.new_tensor([int(i)]).long())
    return float(state.log_probs[0, eos])
