"""Aligners that weigh a proposal's draws: their laws are the enumerated ones, for the base and for other proposals."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS, keys, make_world
from exact_decoders import constrained
from scipy.stats import chi2

from alignbench.aligners.base import Setting
from alignbench.aligners.selection import quasi_rejection as quasi_module
from alignbench.aligners.selection.best_of_n import BestOfN, BestOfNSampler
from alignbench.aligners.selection.proposal import Proposal
from alignbench.aligners.selection.quasi_rejection import QuasiRejection, QuasiRejectionSampler
from alignbench.aligners.selection.rejection import Rejection
from alignbench.aligners.selection.rounds import Rounds
from alignbench.aligners.selection.sir import SIR
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.described import identity_of
from alignbench.generators.exact.automaton import counts
from alignbench.generators.exact.world import exact
from alignbench.seeds import ATTEMPT, Seed
from alignbench.target import Constraint
from alignbench.testing import check
from alignbench.types import Selection, collect, rows_of

COLD = "temperature:t=0.4"
KINDS = [Rejection, QuasiRejection, SIR]


def masking(base, lookahead=LENGTH):
    """The base with masks that keep "sun" within reach."""
    says = counts(base.vocab, "sun", 1)
    return constrained(base, says.mapped(lambda v: (v > 0).astype(float)), lookahead=lookahead)


def align(world, recipe):
    return recipe.align(Setting(world.base, world.target, PROMPTS, LENGTH, Seed(0, "train")))


def draw(sampler, each=500, rows=None):
    rows = rows_of(len(PROMPTS), each) if rows is None else np.array(rows)
    return collect(sampler.sample(PROMPTS, rows, max_tokens=LENGTH, seed=Seed(1)))


def kept(sampler, each=500):
    drawn = draw(sampler, each)
    return drawn.take(drawn.accepted)


def laws(world, q=None):
    """(a, P, q) of every continuation, prompt by prompt, with its keys."""
    log_q = world.all.log_prob if q is None else q.log_prob(PROMPTS, world.all)
    for c in range(len(PROMPTS)):
        rows = world.all.prompt == c
        a = np.exp(world.all.log_prob[rows])
        yield keys(world.all.take(rows)), a, a * np.exp(world.ratio[rows]), np.exp(log_q[rows])


def within(draws, truth, level=1e-4):
    """Whether frequencies are those of the laws, by Pearson's test of each prompt; the rare are pooled."""
    for c, law in enumerate(truth):
        drawn = Counter(keys(draws.take(draws.prompt == c)))
        expected = {key: drawn.total() * share for key, share in law.items()}
        if any(expected[key] == 0 for key in drawn):
            return False
        often = [key for key, count in expected.items() if count >= 5]
        seen = np.array([drawn[key] for key in often])
        wanted = np.array([expected[key] for key in often])
        rest = drawn.total() - wanted.sum(), drawn.total() - seen.sum()
        statistic = ((seen - wanted) ** 2 / wanted).sum() + ((rest[0] - rest[1]) ** 2 / rest[0] if rest[0] > 1 else 0)
        if statistic > chi2.isf(level, len(often) - (rest[0] <= 1)):
            return False
    return True


def quasi_law(world, beta, q=None):
    """min(P, βq), normalised."""
    found = []
    for names, _, p, mass in laws(world, q):
        m = np.minimum(p, beta * mass)
        found.append(dict(zip(names, m / m.sum(), strict=True)))
    return found


def sir_law(world, n, q=None):
    """By definition: the mean over all n-tuples of proposals (n = 2, 3) of the one drawn; all of weight 0 left out."""
    found = []
    for names, _, p, mass in laws(world, q):
        w = np.divide(p, mass, out=np.zeros(p.size), where=mass > 0)
        others = w[None, :] if n == 2 else (w[:, None] + w[None, :]).reshape(1, -1)
        chance = mass if n == 2 else np.outer(mass, mass).ravel()
        total = w[:, None] + others
        pi = mass * (np.divide(w[:, None], total, out=np.zeros(total.shape), where=total > 0) @ chance)
        found.append(dict(zip(names, pi / pi.sum(), strict=True)))
    return found


@pytest.fixture(scope="module")
def steep():
    """The text says sun, and each wind in it counts two nats: weights of 1, 7.4 and 55."""
    return make_world(Constraint("sun", "always"), Constraint("winds", "reward", beta=0.5))


@pytest.fixture(scope="module")
def cold(steep):
    return steep.base.warped(temperature=0.4)


def test_quasi_rejection_draws_the_enumerated_law(steep, cold):
    for beta in (0.4, 15.0):
        assert within(kept(align(steep, QuasiRejection(beta=beta))), quasi_law(steep, beta))
        assert within(kept(align(steep, QuasiRejection(beta=beta, proposal=COLD))), quasi_law(steep, beta, cold))


def test_beta_above_all_weights_is_exact(steep):
    hot = steep.base.warped(temperature=2.0)
    top = max(float((p / q).max()) for _, _, p, q in laws(steep, hot))
    recipe = QuasiRejection(beta=top * 1.01, proposal="temperature:t=2.0")
    assert within(kept(align(steep, recipe), 300), steep.p)
    assert quasi_law(steep, top * 1.01, hot)[0] == pytest.approx(steep.p[0])
    assert align(steep, recipe).selection.kind == "quasi"  # that no weight is above β is not known


@pytest.mark.parametrize("n", [2, 3])
def test_sir_draws_the_enumerated_law(steep, cold, n):
    assert within(kept(align(steep, SIR(n))), sir_law(steep, n))
    assert within(kept(align(steep, SIR(n, proposal=COLD))), sir_law(steep, n, cold))
    assert not within(kept(align(steep, SIR(6))), sir_law(steep, n))  # another n is seen
    assert not within(draw(align(steep, SIR(n))), sir_law(steep, n))  # those of weight 0 taken for draws of π


def test_a_masking_proposal_gives_exactly_p(soft):
    """Its bias is what the weights take off: the masked law itself is far from p."""
    q = masking(soft.base)
    sampler = align(soft, Rejection(proposal=q))
    drawn = draw(sampler, 500)
    assert drawn.accepted.all() and within(drawn, soft.p) and sampler.selection == Selection("first", 256)
    assert sampler.bound == align(soft, Rejection()).bound
    assert not within(collect(q.sample(PROMPTS, rows_of(2, 500), max_tokens=LENGTH, seed=Seed(1))), soft.p)
    assert within(kept(align(soft, SIR(3, proposal=q))), sir_law(soft, 3, q))
    assert within(kept(align(soft, QuasiRejection(proposal=q))), quasi_law(soft, 1.0, q))
    blind = align(soft, Rejection(proposal=masking(soft.base, lookahead=None)))
    assert within(kept(blind, 500), soft.p)


def test_planted_weights_without_the_base(steep, cold, monkeypatch):
    """The ratio log P − log a alone, with draws that the base did not draw."""
    right = Proposal.draw

    def forgets(self, prompts, rows, **more):
        found = right(self, prompts, rows, **more)
        return found._replace(log_weight=self.target.log_ratio_of(prompts, found.draws))

    monkeypatch.setattr(Proposal, "draw", forgets)
    assert not within(kept(align(steep, QuasiRejection(beta=30.0, proposal=COLD))), quasi_law(steep, 30.0, cold))
    assert not within(kept(align(steep, SIR(3, proposal=COLD))), sir_law(steep, 3, cold))


def test_planted_beta_twice(steep, monkeypatch):
    right = Rounds._accept
    monkeypatch.setattr(Rounds, "_accept", lambda self, prompts, proposed, seed: right(
        self, prompts, proposed._replace(log_weight=proposed.log_weight - self.log_beta[0]), seed))  # fmt: skip
    assert not within(kept(align(steep, QuasiRejection(beta=15.0))), quasi_law(steep, 15.0))


def test_planted_one_coin_for_all_attempts(steep, monkeypatch):
    right = Rounds._accept

    def of_the_row(self, prompts, proposed, seed):
        first = replace(proposed.draws, index=proposed.draws.index % ATTEMPT)
        return right(self, prompts, proposed._replace(draws=first), seed)

    monkeypatch.setattr(Rounds, "_accept", of_the_row)
    assert not within(kept(align(steep, QuasiRejection(beta=30.0))), quasi_law(steep, 30.0))


def test_beta_from_a_wish(steep):
    """The acceptance rate, or the bound on TV, is what was asked for, by the pilot, and so about that in truth."""
    for wish in ({"acceptance": 0.3}, {"tv": 0.05}):
        sampler = align(steep, QuasiRejection(pilot=1500, **wish))
        for beta, (_, a, p, _) in zip(np.exp(sampler.log_beta), laws(steep), strict=True):
            w = p / a
            reached = {"acceptance": a @ np.minimum(w / beta, 1), "tv": 1 - a @ np.minimum(w, beta) / (a @ w)}
            for name, wanted in wish.items():
                assert reached[name] == pytest.approx(wanted, abs=0.05)
    exact_as_seen = align(steep, QuasiRejection(tv=0.0, pilot=400))
    assert max(exact_as_seen.log_beta) <= 4 + 1e-9 and exact_as_seen.selection.kind == "quasi"


def test_the_pilot_is_drawn_when_it_is_needed_and_once(steep, monkeypatch):
    asked = []
    right = Proposal.draw
    monkeypatch.setattr(
        Proposal, "draw", lambda self, p, rows, **k: asked.append(k["seed"].stream) or right(self, p, rows, **k)
    )
    sampler = align(steep, QuasiRejection(tv=0.1, pilot=50))
    elsewhere = Setting(steep.base, steep.target, PROMPTS, LENGTH, Seed(7, "train"))
    other = QuasiRejection(tv=0.1, pilot=50).align(elsewhere)
    assert sampler.identity() != other.identity() and not asked
    draw(sampler, 5), draw(sampler, 6)
    assert asked.count("train") == 1 and set(asked) == {"train", "own"}
    assert len(sampler.selection.log_beta) == 2
    assert align(steep, QuasiRejection()).identity() == QuasiRejection().align(elsewhere).identity()


def test_what_cannot_be_had_is_one_line(steep):
    with pytest.raises(UsageError, match=r"acceptance=0.99: cannot be had for prompt 'sun', where \d+ of 64 pilot"):
        draw(align(steep, QuasiRejection(acceptance=0.99, pilot=64)), 2)
    never = make_world(Constraint("sun", "always"))
    never = replace(never, target=replace(never.target, measures={"sun": lambda p, d: np.zeros(len(d))}))
    with pytest.raises(UsageError, match=r"tv=0\.1: cannot be had"):
        draw(align(never, QuasiRejection(tv=0.1, pilot=20)), 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"beta": 1.0, "tv": 0.1}, "beta and tv both set β: give one"),
        ({"beta": 0}, "quasi_rejection:beta=0: must be a number above 0"),
        ({"acceptance": 1.5}, "acceptance=1.5: must be a number above 0 and at most 1"),
        ({"tv": 1}, "tv=1: must be a number at least 0 and below 1"),
        ({"pilot": 0}, "quasi_rejection:pilot=0: must be a whole number"),
        ({"proposal": "temprature:t=2"}, "quasi_rejection: proposal: unknown aligner 'temprature'"),
        ({"proposal": "temperature:tt=2"}, "unknown argument 'tt'"),
        ({"proposal": 7}, "must name an aligner or a generator, not 7"),
    ],
)
def test_a_users_mistake_is_one_line(arguments, said):
    with pytest.raises(UsageError, match=said):
        QuasiRejection(**arguments)


@pytest.mark.parametrize("kind", KINDS)
def test_proposals_that_will_not_do(steep, kind):
    with pytest.raises(Unsupported, match="proposal 'best_of_n' has no log_prob"):
        align(steep, kind(proposal="best_of_n"))
    with pytest.raises(UsageError, match="other tokens than the base"):
        align(steep, kind(proposal={"name": "exact", "words": "sun rain hail"}))


def test_rejection_needs_a_bound_on_the_proposal(steep):
    with pytest.raises(Unsupported, match="not for this proposal; use quasi_rejection"):
        align(steep, Rejection(proposal=COLD))
    for q in (masking(steep.base).warped(temperature=2.0), masking(steep.base.warped(temperature=2.0))):
        with pytest.raises(Unsupported, match="not for this proposal"):
            align(steep, Rejection(proposal=q))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_asked_gives_the_base_back(kind):
    world = make_world()
    base = collect(world.base.sample(PROMPTS, rows_of(2, 100), max_tokens=LENGTH, seed=Seed(1)))
    sampler = align(world, kind())
    drawn = draw(sampler, 400)
    assert drawn.accepted.all() and within(drawn, world.p) and sampler.selection.kind == "first"
    one = draw(align(world, kind(1)) if kind is not QuasiRejection else align(world, kind(cap=1)), 100)
    assert one.texts == base.texts


def test_what_is_exact_says_so(hard, steep):
    for recipe in (QuasiRejection(), QuasiRejection(beta=0.5), SIR(4)):
        assert align(hard, recipe).selection.kind == "first"  # a hard constraint on the base: one weight
        assert within(kept(align(hard, recipe), 500), hard.p)
    assert align(steep, QuasiRejection(beta=500.0)).selection.kind == "first"  # above the bound exp(6)
    assert align(steep, QuasiRejection(beta=4.0)).selection == Selection("quasi", 256, (np.log(4.0),) * 2)
    assert align(hard, SIR(4, proposal=COLD)).selection == Selection("resampled", 4)
    assert align(hard, QuasiRejection(proposal=COLD)).selection.kind == "quasi"


RECIPES = [
    QuasiRejection(cap=5), QuasiRejection(tv=0.1, pilot=20, cap=7, proposal=COLD), SIR(3), SIR(3, COLD)
]  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES, ids=str)
def test_the_laws_of_samplers(steep, recipe):
    """A draw is a function of its own row: order, company, batch sizes."""
    assert "draws_depend_on_their_row_alone" in check(align(steep, recipe), PROMPTS, max_tokens=LENGTH)


@pytest.mark.parametrize("recipe", [QuasiRejection(cap=6, proposal=COLD), SIR(6, COLD)], ids=str)
def test_the_bill_counts_what_is_scored(steep, cold, recipe):
    """Tokens of all proposals; calls: those, and those of the proposals with P > 0, which the base scores."""
    one = replace(steep, base=replace(steep.base, model=replace(steep.base.model, batch_size=1)))
    drawn = draw(align(one, recipe), each=6)
    for k in range(len(drawn)):
        rows = [[drawn.prompt[k], drawn.index[k] + a * ATTEMPT] for a in range(drawn.proposals[k])]
        proposals = collect(cold.sample(PROMPTS, np.array(rows), max_tokens=LENGTH, seed=Seed(1)))
        allowed = steep.target.log_ratio_of(PROMPTS, proposals) > -np.inf
        assert drawn.spent[k] == proposals.length.sum()
        assert drawn.calls[k] == drawn.spent[k] + proposals.length[allowed].sum()
    plain = draw(align(steep, replace(recipe, proposal=None)), each=6)
    assert np.array_equal(plain.calls, plain.spent)  # the base scored its own draws as it drew them


@pytest.mark.parametrize("kind", [BestOfN, QuasiRejection, SIR])
def test_a_proposal_has_the_training_prompts(hard, kind):
    """few_shot takes its examples from them, also where it is what an aligner selects from."""
    setting = Setting(hard.base, hard.target, PROMPTS, LENGTH, Seed(0, "train"), ("wind",))
    sampler = kind(proposal="few_shot:k=2").align(setting)
    assert {prompt for prompt, _ in sampler.proposal.frame.drawn} == {"wind"}
    assert sampler.proposal.uncounted == "the draws of which its 2 examples are"


def test_draws_of_a_proposal_without_an_identity_are_not_stored(steep, cold):
    class Unnamed:
        vocab, sample, log_prob = cold.vocab, cold.sample, cold.log_prob

    for recipe in (QuasiRejection(tv=0.1, proposal=Unnamed()), SIR(2, Unnamed())):
        assert identity_of(align(steep, recipe)) is None
    assert identity_of(BestOfNSampler(BestOfN(2), steep.base, steep.target, Unnamed())) is None
    assert identity_of(align(steep, QuasiRejection(proposal=COLD)))["proposal"] == cold.identity()


def test_identity(steep):
    samplers = [align(steep, recipe) for recipe in [*RECIPES, Rejection(proposal=masking(steep.base))]]
    found = [str(s.identity()) for s in samplers]
    assert len(set(found)) == len(found)
    assert align(steep, Rejection()).identity() == align(steep, Rejection(proposal=steep.base)).identity()
    assert quasi_module.QuasiRejection(proposal=COLD).align is not None
    assert samplers[-1].truncates and not samplers[0].truncates


def test_another_model_as_proposal(steep):
    """Any generator that has the base's tokens and a density."""
    spec = {"name": "exact", "words": "sun rain wind", "seed": 3}
    q = exact(words="sun rain wind", seed=3)
    assert within(kept(align(steep, QuasiRejection(beta=0.5, proposal=spec))), quasi_law(steep, 0.5, q))


@pytest.mark.parametrize(("log_beta", "kind"), [((0.5, 2.0), "first"), ((0.5, 1.0), "quasi")])
def test_quasi_rejection_is_exact_where_beta_bounds_every_prompt(log_beta, kind):
    weighed = SimpleNamespace(log_bound=lambda count: np.array([0.5, 1.5]), is_base=False)
    sampler = SimpleNamespace(
        weighed=weighed, log_beta=log_beta, setting=SimpleNamespace(prompts=("a", "b")), aligner=SimpleNamespace(cap=9)
    )
    assert QuasiRejectionSampler.selection.fget(sampler).kind == kind
