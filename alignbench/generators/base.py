"""What a generator can be: the torch-level protocols that laws, guides and scorers stand on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

from alignbench.types import Array, Distribution, Draws


@dataclass(frozen=True)
class Vocab:
    """The token strings by id and the ids that end a draw."""

    tokens: Sequence[str]
    eos: frozenset[int]

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits of a hash over tokens and EOS ids: equal exactly when two laws share an event space."""
        digest = sha256()
        for token in self.tokens:
            digest.update(token.encode("utf-8", "surrogatepass") + b"\0")
        digest.update(repr(sorted(self.eos)).encode())
        return digest.hexdigest()[:12]


class State(Protocol):
    """R live prefixes and their opaque cache; `extend` and `select` return new states and leave this one usable."""

    @property
    def log_probs(self) -> torch.Tensor:
        """(R, V) nats, normalised under the law."""
        ...

    def extend(self, tokens: torch.Tensor) -> State:
        """The state after one more token (R,) in each row."""
        ...

    def select(self, rows: torch.Tensor) -> State:
        """The state of `rows`, gathered; repeats allowed."""
        ...


@runtime_checkable
class Autoregressive(Distribution, Protocol):
    """A distribution that can be walked token by token."""

    @property
    def vocab(self) -> Vocab:
        """Token strings, EOS ids, fingerprint."""
        ...

    def start(self, prompts: Sequence[str], *, max_tokens: int) -> State:
        """The state before the first token of each prompt."""
        ...


@runtime_checkable
class Modelled(Protocol):
    """A law over a model: its prompts are rendered and encoded by it."""

    @property
    def model(self) -> Model:
        """The raw next-token distributions."""
        ...

    def render(self, prompt: str) -> str:
        """The text that conditions the model."""
        ...


@runtime_checkable
class Tokenized(Distribution, Protocol):
    """A distribution over sequences of tokens."""

    @property
    def vocab(self) -> Vocab:
        """Token strings, EOS ids, fingerprint."""
        ...


class OverModel(Autoregressive, Modelled, Protocol):
    """A distribution that can be walked, and whose next-token probabilities come from a model."""


@runtime_checkable
class Steering(Protocol):
    """A model that changes what another law says next."""

    @property
    def base(self) -> OverModel:
        """That law."""
        ...


@runtime_checkable
class Chatting(Protocol):
    """A model that says whether it renders prompts in a chat template."""

    @property
    def chat(self) -> bool:
        """Whether it does."""
        ...


@runtime_checkable
class Listable(Protocol):
    """A model that says whether every continuation can be listed."""

    @property
    def enumerable(self) -> bool:
        """Whether it can."""
        ...


@runtime_checkable
class Truncating(Protocol):
    """A model that says whether it may give probability 0 to what its base can say."""

    @property
    def truncates(self) -> bool:
        """Whether it may."""
        ...


@runtime_checkable
class Networked(Protocol):
    """A model that runs a network of another library."""

    @property
    def network(self) -> Any:
        """The network, as that library makes it."""
        ...


@runtime_checkable
class WithTokenizer(Protocol):
    """A model with a tokenizer of another library."""

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, as that library makes it."""
        ...


@runtime_checkable
class Batched(Protocol):
    """Whatever draws in batches of a size of its own."""

    @property
    def batch_size(self) -> int:
        """Rows decoded at once."""
        ...


@runtime_checkable
class Slotted(Protocol):
    """A model with decoders of its own; any other is sampled by its states."""

    def decoder(self, rows: int, width: int) -> Decoder:
        """A decoder for at most `rows` rows of `width` tokens, their prompts included."""
        ...

    def give_back(self, decoder: Decoder) -> None:
        """Take back a decoder that is not used any more."""
        ...

    def too_many(self, rows: int, width: int) -> None:
        """Remember that memory ran out with so many rows of so many tokens."""
        ...

    def forget(self) -> None:
        """Let go of memory that is kept only to be faster."""
        ...


Turns = Sequence[tuple[str, str]]
"""A conversation: (role, text) of each turn, the roles `system`, `user` and `assistant`."""


@runtime_checkable
class Conversing(Protocol):
    """A model that can be spoken to in turns."""

    def conversing(self) -> Model:
        """The same model, read and tokenised as conversations; raises UsageError where it has no chat template."""
        ...

    def converse(self, turns: Turns) -> str:
        """The text that conditions the model: its answer is to follow, or a last turn of its own to go on."""
        ...


@runtime_checkable
class Spelling(Protocol):
    """A model that can say a given text."""

    def spell(self, text: str) -> list[int]:
        """The ids by which it says `text` in a continuation, no special ones among them; raises UsageError."""
        ...


@runtime_checkable
class Grouped(Protocol):
    """A model that says how many draws one call of `forced` may take; any other takes few."""

    def together(self, prompt: int, width: int) -> int:
        """How many draws of `width` tokens after prompts of at most `prompt`."""
        ...


S = TypeVar("S")
Out = TypeVar("Out", covariant=True)
In = TypeVar("In", contravariant=True)


@runtime_checkable
class Rule(Protocol[S]):
    """A guide: it weighs the base's next-token probabilities. S is its memory of R live rows.

    Prompts are the task's originals. `max_tokens` is None where the rule was not made for draws of one length.
    """

    @property
    def name(self) -> str:
        """What it does to a law, in a word: `constrained`."""
        ...

    @property
    def truncates(self) -> bool:
        """Whether it may give probability 0 to what the base can say."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """All that its weights depend on, as plain data."""
        ...

    def start(self, prompts: Sequence[str], max_tokens: int | None) -> S:
        """The memory before the first token of each prompt."""
        ...

    def extend(self, memory: S, tokens: torch.Tensor) -> S:
        """The memory after one more token (R,) in each row; arbitrary ids in rows that have ended."""
        ...

    def select(self, memory: S, rows: torch.Tensor) -> S:
        """The memory of `rows`, gathered; repeats allowed."""
        ...

    def weigh(self, log_probs: torch.Tensor, memory: S) -> torch.Tensor:
        """(R, V) nats from (R, V) nats of the base's law; they are normalised afterwards."""
        ...


@runtime_checkable
class Reading(Protocol[In]):
    """A rule that weighs by what the base's network has in mind; the base must have last hidden states."""

    def weigh_by(self, log_probs: torch.Tensor, memory: In, hidden: torch.Tensor) -> torch.Tensor:
        """See `Rule.weigh`; `hidden` (R, D) are the last hidden states from which the base's nats were made."""
        ...


@runtime_checkable
class Filling(Protocol[S]):
    """A rule whose rows can be begun anew while others go on; any other is decoded in waves."""

    def fill(self, memory: S, rows: torch.Tensor, prompts: Sequence[str], max_tokens: int | None) -> S:
        """The memory with `rows` before the first token of these prompts; it may change what it is given."""
        ...


@runtime_checkable
class Forced(Protocol[Out]):
    """A rule that has its memory of given draws at once; of any other all draws are walked step by step."""

    def forced(self, prompts: Sequence[str], draws: Draws, max_tokens: int | None) -> Out:
        """The memory before each token of each draw, draw by draw: P = Σ length rows."""
        ...


@runtime_checkable
class Keyed(Protocol):
    """A rule that says which prompts it begins alike."""

    def key(self, prompt: str, max_tokens: int | None) -> object:
        """Equal where memories before the first token are; raises UsageError where nothing can be said after it."""
        ...


@runtime_checkable
class Policy(Autoregressive, Protocol):
    """A distribution that is trained: what samples and scores also scores with gradients."""

    @property
    def module(self) -> nn.Module:
        """(prompts, draws) → (B, T) nats with gradient, 0 after the end; what DDP wraps."""
        ...

    def save(self, folder: str | Path) -> None:
        """Write what loads it again: of a network, an adapter or a checkpoint for `hf`."""
        ...


@runtime_checkable
class Trainable(Protocol):
    """A model of which a policy can be made; see `policy_of`."""

    def trainable(self, adapter: str, seed: int) -> Learner:
        """The same model, of which what `adapter` names can be trained; this one stays as it is."""
        ...


class Positions(Protocol):
    """Next-token distributions or logits at P places; cut by a slice, and perhaps computed only then."""

    def __getitem__(self, part: slice, /) -> torch.Tensor:
        """(n, V) of those places."""
        ...


class Decoder(Protocol):
    """Rows of one model decoded side by side, each in a slot that may be filled anew; see `Slotted`."""

    slots: int
    """Rows side by side."""
    refills: bool
    """Whether a slot may be filled while others go on; if not, all are filled at once and once."""
    unwatched: int
    """Steps between two looks at which rows have ended: a look makes a GPU wait."""

    def shape(self, rows: int) -> int:
        """The number of slots, >= `rows`, that it would be made smaller to."""
        ...

    def prefill(self, rendered: Sequence[str]) -> Positions:
        """(U, V) logits before the first token of each prompt, whose state is held until the next call."""
        ...

    def fill(self, slots: torch.Tensor, which: torch.Tensor) -> None:
        """Put prompt `which[i]` of the last `prefill` into `slots[i]`."""
        ...

    def step(self, ids: torch.Tensor) -> Positions:
        """(slots, V) logits after one more token in each slot; arbitrary where a slot holds nothing.

        They may be made when they are cut, and hold until the next step.
        """
        ...

    def keep(self, rows: torch.Tensor) -> None:
        """Slot i becomes what slot rows[i] was; as many slots as `rows` remain."""
        ...


@runtime_checkable
class KeepsHidden(Protocol):
    """A decoder whose logits come with hidden states once they are asked for."""

    def keep_hidden(self) -> None:
        """From now on positions show hidden states too."""
        ...


class Model(Protocol):
    """Raw next-token distributions; a `Law` adds decoding settings and does the sampling and the scoring.

    Prompts arrive here already rendered. A model may also be `Slotted` and `Grouped`.
    """

    @property
    def name(self) -> str:
        """What tables call it."""
        ...

    @property
    def batch_size(self) -> int:
        """Rows decoded at once; cannot change a draw."""
        ...

    @property
    def vocab(self) -> Vocab:
        """Token strings, EOS ids, fingerprint."""
        ...

    def identity(self) -> Mapping[str, Any]:
        """All that its distributions depend on, as plain data: weights, tokenizer, dtype, rendering."""
        ...

    def render(self, prompt: str) -> str:
        """The text that conditions the model (chat template, system prompt)."""
        ...

    def encode(self, rendered: str, max_tokens: int) -> Sequence[int]:
        """The ids that condition the model; raises UsageError when they do not fit the context window."""
        ...

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> State:
        """The state before the first token."""
        ...

    def forced(self, rendered: Sequence[str], draws: Draws) -> Positions:
        """The distributions, nats, before each token of each draw, draw by draw: P = Σ length of them."""
        ...

    def decode(self, rendered: str, tokens: Sequence[Array]) -> list[str]:
        """The continuations' texts, special tokens removed."""
        ...

    @property
    def device(self) -> torch.device:
        """Where its tensors live."""
        ...


@runtime_checkable
class Learner(Model, Protocol):
    """A model that is trained; inside `differentiable` its passes keep what a gradient needs."""

    @property
    def network(self) -> Any:
        """The `nn.Module` whose parameters that require a gradient are trained."""
        ...

    def save(self, folder: Path) -> None:
        """See `Policy.save`."""
        ...
