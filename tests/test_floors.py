"""The house stands: imports go down, nothing is heavy at the door, and what is promised by name is there."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

import alignbench

ROOT = Path(alignbench.__file__).parent
FLOORS = {
    0: ("types", "errors", "files", "registry", "spec", "yamlfile", "seeds", "stats"),
    1: ("target", "sources", "generators"),
    2: ("features", "metrics", "aligners"),
    3: ("task", "testing"),
    4: ("engines", "store", "scoring"),
    5: ("run", "reports", "checks"),
    6: ("integrations", "api"),
    7: ("cli", "__main__"),
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
OPEN_ROOMS = FLOORS[2]
TORCH_ROOMS = ("generators", "aligners", "testing")  # the laws in `testing` walk States, which speak torch


def modules(root: Path) -> dict[str, ast.Module]:
    """Dotted name → syntax tree of every module below a package folder; a package is its `__init__`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.AST) -> Iterator[str]:
    """All that a module imports: in functions too, and for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}:{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))
            yield from imports(ast.Module([ast.Expr(a) for a in node.args], []))
        else:
            yield from imports(node)


def edges(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """Module → the modules that it imports; `from package import name` is the module `name` where that is one."""
    found: dict[str, set[str]] = {}
    for name, tree in trees.items():
        found[name] = set()
        for raw in imports(tree):
            module, _, thing = raw.partition(":")
            found[name].add(f"{module}.{thing}" if f"{module}.{thing}" in trees else module)
    return found


def room(module: str) -> str:
    """`alignbench.stats.weights` → `stats`; the package itself is the empty room."""
    return [*module.split("."), ""][1]


def wrongs(trees: Mapping[str, ast.Module], package: str = "alignbench") -> list[str]:
    """What breaks the floors, a line each."""
    found = []
    graph = edges(trees)
    for module, targets in graph.items():
        here = room(module)
        if here and here not in FLOOR:
            found.append(f"{module}: stands on no floor; add it to FLOORS and to the design")
            continue
        for target in sorted(targets):
            top, there = target.split(".")[0], room(target)
            if target.startswith("."):
                found.append(f"{module}: relative import {target}")
            elif top == "torch" and here not in TORCH_ROOMS:
                found.append(f"{module}: torch outside {', '.join(TORCH_ROOMS)}")
            elif top != package or not here:
                continue
            elif here in OPEN_ROOMS and there in OPEN_ROOMS and here != there:
                found.append(f"{module}: open room {here} imports open room {there}")
            elif FLOOR.get(there, -1) > FLOOR[here]:
                found.append(f"{module} (floor {FLOOR[here]}) imports {target} (floor {FLOOR[there]})")
    return found + cycles(graph)


def cycles(graph: Mapping[str, set[str]]) -> list[str]:
    """The first cycle of imports among the modules; a package's `__init__` is a module like others."""
    inner = {module: {t for t in targets if t in graph} for module, targets in graph.items()}
    try:
        TopologicalSorter(inner).prepare()
    except CycleError as error:
        return [f"cycle: {' → '.join(error.args[1])}"]
    return []


def test_imports_go_down():
    assert wrongs(modules(ROOT)) == []


MOST_FILES = 12
"""At the top of the package."""
MOST_LINES = 60
"""In a function, from its first decorator to its last line."""


def long_functions(trees: Mapping[str, ast.Module]) -> list[str]:
    """`module.function: lines` of every function that is too long, nested ones included."""
    found = []
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
                lines = (node.end_lineno or first) - first + 1
                if lines > MOST_LINES:
                    found.append(f"{module}.{node.name}: {lines} lines")
    return found


def test_the_top_of_the_package_is_short():
    assert len(list(ROOT.glob("*.py"))) <= MOST_FILES


def test_functions_are_short():
    assert long_functions(modules(ROOT)) == []


def test_a_long_function_is_caught():
    body = "\n".join(["        x = 1"] * (MOST_LINES - 1))
    fits = f"class A:\n    def f(self):\n{body}"
    assert long_functions({"a": ast.parse(fits)}) == []
    assert long_functions({"a": ast.parse(f"{fits}\n        x = 1")}) == [f"a.f: {MOST_LINES + 1} lines"]
    assert long_functions({"a": ast.parse(fits.replace("    def", "    @d\n    def"))}) != []


def planted(**files: str) -> dict[str, ast.Module]:
    return {f"alignbench.{name.replace('__', '.')}": ast.parse(text) for name, text in files.items()}


@pytest.mark.parametrize(
    ("files", "wrong"),
    [
        ({"types": "import alignbench.target", "target": ""}, "floor 0) imports alignbench.target (floor 1"),
        ({"types": "from alignbench import target", "target": ""}, "imports alignbench.target"),
        ({"types": "from alignbench.target import x", "target": ""}, "imports alignbench.target"),
        ({"types": "def f():\n    import alignbench.cli", "cli": ""}, "imports alignbench.cli"),
        ({"types": "def f():\n    return import_module('alignbench.cli')", "cli": ""}, "imports alignbench.cli"),
        ({"types": "if x:\n    pass\nelse:\n    import alignbench.cli", "cli": ""}, "imports alignbench.cli"),
        ({"types": "try:\n    import alignbench.cli\nexcept E:\n    pass", "cli": ""}, "imports alignbench.cli"),
        ({"metrics__a": "from alignbench.features import b", "features__b": ""}, "open room metrics imports open room"),
        ({"stats__a": "import torch"}, "torch outside generators"),
        ({"run": "from torch.nn import functional"}, "torch outside"),
        ({"types": "from . import errors"}, "relative import"),
        ({"helpers": ""}, "stands on no floor"),
        ({"types": "import alignbench.errors", "errors": "import alignbench.types"}, "cycle: "),
        ({"run__a": "import alignbench.run.b", "run__b": "def f():\n    import alignbench.run.a"}, "cycle: "),
        ({"run__a": "import alignbench.run.b", "run__b": "if TYPE_CHECKING:\n    import alignbench.run.a"}, "cycle: "),
        ({"types": "if TYPE_CHECKING:\n    import alignbench.cli", "cli": ""}, "imports alignbench.cli"),
    ],
)
def test_planted_wrongs_are_caught(files, wrong):
    assert any(wrong in line for line in wrongs(planted(**files)))


@pytest.mark.parametrize(
    "files",
    [
        {"generators__law": "import torch", "aligners__a": "from torch import nn\nimport alignbench.generators.law"},
        {"run__a": "import alignbench.run.b", "run__b": "import alignbench.types", "types": ""},
        {"types": "import numpy, torchvision"},
    ],
)
def test_what_is_allowed_is_not_caught(files):
    assert wrongs(planted(**files)) == []


HEAVY = ("torch", "transformers", "pandas", "scipy", "sklearn", "lm_eval", "evaluate")


def loaded(code: str) -> set[str]:
    """The heavy modules that a fresh Python has loaded after `code`."""
    script = f"{code}\nimport json, sys\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


MAIN = """
import sys
from alignbench.cli import main
sys.argv = ['alignbench', {}]
try:
    main()
except SystemExit:
    pass
"""


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import alignbench", HEAVY), ("import alignbench.cli", HEAVY), (MAIN.format("'--help'"), HEAVY),
        (MAIN.format("'run', '--help'"), HEAVY), (MAIN.format("'--version'"), HEAVY[:3]),
        ("import alignbench.target", ("torch", "transformers", "pandas")),
        ("import alignbench.task, alignbench.store.packed", ("torch", "transformers", "pandas")),
        ("from alignbench.registry import load_plugins\nload_plugins()", ("transformers", "pandas", "sklearn")),
    ],
)  # fmt: skip
def test_the_door_is_light(code, absent):
    assert loaded(code) & set(absent) == set()


def test_the_checker_of_weights_sees_them():
    assert "torch" in loaded("import alignbench.generators.law") and "pandas" in loaded("import pandas")


@pytest.mark.parametrize("name", sorted(modules(ROOT)))
def test_promised_names_exist_and_every_module_says_what_it_is(name):
    if name.endswith("__main__"):
        return
    module = import_module(name)
    assert all(hasattr(module, promised) for promised in getattr(module, "__all__", ()))
    assert module.__doc__ and module.__doc__.strip()


def test_the_packages_names():
    assert set(alignbench.__all__) == {"aligner", "feature", "generator", "metric", *alignbench._HOMES}
    with pytest.raises(AttributeError, match=r"^module 'alignbench' has no attribute 'leader'$"):
        alignbench.leader  # noqa: B018


def test_test_files_have_names_of_their_own() -> None:
    """Tests are no packages: of two files of one name pytest collects one and calls the other an error."""
    names = Counter(path.name for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []
