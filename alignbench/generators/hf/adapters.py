"""PEFT adapters: found, checked against the model they are put on, and then part of it.

LoRA and its kin are merged into the weights or stay beside them; a soft prompt stands before every prompt.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings, filterwarnings

import torch

from alignbench import sources
from alignbench.errors import UsageError
from alignbench.generators.hf.policy import ROWS, task_of
from alignbench.generators.hf.virtual import embedding_shape, put_before

_LOG = logging.getLogger(__name__)

CONFIG, SAFE, PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
CONVERT = "convert them to safetensors, or have them read with use_safetensors=false"


@dataclass(frozen=True)
class Adapter:
    """An adapter's folder and what identifies it; `given` is what the user wrote."""

    given: str
    name: str
    folder: Path
    weights: str  # sha256 of its configuration and weights

    @property
    def trained_on(self) -> str:
        """The model it was trained on, by its own word."""
        told = json.loads((self.folder / CONFIG).read_text(encoding="utf-8")).get("base_model_name_or_path")
        return str(told or "another model")


def find(given: str, *, use_safetensors: bool) -> Adapter:
    """The adapter in a folder, or of a hub id or `hf:` source; raises UsageError where there is none to be read."""
    try:
        import peft  # noqa: F401
    except ImportError:
        raise UsageError(f"peft={given}: adapters need the package peft: pip install 'alignbench[train]'") from None
    path = Path(given).expanduser()
    if path.is_dir():
        name, folder = path.name or str(path), path
    elif given.startswith(("/", ".", "~", "pypi:")) or (given.count("/") > 1 and not given.startswith("hf:")):
        raise UsageError(f"peft={given}: no such folder")
    else:
        name, folder = _fetched(given)
    if not (folder / CONFIG).is_file():
        raise UsageError(f"peft={given}: no adapter in this folder ({CONFIG} is missing)")
    return Adapter(
        given, name, folder, sources.fingerprint_folder(folder, (_weights(given, folder, use_safetensors),), (CONFIG,))
    )


def _weights(given: str, folder: Path, use_safetensors: bool) -> str:
    """The file that peft will read: safetensors where there is one."""
    if (folder / SAFE).is_file():
        return SAFE
    if use_safetensors and (folder / PICKLE).is_file():
        raise UsageError(f"peft={given}: its weights are a pickle ({PICKLE}); {CONVERT}")
    if not (folder / PICKLE).is_file():
        raise UsageError(f"peft={given}: no weights in this adapter ({SAFE} is missing)")
    return PICKLE


def _fetched(given: str) -> tuple[str, Path]:
    """Name and folder of a hub adapter, its two files downloaded."""
    from huggingface_hub import snapshot_download

    source = sources.parse(given) if given.startswith("hf:") else None
    if source and source.file:
        raise UsageError(f"peft={given}: names one file; an adapter is a repository: hf:{source.name}@{source.version}")
    name, revision = (source.name, source.version) if source else (given, None)
    try:
        return name, Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, SAFE, PICKLE]))
    except Exception as error:  # no network, no such repository, no access
        raise UsageError(
            f"peft={given}: no such folder, and not to be had from the hub ({_line(error)}). Run once where the "
            "hub can be reached, or give the folder of a local copy"
        ) from error


def applied(adapter: Adapter, network: Any, base: str, *, beside: bool = False) -> Any:
    """The network with the adapter: `merged`, or before its prompts; raises UsageError where it does not fit."""
    if _is_prompt(config := _config(adapter)):
        return _prompted(adapter, config, network, base)
    return merged(adapter, network, base, beside=beside)


def weightless(adapter: Adapter, network: Any, base: str) -> Any:
    """The same of a network without weights, of which only a soft prompt changes anything."""
    config = _config(adapter)
    return _prompted(adapter, config, network, base) if _is_prompt(config) else network


def _is_prompt(config: Any) -> bool:
    return str(config.peft_type.value) == "PROMPT_TUNING"


def _prompted(adapter: Adapter, config: Any, network: Any, base: str) -> Any:
    """The network with its virtual tokens."""
    _refuse_other_kind(adapter, network, base)
    task, mine = getattr(config.task_type, "value", config.task_type), task_of(network)
    if task != mine:
        raise _misfit(adapter, base, f"it is for the task '{task}', not '{mine}'")
    rows = _rows(adapter, config, network, base)
    try:
        put_before(network, rows).prompt.requires_grad_(False)
    except ValueError as error:
        raise _refusal(adapter, f"cannot be put before the prompts of {base}: {error}") from error
    _say_other_name(adapter, base)
    return network


def _rows(adapter: Adapter, config: Any, network: Any, base: str) -> torch.Tensor:
    """(tokens, D) the soft prompt in an adapter's file, in float32."""
    from peft import load_peft_weights

    try:
        known = load_peft_weights(str(adapter.folder), device="cpu")
    except Exception as error:
        raise _refusal(adapter, f"cannot be read: {_line(error)}") from error
    _refuse_keys(adapter, base, {ROWS} - known.keys(), known.keys() - {ROWS})
    rows: torch.Tensor = known[ROWS]
    if not rows.isfinite().all():
        raise _refusal(adapter, "has weights that are not numbers")
    tokens, wide = config.num_virtual_tokens, rows.ndim == 2 and rows.shape[1] == embedding_shape(network)[1]
    # of an encoder–decoder peft keeps as many again for the decoder, which never reads them
    times = (1, 2) if network.config.is_encoder_decoder else (1,)
    if not wide or not isinstance(tokens, int) or not tokens or tokens not in [len(rows) / n for n in times]:
        raise _misfit(adapter, base, "its weights have other shapes")
    return rows[:tokens].float()


def merged(adapter: Adapter, network: Any, base: str, *, beside: bool = False) -> Any:
    """The network with the adapter added to its weights, which is then as fast as without.

    On quantised weights it stays beside them, and wherever `beside` asks for it: their grid would round it away. Raises
    UsageError where it does not fit.
    """
    wrapped = _put_on(adapter, network, base)
    if beside or getattr(network, "is_quantized", False):
        return wrapped.get_base_model()
    _untie(wrapped)
    try:
        return wrapped.merge_and_unload(safe_merge=True)
    except Exception as error:
        raise _refusal(adapter, f"cannot be merged into the weights of {base}: {_line(error)}") from error


def _untie(wrapped: Any) -> None:
    """Give layers that the adapter is on weights of their own: merging into shared ones would change other layers too.

    Such are the output layer and the embeddings of most small models.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch.nn import Parameter

    owners = Counter(id(weight) for _, weight in wrapped.named_parameters(remove_duplicate=False))
    layers: list[Any] = [x for x in wrapped.modules() if isinstance(x, BaseTunerLayer)]
    for layer in [x.get_base_layer() for x in layers]:
        if owners[id(getattr(layer, "weight", None))] > 1:  # experts have none of that name
            layer.weight = Parameter(layer.weight.detach().clone(), requires_grad=False)


def _config(adapter: Adapter) -> Any:
    """What the adapter says of itself; raises UsageError where it is of a kind that is not run here."""
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(adapter.folder))
    except Exception as error:
        raise _refusal(adapter, f"cannot be read: {_line(error)}") from error
    kind = config.peft_type.value
    if getattr(config, "alora_invocation_tokens", None):
        raise _refusal(adapter, f"is of kind {kind} that begins at certain tokens: only one for all tokens can be run")
    if config.is_prompt_learning and not _is_prompt(config):
        raise _refusal(adapter, f"is of kind {kind}: LoRA and its kin can be run, and PROMPT_TUNING")
    return config


def _put_on(adapter: Adapter, network: Any, base: str) -> Any:
    """The network in peft's wrapping, the adapter's weights loaded."""
    from peft import PeftModel

    config = _config(adapter)
    _refuse_other_kind(adapter, network, base)
    config.inference_mode = True
    try:
        with catch_warnings():
            filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft's name for it is old
            wrapped = PeftModel(network, config)
        loaded = wrapped.load_adapter(str(adapter.folder), "default", torch_device=str(network.device))
    except Exception as error:
        shapes = "size mismatch" in str(error)
        raise _misfit(adapter, base, "its weights have other shapes" if shapes else _line(error)) from error
    _refuse_keys(adapter, base, loaded.missing_keys, loaded.unexpected_keys)
    _say_other_name(adapter, base)
    return wrapped


def _refuse_keys(adapter: Adapter, base: str, missing: Collection[str], unexpected: Collection[str]) -> None:
    """Refuse weights that are not all there, or more than there is a place for."""
    for keys, what in ((missing, "are missing"), (unexpected, "have no place there")):
        if keys:
            raise _misfit(adapter, base, f"{len(keys)} of its weights {what}, the first is {sorted(keys)[0]}")


def _say_other_name(adapter: Adapter, base: str) -> None:
    if Path(adapter.trained_on).name != Path(base).name:
        _LOG.info(f"peft={adapter.given}: trained on '{adapter.trained_on}', put on {base}, which it fits")


def _refuse_other_kind(adapter: Adapter, network: Any, base: str) -> None:
    """Refuse another architecture where the model it was trained on is on this disk."""
    told = Path(adapter.trained_on).expanduser() / "config.json"
    kind = None
    with suppress(OSError, ValueError, AttributeError):  # not there, or no configuration: its shapes will tell
        kind = json.loads(told.read_text(encoding="utf-8")).get("model_type")
    if kind not in (None, network.config.model_type):
        raise _misfit(adapter, base, f"it is for a network of kind '{kind}', not '{network.config.model_type}'")


def _misfit(adapter: Adapter, base: str, why: str) -> UsageError:
    return _refusal(
        adapter, f"does not fit {base}: {why}; it was trained on '{adapter.trained_on}': give that as pretrained="
    )


def _refusal(adapter: Adapter, what: str) -> UsageError:
    return UsageError(f"peft={adapter.given}: this adapter {what}")


def _line(error: BaseException) -> str:
    """The first sentence of what peft says."""
    return (" ".join(str(error).split()) or type(error).__name__).split(". ")[0]
