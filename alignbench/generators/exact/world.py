"""Exact worlds: n-gram models and hidden Markov models so small that every continuation can be listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch

from alignbench.errors import UsageError
from alignbench.generators.base import Autoregressive, State
from alignbench.generators.exact.hidden import HiddenMarkov
from alignbench.generators.exact.words import EOS, WordModel
from alignbench.generators.law import Law, check_max_tokens, whole_rows
from alignbench.generators.warp import Warp
from alignbench.generators.window import Window
from alignbench.registry import generator
from alignbench.types import Array, Draws

WORDS = ("rain", "sun", "wind", "snow", "cloud", "fog")
MOST = 500_000
"""More continuations than this are not enumerated."""
MOST_CELLS = 10_000_000
"""A larger table (80 MB) is refused."""


@dataclass(frozen=True, eq=False)
class NGram(WordModel):
    """A word-level n-gram model: log P(next | last order − 1 words), all in one table of float64 nats.

    `table` is ((V + 1)^(order − 1), V) with V = words + EOS; a context's row is its ids read as a number in base
    V + 1, where id V stands for "before the beginning".
    """

    words: tuple[str, ...]
    table: Array
    order: int
    name: str = "exact"
    batch_size: int = 4096
    window: Window | None = None
    enumerable = True

    def __post_init__(self) -> None:
        size = len(self.words) + 1
        if self.table.shape != ((size + 1) ** (self.order - 1), size):
            raise UsageError(f"{self.name}: the table of order {self.order} over {size} tokens has shape "
                             f"{self.table.shape}, not {((size + 1) ** (self.order - 1), size)}")  # fmt: skip
        if not np.allclose(np.exp(self.table).sum(1), 1, atol=1e-12):
            raise UsageError(f"{self.name}: each row of the table must sum to 1")

    def identity(self) -> Mapping[str, Any]:
        """The words and the table, and the attention window where there is one."""
        digest = sha256(np.ascontiguousarray(self.table).tobytes()).hexdigest()[:16]
        windowed = {"window": self.window.k} if self.window else {}
        return {"kind": "ngram", "words": list(self.words), "order": self.order, "table": digest, **windowed}

    def windowed(self, window: Window) -> NGram:
        """This model of which each context's words but the last `window.k` read as "before the beginning".

        Raises UsageError where a span of the source is asked for.
        """
        window.refuse_source(self.name)
        contexts = len(self.table)
        recent = (len(self.words) + 2) ** min(window.k, self.order - 1)
        return replace(self, table=self.table[np.arange(contexts) % recent + contexts - recent], window=window)

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> NGramState:
        """See `Model.start`."""
        known = {prompt: self._context(self.encode(prompt, max_tokens)) for prompt in set(rendered)}
        contexts = torch.as_tensor([known[prompt] for prompt in rendered])
        return NGramState(torch.as_tensor(self.table), contexts.long())

    def belief(self, rendered: str) -> Array:
        """(contexts,) 1 at the prompt's context: an n-gram model hides nothing of its state."""
        return np.asarray(np.eye(len(self.table))[self._context(self.encode(rendered, 1))])

    def steps(self, warp: Warp) -> Array:
        """(contexts, V, contexts) P(say the word, then be in the second context | the first), under settings.

        Raises UsageError where there are too many contexts, or the settings depend on more than the context.
        """
        if warp.remembers:
            raise UsageError(f"{self.name}: under a repetition penalty a world can be listed, not summed by state")
        contexts, size = self.table.shape
        if contexts * size * contexts > MOST_CELLS:
            raise UsageError(f"{self.name}: sums over {contexts} contexts take more than {MOST_CELLS:,} cells")
        after = (np.arange(contexts)[:, None] * (size + 1) + np.arange(size)) % contexts
        says = warp(torch.as_tensor(self.table)).exp().numpy()
        return np.asarray(says[:, :, None] * np.eye(contexts)[after])

    def _context(self, ids: Sequence[int]) -> int:
        span, size = self.order - 1, len(self.words) + 2
        last = ([size - 1] * span + list(ids))[-span:] if span else []
        return int(sum(i * size**k for k, i in enumerate(reversed(last))))


@dataclass(frozen=True)
class NGramState:
    """R contexts of a table."""

    table: torch.Tensor
    contexts: torch.Tensor

    @property
    def log_probs(self) -> torch.Tensor:
        """See `State.log_probs`."""
        return self.table[self.contexts]

    def extend(self, tokens: torch.Tensor) -> NGramState:
        """See `State.extend`."""
        size = self.table.shape[1] + 1
        return NGramState(self.table, (self.contexts * size + tokens) % len(self.table))

    def select(self, rows: torch.Tensor) -> NGramState:
        """See `State.select`."""
        return NGramState(self.table, self.contexts[rows])


def outline(**given: Any) -> Law:
    """The law that `exact` makes of these arguments: a world has no weights, and is all there at once."""
    return exact(**given)


@generator(outline=outline)
def exact(
    *, words: str | Sequence[str] = WORDS, order: int = 2, hidden: int = 0, seed: int = 0, concentration: float = 1.0,
    batch_size: int | str = "auto", device: str = "auto", dtype: str = "auto",
) -> Law:  # fmt: skip
    """A random world whose every continuation can be listed: rows ~ Dirichlet(concentration), float64.

    `words` are the vocabulary (a list, or one string split at spaces); `order` the n of an n-gram model. With
    `hidden` = H > 0 it is a hidden Markov model of H states, and `order` has no meaning.
    """
    names = _words(words)
    size = len(names) + 1
    _whole("hidden", hidden, 0)
    contexts = _contexts(size, order)
    _whole("seed", seed, 0)
    if isinstance(concentration, bool) or not isinstance(concentration, (int, float)) or not 0 < concentration < np.inf:
        raise UsageError(f"exact: concentration={concentration}: must be a number above 0")
    rng, rows = np.random.default_rng(seed), whole_rows(batch_size, 4096)
    if hidden:
        moves = [_rows(rng, concentration, count, hidden) for count in (1, hidden)]
        says = _rows(rng, concentration, hidden, size)
        return Law(HiddenMarkov(names, np.exp(moves[0][0]), np.exp(moves[1]), np.exp(says), batch_size=rows))
    return Law(NGram(names, _rows(rng, concentration, contexts, size), order, batch_size=rows))


def _rows(rng: np.random.Generator, concentration: float, count: int, size: int) -> Array:
    """(count, size) nats, each row ~ Dirichlet."""
    table = rng.dirichlet(np.full(size, concentration), count)
    with np.errstate(divide="ignore"):  # a small concentration gives rows with exact zeros
        nats = np.log(table)
    return np.asarray(nats - np.logaddexp.reduce(nats, 1, keepdims=True))


def _whole(name: str, value: int, least: int) -> None:
    """Raise UsageError unless `value` is a whole number >= `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"exact: {name}={value}: must be a whole number >= {least}")


def _words(words: str | Sequence[str]) -> tuple[str, ...]:
    """The vocabulary without EOS; raises UsageError where a text could not be read back as its words."""
    names = tuple(words.split() if isinstance(words, str) else words)
    odd = [w for w in names if not isinstance(w, str) or w.split() != [w] or w == EOS]
    if not names or odd or len(set(names)) < len(names):
        raise UsageError(
            f"exact: words={words!r}: must be one or more distinct words without spaces, none of them {EOS}"
        )
    return names


def _contexts(size: int, order: int) -> int:
    """Rows of the table; raises UsageError where there are too many to keep."""
    _whole("order", order, 1)
    if (order - 1) * np.log(size + 1) + np.log(size) > np.log(MOST_CELLS):
        raise UsageError(f"exact: a table of order {order} over {size} tokens has more than {MOST_CELLS:,} cells")
    return int((size + 1) ** (order - 1))


def enumerate_draws(law: Autoregressive, prompts: Sequence[str], *, max_tokens: int) -> Draws:
    """Every continuation of every prompt that has positive probability, with its log-probability in nats.

    Draws as a sampler would return them; `index` counts within a prompt. Probabilities of one prompt sum to 1: the
    continuations that ended in an EOS and those cut at `max_tokens`. Raises UsageError above 500,000 of them.
    """
    check_max_tokens(max_tokens)
    parts = []
    for number, prompt in enumerate(prompts):
        leaves = list(_leaves(law, prompt, max_tokens))
        parts.append(_as_draws(law, prompt, number, leaves, max_tokens))
    return Draws.concat(parts)


Leaf = tuple[torch.Tensor, torch.Tensor, bool]


def _leaves(law: Autoregressive, prompt: str, max_tokens: int) -> Iterator[Leaf]:
    """(tokens (n, t), token log-probs (n, t), finished) of the continuations of each length, breadth first."""
    state: State = law.start([prompt], max_tokens=max_tokens)
    tokens, scores, found = torch.zeros((1, 0), dtype=torch.long), torch.zeros((1, 0), dtype=torch.float64), 0
    eos = torch.as_tensor(sorted(law.vocab.eos), dtype=torch.long)
    for step in range(max_tokens):
        log_probs = state.log_probs.double().cpu()
        rows, ids = (log_probs > -torch.inf).nonzero(as_tuple=True)
        found += len(rows)
        if found > MOST:
            raise UsageError(f"prompt '{prompt}': more than {MOST} continuations of {max_tokens} tokens to enumerate")
        tokens = torch.cat([tokens[rows], ids[:, None]], 1)
        scores = torch.cat([scores[rows], log_probs[rows, ids][:, None]], 1)
        ended = torch.isin(ids, eos)
        yield tokens[ended], scores[ended], True
        tokens, scores, rows, ids = tokens[~ended], scores[~ended], rows[~ended], ids[~ended]
        if step == max_tokens - 1 or not len(rows):
            break
        state = state.select(rows.to(state.log_probs.device)).extend(ids.to(state.log_probs.device))
    yield tokens, scores, False


def _as_draws(law: Autoregressive, prompt: str, number: int, leaves: list[Leaf], max_tokens: int) -> Draws:
    def padded(t: torch.Tensor, fill: float) -> Array:
        return np.asarray(torch.nn.functional.pad(t, (0, max_tokens - t.shape[1]), value=fill).numpy())

    tokens = np.concatenate([padded(t, -1) for t, _, _ in leaves])
    by_token = np.concatenate([padded(s, 0) for _, s, _ in leaves])
    length = (tokens >= 0).sum(1)
    texts = [""] * len(tokens)
    if isinstance(law, Law):
        texts = law.model.decode(law.render(prompt), [t[:n] for t, n in zip(tokens, length, strict=True)])
    return Draws(
        prompt=np.full(len(tokens), number), index=np.arange(len(tokens)), texts=tuple(texts), tokens=tokens,
        length=length, finished=np.concatenate([np.full(len(t), done) for t, _, done in leaves]),
        log_prob=by_token.sum(1), token_log_prob=by_token, model_log_prob=None, vocab=law.vocab.fingerprint,
    )  # fmt: skip
