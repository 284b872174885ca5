"""MAUVE of texts: which laws it tells apart, by weights as by draws, and where it refuses."""

import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.metrics import mauve as room
from alignbench.registry import metric
from alignbench.run import rows
from alignbench.types import Draws, Evidence, Fit, Scored

WORDS = np.array([f"w{i}" for i in range(30)])
FLAT = np.full(30, 1 / 30)
STEEP = 0.9 ** np.arange(30) / (0.9 ** np.arange(30)).sum()


def texts(law, count, seed):
    return [" ".join(x) for x in np.random.default_rng(seed).choice(WORDS, (count, 6), p=law)]


def scored(lines, first=0, r=None):
    """Draws of two prompts; r: log P − log a."""
    n = len(lines)
    rows = np.stack([np.arange(n) * 2 // n, np.arange(n) + first], axis=1)
    return Scored(Draws.from_texts(rows, lines), {}, np.zeros(n), np.zeros(n) if r is None else r, None, None)


def evidence(own, ref, r=None, **more):
    fit = Fit((), np.zeros((1, 0)), np.zeros((1, 0)))
    return Evidence(own=scored(own, 10_000), ref=scored(ref, 0, r), fit=fit, prompts=["a", "b"], **more)


def measured(e, **params):
    return metrics.measure("mauve", e, **params)[""]


def one_law(note):
    return [float(x) for x in note.split("which score ")[1].split(" where")[0].split(" to ")]


def test_it_tells_laws_apart_and_says_what_one_law_scores():
    same = measured(evidence(texts(STEEP, 400, 0), texts(STEEP, 400, 1)))
    other = measured(evidence(texts(FLAT, 400, 0), texts(STEEP, 400, 1)))
    assert one_law(same.note)[0] <= same.value <= one_law(same.note)[1] < 1
    assert other.ci_low < other.value < other.ci_high < one_law(other.note)[0]
    assert measured(evidence(texts(FLAT, 500, 0), texts(STEEP, 400, 1))).n == 500, "own draws are counted"
    assert "40 clusters" in other.note and "not comparable with published values" in other.note
    assert measured(evidence(texts(FLAT, 400, 0), texts(STEEP, 400, 1))) == other  # seeds are fixed


def test_weights_make_draws_of_p():
    """p keeps the base's draws that begin with one of the first 10 words."""
    ref = texts(FLAT, 1200, 1)
    kept = np.array([int(line.split()[0][1:]) < 10 for line in ref])
    own = [line for line in texts(FLAT, 1200, 2) if int(line.split()[0][1:]) < 10]
    hard = measured(evidence(own, ref, np.where(kept, 0.0, -np.inf)))
    assert one_law(hard.note)[0] <= hard.value <= one_law(hard.note)[1]
    base = measured(evidence(own, ref), clusters=int(re.search(r"(\d+) clusters;", hard.note)[1]))
    assert base.value < hard.value  # planted: the base's draws as they are
    law = np.repeat([0.3, 0.7], 600)
    assert measured(evidence(own, ref, np.where(kept, np.log(law), -np.inf))).value == pytest.approx(hard.value)


def test_references_stand_in_for_p():
    human = texts(STEEP, 300, 3)
    e = evidence(texts(STEEP, 300, 0), texts(FLAT, 300, 1), references=[human[:150], human[150:]])
    assert measured(e, against="references").value > measured(e).value
    assert "no reference texts for prompt 1" in measured(replace(e, references=[human, []]), against="references").note
    assert measured(replace(e, references=None), against="references").note == "the task has no reference texts"


def test_where_it_refuses():
    own, ref = texts(STEEP, 400, 0), texts(STEEP, 400, 1)
    few = measured(evidence(own[:40], ref))
    assert few.value is None and few.note == "40 texts in the smaller set, 50 are needed"
    rare = measured(evidence(own, ref, np.where(np.arange(400) % 10, -np.inf, 0.0)))
    assert rare.value is None and "draws of the target among 400 reference draws" in rare.note
    e = evidence(own, ref)
    assert "not scored under" in measured(replace(e, ref=replace(e.ref, log_target=None))).note
    assert "different prompts" in measured(replace(e, own=replace(e.own, draws=e.own.draws.take(np.arange(150))))).note
    ceiling = replace(e, own=replace(e.ref, draws=e.ref.draws.take(np.arange(0, 400, 2))))
    assert measured(ceiling).value is None and "themselves reference draws" in measured(ceiling).note


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"against": "reference"}, "must be p or references, not 'reference'. Did you mean 'references'"),
        ({"scaling": 0.0}, "'scaling': must be above 0"), ({"seeds": 0}, "'seeds'"), ({"clusters": 1}, "'clusters'"),
    ],
)  # fmt: skip
def test_impossible_parameters_are_found_before_sampling(wrong, told):
    with pytest.raises(UsageError) as error:
        metric.find("mauve").check(wrong)
    assert told in str(error.value)


def test_copies_and_wordless_texts_are_texts_too():
    same = measured(evidence(["a b"] * 60, ["a b"] * 60))
    assert same.value == pytest.approx(1) and "no interval" in same.note
    mixed = measured(evidence(["a b", "…"] * 60, ["A, b!", ""] * 60))
    assert mixed.value == pytest.approx(1)  # punctuation and case are no words
    apart = measured(evidence(["a b"] * 60, ["c d"] * 60))
    assert apart.value == pytest.approx(1 / 252)


def test_it_is_measured_only_where_it_is_named():
    e, key = evidence(texts(STEEP, 60, 0), texts(STEEP, 60, 1)), SimpleNamespace(ci_over="prompts_given")
    assert "mauve" not in {row.metric for row in rows.measure(None, key, e)}
    (row,) = rows.measure([("mauve", {"seeds": 1})], key, e)
    assert row.estimate.value is not None and row.better == "higher"


def test_the_work_is_linear_in_the_draws(monkeypatch):
    """Counted, not timed: each text is split once; equal texts are one point of k-means, which is run `seeds` times."""
    split, points = [], []
    words_of = room.words_of
    monkeypatch.setattr(room, "words_of", lambda text: split.append(1) or words_of(text))
    monkeypatch.setattr(room, "_features", lambda lines: np.zeros((len(lines), 1)))
    monkeypatch.setattr(room, "_k_means", lambda at, w, k, seed: points.append((len(at), k)) or np.arange(len(at)) % k)
    lines = [f"w{i}" for i in range(5_000)] * 2
    measured(evidence(lines, lines), seeds=2)
    assert len(split) == 20_000
    assert points == [(5_000, 500)] * 2


def test_clusterings_are_averaged_and_their_spread_is_told():
    e = evidence(texts(FLAT, 60, 0), texts(STEEP, 60, 1))
    averaged, alone = measured(e, seeds=2), measured(e, seeds=1)
    ways = room._clusters
    each = []
    for seed in range(2):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(room, "_clusters", lambda t, s, k, seeds, way=seed: ways(t, s, k, 2)[:, way : way + 1])
            each.append(measured(e, seeds=1).value)
    assert averaged.value == pytest.approx(np.mean(each))
    assert f"standard deviation between 2 clusterings {np.std(each, ddof=1):.2g}" in averaged.note
    assert alone.value == each[0] and "one clustering" in alone.note


def test_a_corpus_that_prompts_share_counts_once():
    """Planted: one corpus for two prompts taken for twice as many draws, whose interval is too narrow."""
    human, own = texts(STEEP, 150, 3), texts(STEEP, 300, 0)
    shared = measured(evidence(own, own, references=[human, human]), against="references", clusters=15)
    alone = room._references(evidence(own, own, references=[human, human]))
    assert len(alone[0]) == 150 and alone[1].worth.tolist() == [150]
    twice = measured(evidence(own, own, references=[human, human[::-1]]), against="references", clusters=15)
    assert shared.stderr > 1.1 * twice.stderr
    odd = replace(evidence(own, own), references=[human, human], prompts=["a", "b"])
    three = replace(odd.own, draws=replace(odd.own.draws, prompt=np.arange(300) % 3))
    odd = replace(odd, own=three, prompts=["a", "b", "c"], references=[human, human, own])
    assert "some prompts share their references" in measured(odd, against="references").note
