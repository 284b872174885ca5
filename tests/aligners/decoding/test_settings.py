"""Decoding settings as aligners: the law is the base's with that setting, and nothing else changes."""

import numpy as np
import pytest
import torch
from aligner_worlds import LENGTH, PROMPTS

from alignbench.aligners.base import Setting
from alignbench.aligners.decoding.settings import MinP, RepetitionPenalty, Temperature, TopK, TopP, Typical
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.exact.world import enumerate_draws
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of


def align(aligner, base):
    return aligner.align(Setting(base, None, PROMPTS, LENGTH, Seed()))


def by_hand(base, keep):
    """Continuation → probability under next-token laws `keep(probabilities)`, walked one token at a time."""
    found = {}

    def walk(state, prefix, mass):
        probs = keep(np.exp(state.log_probs[0].numpy()))
        for token in np.flatnonzero(probs):
            whole, m = (*prefix, int(token)), mass * probs[token]
            if token in base.vocab.eos or len(whole) == LENGTH:
                found[whole] = m
            else:
                walk(state.extend(torch.tensor([token])), whole, m)

    walk(base.start(PROMPTS[1:], max_tokens=LENGTH), (), 1.0)
    return found


def sharpened(t):
    return lambda p: p ** (1 / t) / (p ** (1 / t)).sum()


def largest(k):
    def keep(p):
        kept = np.where(p >= np.sort(p)[-k], p, 0)
        return kept / kept.sum()

    return keep


def nucleus(mass):
    def keep(p):
        order = np.argsort(-p)
        size = int(np.searchsorted(np.cumsum(p[order]), mass)) + 1
        kept = np.zeros_like(p)
        kept[order[:size]] = p[order[:size]]
        return kept / kept.sum()

    return keep


def typical(mass):
    def keep(p):
        near = np.argsort(np.abs(np.log(p) - (p * np.log(p)).sum()))
        size = int(np.searchsorted(np.cumsum(p[near]), mass)) + 1
        kept = np.zeros_like(p)
        kept[near[:size]] = p[near[:size]]
        return kept / kept.sum()

    return keep


def at_least(share):
    def keep(p):
        kept = np.where(p >= share * p.max(), p, 0)
        return kept / kept.sum()

    return keep


@pytest.mark.parametrize(
    ("aligner", "keep"),
    [
        (Temperature(0.5), sharpened(0.5)), (Temperature(1.5), sharpened(1.5)), (Temperature(1), lambda p: p),
        (TopK(1), largest(1)), (TopK(2), largest(2)), (TopK(50), lambda p: p),
        (TopP(0.6), nucleus(0.6)), (TopP(1), lambda p: p),
        (MinP(0.5), at_least(0.5)), (MinP(0), lambda p: p), (Typical(0.6), typical(0.6)), (Typical(1), lambda p: p),
        (RepetitionPenalty(1), lambda p: p),
    ],
)  # fmt: skip
def test_the_law_is_the_one_made_by_hand(hard, aligner, keep):
    law = align(aligner, hard.base)
    listed = enumerate_draws(law, PROMPTS[1:], max_tokens=LENGTH)
    mine = {tuple(int(i) for i in t[t >= 0]): np.exp(s) for t, s in zip(listed.tokens, listed.log_prob, strict=True)}
    truth = by_hand(hard.base, keep)
    assert mine.keys() == truth.keys()
    assert all(mine[k] == pytest.approx(truth[k], rel=1e-9) for k in truth)
    if aligner in (Temperature(0.5), TopK(2), TopP(0.6), MinP(0.5), Typical(0.6)):  # planted: the setting forgotten
        plain = by_hand(hard.base, lambda p: p)
        assert any(abs(plain[k] - truth.get(k, 0)) > 0.01 for k in plain)


def test_repetition_penalty_is_the_one_made_by_hand(hard):
    """A world's logits are its log-probabilities: those of words said, in prompt or draw, times θ."""
    law, theta = align(RepetitionPenalty(2.0), hard.base), 2.0
    listed = enumerate_draws(law, PROMPTS, max_tokens=LENGTH)
    for row in range(len(listed)):
        prompt = PROMPTS[listed.prompt[row]]
        said, total = set(hard.base.model.encode(prompt, LENGTH)), 0.0
        state = hard.base.start([prompt], max_tokens=LENGTH)
        for token in listed.tokens[row, : listed.length[row]].tolist():
            x = state.log_probs[0].numpy() * [theta if i in said else 1.0 for i in range(4)]
            total += x[token] - np.logaddexp.reduce(x)
            said.add(token)
            state = state.extend(torch.tensor([token]))
        assert listed.log_prob[row] == pytest.approx(total, abs=1e-9)
    assert not law.truncates
    assert RepetitionPenalty().penalty == 1.2 and Typical().p == 0.95 and MinP().p == 0.1  # the papers'


def test_the_base_is_left_alone_and_the_model_shared(hard):
    before = hard.base.identity()
    law = align(TopK(2), hard.base)
    assert law.model is hard.base.model and hard.base.identity() == before != law.identity()
    assert law.truncates and not hard.base.truncates and not align(Temperature(0.5), hard.base).truncates


def test_settings_add_up(hard):
    """An aligner on a base that is itself warped keeps the base's other settings."""
    law = align(Temperature(0.5), hard.base.warped(top_k=2))
    assert (law.warp.temperature, law.warp.top_k) == (0.5, 2)


def test_own_draws_differ_from_reference_draws(hard):
    """Temperature 1 is the base's law, but never the reference draws themselves."""
    law = align(Temperature(1), hard.base)
    own, ref = (
        collect(law.sample(PROMPTS, rows_of(2, 50), max_tokens=LENGTH, seed=Seed(0, s))) for s in ("own", "ref")
    )
    assert own.texts != ref.texts


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Temperature(0), "temperature=0: must be above 0"), (lambda: TopK(-1), "top_k=-1: must be"),
        (lambda: TopK(1.5), "top_k=1.5: must be"), (lambda: TopP(0), "top_p=0: must be in"),
        (lambda: TopP(1.1), "top_p=1.1: must be in"), (lambda: Temperature("hot"), "temperature=hot: must be"),
        (lambda: TopK("many"), "top_k=many: must be"), (lambda: TopP(None), "top_p=None: must be"),
        (lambda: Temperature(float("nan")), "temperature=nan: must be"),
        (lambda: Temperature(True), "temperature=True: must be a number"),
        (lambda: MinP(1), "min_p=1: must be in"), (lambda: Typical(0), "typical_p=0: must be in"),
        (lambda: RepetitionPenalty(0), "repetition_penalty=0: must be above 0"),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_refused_at_once(make, message):
    with pytest.raises(UsageError) as error:
        make()
    assert str(error.value).startswith(message)


def test_a_black_box_has_no_settings():
    with pytest.raises(
        Unsupported, match=r"^aligner 'temperature' changes next-token probabilities, and str has none to change"
    ):
        align(Temperature(), "a black box")
