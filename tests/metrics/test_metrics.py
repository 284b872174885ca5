"""Metrics over hand-made evidence: exact values, refusals, and which way is better."""

import math
from dataclasses import replace

import numpy as np
import pytest

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.metrics.diversity import words_of
from alignbench.metrics.satisfaction import wanted_by_part
from alignbench.registry import metric
from alignbench.types import Cost, Draws, Estimate, Evidence, Fit, Scored, Selection, Wanted

C, EACH = 2, 100
A = np.array([[0.1, 0.2, 0.3, 0.4], [0.4, 0.3, 0.2, 0.1]])
R = np.array([[0.0, 0.0, -np.inf, 0.0], [0.0, 0.0, -np.inf, 0.0]])
G = np.array([[0.3, 0.3, 0.0, 0.4], [0.3, 0.4, 0.0, 0.3]])
P = A * np.exp(R)


def logs(masses):
    with np.errstate(divide="ignore"):
        return np.log(masses)


def draws(each=EACH, texts=None, prompt=None, **more):
    prompt = np.repeat(np.arange(C), each) if prompt is None else prompt
    n = prompt.size
    return Draws(
        prompt=prompt, index=np.arange(n) % each, texts=tuple(texts or ["one two"] * n), tokens=None,
        length=np.full(n, 4), finished=np.ones(n, bool), log_prob=None, token_log_prob=None, model_log_prob=None, **more
    )


def scored(law, seed, each=EACH, features=None, gen=True, **more):
    rng, batch = np.random.default_rng(seed), draws(each, **more)
    atom = np.concatenate([rng.choice(4, each, p=q) for q in law])
    base, target, own = (logs(x)[batch.prompt, atom] for x in (A, P, G))
    return Scored(batch, features or {}, base, target, own if gen else None, np.full(len(batch), -2.0))


def evidence(law=G, *, wanted=(), features=None, gen=True, each=EACH, **more):
    fit = Fit(tuple(wanted), np.zeros((1, 0)), np.zeros((1, 0)))
    own = scored(law, 1, each, features, gen)
    return Evidence(own=own, ref=scored(A, 2, 400, gen=gen), fit=fit, prompts=["a", "b"], base="b0", judge="b0", **more)


def with_texts(texts, prompt):
    e = evidence()
    n = len(texts)
    batch = replace(draws(n, texts=texts, prompt=np.asarray(prompt)), length=np.full(n, 4))
    return replace(e, own=Scored(batch, {}, None, None, None, np.full(n, -2.0)))


def test_every_metric_measures_or_says_why_and_knows_which_way_is_better():
    full, bare = evidence(), replace(evidence(), own=Scored(draws(0, texts=[]), {}, None, None, None, None))
    for name in metric:
        for e in (full, bare):
            for part, estimate in metrics.measure(name, e).items():
                assert estimate.value is not None or estimate.note, (name, part)
                assert metrics.better(name, part) in ("lower", "higher", "")


def test_needs_name_capabilities():
    for entry in metric.values():
        assert set(entry.meta.get("needs", ())) <= set(metrics.CAPABILITIES), entry.name


def test_wrong_words_are_usage_errors():
    with pytest.raises(UsageError, match="Did you mean 'perplexity'"):
        metrics.measure("perplexty", evidence())
    with pytest.raises(UsageError, match="word"):
        metrics.measure("distinct", evidence(), word=3)


def test_perplexity_and_its_judge():
    e = evidence()
    answer = metrics.measure("perplexity", e)[""]
    assert answer.value == pytest.approx(math.exp(0.5))
    assert answer.note == "judge: the base"
    assert metrics.measure("perplexity", replace(e, judge="big"))[""].note == "judge: big"
    unjudged = replace(e, own=replace(e.own, log_judge=None), reasons={"log_judge": "the judge speaks other tokens"})
    assert metrics.measure("perplexity", unjudged) == {"": Estimate.missing("the judge speaks other tokens")}
    impossible = replace(e, own=replace(e.own, log_judge=np.full(2 * EACH, -np.inf)))
    assert metrics.measure("perplexity", impossible)[""].value == math.inf


def test_perplexity_is_a_ratio_of_sums_and_not_a_mean_of_ratios():
    e = evidence()
    length = np.where(np.arange(2 * EACH) % 2, 1, 9)
    judged = replace(e.own, draws=replace(e.own.draws, length=length), log_judge=np.where(length == 1, -3.0, -9.0))
    answer = metrics.measure("perplexity", replace(e, own=judged))[""]
    assert answer.value == pytest.approx(math.exp(12 / 10))  # planted: mean of per-token means is exp(2)
    assert answer.ci_low < answer.value < answer.ci_high


def test_bits_per_byte_counts_utf8_bytes():
    e = with_texts(["zoë", "zoë", "zoë", "zoë"], [0, 0, 1, 1])
    assert metrics.measure("bits_per_byte", e)[""].value == pytest.approx(2.0 / (4 * math.log(2)))


def test_words_are_lower_cased_runs():
    assert words_of("She said: “Don’t stop—42!”") == ["she", "said", "don’t", "stop", "42"]


def test_distinct_at_fixed_size():
    same, varied = "a b c", "d e f"
    e = with_texts([same, same + " x y", varied, varied, "short", same, varied], [0] * 7)
    answer = metrics.measure("distinct", e, draws=2, words=3)
    assert answer["distinct_1"].value == pytest.approx((3 / 6 + 3 / 6 + 6 / 6) / 3)
    assert answer["distinct_2"].value == pytest.approx((2 / 4 + 2 / 4 + 4 / 4) / 3)
    assert answer["distinct_1"].n == 3
    assert "shorter draws are left out" in answer["distinct_1"].note
    assert "at least 2" in metrics.measure("distinct", e)["distinct_3"].note


def test_more_draws_leave_diversity_as_it_was():
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefghijklm"), 16)) for _ in range(640)]
    few, many = (metrics.measure("distinct", with_texts(texts[:n], np.arange(n) // (n // 2)))["distinct_2"]
                 for n in (160, 640))
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
    assert "pooled" in answer.note
    assert answer.stderr is not None


GENDER = [Wanted("pronoun", "distribution", "she", 0.5), Wanted("pronoun", "distribution", "he", 0.5)]


def gendered(codes, wanted=tuple(GENDER), **features):
    codes = np.asarray(codes)
    names = {"pronoun": ("she", "he", "they")}
    return evidence(wanted=wanted, features={"pronoun": codes, **features}, each=codes.size // C, categories=names)


def test_a_share_is_among_the_draws_in_listed_categories():
    codes = np.tile([0, 0, 0, 1, 2, -1, -1, -1], 20)
    answer = metrics.measure("satisfaction", gendered(codes))
    assert answer["share.pronoun.she"].value == pytest.approx(0.75)  # planted: 3/8 among all, 3/5 among all categories
    assert answer["share.pronoun.she"].ci_low < 0.75 < answer["share.pronoun.she"].ci_high
    assert answer["share.pronoun.she"].n == 80
    assert "wanted 0.5" in answer["share.pronoun.he"].note
    errors = metrics.measure("moment_error", gendered(codes))
    assert errors["pronoun.she"].value == pytest.approx(0.25)
    assert errors["pronoun.he"].value == pytest.approx(-0.25)
    assert errors[""].value == pytest.approx(0.25)
    assert errors[""].stderr == pytest.approx(errors["pronoun.she"].stderr)


def test_a_share_is_of_means_over_prompts():
    codes = np.concatenate([np.repeat([0, -1], [10, 90]), np.repeat([1, -1], [30, 70])])
    assert metrics.measure("satisfaction", gendered(codes))["share.pronoun.she"].value == pytest.approx(0.25)


def test_no_draw_in_any_category_is_no_zero():
    answer = metrics.measure("satisfaction", gendered(np.full(40, -1)))["share.pronoun.she"]
    assert answer.value is None
    assert "no own draw" in answer.note
    assert metrics.measure("moment_error", gendered(np.full(40, -1)))[""].value is None


def test_a_share_of_none_has_an_interval():
    answer = metrics.measure("satisfaction", gendered(np.tile([1, -1], 20)))["share.pronoun.she"]
    assert (answer.value, answer.ci_low) == (0.0, 0.0)
    assert answer.ci_high > 0.1


def test_shares_are_covered():
    law, held = np.array([[0.1, 0.3, 0.6], [0.3, 0.1, 0.6]]), 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        codes = np.concatenate([rng.choice([0, 1, -1], 60, p=q) for q in law])
        answer = metrics.measure("satisfaction", gendered(codes))["share.pronoun.she"]
        held += answer.ci_low <= 0.5 <= answer.ci_high
    assert held >= 0.92 * 200


def test_hard_constraints_moments_and_rewards():
    wanted = [Wanted("clean", "always"), Wanted("kind", "always"), Wanted("length", "moment", value=3.0),
              Wanted("score", "reward")]
    features = {"clean": np.tile([1, 0], EACH), "kind": np.tile([1, 1, 0, 1], EACH // 2),
                "length": np.tile([2.0, 6.0], EACH), "score": np.tile([0.0, 1.0], EACH)}
    e = evidence(wanted=wanted, features=features)
    answer = metrics.measure("satisfaction", e)
    assert answer["always"].value == pytest.approx(0.25)
    assert answer["moment.length"].value == pytest.approx(4.0)
    assert answer["reward.score"].value == pytest.approx(0.5)
    assert metrics.measure("moment_error", e)["length"].value == pytest.approx(1.0)
    assert metrics.better("satisfaction", "always") == "higher"
    assert metrics.better("satisfaction", "reward.score") == "higher"
    assert metrics.better("satisfaction", "moment.length") == ""
    assert metrics.better("moment_error", "") == "lower"
    assert metrics.better("moment_error", "length") == ""
    assert wanted_by_part(e) == {"always": 1.0, "moment.length": 3.0}
    assert metrics.measure("moment_error", evidence())[""].note == "the target asks for no moment"


def exact(law, p):
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(law > 0, law * (np.log(law) - np.log(p)), 0.0).sum(axis=1).mean())


Z = P.sum(axis=1)
TARGET = P / Z[:, None]


def test_divergences_of_a_generator_with_a_density():
    answer = metrics.measure("divergence", evidence())
    truth = {"kl_target": exact(TARGET, G), "kl_reverse": exact(G, TARGET), "kl_base": exact(G, A),
             "kl_base_k1": exact(G, A), "log_z": np.log(Z).mean(), "kl_target_within": exact(TARGET, G),
             "kl_reverse_within": exact(G, TARGET), "tv": np.abs(TARGET - G).sum(axis=1).mean() / 2}
    for part, value in truth.items():
        assert abs(answer[part].value - value) < 4 * answer[part].stderr, part
    assert answer["kl_base_rb"].value is None
    assert metrics.better("divergence", "kl_base_rb") == "lower"
    assert metrics.better("divergence", "log_z") == ""
    assert answer == metrics.measure("divergence", evidence())


def test_the_base_itself():
    answer = metrics.measure("divergence", evidence(A, gen=False, is_base=True))
    assert answer["kl_base"] == Estimate(0.0, 0.0, 0.0, 0.0, note="the base itself")
    assert answer["kl_target"].value == pytest.approx(-np.log(Z).mean(), abs=4 * answer["kl_target"].stderr)
    assert answer["tv"].value == pytest.approx(1 - Z.mean(), abs=4 * answer["tv"].stderr)
    assert answer["kl_reverse"].value == math.inf
    assert answer["log_z"].value == pytest.approx(-answer["kl_target"].value)


def test_the_base_of_a_target_with_continuous_weights_is_measured_by_its_density():
    e = evidence(A, is_base=True)
    tilt = [np.random.default_rng(i).normal(size=len(s.draws)) * 0.3 for i, s in enumerate((e.own, e.ref))]
    own, ref = (replace(s, log_target=s.log_base + t) for s, t in zip((e.own, e.ref), tilt, strict=True))
    answer = metrics.measure("divergence", replace(e, own=own, ref=ref))
    assert answer["kl_target"].value == pytest.approx(0.045, abs=4 * answer["kl_target"].stderr)
    assert answer["kl_base"].value == 0.0


def test_laws_that_select_need_no_density():
    best = metrics.measure("divergence", evidence(gen=False, selection=Selection("best", 4)))
    s = 1 - (1 - Z) ** 4
    assert abs(best["kl_target"].value + np.log(s).mean()) < 4 * best["kl_target"].stderr
    assert best["kl_base_rb"].value is None
    first = metrics.measure("divergence", evidence(gen=False, selection=Selection("first", 4)))
    assert first["kl_target"].value == 0.0
    assert abs(first["kl_base"].value + np.log(Z).mean()) < 4 * first["kl_base"].stderr


def test_no_density_gives_the_reason_in_every_part_but_log_z():
    answer = metrics.measure("divergence", evidence(gen=False, reasons={"log_gen": "a remote black box"}))
    assert answer["log_z"].value is not None
    assert {e.note for part, e in answer.items() if part != "log_z"} == {"a remote black box"}


def test_a_prompt_without_draws_is_named():
    e = evidence()
    only = replace(e.own, draws=e.own.draws.take(e.own.draws.prompt == 0), **{
        f: getattr(e.own, f)[e.own.draws.prompt == 0] for f in ("log_base", "log_target", "log_gen")})
    answer = metrics.measure("divergence", replace(e, own=only))
    assert answer["kl_target"].note == "no own draws for prompt 1"


def test_acceptance_and_cost():
    e = evidence(cost=Cost(seconds=2.0, tokens=800, proposals=600, kept=200, exhausted=3, peak_bytes=5_000_000))
    assert "rejects nothing" in metrics.measure("acceptance", e)["rate"].note
    kept = replace(e.own.draws, proposals=np.tile([1, 5], EACH))
    left_out = [[0, 5, 0]] * 20 + [[1, 5, 0]] * 20  # none of these proposals was accepted: they count
    proposed = np.concatenate([np.stack([kept.prompt, kept.proposals, np.ones(len(kept))], axis=1), left_out])
    answer = metrics.measure("acceptance", replace(e, own=replace(e.own, draws=kept), proposed=proposed))
    assert answer["rate"].value == pytest.approx(100 / 400, abs=0.002)
    assert answer["proposals_per_draw"].value == 3.0
    assert "3 draws left out" in answer["rate"].note
    spent = metrics.measure("cost", e)
    assert {p: x.value for p, x in spent.items()} == {
        "seconds": 2.0, "tokens_per_second": 400.0, "tokens_per_draw": 4.0, "proposals_per_draw": 3.0,
        "peak_memory_mb": 5.0}
    assert spent["seconds"].stderr is None
    assert "once" in spent["seconds"].note
    assert metrics.measure("cost", evidence())["seconds"].value is None


def test_a_plug_in_metric_may_return_a_bare_estimate():
    @metric("bare_for_test", needs={"log_gen"}, better="higher")
    def bare(evidence, *, scale=1.0):
        """A number."""
        return Estimate(scale)

    try:
        assert metrics.measure("bare_for_test", evidence(), scale=2.0) == {"": Estimate(2.0)}
        assert "no density" in metrics.measure("bare_for_test", evidence(gen=False))[""].note
        assert metrics.better("bare_for_test") == "higher"
    finally:
        del metric.entries["bare_for_test"]


def test_entropy_of_a_sequence_and_of_a_token():
    answer = metrics.measure("entropy", evidence())
    truth = float(-np.where(G > 0, G * logs(np.where(G > 0, G, 1)), 0).sum(axis=1).mean())
    assert abs(answer["sequence"].value - truth) < 4 * answer["sequence"].stderr
    assert answer["per_token"].value == pytest.approx(answer["sequence"].value / 4)
    assert metrics.better("entropy", "sequence") == ""
    assert "no density" in metrics.measure("entropy", evidence(gen=False))["sequence"].note
