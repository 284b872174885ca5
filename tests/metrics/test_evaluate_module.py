"""Modules of `evaluate` as metrics: from a local script, without a network, with the values they give themselves."""

from types import SimpleNamespace

import numpy as np
import pytest
from evidences import of_texts

from alignbench import metrics
from alignbench.errors import RunError, SourceError, UsageError
from alignbench.metrics import evaluate_module as room
from alignbench.registry import metric
from alignbench.stats.intervals import mean_over_prompts

WORDS = """
import datasets
import evaluate


class {name}(evaluate.{kind}):
    def _info(self):
        text = datasets.Value("string")
        return evaluate.{kind}Info(description="", citation="", inputs_description="", features={features})

    def _compute(self, {arguments}):
        return {answer}
"""
LENGTH = "np.mean([len(p) for p in predictions])"
ONE = 'datasets.Features({"predictions": text, "references": text})'
MANY = f'[datasets.Features({{"predictions": text, "references": datasets.Sequence(text)}}), {ONE}]'
ALONE = 'datasets.Features({"predictions": text})'


@pytest.fixture
def module(tmp_path, evaluate_here):
    """Write a module's script; its path."""

    def write(answer, features=ALONE, arguments="predictions", name="MyLength", kind="Metric"):
        text = WORDS.format(name=name, kind=kind, features=features, arguments=arguments, answer=answer)
        path = tmp_path / "scripts" / f"{name.lower()}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text("import numpy as np\n" + text)
        return str(path)

    return write


def drawn(seed, each=40, **more):
    rng = np.random.default_rng(seed)
    return of_texts(["x" * n for n in rng.integers(1, 9, 2 * each)], np.arange(2 * each) // each, **more)


def measured(e, path, **params):
    return metrics.measure("evaluate", e, path=path, **params)


def test_groups_of_draws_go_on_from_prompt_to_prompt():
    """Three draws of each of two prompts in four groups; a run's draws leave together."""
    own = of_texts(["a"] * 6, [0, 0, 0, 1, 1, 1]).own.draws
    assert room._groups(own, 4).tolist() == [0, 1, 2, 3, 0, 1]
    runs = of_texts(["a"] * 6, [0, 0, 0, 1, 1, 1], group=[0, 0, 1, 2, 3, 3]).own.draws
    assert room._groups(runs, 4).tolist() == [0, 0, 1, 2, 3, 3] and set(room._groups(own, 0)) == {-1}


def test_a_number_of_a_local_script_and_its_interval(module):
    e, path = drawn(0), module(f'{{"score": {LENGTH}}}')
    answer = measured(e, path)
    exact = mean_over_prompts(e.own.draws.prompt, np.array([len(t) for t in e.own.draws.texts]))
    assert list(answer) == ["my_length"]
    assert answer["my_length"].value == pytest.approx(exact.value)
    assert answer["my_length"].stderr == pytest.approx(exact.stderr, rel=0.5)
    assert "20 groups of draws left out in turn" in answer["my_length"].note
    bare = measured(e, path, groups=0)["my_length"]
    assert bare.value == answer["my_length"].value and bare.note == "no interval: 'groups' is 0"
    few = measured(of_texts(["a", "bb", "c"]), path)["my_length"]
    assert few.ci_low is None and few.note == "no interval: fewer than 5 groups of draws"


class Ratio:
    """As a module of `evaluate`, without its files: a's over all letters, no mean over draws."""

    name = "ratio"
    features = {"predictions": SimpleNamespace(dtype="string")}  # noqa: RUF012

    def _feature_names(self):
        return list(self.features)

    def compute(self, predictions):
        return {"score": sum(t.count("a") for t in predictions) / sum(map(len, predictions))}


def test_the_interval_covers_a_ratio(monkeypatch):
    """Letters a with chance 0.3 in texts of 1 to 8 letters; texts of mere a's are as many again."""
    monkeypatch.setattr(room, "_load", lambda path: Ratio())
    exact = (0.3 * 4.5 + 4.5) / 9
    held = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        letters = [rng.random(n) < (0.3 if rng.random() < 0.5 else 1) for n in rng.integers(1, 9, 120)]
        e = of_texts(["".join("a" if x else "b" for x in text) for text in letters], np.arange(120) // 60)
        answer = measured(e, "ratio")["ratio"]
        held += answer.ci_low <= exact <= answer.ci_high
    assert 0.91 * 200 <= held < 200


def test_the_interval_of_a_count_is_that_of_a_sum(module):
    """Planted bug: squares of what a group takes away, not of its distance from their mean, are 20 times as wide."""
    e = drawn(0)
    answer = measured(e, module('{"total": sum(map(len, predictions))}', name="Total"))["total"]
    mean = mean_over_prompts(e.own.draws.prompt, np.array([len(t) for t in e.own.draws.texts]))
    assert answer.value == pytest.approx(mean.value * len(e.own.draws))
    assert answer.stderr == pytest.approx(mean.stderr * len(e.own.draws), rel=0.5)


def test_references_and_sources_as_the_module_asks(module):
    e = drawn(0, references=[["r1", "r2"], ["s1", "s2"]], prompts=["P", "Q"])
    seen = "sum(len(r) for r in references) + len(references[0][0])"
    many = module(f'{{"score": {seen}}}', MANY, "predictions, references", "Many")
    assert measured(e, many, groups=0)["many"].value == 2 * 80 + 2
    one = module(f'{{"score": {seen}}}', ONE, "predictions, references", "One")
    (missing,) = measured(e, one).values()
    assert missing.note == "takes one reference a draw, and prompt 0 has 2"
    single = drawn(0, references=[["r1"], ["s1"]])
    assert measured(single, one, groups=0)["one"].value == 2 * 80 + 1
    (missing,) = measured(drawn(0), many).values()
    assert missing.note == "the task has no reference texts"
    features = 'datasets.Features({"predictions": text, "sources": text})'
    sari = module('{"score": sources.count("Q")}', features, "predictions, sources", "Sources")
    assert measured(e, sari, groups=0)["sources"].value == 40


def test_measurements_options_and_several_at_once(module):
    data = 'datasets.Features({"data": text})'
    first = module('{"mean": np.mean([len(t) for t in data]) * by}', data, "data, by", "Words", "Measurement")
    second = module('{"each": [len(t) for t in predictions], "name": "x", "flag": True, "few": [1, 2]}', name="Each")
    e = drawn(0)
    answer = measured(e, first, by=10, groups=0)
    assert answer["words"].value == pytest.approx(10 * np.mean([len(t) for t in e.own.draws.texts]))
    lists = measured(e, second)
    assert list(lists) == ["each"] and lists["each"].ci_low < lists["each"].value  # texts and other lists left out
    third = module('{"a": 1.0, "b": 2}', name="Two")
    assert set(measured(e, [second, third])) == {"each", "two.a", "two.b"}
    assert "do not differ" in measured(e, third)["two.a"].note
    with pytest.raises(UsageError, match="two modules are called 'two'"):
        measured(e, [third, third])


def test_draws_that_depend_on_each_other_are_left_out_together(module):
    path = module(f'{{"score": {LENGTH}}}')
    texts = [t for t in drawn(0, each=20).own.draws.texts for _ in range(4)]
    grouped = measured(of_texts(texts, np.zeros(160, int), group=np.arange(160) // 4), path)["my_length"]
    plain = measured(of_texts(texts), path)["my_length"]
    assert grouped.stderr > 1.4 * plain.stderr


def test_wrong_words_are_one_line(module, tmp_path):
    e = drawn(0)
    for path in ("bleuu", "someone/metric"):
        with pytest.raises(SourceError, match="without a network, give the path of its script"):
            measured(e, path)
    for params, told in (
        ({"path": "./nowhere.py"}, "no such file or folder: ./nowhere.py"),
        ({"path": str(tmp_path / "x" / "y")}, "no such file or folder"),
        ({"path": []}, "give the path or the name"),
        ({"path": "x", "groups": 3}, "must be 0 (no interval) or at least 5"),
    ):  # fmt: skip
        with pytest.raises(UsageError) as error:
            metric.find("evaluate").check(params)
        assert told in str(error.value)
    numbers = module('{"a": 1}', 'datasets.Features({"predictions": datasets.Value("int32")})', name="Ints")
    with pytest.raises(UsageError, match="'ints' takes int32, not texts"):
        measured(e, numbers)
    with pytest.raises(UsageError, match="'odd' asks for 'masks'"):
        measured(e, module("{}", 'datasets.Features({"predictions": text, "masks": text})', "predictions", "Odd"))
    broken = module('{"a": 1 / 0}', name="Broken")
    with pytest.raises(RunError, match="evaluate module 'broken' failed: ZeroDivisionError"):
        measured(e, broken)
    no_script = tmp_path / "no_script.py"
    no_script.write_text("import not_there_at_all\n")
    with pytest.raises(UsageError, match="not_there_at_all"):
        measured(e, str(no_script))
    (nothing,) = measured(e, module('{"name": "x"}', name="Mute")).values()
    assert nothing.note == "the module gives no number"
