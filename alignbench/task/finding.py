"""Where tasks lie: names, patterns and paths to their files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from alignbench.errors import TaskError, unknown
from alignbench.task.reader import load_task
from alignbench.task.task import Task
from alignbench.yamlfile import read, shown


def builtin_folder() -> Path:
    """The folder of the built-in tasks: inside an installed wheel, else the checkout's."""
    packaged = Path(__file__).parents[1] / "_tasks"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "tasks"


def all_tasks(include_path: Sequence[Path] = ()) -> dict[str, Path]:
    """Name → file of the built-in tasks and those in the folders (or files) of `include_path`, sorted by name.

    Raises TaskError when two files have the same name. Files are only skimmed: a broken one is listed too.
    """
    found: dict[str, Path] = {}
    for path in _yaml_files([builtin_folder(), *include_path]):
        name = headline(path)[0]
        if name in found and found[name].resolve() != path.resolve():
            raise TaskError(f"two tasks are called '{name}': {shown(found[name])} and {shown(path)}; rename one")
        if name:
            found.setdefault(name, path)
    return dict(sorted(found.items()))


def headline(path: Path) -> tuple[str, str]:
    """Name and summary of the task in a file; the file's stem if it is broken, two empty strings if it is no task."""
    try:
        data = read(path).data
    except TaskError:
        return path.stem, ""
    if not {"prompts", "features", "target"} & data.keys():
        return "", ""
    return str(data.get("name", path.stem)), " ".join(str(data.get("summary", "")).split())


def tags(path: Path) -> tuple[str, ...]:
    """The tags of the task in a file; none of a broken one."""
    try:
        found = read(path).data.get("tags")
    except TaskError:
        return ()
    return tuple(map(str, found)) if isinstance(found, list) else ()


def find_tasks(words: str, include_path: Sequence[Path] = ()) -> tuple[Task, ...]:
    """The tasks that `words` means: a name, a path to a YAML file, a pattern such as ``lexical_*``, or a tag.

    Raises UnknownName with the closest match.
    """
    return tuple(load_task(path) for path in task_files(words, include_path))


def task_files(words: str, include_path: Sequence[Path] = ()) -> tuple[Path, ...]:
    """The files of the tasks that `words` means, not yet read; see `find_tasks`."""
    if words.endswith((".yaml", ".yml")):
        return (Path(words),)
    known = all_tasks(include_path)
    names = [name for name in known if fnmatchcase(name, words)]
    names = names or [name for name, path in known.items() if words in tags(path)]
    if not names:
        raise unknown("task", words, {*known, *(tag for path in known.values() for tag in tags(path))})
    return tuple(known[name] for name in names)


def _yaml_files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_dir():
            yield from sorted(p for p in place.iterdir() if p.suffix in (".yaml", ".yml"))
        elif place.suffix in (".yaml", ".yml"):
            yield place
