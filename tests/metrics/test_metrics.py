"""Metrics over hand-made evidence: exact values, refusals, and which way is better."""

import math
from dataclasses import replace

import numpy as np
import pytest

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.metrics.prompts import left_out, picked
from alignbench.registry import metric
from alignbench.stats.intervals import Z95
from alignbench.types import Cost, Draws, Estimate, Evidence, Fit, Scored, Selection, Training, Wanted

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
        prompt=prompt,
        index=np.arange(n) % each,
        texts=tuple(texts or ["one two"] * n),
        tokens=None,
        length=np.full(n, 4),
        finished=np.ones(n, bool),
        log_prob=None,
        token_log_prob=None,
        model_log_prob=None,
        **more,
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


def asking_nothing():
    """The metrics whose parameters all have defaults."""
    return [n for n, entry in metric.items() if all(p.default is not p.empty for p in entry.parameters.values())]


def test_every_metric_measures_or_says_why_and_knows_which_way_is_better():
    full, bare = evidence(), replace(evidence(), own=Scored(draws(0, texts=[]), {}, None, None, None, None))
    for name in asking_nothing():
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
    assert answer == Estimate(answer.value, n=2 * EACH, note="no interval: the draws do not differ; judge: the base")
    for name in ("big", "b0"):  # b0: another model of the base's name
        other = metrics.measure("perplexity", replace(e, judge=name, judge_is_base=False))[""]
        assert other.note.endswith(f"; judge: {name}")
    unjudged = replace(e, own=replace(e.own, log_judge=None), reasons={"log_judge": "the judge speaks other tokens"})
    assert metrics.measure("perplexity", unjudged) == {"": Estimate.missing("the judge speaks other tokens")}
    impossible = replace(e, own=replace(e.own, log_judge=np.full(2 * EACH, -np.inf)))
    assert metrics.measure("perplexity", impossible)[""].value == math.inf


def test_the_error_of_a_perplexity_is_that_of_its_logarithm_times_it():
    e = evidence()
    judged = replace(e.own, log_judge=np.random.default_rng(0).normal(-8, 1, len(e.own.draws)))
    answer = metrics.measure("perplexity", replace(e, own=judged))[""]
    assert answer.value > 5
    assert answer.stderr == pytest.approx(answer.value * np.log(answer.ci_high / answer.ci_low) / 2 / 1.96, rel=0.05)


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


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("distinct", {"draws": 0}),
        ("distinct", {"words": 0}),
        ("self_bleu", {"draws": 1}),
        ("self_bleu", {"words": -1}),
        ("divergence", {"seed": -1}),
        ("distinct", {"draws": "8"}),
    ],
)
def test_impossible_parameters_are_found_before_sampling(name, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        metric.find(name).check(wrong, where=f"metric '{name}'")
    metric.find(name).check({}, where="")


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
    wanted = [
        Wanted("clean", "always"),
        Wanted("kind", "always"),
        Wanted("length", "moment", value=3.0),
        Wanted("score", "reward"),
    ]
    features = {
        "clean": np.tile([1, 0], EACH),
        "kind": np.tile([1, 1, 0, 1], EACH // 2),
        "length": np.tile([2.0, 6.0], EACH),
        "score": np.tile([0.0, 1.0], EACH),
    }
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
    assert metrics.measure("moment_error", evidence())[""].note == "the target asks for no moment"


def asked(features, wanted, categories=None, each=12):
    return evidence(wanted=wanted, features=features, each=each, categories=categories or {})


def test_a_moment_of_zeros_and_ones_has_wilsons_limits():
    """0 of 24: planted, the delta interval 0 ± 0. Golden: scipy's binomtest(0, 24).proportion_ci(method="wilson")."""
    e = asked({"f": np.zeros(24)}, [Wanted("f", "moment", value=0.1)])
    answer = metrics.measure("satisfaction", e)["moment.f"]
    assert (answer.value, answer.ci_low) == (0.0, 0.0)
    assert answer.ci_high == pytest.approx(0.13798, abs=1e-5)
    assert answer.stderr > 0.03
    assert "feature of 0 and 1" in answer.note
    error = metrics.measure("moment_error", e)["f"]
    assert (error.ci_low, error.value) == pytest.approx((-0.1, -0.1))
    assert error.ci_high == pytest.approx(0.03798, abs=1e-5)
    level = metrics.measure("satisfaction", asked({"f": np.full(24, 7.0)}, [Wanted("f", "moment", value=7.0)]))
    assert level["moment.f"] == Estimate(7.0, n=24, note="no interval: the draws do not differ; wanted 7")


def test_a_size_of_zero_has_an_interval():
    """12 of 24 and 0.5 wanted: sign(0) = 0 made this 0 ± 0."""
    e = asked({"f": np.tile([0.0, 1.0], 12)}, [Wanted("f", "moment", value=0.5)])
    part, size = (metrics.measure("moment_error", e)[p] for p in ("f", ""))
    assert (size.value, size.ci_low) == (0.0, 0.0)
    assert size.ci_high == pytest.approx(part.ci_high) and size.ci_high > 0.15
    assert size.stderr == part.stderr > 0.05
    assert size.note.startswith("mean of |reached − wanted|; limits: those of the error, folded at 0")
    flat = asked({"f": np.full(24, 7.0)}, [Wanted("f", "moment", value=6.0)])
    size = metrics.measure("moment_error", flat)[""]
    assert (size.value, size.stderr, size.ci_low) == (1.0, None, None)
    assert "do not differ" in size.note


def test_sizes_of_errors_are_folded_limits():
    e = asked({"f": np.repeat([0.0, 1.0], 12), "g": np.tile([1.0, 1.0, 2.0, 4.0], 6)},
              [Wanted("f", "moment", value=0.5), Wanted("g", "moment", value=4.0)])  # fmt: skip
    answer = metrics.measure("moment_error", e)
    size, near, far = answer[""], answer["f"], answer["g"]
    assert size.value == pytest.approx((0.0 + 2.0) / 2)
    assert size.ci_high == pytest.approx((max(-near.ci_low, near.ci_high) - far.ci_low) / 2)
    assert 0 < size.ci_low < -far.ci_high / 2  # the lower limits are wider, Bonferroni's
    assert "1 − 0.05/2" in size.note


TARGETED = {
    "one, on target": ([0.5], [0.5]),
    "one, off": ([0.3], [0.5]),
    "rare": ([0.05], [0.05]),
    "four, on target": ([0.2, 0.4, 0.5, 0.7], [0.2, 0.4, 0.5, 0.7]),
    "four, two of them off": ([0.2, 0.4, 0.5, 0.7], [0.2, 0.1, 0.5, 0.4]),
}


@pytest.mark.parametrize("name", TARGETED)
def test_sizes_of_errors_are_covered_and_never_negative(name):
    rates, wanted = (np.array(x) for x in TARGETED[name])
    truth, held = np.abs(rates - wanted).mean(), 0
    asks = [Wanted(f"f{k}", "moment", value=w) for k, w in enumerate(wanted)]
    for seed in range(300):
        hit = np.random.default_rng(seed).random((24, rates.size)) < rates
        size = metrics.measure("moment_error", asked({f"f{k}": hit[:, k] for k in range(rates.size)}, asks))[""]
        held += size.ci_low - 1e-12 <= truth <= size.ci_high + 1e-12
        assert size.ci_low >= 0 and size.stderr > 0
    assert held >= 0.92 * 300


def test_three_shares_have_three_errors_and_two_have_one():
    three = [Wanted("g", "distribution", c, 1 / 3) for c in "abc"]
    codes = np.random.default_rng(0).integers(0, 3, 24)
    size = metrics.measure("moment_error", asked({"g": codes}, three, {"g": ("a", "b", "c")}))[""]
    assert "1 − 0.05/3" in size.note
    assert "folded at 0; " in metrics.measure("moment_error", gendered(np.tile([0, 1], 12)))[""].note


def test_a_share_without_spread_has_an_error_and_counts_groups():
    codes = np.tile([1, -1], 20)
    loose = gendered(codes)
    group = np.repeat(np.arange(10), 4)
    tied = replace(loose, own=replace(loose.own, draws=replace(loose.own.draws, group=group)))
    one, ten = (metrics.measure("satisfaction", e)["share.pronoun.she"] for e in (loose, tied))
    assert one.stderr > 0
    assert (one.ci_high, ten.ci_high) == pytest.approx((Z95**2 / (20 + Z95**2), Z95**2 / (10 + Z95**2)))


def exact(law, p):
    with np.errstate(divide="ignore", invalid="ignore"):
        return float(np.where(law > 0, law * (np.log(law) - np.log(p)), 0.0).sum(axis=1).mean())


Z = P.sum(axis=1)
TARGET = P / Z[:, None]


def test_divergences_of_a_generator_with_a_density():
    answer = metrics.measure("divergence", evidence())
    truth = {
        "kl_target": exact(TARGET, G),
        "kl_reverse": exact(G, TARGET),
        "kl_base": exact(G, A),
        "kl_base_k1": exact(G, A),
        "log_z": np.log(Z).mean(),
        "kl_target_within": exact(TARGET, G),
        "kl_reverse_within": exact(G, TARGET),
        "tv": np.abs(TARGET - G).sum(axis=1).mean() / 2,
    }
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


def flat(evidence, level):
    """The same evidence for a target whose weights are all e^level."""
    own, ref = (replace(s, log_target=s.log_base + level) for s in (evidence.own, evidence.ref))
    tilted = replace(
        evidence.fit, wanted=(Wanted("f", "moment", value=0.5),), lam=np.ones((1, 1)), lam_stderr=np.ones((1, 1))
    )
    return replace(evidence, own=own, ref=ref, fit=tilted)


@pytest.mark.parametrize("how", [{"is_base": True}, {"selection": Selection("best", 4)}, {}])
@pytest.mark.parametrize("level", [0.0, 0.3])
def test_a_tilt_that_the_sample_does_not_show_has_no_value(how, level):
    answer = metrics.measure("divergence", flat(evidence(A if "is_base" in how else G, **how), level))
    for part in ("kl_target", "tv", "js", "log_z", "kl_reverse"):
        shown = answer[part]
        assert (shown.stderr, shown.ci_low, shown.ci_high) == (None, None, None), part
        assert shown.value == math.inf or (shown.value is None and "the target tilts" in shown.note), part
    hard = flat(evidence(A, is_base=True), 0.0)
    hard = replace(hard, fit=replace(hard.fit, wanted=(Wanted("f", "always"),)))
    assert metrics.measure("divergence", hard)["kl_target"].ci_high > 0  # a hard constraint that all draws keep


EXACT = ("by construction", "the base itself")


@pytest.mark.parametrize("level", [0.0, 0.3])
@pytest.mark.parametrize(
    "how",
    [{}, {"is_base": True}, {"selection": Selection("best", 4)}, {"selection": Selection("best", 1)},
     {"selection": Selection("first", 9)}],
)  # fmt: skip
def test_no_interval_of_width_zero_unless_it_is_exact(how, level):
    """Every metric, on draws that all agree in everything."""
    e = flat(evidence(A, each=20, gen=True, **how), level)
    kept = replace(e.own.draws, proposals=np.ones(40, int), texts=("a b c",) * 40)
    features = {"f": np.ones(40), "g": np.full(40, 5.0), "pronoun": np.zeros(40, int)}
    proposed = np.stack([kept.prompt, kept.proposals, np.ones(40)], axis=1)
    wanted = (*GENDER, *(Wanted(f, "moment", value=v) for f, v in (("f", 1.0), ("g", 4.0))), Wanted("f", "always"))
    spent = Cost(seconds=2.0, tokens=80, proposals=40, kept=40, peak_bytes=1)
    own = replace(e.own, draws=kept, features=features, kl_base=np.zeros(40), log_gen=e.own.log_base)
    e = replace(e, own=own, ref=replace(e.ref, log_gen=e.ref.log_base), proposed=proposed, cost=spent)
    e = replace(e, fit=replace(e.fit, wanted=wanted), categories={"pronoun": ("she", "he")})
    seen = set()
    for name in asking_nothing():
        for part, shown in metrics.measure(
            name, e, **({"words": 3} if "words" in metric[name].parameters else {})
        ).items():
            if shown.stderr == 0 or (shown.ci_low is not None and shown.ci_low == shown.ci_high):
                assert any(x in shown.note for x in EXACT), (name, part, shown)
            if shown.value is not None and shown.ci_low is None and shown.ci_high is None:
                assert "no interval" in shown.note or math.isinf(shown.value), (name, part, shown)
            seen.add(name)
    assert seen >= {"acceptance", "distinct", "divergence", "moment_error", "perplexity", "satisfaction", "self_bleu"}


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
    asked = {
        "kl_asked": "the target asks nothing",
        "kl_collateral": "the target asks nothing",
        "kl_asked_vs_base": "the target asks nothing",
    }
    for part, estimate in answer.items():
        assert part == "log_z" or estimate.note == asked.get(part, "a remote black box"), part


def test_a_prompt_without_draws_is_named():
    e = evidence()
    only = replace(
        e.own,
        draws=e.own.draws.take(e.own.draws.prompt == 0),
        **{f: getattr(e.own, f)[e.own.draws.prompt == 0] for f in ("log_base", "log_target", "log_gen")},
    )
    answer = metrics.measure("divergence", replace(e, own=only))
    assert answer["kl_target"].note == "no own draws for prompt 1"


def test_acceptance_and_cost():
    e = evidence(
        cost=Cost(seconds=2.0, tokens=800, calls=1000, proposals=600, kept=200, exhausted=3, peak_bytes=5_000_000)
    )
    assert "rejects nothing" in metrics.measure("acceptance", e)["rate"].note
    kept = replace(e.own.draws, proposals=np.tile([1, 5], EACH))
    left_out = [[0, 5, 0]] * 20 + [[1, 5, 0]] * 20  # none of these proposals was accepted: they count
    proposed = np.concatenate([np.stack([kept.prompt, kept.proposals, np.ones(len(kept))], axis=1), left_out])
    answer = metrics.measure("acceptance", replace(e, own=replace(e.own, draws=kept), proposed=proposed))
    assert answer["rate"].value == pytest.approx(100 / 400, abs=0.002)
    assert answer["proposals_per_draw"].value == 3.0
    assert "left out" not in answer["rate"].note  # every cell of the row says it: it was said twice here
    spent = metrics.measure("cost", e)
    assert {p: x.value for p, x in spent.items()} == {
        "seconds": 2.0,
        "tokens_per_second": 400.0,
        "tokens_per_draw": 4.0,
        "calls_per_draw": 5.0,
        "proposals_per_draw": 3.0,
        "peak_memory_mb": 5.0,
    }
    assert spent["seconds"].stderr is None
    assert "once" in spent["seconds"].note
    shared = "measured once: no interval; the process's high-water mark so far"
    for device, note in (("", shared), ("cpu", shared), ("cuda:0", "measured once: no interval")):
        booked = replace(e.cost, device=device, training=Training(steps=3, peak_bytes=7_000_000))
        told = metrics.measure("cost", replace(e, cost=booked))
        assert [(told[p].value, told[p].note) for p in ("peak_memory_mb", "training_peak_memory_mb")] == [
            (5.0, note), (7.0, note)
        ]  # fmt: skip
        assert {p for p in told if p.startswith("training")} == {"training_peak_memory_mb", "training_steps"}
    assert metrics.better("cost", "training_peak_memory_mb") == "lower"


def test_all_proposals_accepted_is_no_certainty():
    """24 of 24, 12 for each prompt: exact lower limits 0.7354, by MOVER."""
    e = evidence(each=12)
    kept = replace(e.own.draws, proposals=np.ones(24, int))
    proposed = np.stack([kept.prompt, kept.proposals, np.ones(24)], axis=1)
    answer = metrics.measure("acceptance", replace(e, own=replace(e.own, draws=kept), proposed=proposed))
    rate = answer["rate"]
    assert (rate.value, rate.ci_high) == (1.0, 1.0)
    assert rate.ci_low == pytest.approx(1 - (1 - 0.7354) / math.sqrt(2), abs=1e-4)
    assert rate.stderr > 0.03
    assert answer["proposals_per_draw"] == Estimate(1.0, n=24, note="no interval: the draws do not differ")


def test_acceptance_is_covered():
    held, truth = 0, np.array([0.9, 0.3])
    e = evidence(each=12)
    for seed in range(300):
        proposals = np.random.default_rng(seed).geometric(np.repeat(truth, 12))
        kept = replace(e.own.draws, proposals=proposals)
        proposed = np.stack([kept.prompt, proposals, np.ones(24)], axis=1)
        rate = metrics.measure("acceptance", replace(e, own=replace(e.own, draws=kept), proposed=proposed))["rate"]
        held += rate.ci_low <= truth.mean() <= rate.ci_high
    assert held >= 0.92 * 300
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


def test_at_asked_carries_the_error_of_lambda_and_says_so():
    """The same values with wider intervals, and no note of the fitted λ; nothing changes without moments."""
    e = evidence()
    phi = {"own": e.own.draws.prompt + 1.0, "ref": np.random.default_rng(0).uniform(-2, 2, len(e.ref.draws))}
    own, ref = (replace(getattr(e, k), phi=phi[k][:, None], log_target=getattr(e, k).log_base) for k in phi)
    fit = Fit((Wanted("f", "moment", value=0.5),), np.zeros((1, 1)), np.full((1, 1), 0.2))
    fit = replace(fit, log_bound=np.full(len(e.prompts), 0.5))
    e = replace(e, own=own, ref=ref, fit=fit)
    ref = replace(ref, log_target=ref.log_base + 0.15 * phi["ref"])
    e = replace(e, ref=ref)
    fitted, asked = (metrics.measure("divergence", e, at=at) for at in ("fitted", "asked"))
    for part in ("tv", "log_z"):
        assert asked[part].value == fitted[part].value
        assert asked[part].stderr > fitted[part].stderr, part
        assert "fitted λ = 0" in fitted[part].note and "error is carried" in asked[part].note
    assert asked["kl_base"].stderr == fitted["kl_base"].stderr  # π and a have no λ


def test_at_is_one_of_two_words():
    with pytest.raises(UsageError, match=r"must be fitted or asked, not 'aksed'. Did you mean 'asked'\?"):
        metrics.measure("divergence", evidence(), at="aksed")


def test_length_says_how_many_draws_are_cut():
    e = evidence()
    assert "tokens are not known" in metrics.measure("length", e)["cut"].note  # texts alone: words are no tokens
    known = replace(e.own.draws, tokens=np.zeros((len(e.own.draws), 1), int))
    cut = replace(known, finished=np.arange(len(e.own.draws)) % 4 > 0)
    answer = metrics.measure("length", replace(e, own=replace(e.own, draws=cut), max_tokens=40))
    assert answer["cut"].value == pytest.approx(0.25) and answer["cut"].ci_low > 0.1
    assert "0.25 of draws are cut at 40 tokens" in answer["tokens"].note
    assert (
        metrics.measure("length", replace(e, own=replace(e.own, draws=replace(cut, finished=cut.finished | True))))[
            "tokens"
        ].note.count("cut")
        == 0
    )


def test_win_rate_is_a_half_for_the_base_and_closed_for_best_of_n():
    base = metrics.measure("win_rate", evidence(A, is_base=True))[""]
    assert (base.value, base.stderr) == (0.5, 0.0)
    best = metrics.measure("win_rate", evidence(selection=Selection("best", 4)))[""]
    assert 0.5 < best.value <= 0.8 and "closed form" in best.note
    other = metrics.measure("win_rate", evidence())[""]
    assert 0 < other.ci_low < other.value < other.ci_high < 1


def test_a_win_rate_needs_draws_that_the_base_can_say():
    e = evidence()
    lost = np.where(np.arange(len(e.own.draws)) < 3, -np.inf, e.own.log_base)
    answer = metrics.measure("win_rate", replace(e, own=replace(e.own, log_base=lost)))[""]
    assert answer.value is None and "the base cannot say" in answer.note


def test_at_asked_is_refused_where_p_at_the_fitted_lambda_is_in_the_generator():
    """Rejection draws p at λ̂: its distance from p at λ* is not 0, and not known."""
    e = flat(evidence(selection=Selection("first", 9)), 0.0)
    phi = {k: np.ones((len(getattr(e, k).draws), 1)) for k in ("own", "ref")}
    e = replace(e, own=replace(e.own, phi=phi["own"]), ref=replace(e.ref, phi=phi["ref"]))
    asked, fitted = (metrics.measure("divergence", e, at=at) for at in ("asked", "fitted"))
    assert (fitted["kl_target"].value, fitted["kl_target"].stderr) == (0.0, 0.0)
    for part in ("kl_target", "kl_reverse", "tv", "js"):
        assert asked[part].value is None and "picks by the fitted λ" in asked[part].note
    assert asked["kl_base"].value == fitted["kl_base"].value


def by_rank(rank, **more):
    """Best-of-4 of draws of the base, ranked by `rank` of the atom."""
    e = evidence(selection=Selection("best", 4), **more)
    atom = np.searchsorted([-2.0, -1.5, -1.1], e.ref.log_base)
    return replace(e, ref=replace(e.ref, rank=np.asarray(rank, float)[atom]))


def test_best_of_n_by_a_rank_has_the_divergences_of_that_rank():
    """Ranks that fall with log a: π is none of p's, and its win rate is counted from its own draws."""
    falling = by_rank([3, 2, 1, 0])
    found, by_ratio = (metrics.measure("divergence", e) for e in (falling, evidence(selection=Selection("best", 4))))
    assert found["kl_target"].value > 10 * by_ratio["kl_target"].value
    assert "closed form" in found["kl_target"].note and found["kl_base_rb"].value is None
    assert "closed form" not in metrics.measure("win_rate", falling)[""].note
    two = np.where(np.arange(len(falling.ref.draws)) % 2, 0, 1)  # every other draw is of another proposal
    halves = replace(falling.ref, component=1 - two, log_proposal=falling.ref.log_base)
    one = falling.ref.draws.take(two == 1)
    alone = {name: getattr(falling.ref, name)[two == 1] for name in ("log_base", "log_target", "rank")}
    base_alone = replace(falling, ref=Scored(one, {}, log_gen=None, log_judge=None, **alone))
    mixed = metrics.measure("divergence", replace(falling, ref=halves))
    assert mixed["kl_target"].value == metrics.measure("divergence", base_alone)["kl_target"].value


def test_at_asked_the_target_moves_and_a_law_by_rank_stays():
    e = by_rank([3, 2, 1, 0])
    moving = {k: np.linspace(0, 1, len(getattr(e, k).draws))[:, None] for k in ("own", "ref")}
    fit = replace(e.fit, lam=np.array([[0.1]]), lam_stderr=np.array([[0.2]]))
    e = replace(e, fit=fit, **{k: replace(getattr(e, k), phi=phi) for k, phi in moving.items()})
    asked, fitted = (metrics.measure("divergence", e, at=at) for at in ("asked", "fitted"))
    assert asked["kl_target"].value == fitted["kl_target"].value
    assert asked["kl_target"].stderr > fitted["kl_target"].stderr
    assert (asked["kl_base"].value, asked["kl_base"].stderr) == (fitted["kl_base"].value, fitted["kl_base"].stderr)
    assert "fitted λ" in fitted["kl_target"].note and "fitted λ" not in fitted["kl_base"].note


def test_without_a_prompt_its_ranks_are_gone_too():
    e = by_rank([3, 2, 1, 0])
    assert left_out(e, 0).ref.rank.tolist() == e.ref.rank[e.ref.draws.prompt == 1].tolist()
    assert metrics.measure("divergence", left_out(e, 0))["kl_target"].value is not None


def test_a_hard_constraint_that_nothing_breaks_may_be_broken_unseen():
    """Of a finite KL(π‖p) the note says how likely it is that it is ∞; planted: nothing was said."""
    e = evidence(wanted=[Wanted("f", "always", value=1.0)], features={"f": np.ones(2 * EACH)})
    own, ref = (replace(s, log_target=s.log_base) for s in (e.own, e.ref))
    kept = metrics.measure("divergence", replace(e, own=own, ref=ref))["kl_reverse"]
    assert np.isfinite(kept.value) and "(share ≤ 0.0037)" in kept.note
    asked = replace(e.fit, wanted=(Wanted("f", "moment", value=0.5),))
    assert "share ≤" not in metrics.measure("divergence", replace(e, own=own, ref=ref, fit=asked))["kl_reverse"].note


def test_a_win_rate_is_over_draws_of_the_base():
    """Where a task has proposals, half of the reference draws are not the base's."""
    e = evidence()
    half = np.arange(len(e.ref.draws)) % 2
    mixed = replace(e, ref=replace(e.ref, component=half, log_proposal=e.ref.log_base))
    rows = np.flatnonzero(half == 0)
    alone = replace(e, ref=picked(e.ref, rows))
    assert metrics.measure("win_rate", mixed) == metrics.measure("win_rate", alone)
