"""How far a generator π with a density is from the target p and from the base a, in nats, from draws.

π's own draws and the draws of the base are independent; Ẑ comes from the latter. Means over prompts, equal weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import expit
from scipy.stats import bootstrap

from alignbench.stats.discrete import times
from alignbench.stats.intervals import mean_over_prompts, normal, share, spread_or_none, total
from alignbench.stats.jackknife import jackknife, prompts_in, strata, unit_sums
from alignbench.stats.normaliser import log_z, log_z_by_prompt, scaled
from alignbench.stats.weights import LOGS, SHARES, p_draws, refusal
from alignbench.types import Array, Estimate

RESAMPLES = 999


@dataclass(frozen=True)
class Sample:
    """Draws of one law with what three laws say of them: (B,) arrays, nats; P is the unnormalised target."""

    prompt: Array
    log_base: Array
    log_target: Array  # −inf where a hard constraint is broken
    log_gen: Array  # −inf off π's support
    group: Array | None = None

    @property
    def ratio(self) -> Array:
        """Gap log P − log a: the log-weights of draws of the base."""
        return np.asarray(self.log_target, float) - self.log_base

    @property
    def excess(self) -> Array:
        """Gap log P − log π: −inf where the target has no mass, else +inf off π's support."""
        excess = np.full(np.size(self.log_target), -np.inf)
        return np.asarray(np.subtract(self.log_target, self.log_gen, out=excess, where=self.allowed))

    @property
    def allowed(self) -> Array:
        """Whether the target has mass there."""
        return np.asarray(self.log_target, float) > -np.inf


def kl_target(ref: Sample, truncates: bool = False) -> Estimate:
    """KL(p‖π) in nats from draws of the base: E_p[log P − log π] − log Z, jackknifed jointly prompt by prompt.

    ∞ as soon as one draw of the target lies off π's support: what importance sampling prints instead is finite and
    wrong. `truncates`: π may lack what the base can say, so that the absence of such draws is put in numbers.
    """
    return spread_or_none(_kl_target(ref, truncates))


def _kl_target(ref: Sample, truncates: bool) -> Estimate:
    """As `kl_target`, with a variance of 0 left in, since errors may be added to it."""
    excess, n = ref.excess, np.size(ref.prompt)
    if np.any(excess == np.inf):
        return Estimate(np.inf, n=n, note=f"π covers {_covered(ref):.1%} of the target's mass")
    refused = refusal(ref.prompt, ref.ratio, LOGS)
    if refused:
        return Estimate.missing(refused, n=n)
    answer = _averaged(ref, lambda w, rows: np.stack([np.ones(w.size), w, times(w, excess[rows])], axis=1), _kl_of_sums)
    if truncates:
        answer = answer.noted(f"π truncates; target mass it leaves uncovered ≤ {min(3 / (answer.ess or 1), 1):.2g}")
    return answer


def kl_target_within(own: Sample, ref: Sample, truncates: bool = False) -> Estimate:
    """KL(p‖π_b) in nats, π_b = π given the hard constraints: KL(p‖π) + log of the share of π that keeps them."""
    whole = _kl_target(ref, truncates)
    if own.allowed.all() and ref.allowed.all():  # no hard constraint to be seen
        return spread_or_none(whole)
    kept = log_z(own.prompt, np.where(own.allowed, 0.0, -np.inf), own.group)
    if kept.value is None and whole.value is not None and np.isfinite(whole.value):
        return Estimate.missing(f"own draws that keep the hard constraints: {int(own.allowed.sum())}; too few")
    return spread_or_none(whole if kept.value is None else total([whole, kept], n=np.size(own.prompt)))


def kl_reverse(own: Sample, ref: Sample) -> Estimate:
    """KL(π‖p) in nats: E_π[log π − log P] from own draws + log Z from draws of the base; the errors add.

    ∞ as soon as one own draw breaks a hard constraint; the note gives their share.
    """
    allowed = own.allowed
    if not allowed.all():
        return Estimate(np.inf, n=allowed.size, note=violations(share(own.prompt, ~allowed, own.group)))
    parts = [mean_over_prompts(own.prompt, -own.excess, own.group), log_z(ref.prompt, ref.ratio, ref.group)]
    answer = spread_or_none(total(parts))
    if ref.allowed.all() or answer.value is None:
        return answer
    return answer.noted(f"no own draw breaks a hard constraint (share ≤ {min(3 / allowed.size, 1):.2g})")


def violations(rate: Estimate) -> str:
    """The note of an infinite KL(π‖p): the share of π that the target forbids."""
    return f"{rate.value:.3g} of π breaks a hard constraint (95 %: {rate.ci_low:.3g} to {rate.ci_high:.3g})"


def kl_reverse_within(own: Sample, ref: Sample) -> Estimate:
    """KL(π_b‖p) in nats, π_b = π given the hard constraints: a joint jackknife over own draws, + log Z."""
    inside, excess = own.allowed, own.excess
    if inside.all():
        return kl_reverse(own, ref)
    kept = np.where(inside, 0.0, -np.inf)
    refused = refusal(own.prompt, kept, LOGS)
    if refused:
        return Estimate.missing(f"own draws that keep the hard constraints: {int(inside.sum())}; too few")
    normaliser = log_z(ref.prompt, ref.ratio, ref.group)
    where = replace(own, log_target=kept, log_base=np.zeros(kept.size))
    within = _averaged(
        where, lambda w, rows: np.stack([np.ones(w.size), w, times(w, -excess[rows])], axis=1), _kl_of_sums
    )
    return spread_or_none(total([within, normaliser]))


ROUNDING = 1e-4
"""Nats: k1 and RB this close (root mean square) differ by float32 rounding alone, as under top-k, where they are equal;
a coefficient fitted to rounding is noise (a tiny GPT-2 under top_k=9, 16 draws: 1.250 for 1.284)."""


def kl_base(prompt: Array, k1: Array, rao_blackwell: Array | None = None, group: Array | None = None) -> Estimate:
    """KL(π‖a) in nats from own draws: RB + c (k1 − RB), c by regression within prompts.

    `k1` (B,) = log π − log a; `rao_blackwell` (B,) = Σ_t KL(π(·|x_<t)‖a(·|x_<t)), None where it is not known. Their
    difference has mean 0. RB alone is not always the quieter: an exact sampler of a hard target has constant k1.
    """
    k1 = np.asarray(k1, float)
    if rao_blackwell is None:
        return spread_or_none(mean_over_prompts(prompt, k1, group)).noted("single-sample k1: no per-token divergences")
    rb = np.asarray(rao_blackwell, float)
    if not (np.all(np.isfinite(rb)) and np.all(np.isfinite(k1))):
        return Estimate(np.inf, n=k1.size, note="π says what the base cannot")
    noise = _within(prompt, k1 - rb)
    spread = float(noise @ noise)
    told_apart = spread > ROUNDING**2 * k1.size
    c = -float(_within(prompt, rb) @ noise) / spread if told_apart else 0.0
    return spread_or_none(mean_over_prompts(prompt, rb + c * (k1 - rb), group))


def tv(own: Sample, ref: Sample, rng: np.random.Generator) -> Estimate:
    """Total variation distance (0 to 1): 1 − E_π[min(1, P/(Zπ))], right where π lacks what p has.

    Percentile bootstrap over own draws and the base's, so that Ẑ's error is included; reproducible by `rng`.
    Source: Scheffé's identity; Efron and Tibshirani, An Introduction to the Bootstrap (1993).
    """
    refused = _refused(own, ref)
    if refused:
        return Estimate.missing(refused, n=np.size(own.prompt))
    excess, ratio = own.excess, ref.ratio
    pairs = zip(strata(own.prompt, own.group), strata(ref.prompt, ref.group), strict=True)
    table = [_tv_of_prompt(excess[i], u, ratio[j], v, rng) for (i, u), (j, v) in pairs]
    value = float(np.mean([t[0] for t in table]))
    copies = np.mean([t[1] for t in table], axis=0)
    low, high = (float(x) for x in np.quantile(copies, [0.025, 0.975]))
    worth, floor = float(p_draws(ref.prompt, ratio).sum()), _noise_floor(ref)
    note = "" if value > floor else f"cannot be told from 0: the error of log Z alone reads up to {floor:.2g}"
    error, low = float(copies.std(ddof=1)), min(low, 0.0) if note else low
    return spread_or_none(Estimate(value, error, low, high, np.size(own.prompt), worth, note))


def js(own: Sample, ref: Sample) -> Estimate:
    """Jensen-Shannon divergence of π and p in nats, at most log 2, in mixture form over both draw sets; delta interval.

    log 2 − ½ E_π log(1 + e^u) − ½ E_p log(1 + e^−u) with u = log p − log π. Ẑ enters to second order only, because
    E_π σ(u) = E_p σ(−u); its first-order term is carried all the same.
    """
    refused = _refused(own, ref)
    if refused:
        return Estimate.missing(refused, n=np.size(own.prompt))
    pairs = zip(strata(own.prompt), strata(ref.prompt), strict=True)
    table = [_js_of_prompt(own.excess[i], ref.excess[j], ref.ratio[j]) for (i, _), (j, _) in pairs]
    parts = []
    for k, sample in enumerate((own, ref)):
        values = np.empty(np.size(sample.prompt))
        for (rows, _), row in zip(strata(sample.prompt), table, strict=True):
            values[rows] = row[k]
        parts.append(mean_over_prompts(sample.prompt, values, sample.group))
    return replace(spread_or_none(total(parts)), ess=float(p_draws(ref.prompt, ref.ratio).sum()))


def _kl_of_sums(sums: Array) -> Array:
    """Σwd/Σw − log(Σw/n) from totals (…, 3) = (n, Σw, Σwd)."""
    return np.asarray(sums[..., 2] / sums[..., 1] - np.log(sums[..., 1] / sums[..., 0]))


def _averaged(sample: Sample, columns: Callable[[Array, Array], Array], theta: Callable[[Array], Array]) -> Estimate:
    """Mean over prompts of `theta` of the sums of `columns`, which are made from weights w and the rows of a prompt.

    The weights are scaled by a constant e^−shift; the log of it is taken off again, as log Z has it.
    """
    rows_of = [(rows, unit, *scaled(sample.ratio[rows])) for rows, unit in strata(sample.prompt, sample.group)]
    pairs = [(shift, *jackknife(unit_sums(columns(w, rows), unit), theta)) for rows, unit, w, shift in rows_of]
    shifts, values, variances = (np.array(x) for x in zip(*pairs, strict=True))
    worth = p_draws(sample.prompt, sample.ratio)
    df = max(float(worth.sum()) - worth.size, 1.0)
    answer = normal(
        float((values - shifts).mean()), float(variances.sum()) / values.size**2, n=np.size(sample.prompt), df=df
    )
    return replace(answer, ess=float(worth.sum()))


def _covered(ref: Sample) -> float:
    """Share of the target's mass on π's support, mean over the prompts that have draws of the target."""
    shares = []
    for rows, _ in strata(ref.prompt):
        w, _ = scaled(ref.ratio[rows])
        if w.any():
            shares.append(float(w[ref.excess[rows] < np.inf].sum() / w.sum()))
    return float(np.mean(shares))


def _refused(own: Sample, ref: Sample) -> str:
    """Why TV and JS must not be printed; empty when they may."""
    counts = np.unique(np.asarray(own.prompt), return_counts=True)[1]
    if counts.min() < 2:
        return "fewer than 2 own draws for some prompt"
    if prompts_in(own.prompt).tolist() != prompts_in(ref.prompt).tolist():
        return "own draws and draws of the base are of different prompts"
    return refusal(ref.prompt, ref.ratio, SHARES)


def _noise_floor(ref: Sample) -> float:
    """What TV is read as, at most (97.5 %), where π = p: the mean over prompts of max(0, e), e the error of log Ẑ_c.

    For a normal e of standard deviation σ it has mean 0.399 σ and standard deviation 0.584 σ; unlike other biases
    it does not fall as prompts are added.
    """
    errors = log_z_by_prompt(ref.prompt, ref.ratio, ref.group)[1]
    return float(0.399 * errors.mean() + 1.96 * 0.584 * np.sqrt((errors**2).sum()) / errors.size)


def _within(prompt: Array, values: Array) -> Array:
    """Values less their prompt's mean."""
    off = np.empty(values.size)
    for rows, _ in strata(prompt):
        off[rows] = values[rows] - values[rows].mean()
    return off


def _tv_of_prompt(
    excess: Array, unit: Array, ratio: Array, ref_unit: Array, rng: np.random.Generator
) -> tuple[float, Array]:
    """TV of one prompt and its bootstrap copies (RESAMPLES,)."""
    w, shift = scaled(ratio)
    base = unit_sums(np.stack([np.ones(w.size), w], axis=1), ref_unit)

    def statistic(mine: Array, theirs: Array, axis: int = -1) -> Array:
        sums = base[theirs].sum(axis=axis - 1 if axis < 0 else axis)
        with np.errstate(divide="ignore"):
            log_norm = np.log(sums[..., 1] / sums[..., 0]) + shift
        return np.asarray(1 - _overlap(excess, _tally(mine, unit), log_norm))

    data = (np.arange(unit.max() + 1), np.arange(len(base)))
    answer = bootstrap(data, statistic, n_resamples=RESAMPLES, batch=111, vectorized=True, method="percentile", rng=rng)
    return float(statistic(*data)), np.asarray(answer.bootstrap_distribution)


def _overlap(excess: Array, copies: Array, log_norm: Array) -> Array:
    """(…) mean of min(1, exp(excess − log_norm)), draws weighted by how often each was resampled (…, n)."""
    with np.errstate(invalid="ignore"):
        u = np.where(excess > -np.inf, excess - np.asarray(log_norm)[..., None], -np.inf)
    return np.asarray((copies * np.exp(np.minimum(u, 0.0))).sum(axis=-1) / copies.sum(axis=-1))


def _tally(picked: Array, unit: Array) -> Array:
    """(…, n) how often each draw is in a resample, from the units picked (…, U)."""
    units = unit.max() + 1
    flat = np.atleast_2d(picked)
    keys = (flat + units * np.arange(len(flat))[:, None]).ravel()
    counts = np.bincount(keys, minlength=units * len(flat)).reshape(len(flat), units)
    return np.asarray(counts[:, unit].reshape(*picked.shape[:-1], unit.size))


def _js_of_prompt(own: Array, ref: Array, ratio: Array) -> tuple[Array, Array]:
    """What each own draw and each draw of the base adds to a prompt's JS; the two means add up to it.

    `own`, `ref`: log P − log π on either draw set; `ratio`: log P − log a on the latter.
    """
    w, shift = scaled(ratio)
    log_norm = float(np.log(w.mean()) + shift)
    weight = w / w.mean()
    ours = np.log(2) / 2 - np.logaddexp(0.0, own - log_norm) / 2
    theirs = np.log(2) - np.logaddexp(0.0, log_norm - np.where(w > 0, ref, 0.0))
    p_mean = float((weight * theirs).mean())
    slope = float(expit(own - log_norm).mean() - (weight * expit(log_norm - np.where(w > 0, ref, 0.0))).mean()) / 2
    return ours, p_mean / 2 + weight * (theirs - p_mean) / 2 + slope * (weight - 1)
