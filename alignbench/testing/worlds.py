"""Bases that can be trained and whose every continuation can be listed: what the proofs of training stand on."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import nn

from alignbench.errors import StoreError, UsageError, did_you_mean, unknown
from alignbench.files import digest, dump, write_atomic
from alignbench.generators.exact.words import EOS, WordModel
from alignbench.generators.gradient import inference
from alignbench.generators.hf.policy import recipe_of
from alignbench.generators.hf.quiet import no_bars
from alignbench.generators.law import Law
from alignbench.generators.warp import log_normalised
from alignbench.types import Array, Draws

KINDS = ("gpt2", "llama", "t5")
MOST_ROWS = 1_000_000
"""A table of more prefixes is refused."""


def tiny_network(
    folder: str | Path, words: str | Sequence[str] = "rain sun wind", *, kind: str = "llama", seed: int = 0,
    double: bool = False,
) -> Law:  # fmt: skip
    """A random language model over these words and EOS, saved to `folder` and loaded as a user's would be.

    `kind` is gpt2 (learned positions, the output layer is the embeddings), llama (rotary positions) or t5
    (encoder–decoder). Its pad is its EOS, but for t5. `double` makes its weights float64; norms of llama and t5 go
    through float32 all the same, so that only gpt2 is float64 throughout. With vocabularies of at most 8 and draws of
    at most 6 tokens `enumerate_draws` lists them all.
    """
    from alignbench.generators.hf.factory import hf

    found = save_network(folder, words, kind=kind, seed=seed)
    law = hf(pretrained=str(found), dtype="float32", device="cpu")
    if double:
        law.model.network.double()  # type: ignore[attr-defined]
    return law


def save_network(
    folder: str | Path, words: str | Sequence[str], *, kind: str, seed: int = 0, window: int = 64, **config: Any
) -> Path:
    """The folder, with a random network of this kind over the words and EOS in it; `config` changes its shape.

    Raises UsageError on an unknown kind.
    """
    import transformers

    if kind not in KINDS:
        raise unknown("kind of network", kind, KINDS)
    names = tuple(words.split() if isinstance(words, str) else words)
    size = len(names) + 1
    ends = {"bos_token_id": size - 1, "eos_token_id": size - 1, "pad_token_id": size - 1}
    shapes: dict[str, tuple[str, dict[str, Any]]] = {
        "gpt2": ("GPT2LMHeadModel", {
            "n_positions": window, "n_embd": 16, "n_layer": 2, "n_head": 2, "initializer_range": 0.3,
            "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, **ends,
        }),
        "llama": ("LlamaForCausalLM", {
            "max_position_embeddings": window, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "initializer_range": 0.3, **ends,
        }),
        "t5": ("T5ForConditionalGeneration", {
            "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "dropout_rate": 0.0,
            "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16, "initializer_factor": 1.0,
            "eos_token_id": size - 1, "pad_token_id": 0, "decoder_start_token_id": 0,
        }),
    }  # fmt: skip
    name, shape = shapes[kind]
    network = getattr(transformers, name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        made = network(network.config_class(**{"vocab_size": size, **shape, **config}))
    with no_bars():
        made.save_pretrained(str(folder))
        tokenizer(names).save_pretrained(str(folder))
    return Path(folder)


def tokenizer(words: Sequence[str]) -> Any:
    """One token a word; decoding puts a space between; EOS is also BOS, pad, and what an unknown word becomes."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(WordLevel({word: i for i, word in enumerate((*words, EOS))}, unk_token=EOS))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=EOS, eos_token=EOS, pad_token=EOS, unk_token=EOS)


def table_world(
    words: str | Sequence[str] = "rain sun wind", prompts: Sequence[str] = ("sun", "wind"), max_tokens: int = 4, *,
    seed: int = 0, logits: Array | None = None,
) -> Law:  # fmt: skip
    """A law with logits of its own for each prefix of each prompt, in float64: no two share a parameter.

    `logits` (prompts, prefixes, V) are those of prefixes in order of length, then of words, V = words + EOS; without
    them each row's probabilities are ~ Dirichlet(1) by `seed`. `policy_of` trains all of them, whatever the adapter.
    """
    names = tuple(words.split() if isinstance(words, str) else words)
    world = Table(names, tuple(prompts), max_tokens, Rows(torch.zeros(0)))
    shape = len(prompts), world.prefixes, len(names) + 1
    if logits is None:
        rng = np.random.default_rng(seed)
        logits = np.log(rng.dirichlet(np.ones(shape[2]), shape[:2]))
    if np.shape(logits) != shape:
        raise UsageError(f"table: logits have shape {np.shape(logits)}, not (prompts, prefixes, V) = {shape}")
    given = torch.as_tensor(np.asarray(logits, float).reshape(-1, shape[2]))
    return Law(replace(world, network=Rows(given).requires_grad_(False)))


def load_table(folder: str | Path) -> Law:
    """The world that a policy over a table was saved as; raises StoreError where there is none."""
    try:
        told = json.loads(Path(folder, "table.json").read_text(encoding="utf-8"))
        logits = load_file(Path(folder, "table.safetensors"))["logits"].numpy()
        return table_world(**told, logits=logits.reshape(len(told["prompts"]), -1, logits.shape[1]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{folder}: holds no table: {error}") from error


class Rows(nn.Module):
    """The logits of a table: one row a prefix, one prompt after the other."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())


@dataclass(frozen=True, eq=False)
class Table(WordModel):
    """See `table_world`: P(next | prompt, prefix) = softmax of a row."""

    words: tuple[str, ...]
    prompts: tuple[str, ...]
    max_tokens: int
    network: Rows
    name: str = "table"
    batch_size: int = 4096
    enumerable = True

    def __post_init__(self) -> None:
        if not self.words or not self.prompts or self.max_tokens < 1:
            raise UsageError(f"{self.name}: needs a word, a prompt and max_tokens of at least 1")
        if self.prefixes * len(self.prompts) > MOST_ROWS:
            raise UsageError(f"{self.name}: more than {MOST_ROWS:,} prefixes: fewer words, or fewer tokens")

    @cached_property
    def prefixes(self) -> int:
        """Prefixes of a prompt's continuations: Σ W^t over t < max_tokens, W words."""
        return sum(len(self.words) ** t for t in range(self.max_tokens))

    @property
    def hidden_width(self) -> int:
        """See `WithHiddenWidth.hidden_width`: its hidden states are the unit vectors of its rows."""
        return len(self.network.logits)

    def identity(self) -> Mapping[str, Any]:
        """Words, prompts, length and the logits as they are now."""
        told = {"words": list(self.words), "prompts": list(self.prompts), "max_tokens": self.max_tokens}
        return {"kind": "table", **told, "logits": digest(self.network.logits.tolist())}

    def encode(self, rendered: str, max_tokens: int) -> list[int]:
        """The words' ids; raises UsageError on another prompt than its own, or on more tokens than it has rows for."""
        if rendered not in self.prompts:
            raise UsageError(f"{self.name}: has no prompt '{rendered}'.{did_you_mean(rendered, self.prompts)}")
        if max_tokens > self.max_tokens:
            raise UsageError(f"{self.name}: max_tokens={max_tokens}: it has rows for {self.max_tokens} tokens")
        return super().encode(rendered, max_tokens)

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> TableState:
        """See `Model.start`."""
        for prompt in set(rendered):
            self.encode(prompt, max_tokens)
        first = torch.tensor([self.prompts.index(prompt) for prompt in rendered]) * self.prefixes
        return TableState(self, first, torch.zeros_like(first))

    def forced(self, rendered: Sequence[str], draws: Draws) -> TablePlaces:
        """See `Model.forced`."""
        assert draws.tokens is not None
        state, rows = self.start(rendered, max_tokens=int(draws.length.max())), []
        for ids in torch.as_tensor(draws.tokens[:, : int(draws.length.max())]).clamp(min=0).T:
            rows.append(state.first + state.number)
            state = state.extend(ids)
        inside = torch.as_tensor(np.arange(len(rows)) < draws.length[:, None])
        return TablePlaces(self.network.logits, torch.stack(rows, 1)[inside])

    def trainable(self, adapter: str, seed: int) -> Table:
        """See `Trainable.trainable`: a copy of all logits, whichever adapter it is."""
        recipe_of(adapter)
        return replace(self, network=copy.deepcopy(self.network).requires_grad_(True))

    def save(self, folder: Path) -> None:
        """Write what `load_table` reads; raises StoreError."""
        told = {"words": list(self.words), "prompts": list(self.prompts), "max_tokens": self.max_tokens}
        write_atomic(folder / "table.safetensors", save({"logits": self.network.logits.detach()}))
        write_atomic(folder / "table.json", dump(told))


@dataclass(frozen=True)
class TablePlaces:
    """See `Positions` and `OfHidden`: rows of a table, each of which is the unit vector of its own number."""

    table: torch.Tensor  # of logits
    rows: torch.Tensor  # (P,)
    trained: ClassVar[bool] = True

    @property
    def hidden(self) -> torch.Tensor:
        """See `OfHidden.hidden`."""
        return nn.functional.one_hot(self.rows, len(self.table)).to(self.table.dtype)

    def on(self, hidden: torch.Tensor) -> TablePlaces:
        """See `OfHidden.on`."""
        return replace(self, rows=hidden.argmax(1))

    def __getitem__(self, part: slice) -> torch.Tensor:
        with inference():
            return log_normalised(self.table[self.rows[part]])


@dataclass(frozen=True)
class TableState:
    """R prefixes, by their numbers: the child of prefix n by word w is W·n + 1 + w."""

    model: Table
    first: torch.Tensor  # (R,) the row of the prompt's empty prefix
    number: torch.Tensor  # (R,)

    @property
    def log_probs(self) -> torch.Tensor:
        """See `State.log_probs`."""
        with inference():
            return log_normalised(self.model.network.logits[self.first + self.number])

    @property
    def last_hidden(self) -> torch.Tensor:
        """See `WithHidden.last_hidden`: the unit vectors of their rows."""
        logits = self.model.network.logits
        return nn.functional.one_hot(self.first + self.number, len(logits)).to(logits.dtype)

    def extend(self, tokens: torch.Tensor) -> TableState:
        """See `State.extend`; after an EOS, or the last token, it stands anywhere."""
        words = len(self.model.words)
        child = torch.where(tokens < words, words * self.number + 1 + tokens, 0)
        return replace(self, number=torch.where(child < self.model.prefixes, child, 0))

    def select(self, rows: torch.Tensor) -> TableState:
        """See `State.select`."""
        return replace(self, first=self.first[rows], number=self.number[rows])
