"""Exact values against sums over a dictionary of continuations."""

from __future__ import annotations

from itertools import product
from math import exp, inf, log

import numpy as np
import pytest

from alignbench.aligners.base import Setting
from alignbench.generators.exact.world import exact
from alignbench.registry import aligner, load_plugins
from alignbench.seeds import Seed
from alignbench.target import Constraint, Target
from alignbench.target.truth import exact_values
from alignbench.types import Fit, Selection

load_plugins()

PROMPTS = ("sun", "rain wind")
LENGTH = 3
LAM = np.array([[0.4, -0.7]])
BASE = exact(words="sun rain wind", seed=10)

CATEGORIES = ("sunny", "wet", "dry")


def bright(text):
    return float("sun" in text.split())


def winds(text):
    return float(text.split().count("wind"))


def weather(text):
    """0 sunny, 1 wet, 2 dry by the first word; −1 for no word at all."""
    words = text.split()
    return -1 if not words else ("sun", "rain", "wind").index(words[0])


def feature(of):
    return lambda prompts, draws: np.array([of(text) for text in draws.texts])


MEASURES = {"bright": feature(bright), "winds": feature(winds), "weather": feature(weather)}
ALWAYS = Constraint("bright", "always")
MOMENT = Constraint("winds", "moment", 0.4)
SHARES = Constraint("weather", "distribution", {"sunny": 0.7, "wet": 0.3})
REWARD = Constraint("winds", "reward", beta=2.0)


def target(*constraints, lam=LAM):
    given = Target(constraints, {"weather": CATEGORIES}, {"bright": (0, 1), "winds": (0, 3)}, measures=MEASURES)
    count = len(given.moment_names)
    return Target(
        given.constraints, given.categories, given.ranges, Fit(given.wanted(), lam[:, :count], lam[:, :count]), MEASURES
    )


ASKED = {
    "nothing": (target(), lambda text: 0.0),
    "always": (target(ALWAYS), lambda text: 0.0 if bright(text) else -inf),
    "moment": (target(MOMENT), lambda text: 0.4 * (winds(text) - 0.4)),
    "reward": (target(REWARD), lambda text: winds(text) / 2),
    "always, moment, distribution": (
        target(ALWAYS, MOMENT, SHARES),
        lambda text: (
            0.4 * (winds(text) - 0.4) - 0.7 * ((weather(text) == 0) - 0.7 * (weather(text) in (0, 1)))
            if bright(text)
            else -inf
        ),
    ),
}


def base_masses(prompt, temperature=1.0, top_k=None):
    """{(words said, ended): probability}, word by word from the table."""
    names = ("sun", "rain", "wind", "</s>")
    table = np.exp(BASE.model.table)

    def next_of(last):
        row = table[names.index(last)] ** (1 / temperature)
        if top_k:
            row = np.where(row >= np.sort(row)[-top_k], row, 0)
        return dict(zip(names, row / row.sum(), strict=True))

    found = {}
    for said in product(names[:3], repeat=LENGTH):
        for length in range(LENGTH + 1):
            words, mass, last = said[:length], 1.0, prompt.split()[-1]
            for word in words:
                mass, last = mass * next_of(last)[word], word
            ended = length < LENGTH
            found[(words, ended)] = mass * (next_of(last)["</s>"] if ended else 1.0)
    return found


def kl(p, q):
    return sum(m * (log(m / q[x]) if q[x] > 0 else inf) for x, m in p.items() if m > 0)


def normal(masses):
    total = sum(masses.values())
    return {x: m / total for x, m in masses.items()}


def best_of(n, a, ratio):
    """By definition: the mean over all n-tuples of draws of the uniform choice among the best."""
    found = dict.fromkeys(a, 0.0)
    values = sorted({round(ratio[x], 9) for x in a})
    level = {x: round(ratio[x], 9) for x in a}
    for value in values:
        upto = sum(m for x, m in a.items() if level[x] <= value)
        below = sum(m for x, m in a.items() if level[x] < value)
        chosen = upto**n - below**n
        here = sum(m for x, m in a.items() if level[x] == value)
        for x, m in a.items():
            if level[x] == value:
                found[x] += chosen * m / here if here else 0.0
    return found


def pairs_of(a, w):
    """One of two draws, with probability ∝ its weight; two of weight 0 are left out."""
    return normal({x: sum(2 * a[x] * a[y] * w[x] / (w[x] + w[y]) for y in a) if w[x] else 0.0 for x in a})


def brute(log_weight, law):
    """Every part by sums over the dictionaries of the two prompts, averaged."""
    parts = []
    for prompt in PROMPTS:
        a = base_masses(prompt)
        ratio = {x: log_weight(" ".join(x[0])) for x in a}
        pi = law(prompt, a, ratio)
        weighted = {x: m * exp(ratio[x]) for x, m in a.items()}
        p = normal(weighted)
        inside = normal({x: m if ratio[x] > -inf else 0.0 for x, m in pi.items()})
        middle = {x: (p[x] + pi[x]) / 2 for x in a}
        parts.append({
            "kl_target": kl(p, pi), "kl_target_within": kl(p, inside), "kl_reverse": kl(pi, p),
            "kl_reverse_within": kl(inside, p), "kl_base": kl(pi, a), "kl_base_rb": kl(pi, a), "kl_base_k1": kl(pi, a),
            "tv": sum(abs(p[x] - pi[x]) for x in a) / 2, "js": (kl(p, middle) + kl(pi, middle)) / 2,
            "log_z": log(sum(weighted.values())),
            "always": sum(m for x, m in pi.items() if ratio[x] > -inf),
            "winds": sum(m * winds(" ".join(x[0])) for x, m in pi.items()),
            **{c: sum(m for x, m in pi.items() if weather(" ".join(x[0])) == k) for k, c in enumerate(CATEGORIES)},
        })  # fmt: skip
    return {name: float(np.mean([p[name] for p in parts])) for name in parts[0]}


def tempered(prompt, a, ratio):
    return base_masses(prompt, temperature=0.6)


def truncated(prompt, a, ratio):
    return base_masses(prompt, top_k=2)


GENERATORS = {
    "base": (lambda target: BASE, lambda prompt, a, ratio: a),
    "temperature": (lambda target: BASE.warped(temperature=0.6), tempered),
    "top-k": (lambda target: BASE.warped(top_k=2), truncated),
    "best_of_n": (
        lambda target: aligner["best_of_n"].thing(n=3).align(Setting(BASE, target, PROMPTS, LENGTH, Seed())),
        lambda prompt, a, ratio: best_of(3, a, ratio),
    ),
    "rejection": (
        lambda target: type("Rejects", (), {"selection": Selection("first", 9)})(),
        lambda prompt, a, ratio: normal({x: m * exp(ratio[x]) for x, m in a.items()}),
    ),
    "quasi": (
        lambda target: type("Quasi", (), {"selection": Selection("quasi", 9, (0.2, -0.4))})(),
        lambda prompt, a, ratio: normal(
            {x: m * min(exp(ratio[x]), exp(0.2 if prompt == PROMPTS[0] else -0.4)) for x, m in a.items()}
        ),
    ),
    "quasi of another proposal": (
        lambda target: type(
            "Quasi", (), {"selection": Selection("quasi", 9, (0.2, 0.2)), "proposal": BASE.warped(temperature=0.6)}
        )(),
        lambda prompt, a, ratio: normal(
            {x: min(m * exp(ratio[x]), exp(0.2) * tempered(prompt, a, ratio)[x]) for x, m in a.items()}
        ),
    ),
    "filtered over another proposal": (
        lambda target: type(
            "Filters", (), {"selection": Selection("filtered", 9), "proposal": BASE.warped(temperature=0.6)}
        )(),
        lambda prompt, a, ratio: normal({x: m * (ratio[x] > -inf) for x, m in tempered(prompt, a, ratio).items()}),
    ),
    "resampled": (
        lambda target: type("Resamples", (), {"selection": Selection("resampled", 2)})(),
        lambda prompt, a, ratio: pairs_of(a, {x: exp(ratio[x]) for x in a}),
    ),
}
DIVERGENCES = ("kl_target", "kl_target_within", "kl_reverse", "kl_reverse_within", "kl_base", "kl_base_rb",
               "kl_base_k1", "tv", "js", "log_z")  # fmt: skip


def test_the_dictionary_sums_to_one():
    for prompt in PROMPTS:
        for law in ({}, {"temperature": 0.6}, {"top_k": 2}):
            assert sum(base_masses(prompt, **law).values()) == pytest.approx(1)


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("asked", ASKED)
def test_every_part_is_its_sum(asked, generator):
    aim, log_weight = ASKED[asked]
    make, law = GENERATORS[generator]
    found = exact_values(BASE, make(aim), aim, PROMPTS, LENGTH)
    expected = brute(log_weight, law)
    for part in DIVERGENCES:
        assert found[f"divergence.{part}"] == pytest.approx(expected[part], abs=1e-9), part
    assert found["satisfaction.always"] == pytest.approx(expected["always"])


@pytest.mark.parametrize("generator", GENERATORS)
def test_what_is_reached(generator):
    aim, log_weight = ASKED["always, moment, distribution"]
    make, law = GENERATORS[generator]
    found = exact_values(BASE, make(aim), aim, PROMPTS, LENGTH)
    expected = brute(log_weight, law)
    assert found["satisfaction.moment.winds"] == pytest.approx(expected["winds"])
    assert found["moment_error.winds"] == pytest.approx(expected["winds"] - 0.4)
    listed = expected["sunny"] + expected["wet"]  # dry has no wanted share and stays out of the ratio
    for name, wanted in (("sunny", 0.7), ("wet", 0.3)):
        share = expected[name] / listed
        assert found[f"satisfaction.share.weather.{name}"] == pytest.approx(share)
        assert found[f"moment_error.weather.{name}"] == pytest.approx(share - wanted)
    reward = exact_values(BASE, BASE, ASKED["reward"][0], PROMPTS, LENGTH)
    assert reward["satisfaction.reward.winds"] == pytest.approx(brute(lambda t: 0.0, lambda q, a, r: a)["winds"])
    assert not [name for name in reward if name.startswith("moment_error")]


def test_a_share_is_a_ratio_of_means_and_not_a_mean_of_ratios():
    aim = ASKED["always, moment, distribution"][0]
    together = exact_values(BASE, BASE, aim, PROMPTS, LENGTH)["satisfaction.share.weather.sunny"]
    apart = [exact_values(BASE, BASE, aim, [prompt], LENGTH)["satisfaction.share.weather.sunny"] for prompt in PROMPTS]
    assert together != pytest.approx(np.mean(apart), abs=1e-3)
    parts = [brute_of(prompt) for prompt in PROMPTS]
    assert together == pytest.approx(sum(s for s, _ in parts) / sum(s + w for s, w in parts))


def brute_of(prompt):
    a = base_masses(prompt)
    return [sum(m for x, m in a.items() if weather(" ".join(x[0])) == k) for k in (0, 1)]


class Silent:
    """A law that says nothing: all mass on the empty continuation."""

    def sample(self, *args, **more):
        raise AssertionError("the truth draws nothing")

    def log_prob(self, prompts, draws):
        return np.where((draws.length == 1) & draws.finished, 0.0, -np.inf)


def test_a_share_of_nothing_is_no_number():
    """No draw falls in a listed category: the share is left out, the rest stands."""
    found = exact_values(BASE, Silent(), ASKED["always, moment, distribution"][0], PROMPTS, LENGTH)
    assert not [name for name in found if "weather" in name]
    assert found["satisfaction.moment.winds"] == 0
    assert found["satisfaction.always"] == 0
    assert found["divergence.kl_reverse"] == inf
    assert np.isfinite(found["divergence.tv"])


def test_one_lambda_for_each_prompt():
    each = Constraint("winds", "moment", 0.4, per="prompt")
    lam = np.array([[0.4], [-1.0]])
    given = Target((each,), {}, {"winds": (0, 3)}, Fit((), lam, lam), MEASURES)
    found = exact_values(BASE, BASE, given, PROMPTS, LENGTH)
    alone = [
        exact_values(BASE, BASE, target(MOMENT, lam=np.array([[value]])), [prompt], LENGTH)
        for prompt, value in zip(PROMPTS, lam[:, 0], strict=True)
    ]
    for name in found:
        assert found[name] == pytest.approx(np.mean([a[name] for a in alone])), name


def test_the_infinities_are_where_they_belong():
    aim = ASKED["always"][0]
    base = exact_values(BASE, BASE, aim, PROMPTS, LENGTH)
    assert base["divergence.kl_reverse"] == inf
    assert base["divergence.kl_target_within"] == pytest.approx(0, abs=1e-12)
    cut = exact_values(BASE, BASE.warped(top_k=2), aim, PROMPTS, LENGTH)
    assert cut["divergence.kl_target"] == cut["divergence.kl_target_within"] == inf
    rejects = exact_values(BASE, GENERATORS["rejection"][0](aim), aim, PROMPTS, LENGTH)
    assert rejects["divergence.kl_target"] == rejects["divergence.kl_reverse"] == 0
    assert rejects["divergence.kl_base"] == pytest.approx(-rejects["divergence.log_z"])


class BlackBox:
    """Texts, and no law."""

    def sample(self, prompts, rows, *, max_tokens, seed):
        raise NotImplementedError


def test_there_is_no_truth_without_a_world_or_a_law():
    aim = ASKED["always"][0]
    assert exact_values(BASE, BlackBox(), aim, PROMPTS, LENGTH) is None
    assert exact_values(BlackBox(), BASE, aim, PROMPTS, LENGTH) is None


def test_another_base_s_settings_are_its_own_world():
    """a is what the base's settings leave: a tempered base against itself is at distance 0 of itself."""
    cold = BASE.warped(temperature=0.6)
    found = exact_values(cold, cold, ASKED["always"][0], PROMPTS, LENGTH)
    assert found["divergence.kl_base"] == pytest.approx(0, abs=1e-12)
    assert found["satisfaction.always"] == pytest.approx(brute(ASKED["always"][1], tempered)["always"])


@pytest.mark.parametrize("name", list(ASKED))
def test_the_base_beats_itself_in_half_of_all_pairs(name):
    """Ties, of which a target with few values is full, count half."""
    assert exact_values(BASE, BASE, ASKED[name][0], PROMPTS, LENGTH)["win_rate"] == pytest.approx(0.5, abs=1e-12)
