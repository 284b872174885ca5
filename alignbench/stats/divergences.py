"""How far a generator π with a density is from the target p and from the base a, in nats, from draws.

π's own draws and the draws of the base are independent; Ẑ comes from the latter. Means over prompts, equal weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from scipy.special import expit, log_ndtr, ndtr

from alignbench.stats.intervals import mean_over_prompts, normal, share, spread_or_none, total
from alignbench.stats.jackknife import prompts_in, spread_of_sum, strata, unit_sums
from alignbench.stats.normaliser import log_z, scaled
from alignbench.stats.weights import LOGS, SHARES, for_ratios, p_draws, refusal
from alignbench.types import Array, Estimate


@dataclass(frozen=True)
class Sample:
    """Draws of one law with what three laws say of them: (B,) arrays, nats; P is the unnormalised target.

    Reference draws are of the base, or of a mixture with `log_proposal` (see `mixture`), each by one `component`.
    """

    prompt: Array
    log_base: Array
    log_target: Array  # −inf where a hard constraint is broken
    log_gen: Array  # −inf off π's support
    group: Array | None = None
    log_proposal: Array | None = None  # None: drawn from the base
    component: Array | None = None  # which law of the mixture drew it, each a fixed number a prompt
    bounded: bool = False  # whether log P − log of the law that drew them is known to have a bound

    def take(self, rows: Array) -> Sample:
        """The draws in these rows."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        cut: dict[str, Any] = {name: x[rows] if isinstance(x, np.ndarray) else x for name, x in held.items()}
        return Sample(**cut)

    @property
    def ratio(self) -> Array:
        """Gap log P − log of the law that drew them: the log-weights."""
        law = self.log_base if self.log_proposal is None else self.log_proposal
        return np.asarray(self.log_target, float) - law

    @property
    def excess(self) -> Array:
        """Gap log P − log π: −inf where the target has no mass, else +inf off π's support."""
        excess = np.full(np.size(self.log_target), -np.inf)
        return np.asarray(np.subtract(self.log_target, self.log_gen, out=excess, where=self.allowed))

    @property
    def allowed(self) -> Array:
        """Whether the target has mass there."""
        return np.asarray(self.log_target, float) > -np.inf


def log_z_of(ref: Sample) -> Estimate:
    """Mean over prompts of log Z_c in nats; see `normaliser.log_z`."""
    return log_z(ref.prompt, ref.ratio, ref.group, ref.component, bounded=ref.bounded)


def kl_target(ref: Sample, truncates: bool = False) -> Estimate:
    """KL(p‖π) in nats from draws of the base: E_p[log P − log π] − log Z, with one delta method for both.

    ∞ as soon as one draw of the target lies off π's support: what importance sampling prints instead is finite and
    wrong. `truncates`: π may lack what the base can say, so that the absence of such draws is put in numbers.
    """
    return spread_or_none(_kl_target(ref, truncates))


def _kl_target(ref: Sample, truncates: bool) -> Estimate:
    """As `kl_target`, with a variance of 0 left in, since errors may be added to it."""
    excess, n = ref.excess, np.size(ref.prompt)
    if np.any(excess == np.inf):
        return Estimate(np.inf, n=n, note=f"π covers {_covered(ref):.1%} of the target's mass")
    refused = refusal(ref.prompt, ref.ratio, LOGS, for_ratios(ref.prompt, ref.ratio), bounded=ref.bounded)
    if refused:
        return Estimate.missing(refused, n=n)
    answer = _kl_estimate(ref, excess)
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
    answer = spread_or_none(total([mean_over_prompts(own.prompt, -own.excess, own.group), log_z_of(ref)]))
    if ref.allowed.all() or answer.value is None:
        return answer
    return answer.noted(f"no own draw breaks a hard constraint (share ≤ {min(3 / allowed.size, 1):.2g})")


def violations(rate: Estimate) -> str:
    """The note of an infinite KL(π‖p): the share of π that the target forbids."""
    return f"{rate.value:.3g} of π breaks a hard constraint (95 %: {rate.ci_low:.3g} to {rate.ci_high:.3g})"


def kl_reverse_within(own: Sample, ref: Sample) -> Estimate:
    """KL(π_b‖p) in nats, π_b = π given the hard constraints: one delta method over own draws, + log Z."""
    inside, excess = own.allowed, own.excess
    if inside.all():
        return kl_reverse(own, ref)
    kept = np.where(inside, 0.0, -np.inf)
    refused = refusal(own.prompt, kept, LOGS)
    if refused:
        return Estimate.missing(f"own draws that keep the hard constraints: {int(inside.sum())}; too few")
    normaliser = log_z_of(ref)
    where = replace(own, log_target=kept, log_base=np.zeros(kept.size))
    return spread_or_none(total([_kl_estimate(where, -excess), normaliser]))


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


def tv(own: Sample, ref: Sample) -> Estimate:
    """Total variation distance (0 to 1): 1 − E_π[min(1, P/(Zπ))], right where π lacks what p has; delta interval.

    The mean of two forms whose biases by the error of log Ẑ cancel: that one reads the error as distance, and
    p(A) − π(A) on A = {P/Ẑ > π} loses what an edge of A in the wrong place costs. Both are smoothed over a normal
    error of log Ẑ. Where many draws have P/(Zπ) = 1, as at π = p, they do not cancel: the lower limit makes up for it.
    Source: Scheffé's identity (1947).
    """
    refused = _refused(own, ref)
    if refused:
        return Estimate.missing(refused, n=np.size(own.prompt))
    answer = spread_or_none(_sum_of(own, ref, _contributions(own, ref, _tv_of_prompt)))
    answer = replace(answer, ess=float(p_draws(ref.prompt, ref.ratio).sum()))
    feigned = float(np.mean([_feigned(own.excess[i], ref.ratio[j]) for i, j in _pairs(own, ref)]))
    if answer.ci_low is None or answer.stderr is None or feigned < answer.stderr / 100:
        return answer
    low = answer.ci_low - feigned
    return replace(answer, ci_low=low).noted(NEAR_ZERO if low <= 0 else "")


NEAR_ZERO = "cannot be told from 0, which the error of log Z hides"


def _pairs(own: Sample, ref: Sample) -> list[tuple[Array, Array]]:
    """The rows of own draws and of draws of the base, prompt by prompt."""
    return [(i, j) for (i, _), (j, _) in zip(strata(own.prompt), strata(ref.prompt), strict=True)]


def js(own: Sample, ref: Sample) -> Estimate:
    """Jensen-Shannon divergence of π and p in nats, at most log 2, in mixture form over both draw sets; delta interval.

    log 2 − ½ E_π log(1 + e^u) − ½ E_p log(1 + e^−u) with u = log p − log π. Ẑ enters to second order only, because
    E_π σ(u) = E_p σ(−u); its first-order term is carried all the same.
    """
    refused = _refused(own, ref)
    if refused:
        return Estimate.missing(refused, n=np.size(own.prompt))
    answer = spread_or_none(_sum_of(own, ref, _contributions(own, ref, _js_of_prompt)))
    return replace(answer, ess=float(p_draws(ref.prompt, ref.ratio).sum()))


def _contributions(
    own: Sample, ref: Sample, of_prompt: Callable[[Array, Array, Array], tuple[Array, Array]]
) -> tuple[Array, Array]:
    """What each own draw and each draw of the base adds to a divergence: in every prompt, the sum of the two means.

    `of_prompt` says it from log P − log π on both draw sets and log P − log a on the latter.
    """
    values = np.empty(np.size(own.prompt)), np.empty(np.size(ref.prompt))
    for (mine, _), (theirs, _) in zip(strata(own.prompt), strata(ref.prompt), strict=True):
        values[0][mine], values[1][theirs] = of_prompt(own.excess[mine], ref.excess[theirs], ref.ratio[theirs])
    return values


def _sum_of(own: Sample, ref: Sample, parts: tuple[Array, Array]) -> Estimate:
    """Mean over prompts of what both draw sets add; they are independent."""
    worth = p_draws(ref.prompt, ref.ratio)
    return total([mean_over_prompts(own.prompt, parts[0], own.group), _of_p(ref, parts[1], worth)])


def _of_p(ref: Sample, values: Array, worth: Array) -> Estimate:
    """Mean over prompts of `values` (B,), linear in the weights; Student's t by the p-draws that they are worth."""
    table = []
    for rows, unit in strata(ref.prompt, ref.group):
        drawn = None if ref.component is None else np.asarray(ref.component)[rows]
        mean = float(values[rows].mean())
        table.append((mean, spread_of_sum(values[rows] - mean, unit, drawn) / rows.size**2))
    means, variances = np.array(table).T
    df = max(float(worth.sum()) - worth.size, 1.0)
    return normal(float(means.mean()), float(variances.sum()) / means.size**2, n=values.size, df=df)


def _kl_estimate(sample: Sample, gap: Array) -> Estimate:
    """Mean over prompts of E_p[gap] − log Z in nats, p known by the sample's weights; one delta method for both."""
    table, worth = [], p_draws(sample.prompt, sample.ratio)
    for rows, unit in strata(sample.prompt, sample.group):
        drawn = None if sample.component is None else np.asarray(sample.component)[rows]
        table.append(_kl_of_prompt(sample.ratio[rows], gap[rows], unit, drawn))
    values, variances = np.array(table).T
    answer = normal(
        float(values.mean()), float(variances.sum()) / values.size**2,
        n=np.size(sample.prompt), df=max(float(worth.sum()) - worth.size, 1.0),
    )  # fmt: skip
    return replace(answer, ess=float(worth.sum()))


def _kl_of_prompt(ratio: Array, gap: Array, unit: Array, component: Array | None) -> tuple[float, float]:
    """(value, variance) of Σ w·gap/Σ w − log Ẑ; both terms corrected for their bias, a ratio's and a log's."""
    w, shift = scaled(ratio)
    share = w / w.mean()
    gap = np.where(w > 0, gap, 0.0)  # the gap is −∞ where the target has no mass
    mean = float((share * gap).mean())
    error = spread_of_sum(share - 1, unit, component) / w.size**2  # squared relative error of Ẑ
    variance = spread_of_sum(share * (gap - mean) - (share - 1), unit, component) / w.size**2
    if not np.isfinite(variance):
        return mean - float(np.log(w.mean())) - shift, np.inf
    skew = float((unit_sums((share * (gap - mean))[:, None], unit) * unit_sums(share[:, None], unit)).sum()) / w.size**2
    return mean + skew - float(np.log(w.mean())) - shift - float(np.log1p(error / 2)), variance


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
    return refusal(ref.prompt, ref.ratio, SHARES, bounded=ref.bounded)


def _within(prompt: Array, values: Array) -> Array:
    """Values less their prompt's mean."""
    off = np.empty(values.size)
    for rows, _ in strata(prompt):
        off[rows] = values[rows] - values[rows].mean()
    return off


def _tv_of_prompt(own: Array, ref: Array, ratio: Array) -> tuple[Array, Array]:
    """What each own draw and each draw of the base adds to a prompt's TV, half for each form.

    With u = log p − log π and log Ẑ off by a normal error of variance v, (1 − e^u)⁺ has the mean
    Φ(−u/√v) − e^(u + v/2) Φ(−u/√v − √v), and 1[u > 0] the mean Φ(u/√v).
    """
    w, (error, log_norm) = scaled(ratio)[0], _error_and_log_norm(ratio)
    weight, u = w / w.mean(), own - log_norm - np.log1p(error**2 / 2)
    inside, theirs = (ndtr((x - log_norm) / error) for x in (own, np.where(w > 0, ref, 0.0)))
    slope = float(_above(u, error).mean())
    p_mean = float((weight * theirs).mean())
    ours = (ndtr(-u / error) - _above(u, error) - inside) / 2
    return ours, (slope * (weight - 1) + p_mean + weight * (theirs - p_mean)) / 2


def _above(u: Array, error: float) -> Array:
    """E[e^(u + ε) 1(u + ε < 0)] for a normal ε of this standard deviation."""
    return np.asarray(np.exp(u + error**2 / 2 + log_ndtr(-u / error - error)))


def _feigned(own: Array, ratio: Array) -> float:
    """What the error of log Ẑ adds to the mean of the two forms of a prompt's TV, where draws gather at P/(Zπ) = 1.

    With t = u/σ and σ² = 2·error², for the smoothing and for the error itself, a draw adds ½ σ (φ(t) − 2 |t| Φ(−|t|)),
    whose integral over u is 0: nothing where draws are spread evenly, 0.28 errors where all lie at 0. Where u = 0 is,
    E_π[e^u] = 1 says; further than 3 errors off, π lacks some of p and its draws lie elsewhere.
    """
    error, log_norm = _error_and_log_norm(ratio)
    u = own - log_norm
    off = float(np.logaddexp.reduce(u) - np.log(u.size))
    if not abs(off) <= 3 * error:
        return 0.0
    t = np.minimum(np.abs(u - off) / error / np.sqrt(2), 40.0)
    added = float((np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi) - 2 * t * ndtr(-t)).mean())
    return float(max(added, 0.0) * error / np.sqrt(2))


def _error_and_log_norm(ratio: Array) -> tuple[float, float]:
    """Standard error of a prompt's log Ẑ (at least 1e-12) and log Ẑ, from the log-weights of its reference draws."""
    w, shift = scaled(ratio)
    return max(float(w.std()) / float(w.mean()) / np.sqrt(w.size), 1e-12), float(np.log(w.mean()) + shift)


def _js_of_prompt(own: Array, ref: Array, ratio: Array) -> tuple[Array, Array]:
    """What each own draw and each draw of the base adds to a prompt's JS; the two means add up to it.

    `own`, `ref`: log P − log π on either draw set; `ratio`: log P − log a on the latter. Both logs are concave in
    log Ẑ, and the weighted mean is a ratio: what that takes off on average, to second order, is added again.
    """
    w, shift = scaled(ratio)
    log_norm = float(np.log(w.mean()) + shift)
    weight, gap = w / w.mean(), np.where(w > 0, ref, 0.0)
    ours = np.log(2) / 2 - np.logaddexp(0.0, own - log_norm) / 2
    theirs = np.log(2) - np.logaddexp(0.0, log_norm - gap)
    slope_own, slope_ref = expit(own - log_norm), expit(log_norm - gap)
    p_mean, p_slope = float((weight * theirs).mean()), float((weight * slope_ref).mean())
    slope = float(slope_own.mean() - p_slope) / 2
    bent = float((slope_own * (1 - slope_own)).mean() + (weight * slope_ref * (1 - slope_ref)).mean())
    skew = float((weight**2 * (theirs - p_mean + slope_ref - p_slope)).mean()) / w.size
    lost = (skew + bent * float(weight.var()) / w.size / 2) / 2
    return ours + lost, p_mean / 2 + weight * (theirs - p_mean) / 2 + slope * (weight - 1)
