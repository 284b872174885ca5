"""What every network of transformers brings, causal or encoder–decoder: its tokenizer, its ends, its identity."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import torch
from transformers.cache_utils import DynamicLayer, EncoderDecoderCache

from alignbench.errors import UsageError
from alignbench.generators.base import Vocab
from alignbench.generators.budget import Budget, ran_out
from alignbench.generators.slots import agree

CHUNK_BYTES = 512 * 2**20
"""Most memory of the logits of one pass, with the copies that their reduction makes, where they are made whole."""
TOGETHER = {"cpu": 4096, "cuda": 32768}
"""Tokens in one teacher-forced pass: on a CPU more are no faster, and their activations leave the cache."""


@dataclass(eq=False)
class Pretrained:
    """A network of transformers with its tokenizer: the half of a `Model` that does not depend on how it is run.

    `batch_size` is the most rows side by side, `budget` the memory they may take.
    """

    network: Any
    tokenizer: Any
    name: str
    weights: str  # identity of the weights
    batch_size: int = 64
    chat: bool = False
    system: str | None = None
    budget: Budget = field(default_factory=Budget)
    replicas: tuple[Any, ...] = ()  # copies on other devices

    def __post_init__(self) -> None:
        self.network.eval()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(self.network.device)

    @cached_property
    def vocab(self) -> Vocab:
        """Tokens of the network's output layer (ids the tokenizer does not name are "<id>"), and all its EOS ids."""
        size = self.network.get_output_embeddings().weight.shape[0]
        names = [f"<{i}>" for i in range(size)]
        for token, i in self.tokenizer.get_vocab().items():
            if i < size:
                names[i] = token
        return Vocab(tuple(names), frozenset(i for i in self._eos_ids() if i < size))

    def identity(self) -> Mapping[str, Any]:
        """Weights, tokenizer, dtype and rendering."""
        return {
            "kind": "hf",
            "weights": self.weights,
            "vocab": self.vocab.fingerprint,
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "chat": self._chat_fingerprint() if self.chat else "",
            "system": self.system or "",
        }

    def _chat_fingerprint(self) -> str:
        """12 hex digits of the template and of what it makes of one prompt: some templates write today's date."""
        try:
            rendered = self.render("rain")
        except UsageError:  # it refuses every conversation, or this one
            rendered = ""
        return sha256(f"{self.tokenizer.chat_template}\0{rendered}".encode()).hexdigest()[:12]

    def render(self, prompt: str) -> str:
        """The prompt, in the tokenizer's chat template if the model was loaded with it."""
        if not self.chat:
            return prompt
        system = [{"role": "system", "content": self.system}] if self.system else []
        turns = [*system, {"role": "user", "content": prompt}]
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except Exception as error:  # a template is a program of its own
            raise UsageError(f"{self.name}: its chat template refuses the conversation: {error}") from error

    def refuse_unrunnable(self) -> None:
        """Raise UsageError where rows cannot be picked from its cache, or a row sees its padding."""
        kind = f"{self.name}: a network of kind '{self.network.config.model_type}' cannot be run here:"
        try:
            gap = self._padding_gap()
        except Exception as error:  # whatever a network's own code raises
            if ran_out(error):
                raise
            raise UsageError(f"{kind} it keeps no keys and values that rows can be picked from") from error
        if not agree(gap, self.network.dtype):
            raise UsageError(f"{kind} what it says of a prompt depends on the prompts beside it, or on what follows")

    def _padding_gap(self) -> torch.Tensor:
        """Nats between two rows side by side, token by token, and each alone and whole."""
        raise NotImplementedError

    def _ids(self, rendered: str) -> list[int]:
        """Token ids of a prompt; an empty one becomes BOS, or is refused where there is none."""
        ids = list(self.tokenizer(rendered, add_special_tokens=not self.chat)["input_ids"])
        if ids:
            return ids
        if self.tokenizer.bos_token_id is None:
            raise UsageError(
                f"{self.name}: {shown(rendered)} is empty and the tokenizer has no BOS token to stand for it"
            )
        return [self.tokenizer.bos_token_id]

    def _text(self, ids: list[int]) -> str:
        kept = [i for i in ids if i < len(self.tokenizer)]
        return str(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _eos_ids(self) -> set[int]:
        for owner in (self.network.generation_config, self.network.config, self.tokenizer):
            ids = getattr(owner, "eos_token_id", None)
            if ids is not None:
                return set(ids) if isinstance(ids, (list, tuple)) else {int(ids)}
        return set()


def shown(rendered: str) -> str:
    """A prompt as errors name it."""
    return f"prompt '{rendered[:40]}{'…' if len(rendered) > 40 else ''}'"


def normalised(logits: torch.Tensor) -> torch.Tensor:
    """Nats in float32: half precision would round log-probabilities to 0.03 nats."""
    return logits.float().log_softmax(-1)


@dataclass(frozen=True)
class Whole:
    """Nats at P places whose logits (P, V) were made at once."""

    logits: torch.Tensor

    def __getitem__(self, part: slice) -> torch.Tensor:
        """See `Positions`."""
        return normalised(self.logits[part])


def fork(cache: Any) -> Any:
    """A cache that can be grown without touching `cache`; growing layers replace their tensors, others are copied."""
    if isinstance(cache, EncoderDecoderCache):
        return EncoderDecoderCache(fork(cache.self_attention_cache), fork(cache.cross_attention_cache))
    other = copy.copy(cache)
    other.layers = [copy.copy(x) if type(x) is DynamicLayer else copy.deepcopy(x) for x in cache.layers]
    return other
