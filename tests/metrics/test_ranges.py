"""What a metric's `range` says holds for its limits too, on evidence so small that plain ones would leave it."""

from dataclasses import replace

import numpy as np
import pytest

from alignbench import metrics
from alignbench.metrics.prompts import over_prompts
from alignbench.registry import metric
from alignbench.types import Draws, Evidence, Fit, Scored, Selection, Wanted

ASKED = {
    "accuracy": {"feature": "kind", "labels": {"a": "x", "b": "y"}},
    "f1": {"feature": "kind", "labels": {"a": "x", "b": "y"}},
    **{name: {"draws": 2, "words": 3} for name in ("distinct", "ngram_entropy", "vendi", "compression_ratio")},
    "self_bleu": {"draws": 2, "words": 3}, "unique_share": {"draws": 2},
}  # fmt: skip
UNLIMITED = {"cost", "bleu", "unique_share"}  # measured once, or on more than there is here
LEFT_OUT = {"mauve"}  # 50 texts at least, on the logit scale
WORDS = ("rain", "sun", "wind", "snow")
RANGED = sorted(name for name, entry in metric.items() if "range" in entry.meta and name not in LEFT_OUT)


def scored(law, each, logs, rng):
    """Draws of two prompts of a law (2, 4) on four continuations."""
    prompt = np.repeat([0, 1], each)
    atom = np.concatenate([rng.choice(4, each, p=q) for q in law])
    texts = [" ".join(rng.choice(WORDS, 1 + k)) for k in atom + 2 * (rng.random(atom.size) < 0.9)]
    batch = Draws.from_texts(np.stack([prompt, np.arange(prompt.size) % each], axis=1), texts)
    length = 1 + rng.poisson(0.3, prompt.size) * 9
    batch = replace(batch, tokens=np.zeros((prompt.size, 1), int), length=length, proposals=1 + (length > 1) * 30)
    features = {"ok": (atom != 2).astype(float), "kind": atom // 2, "part": rng.random(prompt.size)}
    base, target, own = (x[prompt, atom] for x in logs)
    return Scored(batch, features, base, target, own, -rng.exponential(9, prompt.size))


def evidence(seed):
    """Evidence of a random small world: π near p in every other one, and a law that selects in some."""
    rng = np.random.default_rng(seed)
    a = rng.dirichlet(np.full(4, 2.0), size=2)
    p = a * np.exp(rng.integers(0, 2, a.shape) * 1.5)
    p /= p.sum(axis=1, keepdims=True)
    g = p if seed % 2 else rng.dirichlet(np.full(4, 0.3), size=2) + 1e-9
    g = g / g.sum(axis=1, keepdims=True)
    logs, each = (np.log(a), np.log(p) + 0.3, np.log(g)), int(rng.integers(3, 12))
    own, ref = scored(g, each, logs, rng), scored(a, int(rng.integers(40, 90)), logs, rng)
    kinds = (None, None, Selection("best", 2), Selection("quasi", 9, log_beta=(0.2, 0.2)), Selection("best", 1))
    wanted = [Wanted("ok", "always"), *(Wanted("kind", "distribution", c, 0.5) for c in ("x", "y"))]
    proposed = np.stack([np.repeat([0, 1], 3), 1 + rng.poisson(2, 6), np.ones(6, int)], axis=1)
    return Evidence(
        own=own, ref=ref, fit=Fit(tuple(wanted), np.zeros((1, 0)), np.zeros((1, 0))), prompts=["a", "b"],
        base="b0", judge="b0", categories={"kind": ("x", "y")}, selection=kinds[seed % 5], proposed=proposed,
        references=[["rain sun", "wind"], ["snow snow sun"]],
    )  # fmt: skip


def outside(name, found):
    """The numbers of a metric that lie outside what it declares."""
    spans = {part: metrics.range_of(name, part) for part in found}
    return [
        (part, x)
        for part, e in found.items()
        for x in (e.value, e.ci_low, e.ci_high)
        if x is not None and spans[part] and not spans[part][0] <= x <= spans[part][1]
    ]


@pytest.mark.parametrize("name", RANGED)
def test_no_number_and_no_limit_leaves_the_range(name):
    limited = 0
    for seed in range(10 if name == "divergence" else 5):
        e, params = evidence(seed), ASKED.get(name, {})
        given = metrics.measure(name, e, **params)
        like = over_prompts(lambda some, params=params: metrics.measure(name, some, **params), e)
        for found in (given, metrics.within_range(name, like)):
            assert not outside(name, found), (seed, found)
            limited += sum(x.ci_low is not None for x in found.values())
    assert limited or name in UNLIMITED


def test_plain_limits_would_leave_it(monkeypatch):
    """Planted: the limits as they come."""
    monkeypatch.setattr(metrics, "inside", lambda estimate, span: estimate)
    found = (outside("length", metrics.measure("length", evidence(seed))) for seed in range(5))
    assert any(found)
