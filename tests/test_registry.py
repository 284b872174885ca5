"""Names to things: what the decorator takes, what a wrong name gets, and the three doors that plug-ins come through."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest

from alignbench import registry as module
from alignbench.errors import UnknownName, UsageError
from alignbench.registry import KINDS, LISTED, QUOTED, YAML_BOOLEANS, Registry, load_plugins, mismatch
from alignbench.spec import parse_spec


def first(*, n: int, words: str = "a"):
    """What it is.

    More of it.
    """


def second(*, n: int): ...


class Recipe:
    def __init__(self, n: int = 1): ...


@pytest.fixture
def things():
    return Registry("thing")


def test_the_decorator_with_and_without_arguments(things):
    assert things(first) is first and things("other", version=2)(second) is second
    assert list(things) == ["first", "other"] and len(things) == 2
    assert things["other"].meta == {"version": 2} and things["first"].meta == {}
    assert things.find("first").summary == "What it is." and things.find("other").summary == ""


def test_a_taken_name_is_refused_and_the_same_thing_again_is_not(things):
    things("one")(first)
    things("one")(first)
    with pytest.raises(
        UsageError,
        match=r"^thing 'one' is registered twice: in \S+test_registry\.py:\d+ and in \S+\.py:\d+; rename one$",
    ):
        things("one")(second)
    assert things["one"].thing is first


def test_an_unknown_name_gets_the_closest_match_and_the_list(things):
    things(first)
    things(second)
    with pytest.raises(UnknownName) as error:
        things.find("frist", "here")
    assert str(error.value) == "here: unknown thing 'frist'. Did you mean 'first'? Known: first, second."
    with pytest.raises(UnknownName, match=r"^unknown thing 'zzz'\. Known: first, second\.$"):
        things.find("zzz")


def test_arguments_are_checked_by_the_signature(things):
    things(first)
    entry = things["first"]
    assert list(entry.parameters) == ["n", "words"]
    entry.check({"n": 1})
    entry.check({}, supplied=["n"])
    with pytest.raises(
        UnknownName, match=r"^first: unknown argument 'word'\. Did you mean 'words'\? Known: n, words\.$"
    ):
        entry.check({"n": 1, "word": 2})
    with pytest.raises(UsageError, match=r"^there: 'first' needs the argument 'n'$"):
        entry.check({}, "there")


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (float, 1), (int | str, 3), (int | str, "auto"), (int | None, None), (str | Sequence[str], ["a", "b"]),
        (str | Sequence[str], "a b"), (tuple[str, ...], ["a"]), (set[int], [1, 2]), (Path, "x"), (bool, True),
        (dict[str, list[str]], {"a": ["b"]}), (Literal["a"], "a"), (Any, object()), (np.ndarray, 3), (object, 3),
        (float, float("inf")), (Recipe, 3),
    ],
)  # fmt: skip
def test_what_a_hint_takes(hint, value):
    assert mismatch(hint, value) == ""


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        (int, "two", ": input should be a valid integer, not 'two'"),
        (int, 1.0, ": input should be a valid integer, not 1.0"),
        (int, True, f": input should be a valid integer, not True{YAML_BOOLEANS}"),
        (float, "hot", ": input should be a valid number, not 'hot'"),
        (str, 123, f": input should be a valid string, not 123{QUOTED}"),
        (str, None, ": input should be a valid string, not None"),
        (int | str, 2.5, f": input should be a valid integer or a valid string, not 2.5{QUOTED}"),
        (str | Sequence[str], 5, f": input should be a valid string or a valid list, not 5{QUOTED}"),
        (str | Sequence[str], ["a", 3], f" item 1: input should be a valid string, not 3{QUOTED}"),
        (tuple[str, ...], ["a", 3], f" item 1: input should be a valid string, not 3{QUOTED}"),
        (Literal["a", "b"] | None, "c", ": input should be 'a' or 'b', not 'c'"),
        (Sequence[str], "abc", f": input should be a valid list, not 'abc'{LISTED}"),
    ],
)
def test_what_a_hint_does_not_take(hint, value, message):
    """Planted bugs: 5 taken for text, "5" or true for a number, and a union judged by its first alternative."""
    assert mismatch(hint, value) == message


def test_types_are_checked_of_functions_and_classes(things):
    things(first)
    things("recipe")(Recipe)
    things("plain")(dataclass(type("Plain", (), {"__annotations__": {"t": "float"}, "__module__": __name__})))
    things["plain"].check({"t": 1})
    for name, arguments, message in (
        ("first", {"n": "two"}, "there: 'first' argument 'n': input should be a valid integer, not 'two'"),
        ("recipe", {"n": "two"}, "there: 'recipe' argument 'n': input should be a valid integer, not 'two'"),
        ("plain", {"t": "hot"}, "there: 'plain' argument 't': input should be a valid number, not 'hot'"),
    ):
        with pytest.raises(UsageError) as error:
            things[name].check(arguments, "there")
        assert str(error.value) == message
    with pytest.raises(UsageError, match=r"^aligner 'first' argument 'n': input"):
        things["first"].check({"n": "two"}, "aligner 'first'")


def test_a_hint_that_is_not_there_at_run_time_is_not_checked_and_the_others_are(things):
    def typed(x, *, a: "Nowhere" = 1, n: "int" = 1) -> "Nowhere": ...  # noqa: F821

    things(typed)
    things["typed"].check({"a": object()})
    with pytest.raises(UsageError, match=r"^typed argument 'n': input should be a valid integer, not 'x'$"):
        things["typed"].check({"n": "x"})


def test_a_declared_check_sees_all_parameters(things):
    seen = []

    def check(**params):
        seen.append(params)
        if params["words"] == "bad":
            raise UsageError("needs better words")
        if params["words"] == "worse":
            raise ZeroDivisionError("oh")

    things(check=check)(first)
    things["first"].check({"n": 2})
    things["first"].check({}, supplied=["n"])
    assert seen == [{"words": "a", "n": 2}, {"words": "a"}]
    with pytest.raises(UsageError, match=r"^t\.yaml:3: 'first' needs better words$"):
        things["first"].check({"n": 1, "words": "bad"}, "t.yaml:3")
    with pytest.raises(UsageError, match=r"^first its check failed: ZeroDivisionError: oh \(test_registry\.py:\d+\)$"):
        things["first"].check({"n": 1, "words": "worse"})


@pytest.mark.parametrize(
    ("kind", "text", "message"),
    [
        (
            "generators",
            "hf:pretrained=123",
            "model 'hf' argument 'pretrained': input should be a valid string, not 123",
        ),
        (
            "generators",
            "hf:pretrained=a,device=0",
            "model 'hf' argument 'device': input should be a valid string, not 0",
        ),
        ("generators", "exact:words=5", "model 'exact' argument 'words': input should be a valid string or"),
        ("aligners", "best_of_n:n=two", "model 'best_of_n' argument 'n': input should be a valid integer, not 'two'"),
        (
            "aligners",
            "temperature:t=hot",
            "model 'temperature' argument 't': input should be a valid number, not 'hot'",
        ),
    ],
)
def test_built_ins_refuse_wrong_types_before_they_are_called(kind, text, message):
    load_plugins()
    spec = parse_spec(text, "")
    with pytest.raises(UsageError) as error:
        spec.build(KINDS[kind], "model")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_class_takes_what_its_constructor_takes_and_kwargs_take_all(things):
    things("recipe")(Recipe)
    assert list(things["recipe"].parameters) == ["n"]
    things("open")(lambda **more: None)
    things["open"].check({"anything": 1})


def test_positional_parameters_of_a_function_are_not_the_users(things):
    """Planted bug: `prompts` and `draws` of a feature listed as its arguments."""
    things("length")(lambda prompts, draws, *, unit="token": None)
    assert list(things["length"].parameters) == ["unit"]


def test_built_ins_are_all_there_and_loading_again_changes_nothing():
    load_plugins()
    before = {kind: dict(registry.entries) for kind, registry in KINDS.items()}
    assert {"exact", "hf"} <= before["generators"].keys()
    assert {"best_of_n", "prompt", "rejection", "temperature", "top_k", "top_p"} <= before["aligners"].keys()
    assert {"contains_any", "length_tokens", "pronoun_gender"} <= before["features"].keys()
    assert {"cost", "distinct", "divergence", "perplexity", "satisfaction", "self_bleu"} <= before["metrics"].keys()
    load_plugins()
    assert before == {kind: dict(registry.entries) for kind, registry in KINDS.items()}
    assert all(entry.summary for registry in KINDS.values() for entry in registry.values())


def test_every_file_that_registers_something_is_imported_by_its_door():
    load_plugins()
    root = Path(module.__file__).parent
    for path in root.rglob("*.py"):
        name = ".".join((root.name, *path.relative_to(root).with_suffix("").parts))
        if re.search(r"^@(aligner|feature|generator|metric)\b", path.read_text(encoding="utf-8"), re.MULTILINE):
            assert name in sys.modules, f"{name} is imported by no `__init__`"


@pytest.fixture
def clean(monkeypatch):
    """Registries and modules as they were, whatever a plug-in does."""
    load_plugins()
    for registry in KINDS.values():
        monkeypatch.setattr(registry, "entries", dict(registry.entries))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


PLUGIN = "from alignbench import feature\n@feature\ndef shout(prompts, draws):\n    'Loud.'\n    return draws.length\n"


def test_python_files_of_a_folder_or_by_path(tmp_path, clean):
    (tmp_path / "mine.py").write_text(PLUGIN)
    load_plugins((tmp_path,))
    thing = KINDS["features"]["shout"].thing
    load_plugins((tmp_path / "mine.py",))
    assert KINDS["features"]["shout"].thing is thing  # read once, whatever path leads to it


def test_one_python_file_alone(tmp_path, monkeypatch, clean):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "other.py").write_text("raise RuntimeError('not asked for')")
    monkeypatch.chdir(tmp_path)
    load_plugins((Path("mine.py"),))
    assert "shout" in KINDS["features"]
    load_plugins((tmp_path / "mine.py", Path("mine.py")))


def test_two_files_that_register_one_name_are_both_told_by_path(tmp_path, monkeypatch, clean):
    monkeypatch.chdir(tmp_path)
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(PLUGIN)
    with pytest.raises(UsageError) as error:
        load_plugins((Path("a.py"), Path("b.py")))
    assert str(error.value) == "feature 'shout' is registered twice: in a.py:2 and in b.py:2; rename one"
    classes = "from alignbench import aligner\n@aligner('mild')\nclass Mild: ...\n"
    for name in ("c.py", "d.py"):
        (tmp_path / name).write_text(classes)
    with pytest.raises(UsageError, match=r"^aligner 'mild' is registered twice: in c\.py and in d\.py; rename one$"):
        load_plugins((Path("c.py"), Path("d.py")))


def test_two_files_with_one_name_are_two_plug_ins(tmp_path, clean):
    for folder, name in (("a", "shout"), ("b", "whisper")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(PLUGIN.replace("shout", name))
    load_plugins((tmp_path / "a", tmp_path / "b"))
    assert {"shout", "whisper"} <= set(KINDS["features"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import nowhere_at_all",
            "mine.py: could not be loaded: ModuleNotFoundError: No module named 'nowhere_at_all'",
        ),
        ("1 +", "mine.py: could not be loaded: SyntaxError: invalid syntax"),
        ("raise SystemExit(3)", "mine.py: could not be loaded: SystemExit: 3"),
        (
            PLUGIN.replace("shout", "length_tokens"),
            f"feature 'length_tokens' is registered twice: in {module.__file__.removesuffix('registry.py')}"
            "features/shape.py:27 and in mine.py:2; rename one",
        ),
    ],
)
def test_a_broken_plug_in_is_one_line_that_names_it(tmp_path, monkeypatch, clean, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(text)
    for _ in range(2):  # the failure is not remembered as a success
        with pytest.raises(UsageError) as error:
            load_plugins((module.Path("mine.py"),))
        assert str(error.value).startswith(message) and "\n" not in str(error.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path, clean):
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        load_plugins((tmp_path / "nowhere",))


def test_entry_points_are_loaded_and_a_broken_one_is_named(monkeypatch, clean):
    loaded = []
    good = EntryPoint("good", "json:dumps", "alignbench")
    monkeypatch.setattr(EntryPoint, "load", lambda self: loaded.append(self.name) or _fail_if(self.name == "bad"))
    monkeypatch.setattr(module, "entry_points", lambda group: [good] if group == "alignbench" else [])
    load_plugins()
    assert loaded == ["good"]
    bad = EntryPoint("bad", "nowhere:x", "alignbench")
    monkeypatch.setattr(module, "entry_points", lambda group: [bad])
    with pytest.raises(
        UsageError, match=r"^plug-in 'bad' \(nowhere:x\): could not be loaded: ImportError: no such thing$"
    ):
        load_plugins()


def _fail_if(wrong):
    if wrong:
        raise ImportError("no such thing")
