"""Diversity in blocks of as many draws and words: exact values, what is left out, intervals, and the work it takes."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from alignbench import metrics
from alignbench.metrics import ngrams as tables
from alignbench.metrics.diversity import _mean
from alignbench.metrics.ngrams import distinct_in, ngrams, words_of
from alignbench.types import Draws, Evidence, Fit, Scored

FEW = "no interval: fewer than 5 blocks"


def with_texts(texts, prompt):
    prompt = np.asarray(prompt)
    own = Scored(Draws.from_texts(np.stack([prompt, np.arange(prompt.size)], axis=1), texts), {}, *[None] * 4)
    return Evidence(own=own, ref=own, fit=Fit((), np.zeros((1, 0)), np.zeros((1, 0))), prompts=["a", "b"])


def test_words_are_lower_cased_runs():
    assert words_of("She said: “Don’t stop—42!”") == ["she", "said", "don’t", "stop", "42"]


def test_distinct_at_fixed_size():
    same, varied = "a b c", "d e f"
    e = with_texts([same, same + " x y", varied, varied, same, varied, "short"], [0] * 7)
    answer = metrics.measure("distinct", e, draws=2, words=3)
    assert answer["distinct_1"].value == pytest.approx((3 / 6 + 3 / 6 + 6 / 6) / 3)
    assert answer["distinct_2"].value == pytest.approx((2 / 4 + 2 / 4 + 4 / 4) / 3)
    assert answer["distinct_1"].n == 3
    parts = answer["distinct_1"].note.split("; ")
    short = "1 of 7 draws shorter than 3 words"
    assert parts == ["blocks of 2 draws of 3 words", short, "1 of 7 draws fill no block", "3 blocks", FEW]
    assert answer["distinct_1"].ci_low is None
    none = metrics.measure("distinct", e)["distinct_1"]
    assert none.value is None
    assert none.note == "blocks of 8 draws of 1 word; 7 of 7 draws fill no block; 0 blocks: at least 2 are needed"
    assert metrics.measure("distinct", e, draws=2, words=2)["distinct_3"].note == "2 words have no 3-gram"


def test_blocks_are_as_long_as_the_reference_draws_and_a_collapse_to_short_texts_is_seen():
    """All rows of a table have the same reference draws, so the same block; a draw that is shorter fills less of it."""
    rng = np.random.default_rng(0)
    prompt = np.arange(48) // 24

    def of(texts, words):
        long = [" ".join(rng.choice(list("abcdefgh"), words)) for _ in texts]
        own, ref = (with_texts(t, prompt).own for t in (texts, long))
        e = replace(with_texts(texts, prompt), own=own, ref=ref)
        return metrics.measure("distinct", e) | metrics.measure("self_bleu", e)

    for words, block in ((20, 16), (15, 8), (5, 4), (2, 2)):
        fine = of([" ".join(rng.choice(list("abcdefgh"), words)) for _ in range(48)], words)
        assert fine["distinct_1"].note.startswith(f"blocks of 8 draws of {block} words; 6 blocks")
    fine = of([" ".join(rng.choice(list("abcdefgh"), 6)) for _ in range(48)], 6)
    for collapsed in (["Yes."] * 48, [""] * 48, ["no", "yes"] * 24):
        found = of(collapsed, 6)
        assert found["distinct_1"].value < fine["distinct_1"].value / 2  # planted: short texts left out: no number
        assert found["distinct_2"].value == 0
        assert "48 of 48 draws shorter than 4 words" in found["distinct_1"].note
    assert of(["Yes."] * 48, 6)[""].value == of([""] * 48, 6)[""].value == pytest.approx(100)


def test_draws_and_prompts_without_a_block_are_counted():
    answer = metrics.measure("distinct", with_texts(["a b"] * 7 + ["c"], [0] * 5 + [1] * 3), draws=2, words=2)
    assert answer["distinct_1"].note.split("; ")[1:4] == [
        "1 of 8 draws shorter than 2 words",
        "2 of 8 draws fill no block",
        "3 blocks",
    ]
    alone = metrics.measure("self_bleu", with_texts(["a b"] * 5, [0] * 4 + [1]), draws=2, words=2)[""]
    assert alone.note.split("; ")[1:] == [
        "1 of 5 draws fill no block",
        "1 of 2 prompts have no block",
        "2 blocks",
        "no interval: the blocks do not differ",
    ]


def test_intervals_of_diversity_stay_where_diversity_can_be():
    """Blocks at the edge: one of the 6 is a little less (more) diverse than can be."""
    unlike = [" ".join(f"w{i}{j}" for j in range(5)) for i in range(12)]
    distinct = metrics.measure("distinct", with_texts([*unlike[:11], unlike[10]], [0] * 12), draws=2, words=5)
    answer = distinct["distinct_1"]
    assert answer.value + 2.57 * answer.stderr > 1  # planted: the symmetric interval
    assert 0 < answer.ci_low < answer.value < answer.ci_high < 1
    same = ["a b c d e"] * 11 + ["a b c x y"]
    answer = metrics.measure("self_bleu", with_texts(same, [0] * 12), draws=2, words=5)[""]
    assert answer.value + 2.57 * answer.stderr > 100
    assert 0 < answer.ci_low < answer.value < answer.ci_high < 100


def test_intervals_of_diversity_cover():
    """Blocks of 2 draws of 2 of 4 letters: the mean of distinct_1 is known by listing all of them."""
    letters = ["a", "b", "c", "d"]
    exact = np.mean([len(set(x)) / 4 for x in product(letters, repeat=4)])
    held = 0
    for seed in range(300):
        texts = [" ".join(x) for x in np.random.default_rng(seed).choice(letters, (16, 2))]
        answer = metrics.measure("distinct", with_texts(texts, [0] * 8 + [1] * 8), draws=2, words=2)["distinct_1"]
        held += answer.ci_low is None or answer.ci_low <= exact <= answer.ci_high
    assert held >= 0.91 * 300


def test_more_draws_leave_diversity_as_it_was():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghijklm"), 16)) for _ in range(640)]
    few, many = (
        metrics.measure("distinct", with_texts(texts[:n], np.arange(n) // (n // 2)))["distinct_2"] for n in (160, 640)
    )
    assert few.value == pytest.approx(many.value, abs=4 * few.stderr)
    assert many.stderr < few.stderr


def test_self_bleu_is_100_for_copies_and_low_for_strangers():
    copies = metrics.measure("self_bleu", with_texts(["a b c d e"] * 8, [0] * 4 + [1] * 4), draws=2, words=5)[""]
    assert copies.value == pytest.approx(100.0)
    strangers = [" ".join(f"w{i}{j}" for j in range(5)) for i in range(8)]
    assert metrics.measure("self_bleu", with_texts(strangers, [0] * 8), draws=2, words=5)[""].value < 15


def test_one_block_in_a_prompt_pools_the_variance():
    texts = ["a b", "a c", "a b", "d e", "f g", "f f"]
    answer = metrics.measure("distinct", with_texts(texts, [0, 0, 1, 1, 1, 1]), draws=2, words=2)["distinct_1"]
    assert answer.note.endswith(FEW)
    more = with_texts([*texts, "g h", "g h", "h i", "g h"], [0, 0, 1, 1, 1, 1, 1, 1, 1, 1])
    answer = metrics.measure("distinct", more, draws=2, words=2)["distinct_1"]
    assert "pooled" in answer.note
    assert answer.stderr > 0


def test_distinct_of_many_blocks_is_that_of_each():
    rng = np.random.default_rng(0)
    texts = [list(rng.choice(list("abcd"), 6)) for _ in range(60)]
    block = np.repeat(np.arange(15), 4)
    for n in (1, 2, 3, 4):
        alone = [len({tuple(t[i : i + n]) for t in texts[k : k + 4] for i in range(7 - n)}) for k in range(0, 60, 4)]
        assert distinct_in(ngrams(texts, block), n).tolist() == alone
        assert len(distinct_in(ngrams(texts), n)) == 1  # planted: n-grams of all blocks counted as one block's


def test_ngrams_stay_inside_their_text():
    table = ngrams([["a"], ["b", "a", "b"], [], ["a", "b", "a", "b"]])
    assert [g.size for g in table.grams] == [8, 5, 3, 1]
    assert table.text(2).tolist() == [1, 1, 3, 3, 3]
    (ba, ab), rest = table.grams[1][:2], table.grams[1][2:]
    assert rest.tolist() == [ab, ba, ab]
    assert [g.size for g in ngrams([]).grams] == [0] * 4


@pytest.mark.parametrize(("name", "orders"), [("distinct", 4), ("self_bleu", 4)])
def test_the_work_is_linear_in_the_draws_and_done_once(monkeypatch, name, orders):
    """Counted, not timed: each text is split once, and the sorts of one table hold every n-gram once."""
    split, sizes, pairs = [], [], tables._pairs
    monkeypatch.setattr("alignbench.metrics.diversity.words_of", lambda text: split.append(1) or words_of(text))
    monkeypatch.setattr(tables, "_pairs", lambda a, b: sizes.append(a.size) or pairs(a, b))
    rng = np.random.default_rng(0)
    texts = [" ".join(map(str, x)) for x in rng.zipf(1.3, (10_000, 40))]
    answer = metrics.measure(name, with_texts(texts, np.arange(10_000) // 5_000), draws=8, words=16)
    assert all(part.value > 0 for part in answer.values())
    assert len(split) == 10_000
    assert sizes == [10_000 * (17 - n) for n in range(1, orders + 1)]


def test_a_prompt_with_one_block_pools_the_variance():
    """Each prompt's mean has the pooled variance over its own blocks; the mean of two has a quarter of their sum."""
    values = np.array([0.2, 0.4, 0.3, 0.5, 0.9])
    found = _mean(np.array([0, 0, 0, 0, 1]), values)
    pooled = values[:4].var(ddof=1)
    assert found.value == pytest.approx((values[:4].mean() + 0.9) / 2)
    assert found.stderr == pytest.approx((pooled * (1 / 4 + 1) / 4) ** 0.5)
