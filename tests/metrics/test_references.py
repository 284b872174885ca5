"""BLEU, chrF, ROUGE and test-BLEU: the values of the libraries that define them, intervals that cover, bugs caught."""

from dataclasses import replace

import numpy as np
import pytest
import sacrebleu
from evidences import of_texts
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.metrics import references as room
from alignbench.metrics import self_bleu
from alignbench.metrics.ngrams import ngrams, words_of
from alignbench.metrics.prompts import over_prompts
from alignbench.registry import metric

WORDS = np.array(["the", "a", "cat", "dog", "sat", "ran", "on", "by", "mat", "house", ",", ".", "Quickly"])


def sentences(count, seed, words=9):
    return [" ".join(x) for x in np.random.default_rng(seed).choice(WORDS, (count, words))]


def world(prompts=4, each=6, nrefs=2, seed=0):
    """Draws that take half of their words from a reference."""
    rng, refs = np.random.default_rng(seed), sentences(prompts * nrefs, seed + 1)
    lists = [refs[c * nrefs : (c + 1) * nrefs] for c in range(prompts)]
    prompt = np.repeat(np.arange(prompts), each)
    texts = []
    for c in prompt:
        source, noise = lists[c][rng.integers(nrefs)].split(), sentences(1, rng.integers(10**6))[0].split()
        texts.append(" ".join(s if rng.random() < 0.7 else n for s, n in zip(source, noise, strict=True)))
    return of_texts(texts, prompt, lists)


def streams(e, most=2):
    """References as sacrebleu wants them: one list for each place."""
    own = [list(e.references[c]) for c in e.own.draws.prompt]
    return [[refs[k] if k < len(refs) else None for refs in own] for k in range(most)]


@pytest.mark.parametrize("options", [{}, {"lowercase": True}, {"tokenize": "char"}])
def test_bleu_is_sacrebleus(options):
    e = world()
    answer, peer = metrics.measure("bleu", e, **options)[""], BLEU(**options)
    assert answer.value == pytest.approx(peer.corpus_score(e.own.draws.texts, streams(e)).score, abs=1e-9)
    assert answer.note == f"BLEU|{peer.get_signature()}"
    assert answer.ci_low < answer.value < answer.ci_high


def test_bleu_without_a_match_of_some_order_has_no_interval():
    """Smoothing stands for the 4-grams there: of 19 such samples of 192 draws none had limits that held the truth."""
    e = of_texts(["the cat sat x by", "the cat sat y on"] * 8, np.arange(16) // 8, [["the cat sat by a mat"]] * 2)
    answer = metrics.measure("bleu", e)[""]
    assert answer.value > 0 and answer.ci_low is None
    assert answer.note.startswith("no interval: some order of n-grams has no match but smoothing's; BLEU|")


def test_the_signature_is_the_one_to_cite():
    single = world(nrefs=1)
    told = metrics.measure("bleu", single)[""].note
    assert told == f"BLEU|nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    assert metrics.measure("chrf", single)[""].note.startswith("chrF2|nrefs:1|case:mixed|eff:yes|nc:6|nw:0|")
    assert metrics.measure("chrf", single, word_order=2)[""].note.startswith("chrF2++|nrefs:1|")
    uneven = replace(single, references=[[*refs, "a cat"] if c else refs for c, refs in enumerate(single.references)])
    answer = metrics.measure("bleu", uneven)[""]
    assert "|nrefs:var|" in answer.note
    assert answer.value == pytest.approx(sacrebleu.corpus_bleu(uneven.own.draws.texts, streams(uneven)).score)
    assert "|nrefs:1|" in metrics.measure("bleu", single)[""].note


@pytest.mark.parametrize("order", [0, 2])
def test_chrf_is_sacrebleus(order):
    e = world()
    exact = sacrebleu.corpus_chrf(e.own.draws.texts, streams(e), word_order=order).score
    assert metrics.measure("chrf", e, word_order=order)[""].value == pytest.approx(exact, abs=1e-9)


@pytest.mark.parametrize("stemmer", [False, True])
def test_rouge_is_rouge_scores(stemmer):
    e = world()
    texts = tuple(f"{a}\n{b}" for a, b in zip(e.own.draws.texts, e.own.draws.texts[::-1], strict=True))
    e = replace(e, own=replace(e.own, draws=replace(e.own.draws, texts=texts)))
    e = replace(e, references=[["\n".join(refs), refs[0]] for refs in e.references])
    peer = RougeScorer(room.ROUGES, use_stemmer=stemmer)
    each = [peer.score_multi(e.references[c], t) for c, t in zip(e.own.draws.prompt, texts, strict=True)]
    answer = metrics.measure("rouge", e, stemmer=stemmer)
    for name in room.ROUGES:
        assert answer[name].value == pytest.approx(np.mean([s[name].fmeasure for s in each]))
        assert answer[name].note.startswith(f"{name}|nrefs:2|stem:{'yes' if stemmer else 'no'}|sents:lines|")
    assert answer["rougeLsum"].value != pytest.approx(answer["rougeL"].value)  # planted: lines ignored


def test_bleu_and_chrf_cover():
    """Every draw is one of 4 texts: the corpus score of all draws there could be is that of the 4 by their shares."""
    refs = [["the cat sat on the mat by the house"], ["a dog ran by the house on a mat"]]
    kinds = [
        ["the cat sat on the mat by the house", "the dog sat on a mat", "a cat ran by the house", "Quickly ran a dog"],
        ["a dog ran by the house on a mat", "a dog ran by a cat", "the house on a mat sat", "the cat sat ."],
    ]
    streamed = [[r[0] for r in refs for _ in range(4)]]
    exact = {
        "bleu": sacrebleu.corpus_bleu([t for k in kinds for t in k], streamed).score,
        "chrf": sacrebleu.corpus_chrf([t for k in kinds for t in k], streamed).score,
    }
    held = dict.fromkeys(exact, 0)
    for seed in range(150):
        rng = np.random.default_rng(seed)
        texts = [kinds[c][k] for c in (0, 1) for k in rng.integers(0, 4, 20)]
        e = of_texts(texts, np.arange(40) // 20, refs)
        for name, truth in exact.items():
            answer = metrics.measure(name, e)[""]
            held[name] += answer.ci_low <= truth <= answer.ci_high
    assert min(held.values()) >= 0.9 * 150 and max(held.values()) <= 149


def test_one_draw_a_prompt_takes_the_spread_between_prompts():
    e = world(prompts=30, each=1)
    answer = metrics.measure("bleu", e)[""]
    assert "takes the spread between prompts" in answer.note and answer.ci_low < answer.value < answer.ci_high
    alone = metrics.measure("bleu", of_texts(["a cat"], None, [["a cat sat"]]))[""]
    assert alone.ci_low is None and "one independent draw: no interval" in alone.note


def test_intervals_over_prompts_touch_text_once(monkeypatch):
    e = world(prompts=5, each=3)
    room._counts.cache_clear()
    seen, count = [], BLEU._compute_segment_statistics
    monkeypatch.setattr(BLEU, "_compute_segment_statistics", lambda *a: seen.append(1) or count(*a))
    answer = over_prompts(lambda some: metrics.measure("bleu", some), e)[""]
    assert "for prompts like these" in answer.note and answer.ci_low < answer.ci_high
    assert len(seen) <= 15


def test_what_is_missing_says_so():
    e = world()
    for name in ("bleu", "chrf", "rouge", "reference_self_bleu"):
        for absent in (None, []):
            answer = metrics.measure(name, replace(e, references=absent))
            assert {a.note for a in answer.values()} == {"the task has no reference texts"}
        answer = metrics.measure(name, replace(e, references=[["x y"], [], ["x"], ["y"]]))
        assert {a.note for a in answer.values()} == {"no reference texts for prompt 1"}
        assert metric.find(name).opt_in
    with pytest.raises(UsageError, match=r"unknown tokeniser '13b'\. Did you mean '13a'"):
        metric.find("bleu").check({"tokenize": "13b"})
    with pytest.raises(UsageError, match="word_order"):
        metric.find("chrf").check({"word_order": -1})


PEER = BLEU(tokenize="none", smooth_method="exp", effective_order=True, force=True)


def ragged(seed):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list("abcde"), rng.integers(1, 14))) for _ in range(rng.integers(2, 9))]


def gap(seed):
    """How far `against` is from sacrebleu's sentence BLEU, over three blocks of draws and references."""
    own, refs = ([ragged(3 * seed + k + shift) for k in range(3)] for shift in (0, 1000))
    texts = [t for block in (*own, *refs) for t in block]
    block = np.concatenate([np.full(len(b), k) for side in (own, refs) for k, b in enumerate(side)])
    mine = np.arange(len(texts)) < sum(map(len, own))
    found = self_bleu.against(ngrams([t.split() for t in texts], block), mine)
    exact = [PEER.sentence_score(t, refs[k]).score for k in range(3) for t in own[k]]
    return np.abs(found - exact).max()


BUGS = {
    "itself": ("_among", lambda table, own, n: self_bleu.matched(table, n)[own]),
    "any length": ("_nearest", lambda own, others: np.full(own[1].size, float(others[1].min()))),
    "other blocks": ("_nearest", lambda own, others: NEAREST((own[0] * 0, own[1]), (others[0] * 0, others[1]))),
}
NEAREST = self_bleu._nearest


def test_test_bleu_is_sacrebleus_value():
    assert max(gap(seed) for seed in range(20)) < 1e-9
    tie = NEAREST((np.zeros(1, int), np.array([5])), (np.zeros(2, int), np.array([7, 3])))
    assert tie.tolist() == [3]


@pytest.mark.parametrize("bug", BUGS)
def test_planted_bugs_are_caught(monkeypatch, bug):
    monkeypatch.setattr(self_bleu, *BUGS[bug])
    assert max(gap(seed) for seed in range(20)) > 1


def test_reference_self_bleu_says_what_to_compare_with():
    human = sentences(24, 5)
    e = of_texts(sentences(20, 6), np.arange(20) // 10, [human, human])
    answer = metrics.measure("reference_self_bleu", e, draws=4, words=5)
    exact = [PEER.sentence_score(" ".join(words_of(t)), [" ".join(words_of(r)) for r in human]).score
             for t in e.own.draws.texts]  # fmt: skip
    assert answer["test_bleu"].value == pytest.approx(np.mean(exact))
    alone = metrics.measure("self_bleu", of_texts(human), draws=4, words=5)[""]
    assert answer["self_bleu"].value == alone.value  # planted: a corpus counted for each prompt has twice the blocks
    assert answer["self_bleu"].note == alone.note.replace("draws", "references")
    copies = metrics.measure("reference_self_bleu", of_texts(human, np.arange(24) // 12, [human, human]))
    assert copies["test_bleu"].value == pytest.approx(100)
