"""alignbench's metrics as `evaluate.Metric`s: the values alignbench gives, through evaluate's own loader too."""

import numpy as np
import pytest
import sacrebleu

from alignbench.errors import UnknownName, UsageError
from alignbench.integrations.evaluate import as_evaluate, script

TEXTS = [f"{a} {b} {c} ." for a in ("the", "a") for b in ("cat", "dog", "bird") for c in ("sat", "ran", "flew")]


def test_distinct_is_that_of_its_blocks(evaluate_here):
    answer = as_evaluate("distinct", draws=2, words=3).compute(predictions=TEXTS)
    words = [t.split()[:3] for t in TEXTS]
    exact = np.mean([len({*words[k], *words[k + 1]}) / 6 for k in range(0, 18, 2)])
    assert answer["distinct_1"] == pytest.approx(exact)
    assert answer["distinct_1_ci_low"] < exact < answer["distinct_1_ci_high"]
    assert answer["distinct_1_note"].startswith("blocks of 2 draws of 3 words")
    assert isinstance(as_evaluate("self_bleu"), evaluate_here.Metric)


def test_prompts_keep_draws_apart(evaluate_here):
    score = as_evaluate("unique_share", draws=4)
    mixed = ["a", "b"] * 8
    assert score.compute(predictions=mixed, prompts=["x", "y"] * 8)["unique_share"] == 0
    unlike = [f"t{i // 2}" for i in range(16)]
    assert score.compute(predictions=unlike, prompts=["x", "y"] * 8)["unique_share"] == 1
    assert score.compute(predictions=unlike)["unique_share"] == 0  # planted: prompts that are not looked at
    with pytest.raises(UsageError, match="2 prompts for 3 predictions"):
        score.compute(predictions=["a", "b", "c"], prompts=["x", "y"])


def test_bleu_with_references_of_either_form(evaluate_here):
    refs = TEXTS[1:] + TEXTS[:1]
    exact = sacrebleu.corpus_bleu(TEXTS, [refs]).score
    assert as_evaluate("bleu").compute(predictions=TEXTS, references=refs)["bleu"] == pytest.approx(exact)
    two = as_evaluate("bleu").compute(predictions=TEXTS, references=[[r, "a cat"] for r in refs])
    assert two["bleu"] == pytest.approx(sacrebleu.corpus_bleu(TEXTS, [refs, ["a cat"] * 18]).score)
    assert two["bleu_note"].startswith("some prompt has one independent draw") and "nrefs:2" in two["bleu_note"]
    mauve = as_evaluate("mauve", against="references", seeds=1).compute(
        predictions=TEXTS * 4, references=[TEXTS * 4] * 72
    )
    assert 0.5 < mauve["mauve"] <= 1
    few = as_evaluate("bleu")
    few.add_batch(predictions=TEXTS[:2], references=[["a"], ["b"]])
    few.add(prediction=TEXTS[2], reference=["c"])
    assert few.compute()["bleu"] >= 0


def test_evaluates_own_loader_finds_them(evaluate_here):
    loaded = evaluate_here.load(script(), "distinct", draws=2, words=3)
    answer = loaded.compute(predictions=TEXTS)
    assert answer == as_evaluate("distinct", draws=2, words=3).compute(predictions=TEXTS)
    assert "Distinct-1" in loaded.description


def test_wrong_words_are_one_line(evaluate_here):
    with pytest.raises(UnknownName, match="Did you mean 'distinct'"):
        as_evaluate("distnct")
    with pytest.raises(UsageError, match="unknown argument 'drws'"):
        as_evaluate("distinct", drws=3)
    with pytest.raises(UsageError, match=r"'divergence' needs more than texts \(no draws of the base\): .*run"):
        as_evaluate("divergence")
    short = as_evaluate("distinct").compute(predictions=["a b"])
    assert short["distinct_1"] is None and "at least 2 are needed" in short["distinct_1_note"]
