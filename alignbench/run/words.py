"""The settings as words: from a command line, a run file and the environment, and back to a run file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from alignbench import yamlfile
from alignbench.errors import UsageError, did_you_mean
from alignbench.files import digest, write_atomic
from alignbench.run.settings import OPTIONS, QUICKSTART, Settings, checked, first_wrong
from alignbench.run.values import Origin, typed
from alignbench.spec import Dumper, Spec, beside, moved, parse_arguments, parse_spec, seen_from, titled
from alignbench.yamlfile import Page

PREFIX = "ALIGNBENCH_"
OTHERS = ("ALIGNBENCH_CACHE", "ALIGNBENCH_REGENERATE")
"""Variables of this prefix that are no options: where downloads are kept, and rewriting the tests' golden files."""
Words = dict[str, Any]
"""Field of the settings → its value, of those that are given."""

PLURALS = {option.plural: name for name, option in OPTIONS.items() if option.plural}
"""What a run file may call a key too → the key."""
VARIABLES = {f"{PREFIX}{name.upper()}": name
             for name in ("config", *(n for n, o in OPTIONS.items() if not (o.many or o.typed_only)))}  # fmt: skip
"""Variable → the option that it stands for: those of one value."""


def settings_of(given: Mapping[str, Any], environment: Mapping[str, Any]) -> Settings:
    """The settings that typed options, those of their run file and those of the environment say, in this order.

    `given` and `environment` are as typed (`config` and `model_args` among them). The quickstart where they name
    neither model, task nor aligner. Raises UsageError, or TaskError on the run file.
    """
    path = given.get("config", environment.get("config"))
    replaced = bool(given.get("trust_remote_code") or given.get("include_path"))
    of_file = {} if path is None else read(Path(path), trusted=replaced)
    said = values_of(typed_values(_paired(given, of_file)), typed(lambda name: f"--{name}"))
    words = {**{name: value for name, value in environment.items() if name != "config"}, **of_file, **said}
    start = {} if {"model", "base", "tasks", "aligner"} & words.keys() else QUICKSTART
    if not words.get("tasks") and not start:
        raise UsageError("no --tasks given; `alignbench ls tasks` lists them")
    return Settings(**{"output_path": Path("results"), "batch_size": "auto", "device": "auto", **start, **words})


def typed_values(given: Mapping[str, Any]) -> Words:
    """What texts on a command line or in variables say, not yet checked."""
    return {name: OPTIONS[name].parse(value) if isinstance(value, str) else value
            for name, value in given.items() if name in OPTIONS}  # fmt: skip


def values_of(words: Mapping[str, Any], origin: Origin) -> Words:
    """The checked values of these words alone; raises UsageError on the first that is wrong."""
    settings = checked(words, origin)
    return {name: getattr(settings, name) for name in words}


def _paired(given: Mapping[str, Any], of_file: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options with each --model, or each model of the run file, put together with its --model_args."""
    if not {"model", "model_args"} & given.keys():
        return given
    models = given.get("model") or of_file.get("model", ())
    return {**given, "model": models_of(models, given.get("model_args", ()))}


def models_of(names: Sequence[str | Spec], arguments: Sequence[str]) -> list[Spec]:
    """Pair each --model with its --model_args; one --model may go with several --model_args."""
    if arguments and not names:
        raise UsageError("--model_args without --model; did you mean --model hf?")
    if len(names) == 1 and len(arguments) > 1:
        names = [*names] * len(arguments)
    if arguments and len(names) != len(arguments):
        raise UsageError(f"{len(names)} --model but {len(arguments)} --model_args: give one for each, in order")
    specs = [name if isinstance(name, Spec) else parse_spec(name, "--model") for name in names]
    more = [parse_arguments(text, "--model_args") for text in arguments] or [{} for _ in specs]
    whole = [Spec(spec.name, {**spec.arguments, **one}) for spec, one in zip(specs, more, strict=True)]
    return [titled(spec, "--model") for spec in whole]


def read(path: Path, *, trusted: bool = False) -> Words:
    """The words of a run file. Raises TaskError with the line of the first thing that is wrong.

    Its relative paths are from where the file lies. `include_path` runs Python files, so it is refused unless the file
    is `trusted`.
    """
    page = _singular(yamlfile.read(path, "a run file (model, tasks, …)"))
    for name in (n for n, option in OPTIONS.items() if option.typed_only):
        if name in page.data:
            raise page.refuse((name,), f"{name} is not for files: give the flag")
    if page.data.get("include_path") and not trusted:
        raise page.refuse(("include_path",), "include_path runs the Python files of a folder: give --include_path, "
                                             "or --trust_remote_code with this file")  # fmt: skip
    said = {name: value for name, value in page.data.items() if value is not None}  # a key alone says nothing
    try:
        settings = Settings.model_validate(said, context=Origin())
    except ValidationError as error:
        keys = [*PLURALS, *(name for name, option in OPTIONS.items() if not option.typed_only)]
        raise page.refuse(*first_wrong(error, keys, lambda key: page.lines.get((key,), 0))) from error
    start = Path() if _is_of_old(path, settings) else path.parent
    return {name: relocated(getattr(settings, name), Path(), start) for name in said}


def _is_of_old(path: Path, settings: Settings) -> bool:
    """Whether a run left this file when its paths were from the working folder: it lies in the output that it names."""
    folder = settings.output_path
    return path.name.startswith("config_") and folder is not None and folder.resolve() == path.parent.resolve()


def relocated(value: Any, to: Path, start: Path) -> Any:
    """A value of the settings whose paths are relative to `start`, as one in the folder `to` has them."""
    if to.resolve() == start.resolve():
        return value
    if isinstance(value, Path):
        return Path(moved(value, to, start))
    if isinstance(value, tuple):
        return tuple(relocated(one, to, start) for one in value)
    if isinstance(value, str) and value.endswith((".yaml", ".yml")):
        return moved(value, to, start)
    if isinstance(value, Spec):
        arguments = beside(start, value.arguments) if to == Path() else seen_from(to, value.arguments)
        return replace(value, arguments=arguments)
    return value


def _singular(page: Page) -> Page:
    """The page with models, aligners and seeds under the command line's own words."""
    for plural, word in PLURALS.items():
        if plural in page.data and word in page.data:
            raise page.refuse((plural,), f"'{plural}' and '{word}' are one key: give one of them")
    return Page(
        page.path, {PLURALS.get(k, k): v for k, v in page.data.items()},
        {(PLURALS.get(str(key[0]), key[0]), *key[1:]): line for key, line in page.lines.items()},
    )  # fmt: skip


def from_environment(variables: Mapping[str, str]) -> tuple[Words, list[str]]:
    """The options that ALIGNBENCH_* variables set, and a line for each such variable that is none.

    ALIGNBENCH_DEVICE=cpu is --device cpu, and so for every option with one value; flags are true or false.
    """
    given = {VARIABLES[name]: text for name, text in variables.items() if name in VARIABLES and text}
    known = (*VARIABLES, *OTHERS)
    strays = [f"{name} is not read.{did_you_mean(name, known)}"
              for name in variables if name.startswith(PREFIX) and name not in known]  # fmt: skip
    config = {"config": given.pop("config")} if "config" in given else {}
    origin = typed(lambda name: f"{PREFIX}{name.upper()}", between="=")
    return values_of(typed_values(given), origin) | config, strays


def words_of(settings: Settings, folder: Path = Path()) -> Words | None:
    """The settings as the words of a run file in `folder`, defaults filled in; None where they hold objects."""
    things = (*settings.model, settings.base, *settings.aligner, settings.judge, *settings.tracker)
    if any(thing is not None and not isinstance(thing, Spec) for thing in things):
        return None
    said = [name for name, option in OPTIONS.items() if not option.typed_only]
    words = {name: _plain(relocated(getattr(settings, name), folder, Path())) for name in said}
    if settings.output_path is not None and settings.output_path.resolve() == folder.resolve():
        words["output_path"] = "."  # wherever that is
    return {name: value for name, value in words.items()
            if value not in (None, [], {}) and (value or not (OPTIONS[name].handed or OPTIONS[name].later))}  # fmt: skip


def _plain(value: Any) -> Any:
    """A value as YAML says it."""
    if isinstance(value, Spec):
        named = {"as": value.alias} if value.alias else {}
        return {"name": value.name, **value.arguments, **named, **({"tasks": [*value.only]} if value.only else {})}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def page_of(settings: Settings, folder: Path = Path()) -> str | None:
    """A run file in `folder` that says the settings; None where they hold objects.

    What no file can say is a comment in it.
    """
    words = words_of(settings, folder)
    if words is None:
        return None
    text = yaml.dump(words, Dumper=Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=10**9)
    flags = [name for name, option in OPTIONS.items() if option.typed_only and getattr(settings, name)]
    notes = [f"# --{flag} was given: a file cannot say it\n" for flag in flags]
    if settings.include_path and not flags:
        notes.append("# include_path runs Python files: this file needs --trust_remote_code\n")
    return "".join(notes) + text


def write(settings: Settings, folder: Path) -> None:
    """Write config_<digest>.yaml: all settings as a run file, once; nothing where they hold objects."""
    page = page_of(settings, folder)
    if page is not None:
        write_atomic(folder / f"config_{digest(words_of(settings))[:8]}.yaml", page)
