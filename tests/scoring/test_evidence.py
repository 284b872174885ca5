"""Evidence on an exact world: which draws, scored by whom, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from models import tiny_gpt2
from task_on_base import TaskOnBase
from tiny_world import BASE, BRIGHT, PROMPTS, TASK

from alignbench import metrics
from alignbench.aligners.base import Setting
from alignbench.errors import RunError, Unsupported, UsageError
from alignbench.files import digest
from alignbench.generators import law as law_module
from alignbench.generators.described import identity_of
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf.factory import hf
from alignbench.generators.later import Later
from alignbench.generators.law import Law
from alignbench.registry import aligner, load_plugins
from alignbench.scoring import references, trust
from alignbench.scoring.evidence import WEIGHED
from alignbench.scoring.references import depends_on
from alignbench.seeds import Seed
from alignbench.spec import Spec
from alignbench.stats import discrete
from alignbench.stats.intervals import mean_over_prompts
from alignbench.store.draws import DrawStore
from alignbench.task import find_tasks, load_task
from alignbench.types import Draws, Selection, rows_of, silent

load_plugins()

MOMENT = "  - {feature: windy, moment: 0.5}\n"
REWARD = "  - {feature: length, reward: true, beta: 1.0}\n"


@pytest.fixture
def bench(tmp_path):
    def make(target="", base=BASE, features="", **changes):
        text = TASK.replace("target:\n", features + "target:\n") + BRIGHT + target
        (tmp_path / "tiny.yaml").write_text(text)
        given = {"draws": 200, "seed": Seed(7), "progress": silent} | changes
        task = load_task(tmp_path / "tiny.yaml")
        return TaskOnBase(task=task, base=base, base_name="exact", store=DrawStore(None), **given)

    return make


def ratio_by_hand(draws, lam=0.0):
    """log P − log a from the texts."""
    bright = np.array(["sun" in text.split() for text in draws.texts])
    windy = np.array(["wind" in text.split() for text in draws.texts], float)
    return np.where(bright, lam * (windy - 0.5), -np.inf)


def align(bench, name, **settings):
    recipe = aligner[name].thing(**settings)
    return recipe.align(Setting(bench.base, bench.target, bench.prompts, 3, bench.seed.on("train")))


# --- which draws


def test_streams_share_no_draw(bench, monkeypatch):
    """Ask the store for what, on which stream; each stream's draws differ from every other's, row by row."""
    made = bench(MOMENT)
    seen = {}
    right = DrawStore.sample

    def watched(self, generator, identity, wish, advance):
        stored = right(self, generator, identity, wish, advance)
        seen[wish.seed.stream] = stored.draws
        return stored

    monkeypatch.setattr(DrawStore, "sample", watched)
    made.measure("base", made.base)
    assert set(seen) == {"fit", "heldout", "ref", "own"}
    for one in seen:
        for other in seen:
            alike = np.mean([a == b for a, b in zip(seen[one].texts, seen[other].texts, strict=True)])
            assert (alike == 1) == (one == other), f"{one} and {other}"
            assert one == other or alike < 0.5


def test_planted_own_draws_that_are_the_reference_draws_are_seen(bench, monkeypatch):
    made = bench()
    monkeypatch.setattr(Seed, "on", lambda self, stream: self)
    got = made.measure("base", made.base)
    assert got.own.draws.texts == got.ref.draws.texts


def test_without_moments_nothing_is_drawn_to_fit(bench):
    made = bench()
    made.measure("base", made.base)
    assert made.fresh == 2 * 400
    moments = bench(MOMENT)
    assert moments.target is moments.target
    moments.measure("base", moments.base)
    moments.measure("again", moments.base)
    assert moments.fresh == 4 * 400, "fit, heldout, ref and own, each once: they are the pool's"


def test_reference_draws_are_shared(bench):
    made = bench()
    one, two = (made.measure("x", law) for law in (made.base, BASE.warped(temperature=0.5)))
    assert one.ref.draws is two.ref.draws
    assert one.fit is two.fit


# --- scores


def test_log_target_is_log_base_and_the_ratio(bench):
    made = bench(MOMENT)
    for generator in (BASE, BASE.warped(temperature=0.5), align(made, "best_of_n", n=2)):
        got = made.measure("x", generator)
        lam = float(made.target.fit.lam[0, 0])
        for scored in (got.own, got.ref):
            np.testing.assert_allclose(scored.log_base, BASE.log_prob(PROMPTS, scored.draws), atol=1e-9)
            ratio = ratio_by_hand(scored.draws, lam)
            np.testing.assert_allclose(scored.log_target, scored.log_base + ratio, atol=1e-9)
            assert scored.features["windy"].tolist() == [float("wind" in t.split()) for t in scored.draws.texts]
    assert lam != 0


def test_lambda_meets_its_moment_on_the_fitting_draws(bench):
    made = bench(MOMENT, draws=4000)
    lam, error = (float(x[0, 0]) for x in (made.target.fit.lam, made.target.fit.lam_stderr))
    means = []
    every = enumerate_draws(BASE, PROMPTS, max_tokens=3)
    for number in (0, 1):
        rows = every.prompt == number
        windy = np.array(["wind" in t.split() for t in np.array(every.texts)[rows]])
        p = np.exp(every.log_prob + ratio_by_hand(every, lam))[rows]
        means.append(p[windy].sum() / p.sum())
    held = made.target.fit.heldout["windy"]
    assert np.mean(means) - 0.5 == pytest.approx(0, abs=4 * max(error / 4, 0.01))
    assert held.value - (np.mean(means) - 0.5) == pytest.approx(0, abs=4 * held.stderr)


def test_a_law_is_scored_by_itself_and_by_the_base(bench):
    made, law = bench(), BASE.warped(temperature=0.5, top_p=0.9)
    got = made.measure("cold", law)
    np.testing.assert_allclose(got.own.log_gen, law.log_prob(PROMPTS, got.own.draws), atol=1e-9)
    np.testing.assert_allclose(got.ref.log_gen, law.log_prob(PROMPTS, got.ref.draws), atol=1e-9)
    assert got.own.kl_base is not None
    assert got.truncates
    assert not got.reasons
    assert not got.is_base
    assert not made.measure("warm", BASE.warped(temperature=0.5)).truncates


def test_the_base_is_at_distance_zero_of_itself(bench):
    made = bench()
    got = made.measure("base", made.base)
    assert got.is_base
    np.testing.assert_array_equal(got.own.log_gen, got.own.log_base)
    assert (got.own.kl_base == 0).all()


def test_a_base_with_settings_of_its_own_is_scored_under_them(bench):
    """a is the base's law and not its bare model."""
    cold = BASE.warped(temperature=0.5)
    made = bench(base=cold)
    for generator in (cold, BASE):
        got = made.measure("x", generator)
        np.testing.assert_allclose(got.own.log_base, cold.log_prob(PROMPTS, got.own.draws), atol=1e-9)
        np.testing.assert_allclose(got.ref.log_base, cold.log_prob(PROMPTS, got.ref.draws), atol=1e-9)
    selected = made.measure("best", align(made, "best_of_n", n=2))
    np.testing.assert_allclose(selected.own.log_base, cold.log_prob(PROMPTS, selected.own.draws), atol=1e-9)


def test_a_base_under_a_template_is_scored_under_it(bench):
    prompted = replace(BASE, template="wind wind {prompt} rain")
    made = bench(base=prompted)
    best = made.measure("best", align(made, "best_of_n", n=2))
    np.testing.assert_allclose(best.own.log_base, prompted.log_prob(PROMPTS, best.own.draws), atol=1e-9)
    other = made.measure("plain", BASE)
    np.testing.assert_allclose(other.own.log_base, prompted.log_prob(PROMPTS, other.own.draws), atol=1e-9)


def test_a_judge_scores_in_the_base_s_place(bench):
    judge = exact(words="sun rain wind", seed=8)
    got = bench(judge=judge, judge_name="exact:seed=8").measure("base", BASE)
    assert got.judge == "exact:seed=8" and not got.judge_is_base
    np.testing.assert_allclose(got.own.log_judge, judge.log_prob(PROMPTS, got.own.draws))
    plain = bench().measure("base", BASE)
    assert plain.judge == "" and plain.judge_is_base
    np.testing.assert_array_equal(plain.own.log_judge, plain.own.log_base)


# --- a real model's path, listed


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A random GPT-2 over 3 words and EOS."""
    return hf(pretrained=str(tiny_gpt2(tmp_path_factory.mktemp("evidence") / "gpt2", ("sun", "rain", "wind"))))


def listed_truth(base, gen, max_tokens=3):
    """Every divergence of `gen` from the conditioned base, by sums over all continuations in float64."""
    every = enumerate_draws(base, PROMPTS, max_tokens=max_tokens)
    log_gen, ratio, parts = gen.log_prob(PROMPTS, every), ratio_by_hand(every), []
    for number in range(len(PROMPTS)):
        rows = every.prompt == number
        a, pi, b = np.exp(every.log_prob[rows]), np.exp(log_gen[rows]), np.exp(ratio[rows])
        p, within = a * b / (a @ b), pi * b / (pi @ b)
        assert (a.sum(), pi.sum()) == pytest.approx((1, 1), abs=2e-6)
        assert discrete.kl(p, a) == pytest.approx(-np.log(a @ b), abs=1e-9)
        parts.append({
            "kl_target": discrete.kl(p, pi), "kl_target_within": discrete.kl(p, within), "tv": discrete.tv(p, pi),
            "kl_reverse": discrete.kl(pi, p), "kl_reverse_within": discrete.kl(within, p), "js": discrete.js(p, pi),
            "kl_base": discrete.kl(pi, a), "kl_base_rb": discrete.kl(pi, a), "kl_base_k1": discrete.kl(pi, a),
            "log_z": np.log(a @ b),
        })  # fmt: skip
    return {name: float(np.mean([p[name] for p in parts])) for name in parts[0]}


@pytest.mark.parametrize("settings", [{"temperature": 0.5}, {"top_p": 0.8}, {"temperature": 1.4, "min_p": 0.05}])
def test_divergences_of_a_real_model_are_those_of_its_listing(bench, gpt2, settings):
    """V = 4, T = 3, 80 sequences; infinities where the listing has them, else within 4 standard errors."""
    gen = gpt2.warped(**settings)
    made = bench(base=gpt2, draws=1500)
    got, truth = made.measure("law", gen), listed_truth(gpt2, gen)
    found = metrics.measure("divergence", got)
    for part, exact_value in truth.items():
        e = found[part]
        assert e.value == exact_value == np.inf or abs(e.value - exact_value) <= 4 * (e.stderr or 0.0) + 1e-5, part
    assert (got.own.kl_base >= 0).all()


def test_planted_bugs_move_the_divergences_of_a_real_model(bench, gpt2):
    """The EOS step left out of log π and log a; the temperature left out of log π."""
    gen = gpt2.warped(temperature=0.5)
    own, truth = bench(base=gpt2, draws=1500).measure("law", gen).own, listed_truth(gpt2, gen)["kl_base"]
    by_token = gen.token_log_prob(PROMPTS, own.draws) - gpt2.token_log_prob(PROMPTS, own.draws)
    before_eos = by_token.copy()
    before_eos[own.draws.finished, own.draws.length[own.draws.finished] - 1] = 0.0
    for k1, right in ((by_token.sum(1), True), (before_eos.sum(1), False), (np.zeros(len(own.draws)), False)):
        e = mean_over_prompts(own.draws.prompt, k1)
        assert (abs(e.value - truth) <= 4 * e.stderr) == right


# --- other people's generators


@dataclass
class BlackBox:
    """Texts alone."""

    def sample(self, prompts, rows, *, max_tokens, seed):
        draws = Draws.concat(list(BASE.sample(prompts, rows, max_tokens=max_tokens, seed=seed)))
        yield Draws.from_texts(np.stack([draws.prompt, draws.index], 1), draws.texts)


@dataclass
class PlugIn:
    """Ids and a density of its own, known by nothing but the protocol."""

    law: Law

    def sample(self, prompts, rows, *, max_tokens, seed):
        for draws in self.law.sample(prompts, rows, max_tokens=max_tokens, seed=seed):
            yield replace(draws, log_prob=None, token_log_prob=None, model_log_prob=None)

    def log_prob(self, prompts, draws):
        return self.law.log_prob(prompts, draws)


def test_a_black_box_is_measured_by_its_texts(bench):
    got = bench().measure("box", BlackBox())
    assert got.own.log_base is None
    assert got.own.log_target is None
    assert got.own.log_gen is None
    assert got.own.log_judge is None
    assert got.ref.log_gen is None
    assert got.reasons == {
        "log_base": "the generator's tokens are not the base's, so the base cannot score them",
        "log_gen": "the generator's tokens are not the base's, so the base cannot score them",
        "kl_base": "the generator's next-token distributions are not known",
    }
    assert got.own.features["bright"].tolist() == [float("sun" in t.split()) for t in got.own.draws.texts]
    assert got.truth is None
    assert len(got.own.draws) == 400


def test_ids_without_a_density_are_scored_by_the_base_alone(bench):
    class Silent:
        sample = PlugIn.sample
        law = BASE.warped(temperature=0.5)

    got = bench().measure("silent", Silent())
    np.testing.assert_allclose(got.own.log_base, BASE.log_prob(PROMPTS, got.own.draws))
    assert got.own.log_gen is None
    assert got.reasons["log_gen"] == "the generator has no density (no log_prob)"


def test_a_plug_in_with_a_density_is_scored(bench):
    law = BASE.warped(temperature=0.5)
    got = bench().measure("mine", PlugIn(law))
    np.testing.assert_allclose(got.own.log_gen, law.log_prob(PROMPTS, got.own.draws))
    np.testing.assert_allclose(got.ref.log_gen, law.log_prob(PROMPTS, got.ref.draws))
    np.testing.assert_allclose(got.own.log_base, BASE.log_prob(PROMPTS, got.own.draws))
    assert got.own.kl_base is None
    assert got.reasons == {"kl_base": "the generator's next-token distributions are not known"}
    exactly = bench().measure("law", law)
    assert got.truth["divergence.kl_target"] == pytest.approx(exactly.truth["divergence.kl_target"])


def test_a_base_that_knows_no_density_is_refused(bench):
    with pytest.raises(Unsupported, match="base 'exact': has no log_prob, so it cannot score draws"):
        bench(base=BlackBox())
    made = bench(base=Later(BASE, BlackBox))  # nothing but loading it tells
    with pytest.raises(Unsupported, match="base 'exact': has no log_prob, so it cannot score draws"):
        made.ref  # noqa: B018


def test_draws_that_are_kept_of_a_black_box_cannot_be_weighed(bench):
    class Kept(BlackBox):
        selection, proposal = Selection("first", 4), BlackBox()

    with pytest.raises(RunError, match=r"^BlackBox: has no log_prob, by which the draws that are kept of it"):
        bench().measure("kept", Kept())


# --- refusals


def test_planted_law_that_rescores_wrongly_is_not_trusted(bench, monkeypatch):
    made, law = bench(), BASE.warped(temperature=0.5)
    right = law_module.compare

    def forgot_the_temperature(gen, base, prompts, draws):
        return right(base, base, prompts, draws)

    monkeypatch.setattr(law_module, "compare", forgot_the_temperature)
    got = made.measure("cold", law)
    assert got.own.log_gen is None
    assert got.ref.log_gen is None
    assert got.own.kl_base is None
    assert got.own.log_base is not None
    assert got.reasons["log_gen"].startswith("rescoring its own draws is off by up to ")
    assert got.reasons["log_gen"].endswith(f" nats (limit {trust.RESCORING})")


@pytest.mark.parametrize(("gap", "trusted"), [(0.05, True), (0.2, False)])
def test_the_rescoring_gate_is_at_its_limit(bench, monkeypatch, gap, trusted):
    right = law_module.compare

    def off(gen, base, prompts, draws):
        log_gen, log_base, kl = right(gen, base, prompts, draws)
        return np.where(np.arange(len(draws)) == 3, log_gen + gap, log_gen), log_base, kl

    monkeypatch.setattr(law_module, "compare", off)
    assert (bench().measure("cold", BASE.warped(temperature=0.5)).own.log_gen is not None) == trusted


def test_planted_plug_in_whose_density_is_not_what_it_samples_from(bench):
    """A plug-in that says both, and contradicts itself, is caught as a law is."""

    class Liar(PlugIn):
        def sample(self, prompts, rows, **asked):
            yield from self.law.sample(prompts, rows, **asked)

        def log_prob(self, prompts, draws):
            return BASE.log_prob(prompts, draws)  # forgot the temperature

    got = bench().measure("liar", Liar(BASE.warped(temperature=0.5)))
    assert got.own.log_gen is None
    assert got.reasons["log_gen"].startswith("rescoring its own draws is off by up to ")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("name", "settings"), [("top_k", {"k": 3}), ("constrained", {"any_of": ["sun"]})])
def test_a_network_in_half_precision_is_known_under_masks_too(bench, tmp_path, monkeypatch, name, settings, dtype):
    """What is off in bfloat16 is judged by its mean over tokens, not by the largest gap of a draw."""
    base = hf(pretrained=str(tiny_gpt2(tmp_path / "tiny", ("sun", "rain", "wind"))), dtype=dtype)
    bench = bench(base=base, draws=20)
    monkeypatch.setattr(trust, "RESCORING", -1.0)  # any gap is too much
    evidence = bench.measure(name, align(bench, name, **settings))
    assert (evidence.own.log_gen is not None) is (dtype == "bfloat16")


def test_planted_law_that_calls_half_of_its_own_draws_impossible_is_not_trusted(bench, monkeypatch):
    """One draw at the edge of a nucleus may be rescored as cut; many cannot be an accident of rounding."""
    right = law_module.compare

    def cut(gen, base, prompts, draws):
        log_gen, log_base, kl = right(gen, base, prompts, draws)
        return np.where(np.arange(len(draws)) % 2, log_gen, -np.inf), log_base, kl

    monkeypatch.setattr(law_module, "compare", cut)
    got = bench().measure("cold", BASE.warped(temperature=0.5))
    assert got.own.log_gen is None
    assert "impossible" in got.reasons["log_gen"]


def test_two_tokenizers_are_refused_before_anything_is_drawn(bench):
    made = bench()
    with pytest.raises(UsageError, match="different tokenizers: a KL divergence between them is not defined"):
        made.check(exact(words="sun rain wind fog", seed=3))
    made.check(BASE.warped(top_k=2))
    made.check(BlackBox())
    assert made.fresh == 0


def test_a_prompt_that_the_base_does_not_know_is_refused(bench):
    with pytest.raises(UsageError, match="the world has no word 'rain'"):
        bench(base=exact(words="sun wind")).check()


def test_a_prompt_whose_every_draw_ran_out_of_proposals_is_an_error(bench):
    """After wind this world says wind or nothing more: the cap is reached by each draw of "sun wind"."""
    table = np.log(np.tile([0.5e-12, 0.5e-12, 0.5, 0.5 - 1e-12], (5, 1)))
    table[1] = np.log([0.7, 0.1, 0.1, 0.1])
    made = bench(base=Law(replace(BASE.model, table=table)), draws=20)
    with pytest.raises(RunError) as caught:
        made.measure("rejection", align(made, "rejection", cap=1))
    said = str(caught.value)
    assert "every one of 20 draws of prompt 'sun wind' used up its 1 proposals; raise the cap" in said


def test_draws_that_ran_out_are_left_out_and_counted(bench):
    made = bench()
    got = made.measure("rejection", align(made, "rejection", cap=2))
    assert len(got.proposed) == 400
    assert got.cost.kept == len(got.own.draws) < 400
    assert got.cost.exhausted == 400 - got.cost.kept
    assert got.proposed[:, 2].sum() == got.cost.kept
    assert got.cost.proposals == got.proposed[:, 1].sum()
    assert all("sun" in text.split() for text in got.own.draws.texts)


# --- draws of p


@pytest.mark.parametrize("target", ["", MOMENT])
def test_the_ceiling_is_draws_of_p(bench, target):
    made = bench(target, draws=6000)
    got = made.ceiling()
    assert all("sun" in text.split() for text in got.own.draws.texts)
    assert got.own.log_gen is None
    assert got.reasons == {"log_gen": "draws of p itself"}
    lam = 0.0 if not target else float(made.target.fit.lam[0, 0])
    every = enumerate_draws(BASE, PROMPTS, max_tokens=3)
    p = np.exp(every.log_prob + ratio_by_hand(every, lam))
    for number in (0, 1):
        rows = np.flatnonzero(every.prompt == number)
        drawn = [tuple(t) for t in got.own.draws.take(got.own.draws.prompt == number).tokens]
        for row in rows:
            mass = p[row] / p[rows].sum()
            error = np.sqrt(mass * (1 - mass) / len(drawn))
            share = drawn.count(tuple(every.tokens[row])) / len(drawn)
            assert abs(share - mass) <= 4 * error + 1e-12, every.texts[row]
    np.testing.assert_allclose(got.own.log_base, BASE.log_prob(PROMPTS, got.own.draws), atol=1e-9)


def test_planted_ceiling_without_the_coin_is_seen(bench, monkeypatch):
    """Keeping every allowed reference draw gives the conditioned base, which is not p once there is a moment."""
    made = bench(MOMENT, draws=6000)
    lam = float(made.target.fit.lam[0, 0])
    allowed = made.ref.draws.take(made.ref.log_target > -np.inf)
    every = enumerate_draws(BASE, PROMPTS, max_tokens=3)
    p = np.exp(every.log_prob + ratio_by_hand(every, lam))
    windy = np.array(["wind" in t.split() for t in every.texts])
    wrong = []
    for number in (0, 1):
        mine, rows = allowed.take(allowed.prompt == number), every.prompt == number
        share = np.mean(["wind" in t.split() for t in mine.texts])
        truth = p[rows & windy].sum() / p[rows].sum()
        wrong.append(abs(share - truth) / np.sqrt(truth * (1 - truth) / len(mine)))
    assert max(wrong) > 4


def test_no_ceiling_without_a_bound_or_without_a_hit(bench):
    length = "  length: {feature: length_tokens}\n"
    with pytest.raises(Unsupported, match="draws of p: log P − log a has no known bound"):
        bench(REWARD, features=length).ceiling()
    table = BASE.model.table.copy()
    table[:] = np.log([[1e-12, 0.3, 0.3, 0.4 - 1e-12]])
    with pytest.raises(Unsupported, match="none among the reference draws of some prompt"):
        bench(base=Law(replace(BASE.model, table=table))).ceiling()


# --- what goes with it


def test_evidence_says_what_it_is_of(bench):
    got = bench(MOMENT).measure("x", BASE.warped(temperature=0.5))
    assert (got.prompts, got.base, got.max_tokens) == (PROMPTS, "exact", 3)
    assert [w.feature for w in got.fit.wanted] == ["bright", "windy"]
    assert got.fit.log_z.shape == got.fit.log_z_stderr.shape == (2,)
    assert got.cost.kept == got.cost.proposals == 400
    assert got.cost.tokens == got.own.draws.length.sum()
    assert got.cost.seconds > 0
    assert got.cost.peak_bytes > 10**7
    assert got.truth is not None


def test_evidence_is_found_by_all_that_it_depends_on(bench, monkeypatch):
    """Each change alone gives another name; nothing else does, such as where it lies or what it is called."""
    judge, plain = exact(words="sun rain wind", seed=8), bench(judge=exact(words="sun rain wind", seed=9))
    right = depends_on(plain, {"a": 1})
    others = {
        "judge": plain.anew(judge=judge), "no judge": plain.anew(judge=None), "draws": plain.anew(draws=201),
        "seed": plain.anew(seed=Seed(8)), "base": plain.anew(base=exact(words="sun rain wind", seed=4)),
        "task": bench(MOMENT, judge=exact(words="sun rain wind", seed=9)),
        "prompts": plain.anew(task=replace(plain.task, prompts=("rain",))),
        "proposals": plain.anew(task=replace(plain.task, proposals=(Spec("temperature", {"t": 2.0}),))),
    }  # fmt: skip
    names = {"": digest(right), "generator": digest(depends_on(plain, {"a": 2}))}
    names |= {what: digest(depends_on(one, {"a": 1})) for what, one in others.items()}
    assert len(set(names.values())) == len(names), names
    same = plain.anew(store=DrawStore(None), progress=silent, base_name="another", judge_name="another", limit=2)
    assert digest(depends_on(same, {"a": 1})) == names[""]
    monkeypatch.setattr(references, "EVIDENCE", references.EVIDENCE + 1)
    assert digest(depends_on(plain, {"a": 1})) not in names.values()


def test_another_lambda_is_another_target(bench):
    made = bench(MOMENT)
    before, fit = made.target_id, made.target.fit
    other = made.anew()
    other.__dict__["target"] = replace(made.target, fit=replace(fit, lam=fit.lam + 0.1))
    assert other.target_id != before == made.anew().target_id


def test_a_proposal_is_weighed_by_draws_of_its_own(bench):
    """Not by those that it proposed, which were looked at when some were kept."""
    made = bench()
    law = align(made, "sir", n=2, proposal="temperature:t=1.5")
    weighed = made.measure("sir", law).proposal
    assert (weighed.draws.index >= WEIGHED).all() and len(weighed.draws) == 400
    fresh = made.bench.draw("again", law.proposal, "ref", first=WEIGHED).draws
    assert weighed.draws.texts == fresh.texts


def test_half_precision_is_judged_by_the_token(bench):
    """A draw of ten tokens that is 0.1 nats off is 0.01 a token; the limit is 0.02."""
    own = bench().measure("base", BASE).own.draws
    long = replace(own, length=np.full(len(own), 10))
    assert trust.rescored(long, own.log_prob + 0.1, half=True)[1] == ""
    assert "nats per token" in trust.rescored(long, own.log_prob + 0.3, half=True)[1]


def test_selections_say_how_they_pick(bench):
    made = bench()
    best = made.measure("best", align(made, "best_of_n", n=3))
    assert (best.selection.kind, best.selection.n) == ("best", 3)
    assert best.cost.proposals == 3 * 400
    assert best.cost.tokens > best.own.draws.length.sum()
    assert best.proposed is None
    assert made.measure("law", BASE.warped(top_k=2)).selection is None


@pytest.mark.parametrize("rank", ["likelihood", "windy"])
def test_best_of_n_by_another_rank_is_where_the_truth_is(bench, rank):
    made = bench()
    got = made.measure("best", align(made, "best_of_n", n=3, rank=rank))
    values = got.ref.log_base if rank == "likelihood" else got.ref.features[rank]
    assert got.ref.rank == pytest.approx(values, abs=1e-9)
    found = metrics.measure("divergence", got)
    for part in ("kl_target", "kl_reverse_within", "kl_base", "tv"):
        truth = got.truth[f"divergence.{part}"]
        assert found[part].ci_low - 0.05 <= truth <= found[part].ci_high + 0.05, part
    assert made.measure("base", made.base).ref.rank is None


def test_best_of_n_of_a_proposal_has_bounds(bench):
    made = bench()
    got = made.measure("best", align(made, "best_of_n", n=3, proposal={"name": "temperature", "t": 2.0}))
    assert got.selection is got.proposal is got.truth is got.ref.rank is None
    found = metrics.measure("divergence", got)
    assert found["kl_target"].value is None and "no density" in found["kl_target"].note
    assert got.cost.proposals == 3 * 400 and got.own.log_base is not None


def test_identity_of_what_says_nothing_is_none():
    assert identity_of(BlackBox()) is None
    assert identity_of(BASE) == BASE.identity()


def test_draws_are_asked_for_prompt_by_prompt(bench):
    made = bench(draws=5)
    assert np.array_equal(np.stack([made.ref.draws.prompt, made.ref.draws.index], 1), rows_of(2, 5))


# --- proposals


PROPOSALS = "proposals: ['temperature:t=3', 'top_p:p=0.9']\n"


def test_reference_draws_of_proposals_are_weighed_by_the_mixture(bench):
    made = bench(features=PROPOSALS)
    ref = made.ref
    assert np.bincount(ref.component).tolist() == [400, 400, 400]
    assert ref.log_proposal == pytest.approx(mixture_by_hand(ref.draws), abs=1e-9)
    at_zero = [tuple(ref.draws.texts[i] for i in np.flatnonzero(ref.component == j)) for j in range(3)]
    assert len(set(at_zero)) == 3
    own = Law.log_prob(BASE, PROMPTS, ref.draws)
    np.testing.assert_allclose(ref.log_base, own, atol=1e-9)


def mixture_by_hand(draws):
    """log of the mean of the three densities, each asked of its law."""
    laws = (BASE, BASE.warped(temperature=3), BASE.warped(top_p=0.9))
    with np.errstate(divide="ignore"):
        return np.log(np.mean([np.exp(law.log_prob(PROMPTS, draws)) for law in laws], axis=0))


def test_draws_of_a_proposal_equal_to_the_base_are_other_draws(bench):
    """Planted otherwise: the same sample numbers would give the base's own draws a second time."""
    ref = bench(features="proposals: ['temperature:t=1.0']\n").ref
    mine, theirs = (tuple(ref.draws.texts[i] for i in np.flatnonzero(ref.component == j)) for j in (0, 1))
    assert np.mean([a == b for a, b in zip(mine, theirs, strict=True)]) < 0.5
    assert ref.log_proposal == pytest.approx(ref.log_base, abs=1e-9)


def test_a_rare_target_is_measured_with_proposals_and_refused_without():
    (task,), base = find_tasks("exact_proposals"), exact(words="sun rain wind snow hail", seed=279)
    found = {}
    for proposals, draws in (((), 64), (task.proposals, 256)):
        made = TaskOnBase(replace(task, proposals=proposals), base, "exact", DrawStore(None), draws, Seed(1), silent)
        got = made.measure("x", base.warped(temperature=1.5))
        found[bool(proposals)] = metrics.measure("divergence", got)["kl_target"], got.truth["divergence.kl_target"]
    assert found[False][0].value is None and "are needed" in found[False][0].note
    estimate, exactly = found[True]
    assert abs(estimate.value - exactly) < 4 * estimate.stderr


def test_closed_forms_and_the_ceiling_count_draws_of_the_base_alone(bench):
    plain, mixed = bench(), bench(features=PROPOSALS)
    best = [metrics.measure("divergence", b.measure("x", align(b, "best_of_n", n=2))) for b in (plain, mixed)]
    for part in ("kl_target", "tv", "kl_base"):
        assert best[0][part] == best[1][part], part
    assert plain.ceiling().own.draws.texts == mixed.ceiling().own.draws.texts
    assert mixed.measure("x", BASE).fit.log_z_stderr.max() < plain.measure("x", BASE).fit.log_z_stderr.max() * 1.2


def test_a_proposal_without_a_density_is_refused(bench):
    made = bench(features="proposals: ['best_of_n:n=2']\n")
    with pytest.raises(Unsupported, match="proposal 'best_of_n:n=2': has no log_prob"):
        _ = made.ref
