"""What every network of transformers brings, causal or encoder–decoder: its tokenizer, its ends, its identity."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Self, TypeVar

import torch
from transformers.cache_utils import DynamicLayer, EncoderDecoderCache

from alignbench.errors import Unsupported, UsageError
from alignbench.generators.base import Turns, Vocab
from alignbench.generators.budget import Budget, ran_out
from alignbench.generators.hf.heads import Logits
from alignbench.generators.hf.policy import Trained, Untrained, put_on
from alignbench.generators.hf.slots import CLOSE, agree, apart, own_window
from alignbench.generators.hf.virtual import virtual_ids
from alignbench.generators.warp import at_least_float32, log_normalised
from alignbench.generators.window import MASKED, Window

T = TypeVar("T")

UNMASKED = "can have no attention window: what its tokens see is not what masks say"

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
    replicas: tuple[Self, ...] = ()  # copies on other devices
    window: Window | None = None  # what a token may attend to
    source: str = ""  # what `pretrained=` was told, where that alone loads it
    adapted: bool = False  # whether an adapter was put on the weights that were loaded
    trained: Trained | None = None  # what of the network is trained

    def __post_init__(self) -> None:
        self.network.eval()
        if self.virtual and len(self.virtual) >= self.context:
            raise UsageError(
                f"{self.name}: {len(self.virtual)} virtual tokens leave no room for a prompt in its context window of "
                f"{self.context}: train fewer"
            )

    @cached_property
    def virtual(self) -> list[int]:
        """The ids of the virtual tokens that stand before each prompt's own."""
        return virtual_ids(self.network)

    @property
    def context(self) -> float:
        """Most positions of what reads a prompt; infinite where they are relative, as T5's."""
        raise NotImplementedError

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
        """Weights, tokenizer, dtype, rendering, and the attention window where there is one.

        Raises Unsupported where the weights are not loaded, and only then known.
        """
        if not self.weights:
            raise Unsupported(f"{self.name}: its weights are not loaded, and they alone tell what they are")
        windowed = {"window": asdict(self.window)} if self.window else {}
        trained = {"trained": self.trained.digest()} if self.trained else {}
        return {
            "kind": "hf",
            "weights": self.weights,
            "vocab": self.vocab.fingerprint,
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "chat": self._chat_fingerprint() if self.chat else "",
            "system": self.system or "",
            **windowed,
            **trained,
        }

    def trainable(self, adapter: str, seed: int) -> Self:
        """See `Trainable.trainable`; raises Unsupported on weights that are quantised, trained already, or adapted."""
        if self.trained:
            raise Unsupported(f"{self.name}: is a policy already: save it, and make the next one of what loads it")
        if self.virtual:
            raise Unsupported(
                f"{self.name}: has a soft prompt, and an adapter beside it could not be loaded again: leave out peft="
            )
        if self.adapted:
            raise Unsupported(
                f"{self.name}: has an adapter, and one more over it could not be loaded again: merge the first "
                "(merge_and_unload of peft), save what comes of it, and train that"
            )
        made = put_on(Untrained(self.network, self.tokenizer, self.name, self.source), adapter, seed)
        copies = tuple(one.trainable(adapter, seed) for one in self.replicas)
        return replace(self, network=made.network, trained=made, replicas=copies)

    def follow(self) -> None:
        """See `Changing.follow`."""
        for one in self.replicas:
            if self.trained is not None and one.trained is not None:
                one.trained.follow(self.trained)

    def save(self, folder: Path) -> None:
        """See `Policy.save`."""
        assert self.trained is not None
        self.trained.save(folder, self.tokenizer)

    def _chat_fingerprint(self) -> str:
        """12 hex digits of the template and of what it makes of one prompt: some templates write today's date."""
        try:
            rendered = self.render("rain")
        except UsageError:  # it refuses every conversation, or this one
            rendered = ""
        return sha256(f"{self.tokenizer.chat_template}\0{rendered}".encode()).hexdigest()[:12]

    def render(self, prompt: str) -> str:
        """The prompt, in the tokenizer's chat template if the model was loaded with it."""
        return self.converse([("user", prompt)]) if self.chat else prompt

    def spell(self, text: str) -> list[int]:
        """See `Spelling.spell`."""
        return list(self.tokenizer(text_target=text, add_special_tokens=False)["input_ids"])

    def conversing(self) -> Self:
        """See `Conversing.conversing`: all but the rendering is shared; a template's BOS gets no second one before it.

        Raises UsageError where the tokenizer has no template.
        """
        if not self.tokenizer.chat_template:
            raise UsageError(f"{self.name}: its tokenizer has no chat template: leave out chat=true")
        if self.chat:
            return self
        return replace(self, chat=True, replicas=tuple(one.conversing() for one in self.replicas))

    def converse(self, turns: Turns) -> str:
        """See `Conversing.converse`; the model's own system prompt comes first where the turns bring none.

        White space at the end of a turn to go on is kept, which some templates cut off.
        """
        system = [("system", self.system)] if self.system and turns[0][0] != "system" else []
        begun = turns[-1][1] if turns[-1][0] == "assistant" else ""
        said = [*system, *(turns[:-1] if turns[-1][0] == "assistant" and not begun.strip() else turns)]
        messages = [{"role": role, "content": text} for role, text in said]
        goes_on = bool(begun.strip())
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=not goes_on, continue_final_message=goes_on
            )
        except Exception as error:  # a template is a program of its own
            raise UsageError(f"{self.name}: its chat template refuses the conversation: {error}") from error
        return f"{str(text).rstrip()}{begun[len(begun.rstrip()) :]}" if goes_on else f"{text}{begun}"

    def refuse_unrunnable(self) -> None:
        """Raise UsageError where rows cannot be picked from its cache, or a row sees its padding."""
        kind = f"{self._kind} cannot be run here:"
        gap = tried(self._padding_gap, UsageError(f"{kind} it keeps no keys and values that rows can be picked from"))
        if not agree(gap, self.network.dtype):
            raise UsageError(f"{kind} what it says of a prompt depends on the prompts beside it, or on what follows")

    @property
    def _kind(self) -> str:
        return f"{self.name}: a network of kind '{self.network.config.model_type}'"

    def _padding_gap(self) -> torch.Tensor:
        """Nats between two rows side by side, token by token, and each alone and whole."""
        raise NotImplementedError

    def windowed(self, window: Window) -> Self:
        """This model with each token's attention restricted to a window; it shares the network.

        Raises UsageError where a span of the source is asked of a model without an encoder, Unsupported where the
        network does not do what masks say, or has layers that see less than the window.
        """
        model = replace(self, window=window, replicas=tuple(replace(r, window=window) for r in self.replicas))
        strange = Unsupported(f"{self._kind} {UNMASKED}")
        why = tried(lambda: self._narrower(window.k) or ("" if self._outline or model._obeys() else UNMASKED), strange)
        if why:
            raise Unsupported(f"{self._kind} {why}")
        return model

    @property
    def _outline(self) -> bool:
        """Whether there are no weights to try anything with."""
        return self.device.type == "meta"

    def _narrower(self, k: int) -> str:
        """Why a window of k would not be all that limits its attention; "" where it would."""
        config, own = self.network.config, own_window(self.network)
        if config._attn_implementation not in MASKED:
            return f"can have no attention window: its attention, '{config._attn_implementation}', takes no masks"
        if getattr(config.get_text_config(decoder=True), "attention_chunk_size", None):
            return "can have no attention window: some of its layers attend in chunks"
        return f"has layers that see {own:g} positions: k={k} must be at most that" if 0 < own < k else ""

    def _obeys(self) -> bool:
        """Whether masks rule its attention: tried with a window of everything, of one position and of two."""
        windows = (None, Window(100), Window(1), Window(2))
        free, wide, one, two = (replace(self, window=window, replicas=()) for window in windows)
        ids, others = ([i % len(self.vocab) for i in row] for row in ([1, 3, 2, 5, 4], [2, 4, 1, 3, 4]))
        heard = apart(one._whole(ids)[-1], one._whole(others)[-1])  # in any dtype: what is masked counts 0 times
        alike = apart(wide._whole(ids), free._whole(ids))[: int(min(own_window(self.network), 100))]
        return bool(heard.max() <= CLOSE) and all(agree(x, self.network.dtype) for x in (alike, two._padding_gap()))

    @cached_property
    def headed(self) -> bool:
        """Whether logits can be made of last hidden states alone: tried, not guessed."""
        ids = [i % len(self.vocab) for i in (1, 3, 2, 5, 4)]
        try:
            found = normalised(Logits(self.network, self._hidden(ids), self.never)[:])
            off = apart(self._whole(ids)[-len(found) :], found)
        except Exception as error:  # whatever a network's own code raises: its logits are then made at once
            if ran_out(error):
                raise
            return False
        return agree(off, self.network.dtype)

    @property
    def hidden_width(self) -> int | None:
        """See `WithHiddenWidth.hidden_width`."""
        return int(self.network.get_output_embeddings().weight.shape[-1]) if self.headed else None

    @cached_property
    def never(self) -> list[int]:
        """Ids of probability 0."""
        return []

    def _whole(self, ids: list[int]) -> torch.Tensor:
        """(T, V) nats after each of these ids, by one pass."""
        raise NotImplementedError

    def _hidden(self, ids: list[int]) -> torch.Tensor:
        """(at most T, D) last hidden states after the last of these ids, for which `_whole` has nats."""
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

    def _all_ids(self, rendered: str) -> list[int]:
        """Token ids of what is read: the virtual tokens, then those of the prompt."""
        return [*self.virtual, *self._ids(rendered)]

    def _counted(self, ids: Sequence[int]) -> str:
        """How many tokens a prompt has, as errors say it."""
        return f"{len(ids)} tokens" + (f", {len(self.virtual)} of them virtual" if self.virtual else "")

    def _text(self, ids: list[int]) -> str:
        kept = [i for i in ids if i < len(self.tokenizer)]
        return str(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _eos_ids(self) -> set[int]:
        for owner in (self.network.generation_config, self.network.config, self.tokenizer):
            ids = getattr(owner, "eos_token_id", None)
            if ids is not None:
                return set(ids) if isinstance(ids, (list, tuple)) else {int(ids)}
        return set()


def tried(work: Callable[[], T], otherwise: UsageError) -> T:
    """What `work` returns; raises `otherwise` for whatever a network's own code raises, but that memory ran out."""
    try:
        return work()
    except Exception as error:
        if ran_out(error):
            raise
        raise otherwise from error


def shown(rendered: str) -> str:
    """A prompt as errors name it, on one line."""
    text = " ".join(rendered.split())
    return f"prompt '{text[:40]}{'…' if len(text) > 40 else ''}'"


def normalised(logits: torch.Tensor) -> torch.Tensor:
    """Nats of logits; see `at_least_float32`."""
    return log_normalised(at_least_float32(logits))


class LogitsState:
    """What states of networks share: nats from logits, made once."""

    logits: torch.Tensor  # (R, V)

    @cached_property
    def log_probs(self) -> torch.Tensor:
        """See `State.log_probs`."""
        return normalised(self.logits)


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
