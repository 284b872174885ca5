"""Exact values for worlds that can be listed: what the estimates on such a task should come out at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from alignbench.generators.base import Autoregressive
from alignbench.generators.described import described
from alignbench.generators.exact.world import enumerate_draws
from alignbench.stats import discrete, resampled
from alignbench.stats.selection import selected
from alignbench.stats.weights import cells
from alignbench.target import Target
from alignbench.types import Array, Distribution, Draws, Sampler, Selection

LISTED = 1e-9
"""Of q's mass on a prompt, at most, that is not on the base's continuations: rounding of a sum."""


def exact_values(
    base: Distribution, generator: Sampler, target: Target, prompts: Sequence[str], max_tokens: int
) -> Mapping[str, float] | None:
    """`metric.part` → its exact value (nats; TV and shares 0 to 1), mean over prompts, by listing every continuation.

    None unless the base is an exact world and the generator's law is known. λ is taken as fitted: these are the values
    for the target that the estimates are measured against, not for the one that infinitely many draws would give.
    """
    if not (described(base).enumerable and isinstance(base, Autoregressive)):
        return None
    draws = enumerate_draws(base, prompts, max_tokens=max_tokens)
    features = target.measure(prompts, draws)
    ratio = target.log_ratio(features, draws.prompt)
    if any((ratio[draws.prompt == number] == -np.inf).all() for number in range(len(prompts))):
        return None  # p does not exist where the world cannot keep a hard constraint
    law = _law_of(base, generator, prompts, draws, ratio)
    if law is None:
        return None
    assert draws.log_prob is not None
    divergences, moments, asked = [], [], _asked_values(target, features)
    for number in range(len(prompts)):
        rows = draws.prompt == number
        pi = law(rows)
        divergences.append(_divergences(draws.log_prob[rows], ratio[rows], pi))
        divergences[-1] |= _parts_of_kl(draws.log_prob[rows], ratio[rows], pi, asked[rows])
        moments.append(_moments(target, {name: values[rows] for name, values in features.items()}, pi))
    return _mean(divergences) | _reached(target, _mean(moments))


def _mean(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([p[name] for p in parts])) for name in parts[0]}


def _moments(target: Target, features: Mapping[str, Array], pi: Array) -> dict[str, float]:
    """E_π of each wanted moment, and the probability of each wanted category."""
    found = {}
    for wanted in target.wanted():
        values = features[wanted.feature]
        if wanted.kind == "distribution":
            values = values == target.categories[wanted.feature].index(wanted.category)
        if wanted.kind != "always":
            found[f"{wanted.feature}.{wanted.category}"] = float(pi @ values)
    return found


def _reached(target: Target, means: Mapping[str, float]) -> dict[str, float]:
    """What satisfaction and moment_error call those means; a share is among the listed categories, if any is said."""
    found = {}
    asked = [w for w in target.wanted() if w.kind != "always"]
    for wanted in asked:
        name, mean = wanted.feature, means[f"{wanted.feature}.{wanted.category}"]
        if wanted.kind == "distribution":
            listed = [w.category for w in asked if w.kind == "distribution" and w.feature == name]
            any_of_them = sum(means[f"{name}.{category}"] for category in listed)
            if any_of_them == 0:
                continue
            name, mean = f"{name}.{wanted.category}", mean / any_of_them
        part = {"moment": "moment", "distribution": "share", "reward": "reward"}[wanted.kind]
        found[f"satisfaction.{part}.{name}"] = mean
        if wanted.value is not None:
            found[f"moment_error.{name}"] = mean - wanted.value
    return found


def _law_of(
    base: Autoregressive, generator: Sampler, prompts: Sequence[str], draws: Draws, ratio: Array
) -> Callable[[Array], Array] | None:
    """A function from the rows of one prompt to the generator's probabilities of them."""
    selection = described(generator).selection
    proposal = described(generator).proposal or base
    if selection is not None and (selection.kind not in ("best", "first") or proposal is not base):
        if not isinstance(proposal, Distribution):
            return None
        return _weighing(selection, proposal, prompts, draws, ratio)
    if selection is not None and draws.log_prob is not None:
        mass, rank = np.exp(draws.log_prob), described(generator).rank
        by = ratio if rank is None else np.asarray(rank(prompts, draws), float)
        pi = np.zeros(mass.size)
        for here in (draws.prompt == number for number in range(len(prompts))):
            pi[here] = selected(mass[here], by[here], selection)
        lost = selection.kind == "best" and bool(((pi == 0) & (mass > 0)).any())  # F^n below what a float holds
        return None if lost else lambda rows: np.asarray(pi[rows])
    if not isinstance(generator, Distribution):
        return None
    log_gen = generator.log_prob(prompts, draws)
    return lambda rows: np.asarray(np.exp(log_gen[rows]))


def _weighing(
    selection: Selection, proposal: Distribution, prompts: Sequence[str], draws: Draws, ratio: Array
) -> Callable[[Array], Array] | None:
    """As `_law_of`, for a law that keeps draws of a proposal by their weights."""
    assert draws.log_prob is not None
    log_q = np.asarray(proposal.log_prob(prompts, draws), float)
    log_p = np.where(log_q > -np.inf, draws.log_prob + ratio, -np.inf)
    if selection.kind == "resampled":
        weight = np.subtract(log_p, log_q, out=np.full(log_p.size, -np.inf), where=log_p > -np.inf)
        by_prompt = [(draws.prompt == c, np.exp(log_q), weight) for c in range(len(prompts))]
        laws = [resampled.law(q[rows], w[rows], selection.n) for rows, q, w in by_prompt]
        return lambda rows: laws[int(draws.prompt[rows][0])]
    if selection.kind == "quasi":
        log_p = np.minimum(log_p, np.array(selection.log_beta)[draws.prompt] + log_q)
    if selection.kind == "filtered":
        log_p = np.where(ratio > -np.inf, log_q, -np.inf)
        if (np.bincount(draws.prompt, np.exp(log_q)) < 1 - LISTED).any():
            return None  # q says what the base cannot, which is not listed, and the filter may keep it
    return lambda rows: discrete.normalised(log_p[rows])


def _divergences(log_base: Array, ratio: Array, pi: Array) -> dict[str, float]:
    a = np.exp(log_base)
    weighted = a * np.exp(ratio)
    p, allowed = weighted / weighted.sum(), ratio > -np.inf
    satisfied = pi[allowed].sum()
    inside = np.where(allowed, pi, 0.0) / satisfied if satisfied > 0 else np.full_like(pi, np.nan)
    return {
        "divergence.kl_target": float(discrete.kl(p, pi)),
        "divergence.kl_target_within": float(discrete.kl(p, inside)),
        "divergence.kl_reverse": float(discrete.kl(pi, p)),
        "divergence.kl_reverse_within": float(discrete.kl(inside, p)),
        **{f"divergence.{part}": float(discrete.kl(pi, a)) for part in ("kl_base", "kl_base_rb", "kl_base_k1")},
        "divergence.tv": float(discrete.tv(p, pi)),
        "divergence.js": float(discrete.js(p, pi)),
        "divergence.log_z": float(np.log(weighted.sum())),
        "divergence.mass_kept": float(p[pi > 0].sum()),
        "satisfaction.always": float(satisfied),
        "entropy.sequence": float(-discrete.times(pi, np.log(np.where(pi > 0, pi, 1.0))).sum()),
        "win_rate": float(pi @ _beaten(a, ratio)),
    }


def _asked_values(target: Target, features: Mapping[str, Array]) -> Array:
    """(B,) a number for each joint value of what the target asks about."""
    columns = []
    for name in target.feature_names:
        values = np.asarray(features[name], float)
        if name in target.categories:
            shares = (c.shares for c in target.constraints if c.feature == name)
            known = [target.categories[name].index(category) for listed in shares for category in listed]
            values = np.where(np.isin(values, known), values, -1.0)
        elif name not in target.binned:
            values = values == 1
        columns.append(cells(values)[1])
    table = np.stack(columns, axis=1) if columns else np.zeros((len(next(iter(features.values()), ())), 1))
    return np.asarray(np.unique(table, axis=0, return_inverse=True)[1].reshape(-1))


def _parts_of_kl(log_base: Array, ratio: Array, pi: Array, asked: Array) -> dict[str, float]:
    """The chain rule's parts of KL(p‖π), each summed for itself, and how much more they are than the base's."""
    a = np.exp(log_base)
    p = discrete.normalised(log_base + ratio)
    of_p, of_pi, of_a = (np.bincount(asked, law) for law in (p, pi, a))
    gap, of_base = (float(discrete.kl(of_p, law)) for law in (of_pi, of_a))
    within = [float(discrete.kl(p[asked == k] / of_p[k], pi[asked == k] / of_pi[k])) if of_pi[k] > 0 else np.inf
              for k in np.flatnonzero(of_p > 0)]  # fmt: skip
    return {
        "divergence.kl_asked": gap,
        "divergence.kl_collateral": float(discrete.times(of_p[of_p > 0], np.array(within)).sum()),
        "divergence.kl_target_vs_base": float(discrete.kl(p, pi) - discrete.kl(p, a)),
        "divergence.kl_asked_vs_base": gap - of_base,
    }


def _beaten(a: Array, ratio: Array) -> Array:
    """(K,) the base's probability of a smaller log P − log a than each atom's, and half that of the same."""
    code = cells(ratio)[1]
    mass = np.bincount(code, a)
    return np.asarray((np.cumsum(mass) - mass / 2)[code])
