"""Names to things: what the decorator takes, what a wrong name gets, and the three doors that plug-ins come through."""

import sys
from importlib.metadata import EntryPoint

import pytest

from alignbench import registry as module
from alignbench.errors import UnknownName, UsageError
from alignbench.registry import KINDS, Registry, load_plugins


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
        UsageError, match=r"^thing 'one' is registered twice: in \S+first and in \S+second; rename one$"
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
        (PLUGIN.replace("shout", "length_tokens"), "feature 'length_tokens' is registered twice: in alignbench."),
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
