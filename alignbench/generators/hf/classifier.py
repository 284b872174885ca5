"""Checkpoints that read texts: classifiers and reward models (logits), sentence encoders (embeddings).

They do not sample. They live here because torch does; a feature that needs one asks for it at its first value.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from alignbench.errors import RunError, UsageError
from alignbench.generators.budget import ran_out
from alignbench.generators.hf.factory import device_of, first_line, tokenizer_of
from alignbench.generators.hf.quiet import no_bars
from alignbench.generators.law import whole_rows
from alignbench.types import Array

_LOG = logging.getLogger(__name__)

AUTO_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Tokens of a batch under `batch_size=auto`, padding counted: 32 texts of 128 tokens on a CPU."""
PROBE = ("Yes.", "The rain in the north had stopped, and nobody said anything about it until the evening.")
"""Two texts of unlike length: the shorter one's scores tell whether a checkpoint minds being padded."""
Item = dict[str, list[int]]
"""One text as the tokenizer sees it: input_ids, and token_type_ids where the network takes them."""


@dataclass(frozen=True)
class Checkpoint:
    """What to load and how to run it; equal ones are loaded once a process."""

    name: str  # for messages
    place: str  # folder or hub id
    revision: str | None
    weights: str  # their identity: a folder whose files changed is another checkpoint
    use_safetensors: bool = True  # False: pickles instead
    device: str = "auto"
    batch_size: int | str = "auto"


@lru_cache(maxsize=4)
def classifier(checkpoint: Checkpoint) -> TextModel:
    """A sequence classifier or reward model; its scores are logits (B, labels). Raises UsageError if it is none."""
    from transformers import AutoModelForSequenceClassification

    return _loaded(checkpoint, AutoModelForSequenceClassification, lambda out, mask: out.logits)


@lru_cache(maxsize=4)
def encoder(checkpoint: Checkpoint, pooling: str, window: int | None) -> TextModel:
    """A sentence encoder; its scores are embeddings (B, D): the mean over tokens, or the first one for "cls".

    `window`: most tokens of a text that it reads, where that is fewer than the network could.
    """
    from transformers import AutoModel

    pool = {"mean": _mean, "cls": lambda out, mask: out.last_hidden_state[:, 0]}[pooling]
    return _loaded(checkpoint, AutoModel, pool, window)


def _mean(out: Any, mask: torch.Tensor) -> torch.Tensor:
    hidden: torch.Tensor = out.last_hidden_state
    weight = mask[..., None].to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


@dataclass
class TextModel:
    """A network and its tokenizer: texts to scores, in batches of like length, padded on the right."""

    name: str
    network: Any
    tokenizer: Any
    read: Callable[[Any, torch.Tensor], torch.Tensor]  # (the network's output, mask (n, T)) → (n, K)
    window: int | None  # most tokens of a text
    rows: int  # most texts side by side; smaller once memory ran out
    tokens: int | None  # most tokens side by side, padding counted
    _told: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if self.rows > 1 and not self._may_be_padded():
            _LOG.info(f"{self.name}: padding would change its scores, so texts go through it one by one")
            self.rows = 1

    def scores(self, texts: Sequence[str], pairs: Sequence[str] | None = None, special: bool = True) -> Array:
        """(B, K) float64 of `texts`, each with its second text if `pairs` are given.

        `special`: whether the tokenizer adds its own special tokens. A text longer than the window is cut at its end,
        of a pair the longer first, and that is logged once. Raises RunError where memory holds not even one text.
        """
        items = self._encoded(texts, pairs, special)
        if not items:
            return np.zeros((0, self.network.config.num_labels))
        order = sorted(range(len(items)), key=lambda i: -len(items[i]["input_ids"]))
        found = np.concatenate(list(self._parts([items[i] for i in order])))
        return found[np.argsort(order)]

    def chat_scores(self, prompts: Sequence[str], replies: Sequence[str]) -> Array:
        """(B, K) float64 of conversations: a user's prompt and the assistant's reply, in the tokenizer's chat template.

        Raises UsageError where it has none or it refuses.
        """
        if not self.tokenizer.chat_template:
            raise UsageError(f"{self.name}: apply_chat_template, but its tokenizer has no chat template")
        return self.scores([self._rendered(*turn) for turn in zip(prompts, replies, strict=True)], special=False)

    def _rendered(self, prompt: str, reply: str) -> str:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False))
        except Exception as error:  # a template is a program of its own
            raise UsageError(f"{self.name}: its chat template refuses a conversation: {first_line(error)}") from error

    def _parts(self, items: list[Item]) -> Iterator[Array]:
        """Scores of `items`, longest first, a part at a time; a part that memory does not hold is tried in halves."""
        begin = 0
        while begin < len(items):
            part = items[begin : begin + self._most(len(items[begin]["input_ids"]))]
            try:
                found = self._forward(part)
            except Exception as error:
                if not ran_out(error):
                    raise
                if len(part) == 1:
                    raise RunError(
                        f"{self.name}: memory ran out with one text: a smaller one, or device: cpu"
                    ) from None
                self.rows = len(part) // 2
                continue
            yield found
            begin += len(part)

    def _most(self, width: int) -> int:
        return self.rows if self.tokens is None else max(1, min(self.rows, self.tokens // width))

    @torch.inference_mode()
    def _forward(self, items: Sequence[Item]) -> Array:
        """(n, K) float64 of texts that go side by side."""
        lengths = torch.tensor([len(item["input_ids"]) for item in items])
        mask = _mask(lengths).to(self.network.device)
        inputs = {"attention_mask": mask.long()}
        for key in items[0]:
            filled = torch.full(mask.shape, self._pad if key == "input_ids" else 0)
            for row, item in zip(filled, items, strict=True):
                row[: len(item[key])] = torch.tensor(item[key])
            inputs[key] = filled.to(self.network.device)
        return np.asarray(self.read(self.network(**inputs), mask).double().cpu())

    @property
    def _pad(self) -> int:
        """The id that the network takes for padding: those that find a text's last token by ids look for it."""
        known = (self.network.config.get_text_config().pad_token_id, self.tokenizer.pad_token_id, 0)
        return next(i for i in known if i is not None)

    def _may_be_padded(self) -> bool:
        """Whether texts score alike alone and beside a longer one, asked of the checkpoint itself.

        Not so where the network has no padding token, or another than the tokenizer's, or reads its last position.
        """
        items = self._encoded(PROBE, None, True)
        alone = self._forward(items[:1])
        try:
            beside = self._forward(items)[:1]
        except ValueError:  # transformers: "Cannot handle batch sizes > 1 if no padding token is defined."
            return False
        return bool(np.allclose(alone, beside, rtol=1e-3, atol=1e-4, equal_nan=True))

    def _encoded(self, texts: Sequence[str], pairs: Sequence[str] | None, special: bool) -> list[Item]:
        """The texts as ids, cut to the window."""
        found = self._tokenized(texts, pairs, special, truncation=False)
        longest = max(map(len, found["input_ids"]), default=0)
        if self.window and longest > self.window:
            self._tell(longest)
            found = self._tokenized(texts, pairs, special, truncation=True, max_length=self.window)
        takes = inspect.signature(self.network.forward).parameters
        keys = [k for k in ("token_type_ids",) if k in found and k in takes]
        rows = ({"input_ids": ids} | {k: found[k][i] for k in keys} for i, ids in enumerate(found["input_ids"]))
        return [row if row["input_ids"] else self._nothing(keys) for row in rows]

    def _tokenized(self, texts: Sequence[str], pairs: Sequence[str] | None, special: bool, **cut: Any) -> Any:
        if not texts:
            return {"input_ids": []}
        second = None if pairs is None else list(pairs)
        return self.tokenizer(list(texts), second, add_special_tokens=special, padding=False, verbose=False, **cut)

    def _tell(self, longest: int) -> None:
        if not self._told:
            _LOG.warning(
                f"{self.name}: a text has {longest} tokens and it reads {self.window}: longer ones are cut at "
                "their end (said once)"
            )
        self._told = True

    def _nothing(self, keys: Sequence[str]) -> Item:
        """What stands for an empty text under a tokenizer that adds nothing: BOS, else EOS."""
        known = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id)
        ids = [i for i in known if i is not None][:1]
        if not ids:
            raise UsageError(f"{self.name}: a text is empty and the tokenizer has no BOS or EOS to stand for it")
        return {"input_ids": ids} | {k: [0] for k in keys}


def _mask(lengths: torch.Tensor) -> torch.Tensor:
    """(n, T) bool: which positions hold a token."""
    return torch.arange(int(lengths.max())) < lengths[:, None]


def _loaded(
    checkpoint: Checkpoint, kind: Any, read: Callable[[Any, torch.Tensor], torch.Tensor], window: int | None = None
) -> TextModel:
    device = device_of(checkpoint.device)
    auto = checkpoint.batch_size == "auto"
    options = {"revision": checkpoint.revision} if checkpoint.revision else {}
    with _plain_errors(checkpoint.name, kind.__name__):
        tokenizer = tokenizer_of(checkpoint.place, **options)
        network = _network(checkpoint, kind, **options).to(device)
    network.config.use_cache = False
    return TextModel(
        name=checkpoint.name, network=network, tokenizer=tokenizer, read=read,
        window=_window(network, tokenizer, window), rows=whole_rows(checkpoint.batch_size, 256),
        tokens=AUTO_TOKENS.get(device.type, AUTO_TOKENS["cpu"]) if auto else None,
    )  # fmt: skip


def _network(checkpoint: Checkpoint, kind: Any, **options: Any) -> Any:
    """The network in float32 with all its weights; raises UsageError where transformers would make some up."""
    network, found = kind.from_pretrained(
        checkpoint.place,
        dtype=torch.float32,
        use_safetensors=checkpoint.use_safetensors,
        output_loading_info=True,
        **options,
    )
    missing = {*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])}
    absent = sorted(key for key in missing if kind.__name__ != "AutoModel" or not key.startswith("pooler."))
    if absent:
        raise UsageError(
            f"{checkpoint.name}: lacks {len(absent)} of the weights of a {type(network).__name__}, the first is "
            f"{absent[0]}: was it trained as one?"
        )
    return network


def _window(network: Any, tokenizer: Any, asked: int | None) -> int | None:
    """Most tokens of a text: what the tokenizer, the table of positions and the checkpoint's own limit allow."""
    places = getattr(network.config.get_text_config(), "max_position_embeddings", None)
    for name, table in network.named_modules():
        if name.endswith("position_embeddings") and getattr(table, "padding_idx", None) is not None:
            places = table.num_embeddings - table.padding_idx - 1  # RoBERTa counts from behind the padding's place
    known = [
        n for n in (asked, places, tokenizer.model_max_length) if n and 0 < n < 10**9
    ]  # "no limit" is 10**30 or -1
    return min(known, default=None)


@contextmanager
def _plain_errors(name: str, kind: str) -> Iterator[None]:
    """Whatever loading raises as one line, and no progress bars meanwhile; see `hf._plain_errors`."""
    try:
        with no_bars():
            yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{name}: cannot be loaded by {kind}: {first_line(error)}") from error
