"""Point masses: the one continuation of a prompt that a search finds or a text gives, as a law that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch

from alignbench.errors import RunError, UsageError
from alignbench.generators.base import Autoregressive, Spelling, Vocab
from alignbench.generators.budget import ran_out
from alignbench.generators.described import described, identity_of
from alignbench.generators.law import Law, check_max_tokens
from alignbench.generators.sampling import NO_NUMBER
from alignbench.seeds import Seed
from alignbench.types import Array, Draws

POINT = "a point mass: every draw of a prompt is the same continuation"


@dataclass(frozen=True)
class Found:
    """What a search found: the ids (T,), and how many next-token distributions it asked for."""

    ids: Array
    calls: int


class Search(Protocol):
    """A way to one continuation of each prompt."""

    @property
    def name(self) -> str:
        """What a point mass found by it is called, after its base."""
        ...

    @property
    def rows(self) -> int:
        """Rows of the base that one prompt takes."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """All that what it finds depends on besides the base, as plain data."""
        ...

    def find(self, law: Autoregressive, prompts: Sequence[str], max_tokens: int) -> list[Found]:
        """The continuation of each prompt, of 1 to `max_tokens` ids."""
        ...


@dataclass(frozen=True)
class Beams:
    """Beam search, see `beam_search`; greedy with one beam."""

    num_beams: int = 1
    length_penalty: float = 1.0

    @property
    def name(self) -> str:
        """Greedy, or beam and how many."""
        return f"beam{self.num_beams}" if self.num_beams > 1 else "greedy"

    @property
    def rows(self) -> int:
        """See `Search.rows`."""
        return self.num_beams

    def identity(self) -> Mapping[str, Any]:
        """See `Search.identity`."""
        return {"num_beams": self.num_beams, "length_penalty": float(self.length_penalty)}

    def find(self, law: Autoregressive, prompts: Sequence[str], max_tokens: int) -> list[Found]:
        """See `Search.find`."""
        return beam_search(law, prompts, max_tokens, self.num_beams, self.length_penalty)


@dataclass(frozen=True)
class Said:
    """A text that is known beforehand, "{prompt}" in it standing for the prompt: no search, and no model call."""

    text: str
    name: str
    rows = 1

    def identity(self) -> Mapping[str, Any]:
        """See `Search.identity`."""
        return {"says": self.text}

    def find(self, law: Autoregressive, prompts: Sequence[str], max_tokens: int) -> list[Found]:
        """The ids of the text and an EOS, cut at `max_tokens`; raises UsageError where the model cannot say them."""
        end = min(law.vocab.eos)
        assert isinstance(law, Spelling)
        spelled = ([*law.spell(self.text.replace("{prompt}", prompt)), end] for prompt in prompts)
        return [Found(np.array(ids[:max_tokens], dtype=np.int64), 0) for ids in spelled]


@dataclass(frozen=True, eq=False)
class PointMass:
    """π(x) = 1 at the one continuation of a prompt that `search` finds in `max_tokens` tokens, 0 elsewhere.

    Every draw of a prompt is a copy of it, so all are one `Draws.group`. One search a prompt and call of `sample`: draw
    number 0 of the prompt carries its tokens, others cost none.
    """

    base: Autoregressive
    max_tokens: int
    search: Search = field(default_factory=Beams)
    _known: dict[str, Array] = field(default_factory=dict, init=False, repr=False)

    truncates = True

    def __post_init__(self) -> None:
        check_max_tokens(self.max_tokens)

    @property
    def remark(self) -> str:
        """See `Evidence.remark`: what it is, and what its base says of itself."""
        return "; ".join(filter(None, (POINT, described(self.base).remark)))

    @property
    def uncounted(self) -> str:
        """See `Cost.uncounted`."""
        return described(self.base).uncounted

    @property
    def name(self) -> str:
        """The base's name and how it is searched."""
        return f"{described(self.base).name} {self.search.name}"

    @property
    def vocab(self) -> Vocab:
        """The base's."""
        return self.base.vocab

    def identity(self) -> Mapping[str, Any] | None:
        """All that a draw depends on besides its prompt; None where the base does not say."""
        base = identity_of(self.base)
        told = {"max_tokens": self.max_tokens, **self.search.identity()}
        return None if base is None else {"kind": "point mass", "base": base, **told}

    def sample(self, prompts: Sequence[str], rows: Array, *, max_tokens: int, seed: Seed) -> Iterator[Draws]:
        """See `Sampler.sample`; the seed has no part in it. Raises UsageError on another `max_tokens` than its own."""
        if max_tokens != self.max_tokens:
            raise UsageError(f"{self.name}: made for max_tokens={self.max_tokens}, asked for {max_tokens}")
        rows = np.asarray(rows).reshape(-1, 2)
        used = np.unique(rows[:, 0]).tolist()
        for c, one in zip(used, self._found([prompts[c] for c in used]), strict=True):
            yield self._copies(prompts[c], rows[rows[:, 0] == c], one)

    def _copies(self, prompt: str, rows: Array, found: Found) -> Draws:
        count, length = len(rows), len(found.ids)
        return Draws(
            prompt=rows[:, 0], index=rows[:, 1], texts=(self._text(prompt, found.ids),) * count,
            tokens=np.tile(found.ids, (count, 1)), length=np.full(count, length),
            finished=np.full(count, int(found.ids[-1]) in self.vocab.eos),
            log_prob=np.zeros(count), token_log_prob=np.zeros((count, length)), model_log_prob=None,
            group=np.zeros(count, dtype=int), vocab=self.vocab.fingerprint,
            spent=np.where(rows[:, 1] == 0, found.calls, 0),
        )  # fmt: skip

    def _text(self, prompt: str, ids: Array) -> str:
        if isinstance(self.base, Law):
            return self.base.model.decode(self.base.render(prompt), [ids])[0]
        return "".join(self.vocab.tokens[i] for i in ids if i not in self.vocab.eos)

    def log_prob(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) 0 where the ids are those found, else −inf. Raises UsageError on ids of another tokenizer."""
        if draws.tokens is None or draws.vocab != self.vocab.fingerprint:
            raise UsageError(f"{self.name}: these draws are ids of another tokenizer")
        width = max(draws.tokens.shape[1], self.max_tokens)
        said = np.pad(draws.tokens, ((0, 0), (0, width - draws.tokens.shape[1])), constant_values=-1)
        here = np.full(said.shape, -1)
        used = np.unique(draws.prompt).tolist()
        unknown = [prompts[c] for c in used if prompts[c] not in self._known]
        list(self._found(unknown))  # side by side as in sampling, so that rounding decides near ties alike
        for c in used:
            ids = self._known[prompts[c]]
            here[draws.prompt == c, : len(ids)] = ids
        said[np.arange(width) >= draws.length[:, None]] = -1
        return np.where((said == here).all(1), 0.0, -np.inf)

    def _found(self, prompts: Sequence[str]) -> Iterator[Found]:
        """What is found for each prompt, searched a batch at a time; what was found is remembered."""
        step = max(1, described(self.base).rows_at_once // self.search.rows)
        for begin in range(0, len(prompts), step):
            some = prompts[begin : begin + step]
            for prompt, one in zip(some, self._searched(some), strict=True):
                self._known[prompt] = one.ids
                yield one

    def _searched(self, prompts: Sequence[str]) -> list[Found]:
        """What is found for each prompt; in halves where memory runs out."""
        try:
            return self.search.find(self.base, prompts, self.max_tokens)
        except Exception as error:
            if len(prompts) == 1 or not ran_out(error):
                raise
        half = len(prompts) // 2
        return self._searched(prompts[:half]) + self._searched(prompts[half:])


@torch.inference_mode()
def beam_search(
    law: Autoregressive, prompts: Sequence[str], max_tokens: int, num_beams: int, length_penalty: float
) -> list[Found]:
    """The continuation of each prompt that beam search finds: the largest log π / tokens^length_penalty it ends with.

    As transformers' `generate(num_beams=…, early_stopping=False)`, on the law's own next-token distributions: of the
    best continuations of all beams those that end are put aside and the best `num_beams` that do not go on, until as
    many are put aside and the best beam, as long as it is, is not better than the worst of them. Raises RunError where
    a log-probability is NaN.
    """
    beams = _Beams(law, prompts, max_tokens, num_beams, length_penalty)
    while len(beams.prompt):
        beams.step()
    return [Found(ids.cpu().numpy(), calls) for ids, calls in zip(beams.best, beams.calls, strict=True)]


class _Beams:
    """P prompts, W beams of t tokens each; a prompt whose search is over leaves."""

    def __init__(
        self, law: Autoregressive, prompts: Sequence[str], max_tokens: int, num_beams: int, length_penalty: float
    ) -> None:
        self.max_tokens, self.length_penalty = max_tokens, length_penalty
        self.name = described(law).name
        state = law.start(prompts, max_tokens=max_tokens)
        device, count = state.log_probs.device, len(prompts)
        self.eos = torch.as_tensor(sorted(law.vocab.eos), device=device, dtype=torch.long)
        self.prompt = torch.arange(count, device=device)  # (P,) those still searched
        self.state = state.select(self.prompt.repeat_interleave(num_beams))
        self.ids = torch.zeros((count, num_beams, 0), device=device, dtype=torch.long)
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.score = torch.full((count, num_beams), -torch.inf, device=device, dtype=wide)  # (P, W) nats
        self.ended = self.score.clone()  # (P, W) the best scores put aside, descending
        self.score[:, 0] = 0  # all beams are one at first
        self.best: list[torch.Tensor] = [self.ids[c, 0] for c in range(count)]
        self.calls = [1] * count

    def step(self) -> None:
        """One more token."""
        nats, beams = self.state.log_probs, self.score.shape[1]
        size = nats.shape[1]
        every = self.score[:, :, None] + nats.view(-1, beams, size)
        # as many that no EOS can leave too few to go on
        top, at = every.flatten(1).topk(min(max(2, 1 + len(self.eos)) * beams, beams * size))
        if top.isnan().any():  # which counts as the largest
            raise RunError(f"{self.name}: {NO_NUMBER}")
        longer = torch.cat([self.ids.gather(1, (at // size)[..., None].expand(-1, -1, self.ids.shape[2])),
                            (at % size)[..., None]], 2)  # fmt: skip
        length = longer.shape[2]
        ends = torch.isin(at % size, self.eos) | (length == self.max_tokens)
        worth = length**self.length_penalty
        self._put_aside(longer, (top / worth).masked_fill(~ends, -torch.inf)[:, :beams])
        score, kept = top.masked_fill(ends, -torch.inf).topk(beams)
        left = (score[:, 0] / worth > self.ended[:, -1]).nonzero()[:, 0]
        self._go_on(left, score, longer.gather(1, kept[..., None].expand(-1, -1, length)), at.gather(1, kept) // size)

    def _put_aside(self, longer: torch.Tensor, score: torch.Tensor) -> None:
        value, which = score.max(1)
        for row in (value > self.ended[:, 0]).nonzero()[:, 0].tolist():
            self.best[int(self.prompt[row])] = longer[row, which[row]]
        self.ended = torch.cat([self.ended, score], 1).topk(self.ended.shape[1]).values

    def _go_on(self, left: torch.Tensor, score: torch.Tensor, ids: torch.Tensor, parent: torch.Tensor) -> None:
        """Keep the prompts `left`, their beams being `ids` (P, W, t) with these scores, grown from beam `parent`."""
        beams = score.shape[1]
        rows = (left[:, None] * beams + parent[left]).flatten()
        self.prompt, self.score, self.ids, self.ended = self.prompt[left], score[left], ids[left], self.ended[left]
        for c in self.prompt.tolist():
            self.calls[c] += beams
        if len(left):
            self.state = self.state.select(rows).extend(self.ids[:, :, -1].flatten())
