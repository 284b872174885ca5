"""Run files and environment: the words of `alignbench run` from a YAML page, from ALIGNBENCH_*, and back to a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from alignbench import yamlfile
from alignbench.errors import UsageError, brief, did_you_mean
from alignbench.spec import Dumper, Spec, parse_arguments, parse_scalar, parse_spec
from alignbench.store import digest, write_atomic
from alignbench.yamlfile import Page, Strict

if TYPE_CHECKING:
    from alignbench.run.job import Job

PREFIX = "ALIGNBENCH_"
OTHERS = ("ALIGNBENCH_CACHE", "ALIGNBENCH_REGENERATE")
"""Variables of this prefix that are no options: where downloads are kept, and rewriting the tests' golden files."""
Words = dict[str, Any]
"""Option → its value, as `alignbench run` understands it; lists where an option may be repeated."""


class RunFile(Strict):
    """The keys of a run file: the options of `alignbench run`; Any where `_SHAPES` says more."""

    model: Any = None
    base: Any = None
    aligner: Any = None
    tasks: Any = None
    include_path: Any = None
    draws: Any = None
    limit: int | None = Field(default=None, ge=1)
    batch_size: Any = None
    device: str | None = None
    gen_kwargs: Any = None
    judge: Any = None
    seed: Any = None
    output_path: str | None = None
    log_samples: bool | None = None
    tracker: Any = None
    apply_chat_template: bool | None = None
    system_instruction: str | None = None


PLURALS = {"models": "model", "aligners": "aligner", "seeds": "seed", "trackers": "tracker"}
LISTS = ("model", "aligner", "tasks", "include_path", "tracker")
"""What the environment cannot say: options that may be repeated."""
FLAGS, COUNTS = ("log_samples", "apply_chat_template"), ("draws", "limit")
SCALARS = ("config", *(name for name in RunFile.model_fields if name not in LISTS))


def read(path: Path) -> Words:
    """The words of a run file. Raises TaskError with the line of the first thing that is wrong."""
    page = _singular(yamlfile.read(path, "a run file (model, tasks, …)"))
    if "trust_remote_code" in page.data:
        raise page.refuse(("trust_remote_code",), "trust_remote_code is not for files: give the flag")
    raw = page.checked(RunFile, page.data, ())
    return {name: _shaped(page, name, value) for name, value in raw.model_dump(exclude_none=True).items()}


def _singular(page: Page) -> Page:
    """The page with models, aligners and seeds under the command line's own words."""
    for plural, word in PLURALS.items():
        if plural in page.data and word in page.data:
            raise page.refuse((plural,), f"'{plural}' and '{word}' are one key: give one of them")
    return Page(
        page.path, {PLURALS.get(k, k): v for k, v in page.data.items()},
        {(PLURALS.get(str(key[0]), key[0]), *key[1:]): line for key, line in page.lines.items()},
    )  # fmt: skip


def _shaped(page: Page, name: str, value: Any) -> Any:
    """The value of a key as the command line's parser would have left it."""
    items = value if isinstance(value, list) else [value]
    if name not in _SHAPES:
        return value
    for i, item in enumerate(items):
        with page.at((name, i) if isinstance(value, list) else (name,)):
            items[i] = _SHAPES[name](item, name)
    if name in LISTS or name == "seed":
        return items
    if isinstance(value, list):
        raise page.refuse((name,), f"{name} has one value, not a list")
    return items[0]


def _spec(value: Any, name: str) -> Spec:
    if not isinstance(value, (str, Mapping)):
        raise UsageError(f"{name} is a spec such as hf:pretrained=gpt2 or {{name: NAME, …}}, not {brief(value)}")
    spec = parse_spec(value, name)
    if "trust_remote_code" in spec.arguments:
        raise UsageError("trust_remote_code is not for files: give the flag --trust_remote_code")
    return spec


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{name} is a text, not {brief(value)}")
    return value


def _draws(value: Any, name: str) -> Any:
    for size in value.values() if isinstance(value, Mapping) else [value]:
        if type(size) is not int or size < 1:
            raise UsageError(f"{name} must be a whole number >= 1, or {{TASK: N, …}}, not {brief(value)}")
    return value


def _batch_size(value: Any, name: str) -> Any:
    if value != "auto" and (type(value) is not int or value < 1):
        raise UsageError(f"{name} must be auto or a whole number >= 1, not {brief(value)}")
    return value


def _gen_kwargs(value: Any, name: str) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return {str(k): v for k, v in value.items()}
    return parse_arguments(_text(value, name), name)


def _seed(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise UsageError(f"{name}: whole numbers >= 0 and below 2^63, such as 0 or [0, 1, 2], not {brief(value)}")
    return value


_SHAPES: Mapping[str, Callable[[Any, str], Any]] = {
    "model": _spec, "base": _spec, "aligner": _spec, "judge": _spec, "tasks": _text, "include_path": _text,
    "draws": _draws, "batch_size": _batch_size, "gen_kwargs": _gen_kwargs, "seed": _seed, "tracker": _spec,
}  # fmt: skip


def seeds_of(text: str) -> list[int]:
    """Seeds as typed: ``0`` or ``0,1,2``. Raises UsageError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) < 2**63 for word in words):
        raise UsageError(f"--seed {text}: must be a whole number >= 0 and below 2^63, or several with commas between")
    return [int(word) for word in words]


def from_environment(variables: Mapping[str, str]) -> tuple[Words, list[str]]:
    """The options that ALIGNBENCH_* variables set, as typed text, and a line for each such variable that is none.

    ALIGNBENCH_DEVICE=cpu is --device cpu, and so for every option with one value; flags are true or false.
    """
    known = {f"{PREFIX}{name.upper()}": name for name in SCALARS}
    found, strays = {}, []
    for variable, text in variables.items():
        if variable in known and text:
            found[known[variable]] = _from_text(variable, known[variable], text)
        elif variable.startswith(PREFIX) and variable not in (*known, *OTHERS):
            strays.append(f"{variable} is not read.{did_you_mean(variable, (*known, *OTHERS))}")
    return found, strays


def _from_text(variable: str, name: str, text: str) -> Any:
    """The value of an option in a variable; raises UsageError where it is of another type."""
    value = parse_scalar(text) if name in (*FLAGS, *COUNTS) else text
    if name in FLAGS and not isinstance(value, bool):
        raise UsageError(f"{variable}={text}: must be true or false")
    if name in COUNTS and (type(value) is not int or value < 1):
        raise UsageError(f"{variable}={text}: must be a whole number >= 1")
    return value


def words_of(job: Job) -> Words | None:
    """The job as the words of a run file, defaults filled in; None where it has what no file can say, as objects."""
    given = (*job.models, job.base, *job.aligners, job.judge)
    unsaid = job.supplied.keys() - {*RunFile.model_fields, "trust_remote_code"}
    if unsaid or any(thing is not None and not isinstance(thing, Spec) for thing in given):
        return None
    words: Words = {
        "model": list(map(_plain, job.models)), "base": _plain(job.base), "aligner": list(map(_plain, job.aligners)),
        "tasks": list(job.tasks), "include_path": list(map(str, job.include_path)),
        "draws": dict(job.draws) if isinstance(job.draws, Mapping) else job.draws, "limit": job.limit,
        "gen_kwargs": dict(job.gen_kwargs), "judge": _plain(job.judge), "seed": list(job.seeds),
        "output_path": None if job.output_path is None else str(job.output_path), "log_samples": job.log_samples,
        "tracker": list(map(_plain, job.trackers)),
        **{name: value for name, value in job.supplied.items() if name in RunFile.model_fields},
    }  # fmt: skip
    return {name: words[name] for name in RunFile.model_fields if words.get(name) not in (None, [], {})}


def _plain(spec: Spec | None) -> Words | None:
    return None if spec is None else {"name": spec.name, **spec.arguments}


def page_of(words: Words, flags: Sequence[str] = ()) -> str:
    """A run file that says `words`; `flags` were given on the command line, where alone they may be."""
    text = yaml.dump(words, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=10**9)
    return "".join(f"# --{flag} was given: a file cannot say it\n" for flag in flags) + text


def write(job: Job, folder: Path) -> None:
    """Write config_<digest>.yaml: the whole job as a run file, once; nothing where it has objects."""
    words = words_of(job)
    if words is not None:
        flags = [name for name in ("trust_remote_code",) if job.supplied.get(name)]
        write_atomic(folder / f"config_{digest(words)[:8]}.yaml", page_of(words, flags))
