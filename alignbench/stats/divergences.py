"""How far a generator π with a density is from the target p and from the base a, in nats, from draws.

π's own draws and the draws of the base are independent; Ẑ comes from the latter. Means over prompts, equal weights.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from alignbench.stats import unseen
from alignbench.stats.intervals import (
    mean_over_prompts,
    normal,
    on_angle_scale,
    satterthwaite,
    share,
    spread_or_none,
    told_by_enough,
    total,
)
from alignbench.stats.jackknife import spread_of_sum, strata, unit_sums
from alignbench.stats.normaliser import log_z
from alignbench.stats.weights import LOGS, few_carriers, for_ratios, is_boolean, is_tied, p_draws, refusal, scaled
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
    bound: Array | None = None  # the largest ratio that a draw of the same prompt can have, where it is known

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
    return log_z(ref.prompt, ref.ratio, ref.group, ref.component, ref.bound)


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
    refused = refusal(ref.prompt, ref.ratio, LOGS, for_ratios(ref.prompt, ref.ratio))
    if refused:
        return Estimate.missing(refused, n=n)
    worth = p_draws(ref.prompt, ref.ratio)
    plain = ref.component is None and is_boolean(ref.prompt, ref.ratio)
    answer = replace(_of_hits(ref, excess) if plain else _kl_estimate(ref, excess), ess=float(worth.sum()))
    return answer.noted(uncovered_note(ref)) if truncates and answer.value is not None else answer


def uncovered_note(ref: Sample) -> str:
    """What is said of a finite distance of a law that truncates."""
    return f"π truncates; target mass it leaves uncovered ≤ {uncovered(ref):.2g}"


def kl_target_vs_base(ref: Sample, truncates: bool = False) -> Estimate:
    """KL(p‖π) − KL(p‖a) in nats, below 0 where π is nearer: E_p[log a − log π] from reference draws; Ẑ cancels.

    ∞ and refusals as for `kl_target`.
    """
    whole = kl_target(ref, truncates)
    if np.any(ref.excess == np.inf):
        return Estimate(np.inf, n=whole.n, note=whole.note)
    if whole.value is None:
        return whole
    change = np.where(ref.allowed, np.asarray(ref.log_base, float) - np.asarray(ref.log_gen, float), 0.0)
    if ref.component is None and is_boolean(ref.prompt, ref.ratio):
        hit = np.flatnonzero(ref.allowed)
        group = None if ref.group is None else np.asarray(ref.group)[hit]
        found = mean_over_prompts(ref.prompt[hit], change[hit], group)
    else:
        found = _mean_under_p(ref, change)
    found = spread_or_none(replace(found, n=whole.n, ess=whole.ess))
    return found.noted(uncovered_note(ref)) if truncates and found.value is not None else found


def mass_kept(ref: Sample) -> Estimate:
    """Share of the target's mass that lies on π's support (0 to 1), mean over prompts, from reference draws.

    Where no draw of the target lies off it there is a lower limit alone.
    """
    lost = ref.excess == np.inf
    if refused := refusal(ref.prompt, ref.ratio, LOGS, for_ratios(ref.prompt, ref.ratio)):
        return Estimate.missing(refused, n=lost.size)
    if not lost.any():
        return Estimate(None, ci_low=1 - uncovered(ref), n=lost.size, note="no draw of the target is left out")
    if ref.component is None and is_boolean(ref.prompt, ref.ratio):
        hit = np.flatnonzero(ref.allowed)
        return share(ref.prompt[hit], ~lost[hit], None if ref.group is None else np.asarray(ref.group)[hit])
    return on_angle_scale(spread_or_none(_mean_under_p(ref, (~lost).astype(float))))


def _mean_under_p(sample: Sample, values: Array) -> Estimate:
    """Mean over prompts of E_p[values] (B,), p known by the sample's weights; a ratio's bias taken off."""
    table = []
    influence = np.empty(values.size)
    for rows, unit in strata(sample.prompt, sample.group):
        drawn = None if sample.component is None else np.asarray(sample.component)[rows]
        share = (w := scaled(sample.ratio[rows])[0]) / w.mean()
        mean = float((share * values[rows]).mean())
        influence[rows] = share * (values[rows] - mean) / w.size
        skew = float((unit_sums(influence[rows][:, None], unit) * unit_sums(share[:, None], unit)).sum()) / w.size
        table.append((mean + skew, spread_of_sum(influence[rows], unit, drawn)))
    return _of_table(sample, table, influence, unseen.of_mean(values))


def uncovered(ref: Sample) -> float:
    """How much of the target's mass, mean over prompts, may lie where none of its draws among `ref` does (0 to 1)."""
    worth = p_draws(ref.prompt, ref.ratio)
    return min(3 / max(worth.size * float(worth.min()), 3.0), 1.0)  # 3/k in the prompt with the fewest, else nothing


def _of_hits(ref: Sample, gap: Array) -> Estimate:
    """E_p[gap] − log Z of a boolean target: a mean over hits less a Wilson log, which errors of no miss seen need.

    Given how many hits there are, their mean does not depend on the number: the two errors are uncorrelated.
    """
    hit = np.flatnonzero(ref.allowed)
    group = None if ref.group is None else np.asarray(ref.group)[hit]
    z = log_z_of(ref)
    if z.value is None:
        return z
    low, high = (None if x is None else -x for x in (z.ci_high, z.ci_low))
    return total(
        [mean_over_prompts(ref.prompt[hit], gap[hit], group), replace(z, value=-z.value, ci_low=low, ci_high=high)]
    )


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

    ∞ as soon as one own draw breaks a hard constraint, or π has mass on a reference draw that does; the note gives
    the share of such draws.
    """
    allowed, unsaid = own.allowed, np.asarray(own.log_base, float) == -np.inf
    if unsaid.any():
        rate = share(own.prompt, unsaid, own.group)
        return Estimate(np.inf, n=allowed.size, note=f"{rate.value:.3g} of π is what the base cannot say")
    if not allowed.all():
        return Estimate(np.inf, n=allowed.size, note=violations(share(own.prompt, ~allowed, own.group)))
    if np.any(~ref.allowed & (np.asarray(ref.log_gen, float) > -np.inf)):
        note = f"π can say what the target forbids, as some reference draw does; {_rarely(own)}"
        return Estimate(np.inf, n=allowed.size, note=note)
    return _reverse_of_allowed(own, ref)


def _reverse_of_allowed(own: Sample, ref: Sample) -> Estimate:
    """E_π[log π − log P] + log Z where all own draws keep the hard constraints."""
    answer = spread_or_none(total([mean_over_prompts(own.prompt, -own.excess, own.group), log_z_of(ref)]))
    return answer if ref.allowed.all() or answer.value is None else answer.noted(_rarely(own))


def _rarely(own: Sample) -> str:
    return f"no own draw breaks a hard constraint (share ≤ {min(3 / np.size(own.prompt), 1):.2g})"


def violations(rate: Estimate) -> str:
    """The note of an infinite KL(π‖p): the share of π that the target forbids."""
    return f"{rate.value:.3g} of π breaks a hard constraint (95 %: {rate.ci_low:.3g} to {rate.ci_high:.3g})"


def kl_reverse_within(own: Sample, ref: Sample) -> Estimate:
    """KL(π_b‖p) in nats, π_b = π given the hard constraints: one delta method over own draws, + log Z."""
    inside, excess = own.allowed, own.excess
    if inside.all() and (np.asarray(own.log_base, float) > -np.inf).all():
        return _reverse_of_allowed(own, ref)
    kept = np.where(inside, 0.0, -np.inf)
    refused = refusal(own.prompt, kept, LOGS)
    if refused:
        return Estimate.missing(f"own draws that keep the hard constraints: {int(inside.sum())}; too few")
    normaliser = log_z_of(ref)
    where = replace(own, log_target=kept, log_base=np.zeros(kept.size))
    return spread_or_none(total([_of_hits(where, -excess), normaliser]))


ROUNDING = 1e-4
"""Nats: k1 and RB this close (root mean square) differ by float32 rounding alone, as under top-k, where they are equal;
a coefficient fitted to rounding is noise (a tiny GPT-2 under top_k=9, 16 draws: 1.250 for 1.284)."""


def kl_base(prompt: Array, k1: Array, rao_blackwell: Array | None = None, group: Array | None = None) -> Estimate:
    """KL(π‖a) in nats from own draws: RB + c (k1 − RB), each draw's c by regression on all others, within prompts.

    `k1` (B,) = log π − log a; `rao_blackwell` (B,) = Σ_t KL(π(·|x_<t)‖a(·|x_<t)), None where it is not known. Their
    difference has mean 0, and no c depends on the draw that it is used for, so that nothing is biased: one c for all
    was off by 0.35 standard errors, from 32 draws of a law that nearly keeps a hard constraint. RB alone is not always
    the quieter: an exact sampler of a hard target has constant k1.
    """
    k1 = np.asarray(k1, float)
    if rao_blackwell is None:
        alone = spread_or_none(mean_over_prompts(prompt, k1, group)).noted("single-sample k1: no per-token divergences")
        return told_by_enough(alone, prompt, group)
    rb = np.asarray(rao_blackwell, float)
    if not (np.all(np.isfinite(rb)) and np.all(np.isfinite(k1))):
        return Estimate(np.inf, n=k1.size, note="π says what the base cannot")
    values = rb + _coefficients(prompt, rb, k1 - rb, group) * (k1 - rb)
    return told_by_enough(spread_or_none(mean_over_prompts(prompt, values, group)), prompt, group)


def _coefficients(prompt: Array, values: Array, noise: Array, group: Array | None) -> Array:
    """(B,) minus the slope of `values` in `noise` within prompts, for each draw without the unit that it is in.

    0 where the others' noise is rounding.
    """
    spread, shared, lost = 0.0, 0.0, np.empty((values.size, 2))
    for rows, unit in strata(prompt, group):
        x, y = noise[rows] - noise[rows].mean(), values[rows] - values[rows].mean()
        spread, shared = spread + float(x @ x), shared + float(x @ y)
        xx, xy, xs, ys, size = unit_sums(np.stack([x * x, x * y, x, y, np.ones(x.size)], axis=1), unit).T
        rest = np.maximum(rows.size - size, 1.0)  # a unit that is all of its prompt has sums of 0
        lost[rows] = np.stack([xx + xs * xs / rest, xy + xs * ys / rest], axis=1)[unit]
    left = spread - lost[:, 0]
    told = left > ROUNDING**2 * values.size
    return -np.divide(shared - lost[:, 1], left, out=np.zeros(values.size), where=told)


def _kl_estimate(sample: Sample, gap: Array) -> Estimate:
    """Mean over prompts of E_p[gap] − log Z in nats, p known by the sample's weights; one delta method for both."""
    table = []
    influence = np.empty(gap.size)
    for rows, unit in strata(sample.prompt, sample.group):
        drawn = None if sample.component is None else np.asarray(sample.component)[rows]
        value, influence[rows] = _kl_of_prompt(sample.ratio[rows], gap[rows], unit, drawn)
        table.append((value, spread_of_sum(influence[rows], unit, drawn)))
    return _of_table(sample, table, influence, unseen.of_kl(gap))


def _of_table(sample: Sample, table: list[tuple[float, float]], influence: Array, change: unseen.Change) -> Estimate:
    """Mean over prompts of each one's (value, variance) under p, widened by what draws may not show; or a refusal."""
    if few := "" if is_tied(sample.prompt, sample.ratio) else few_carriers(influence):
        return Estimate.missing(few, n=influence.size)
    values, variances = np.array(table).T
    df = satterthwaite(variances, p_draws(sample.prompt, sample.ratio))
    answer = normal(float(values.mean()), float(variances.sum()) / values.size**2, n=influence.size, df=df)
    return unseen.widened(answer, unseen.moves(sample.prompt, sample.ratio, sample.bound, change))


def kl_influence(sample: Sample, gap: Array) -> Array:
    """(B,) what each reference draw adds to the error of E_p[gap] − log Z of its prompt, to first order."""
    influence = np.empty(gap.size)
    for rows, unit in strata(sample.prompt, sample.group):
        influence[rows] = _kl_of_prompt(sample.ratio[rows], gap[rows], unit, None)[1]
    return influence


def _kl_of_prompt(ratio: Array, gap: Array, unit: Array, component: Array | None) -> tuple[float, Array]:
    """Value of Σ w·gap/Σ w − log Ẑ, a ratio's and a log's bias taken off, and what each draw adds to its error (n,)."""
    w, shift = scaled(ratio)
    share = w / w.mean()
    gap = np.where(w > 0, gap, 0.0)  # the gap is −∞ where the target has no mass
    mean, log_norm = float((share * gap).mean()), float(np.log(w.mean())) + shift
    influence = (share * (gap - mean) - (share - 1)) / w.size
    error = spread_of_sum(share - 1, unit, component) / w.size**2  # squared relative error of Ẑ
    if not np.isfinite(error):
        return mean - log_norm, influence
    skew = float((unit_sums((share * (gap - mean))[:, None], unit) * unit_sums(share[:, None], unit)).sum()) / w.size**2
    return mean + skew - log_norm - float(np.log1p(error / 2)), influence


def _covered(ref: Sample) -> float:
    """Share of the target's mass on π's support, mean over the prompts that have draws of the target."""
    shares = []
    for rows, _ in strata(ref.prompt):
        w, _ = scaled(ref.ratio[rows])
        if w.any():
            shares.append(float(w[ref.excess[rows] < np.inf].sum() / w.sum()))
    return float(np.mean(shares))
