"""Exponential tilting: λ such that the reweighted base has the wanted moments, its error, and moments under p."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import linprog, minimize

from alignbench.errors import InfeasibleTarget, RunError, UsageError, brief
from alignbench.stats import unseen
from alignbench.stats.intervals import FLAT, Z95, normal, satterthwaite
from alignbench.stats.weights import SHARES, is_boolean, p_draws, refusal
from alignbench.types import Array, Estimate

_MARGIN = 1e-7  # the least weight (times the number of distinct draws) that every allowed draw must be able to keep


@dataclass(frozen=True)
class Moment:
    """A free moment in the user's words: `name` should be `wanted`; `share` if it is a category's share."""

    name: str
    wanted: float = 0.0
    share: bool = False

    def __str__(self) -> str:
        return f"'{self.name}' = {self.wanted:g}"


@dataclass(frozen=True)
class _Dual:
    """mean_c log Σ_i exp(log_weight_i + λ·φ_i) over the allowed draws i of each of C prompts, convex in λ."""

    phi: Array  # (N, K)
    log_weight: Array  # (N,) finite
    prompt: Array  # (N,) in 0..C-1, each present

    def weights(self, lam: Array) -> tuple[Array, Array]:
        """(N,) weights that sum to 1 within each prompt, and (C,) log-sums."""
        return self_normalised(self.log_weight + self.phi @ lam, self.prompt)

    def value(self, lam: Array) -> float:
        return float(self.weights(lam)[1].mean())

    def gradient(self, lam: Array) -> Array:
        """(K,) mean_c E_c[φ] under the tilted draws: the moments' error."""
        return np.asarray(self.weights(lam)[0] @ self.phi / (self.prompt.max() + 1))

    def deviations(self, lam: Array) -> tuple[Array, Array]:
        """(N,) weights and (N, K) φ less its prompt's tilted mean."""
        weights, _ = self.weights(lam)
        return weights, self.phi - prompt_means(self.phi, weights, self.prompt)[self.prompt]

    def hessian(self, lam: Array) -> Array:
        """(K, K) mean_c Cov_c[φ] under the tilted draws."""
        weights, off = self.deviations(lam)
        return np.asarray((off * weights[:, None]).T @ off / (self.prompt.max() + 1))

    def gradient_cov(self, lam: Array) -> Array:
        """(K, K) sampling variance of the gradient: self-normalised within prompts, prompts independent."""
        weights, off = self.deviations(lam)
        scores = off * weights[:, None]
        return np.asarray(scores.T @ scores / (self.prompt.max() + 1) ** 2)


def self_normalised(log_weight: Array, prompt: Array) -> tuple[Array, Array]:
    """(N,) weights that sum to 1 within each prompt, and (C,) log Σ exp(log_weight) by prompt.

    Weights of a prompt whose draws all have −inf are 0, its log-sum −inf.
    """
    top = np.full(int(prompt.max()) + 1, -np.inf)
    np.maximum.at(top, prompt, log_weight)
    shift = np.where(np.isfinite(top), top, 0.0)
    weight = np.exp(log_weight - shift[prompt])
    total = np.bincount(prompt, weight)
    log_total = np.log(total, out=np.full(len(total), -np.inf), where=total > 0)
    return weight / np.where(total > 0, total, 1.0)[prompt], log_total + shift


def prompt_means(values: Array, weights: Array, prompt: Array) -> Array:
    """(C, K) Σ_i weights_i · values_i by prompt."""
    sums = np.zeros((int(prompt.max()) + 1, values.shape[1]))
    np.add.at(sums, prompt, weights[:, None] * values)
    return sums


def fit_lambda(
    phi: Array,
    log_weight: Array,
    prompt: Array,
    per_prompt: bool = False,
    moments: Sequence[Moment] = (),
    prompts: Sequence[str] = (),
) -> tuple[Array, Array]:
    """λ in nats per unit of φ that makes mean_c E_{p_c}[φ] = 0, p_c ∝ weight · exp(λ·φ), and its standard error.

    `phi` (N, K) is centred so that 0 is wanted; `log_weight` (N,) is −inf where a hard constraint is broken; `moments`
    and `prompts` are what messages call them. Both results are (1, K), or (C, K) with `per_prompt`. Newton on the
    convex dual mean_c log Z_c(λ); the error is the delta method's H⁻¹ Var(ĝ) H⁻¹. Raises InfeasibleTarget, with the
    reachable range, when no λ exists. Csiszár (1975), I-divergence geometry; Owen (2013), self-normalised variance.
    """
    names = tuple(moments) or tuple(Moment(f"moment {k}") for k in range(phi.shape[1]))
    require_allowed(log_weight, prompt, prompts)
    allowed = np.isfinite(log_weight)
    dual = _Dual(np.asarray(phi, float)[allowed], np.asarray(log_weight, float)[allowed], prompt[allowed])
    if not per_prompt:
        fits = [_fit(dual, names)]
    else:
        fits = [_fit(_only(dual, c), names, f"prompt {_called(c, prompts)}: ") for c in range(int(prompt.max()) + 1)]
    return np.stack([lam for lam, _ in fits]), np.stack([error for _, error in fits])


def _only(dual: _Dual, prompt: int) -> _Dual:
    """The problem of one prompt alone."""
    rows = dual.prompt == prompt
    return _Dual(dual.phi[rows], dual.log_weight[rows], np.zeros(int(rows.sum()), int))


def _fit(dual: _Dual, moments: Sequence[Moment], place: str = "") -> tuple[Array, Array]:
    """(K,) λ and its standard error for one problem; moments are scaled to unit spread while solving."""
    _require_reachable(dual, moments, place)
    scale = dual.phi.std(axis=0)
    scaled = _Dual(dual.phi / scale, dual.log_weight, dual.prompt)
    lam = _minimum(scaled, place)
    inverse = np.linalg.inv(scaled.hessian(lam))
    variance = np.diag(inverse @ scaled.gradient_cov(lam) @ inverse)
    return lam / scale, np.sqrt(variance) / scale


def _minimum(dual: _Dual, place: str) -> Array:
    """(K,) the minimiser: a trust region finds the basin, plain Newton steps the last digits."""
    start = np.zeros(dual.phi.shape[1])
    lam = minimize(
        dual.value,
        start,
        jac=dual.gradient,
        hess=dual.hessian,
        method="trust-exact",
        options={"gtol": 1e-6, "maxiter": 1000},
    ).x
    for _ in range(3):
        lam = lam - np.linalg.solve(dual.hessian(lam), dual.gradient(lam))
    worst = float(np.abs(dual.gradient(lam)).max())
    if not worst < 1e-8:
        raise RunError(f"{place}λ was not found: the moments are still {worst:g} standard deviations off")
    return np.asarray(lam)


def require_allowed(log_weight: Array, prompt: Array, prompts: Sequence[str] = ()) -> None:
    """Raise InfeasibleTarget when a prompt has no draw with a finite log-weight."""
    if np.isnan(log_weight).any() or np.isposinf(log_weight).any():
        raise UsageError("a reward is NaN or infinite")
    count = max(int(prompt.max()) + 1 if len(prompt) else 0, len(prompts), 1)
    drawn = np.bincount(prompt, minlength=count)
    hits = np.bincount(prompt[np.isfinite(log_weight)], minlength=count)
    if (hits == 0).any():
        c = int(np.argmin(hits))
        raise InfeasibleTarget(
            f"prompt {_called(c, prompts)}: none of the base's {drawn[c]} draws satisfies the hard constraints, so λ "
            "cannot be fitted; draw more, or drop a constraint or the prompt"
        )


def _called(prompt: int, prompts: Sequence[str]) -> str:
    return f"{prompt} ({brief(prompts[prompt])})" if prompts else str(prompt)


def reachable(phi: Array, prompt: Array) -> tuple[Array, Array]:
    """(K,) lowest and highest mean_c E_c[φ] that reweighting can give each moment alone: mean_c min φ, mean_c max φ."""
    low = np.full((int(prompt.max()) + 1, phi.shape[1]), np.inf)
    high = -low
    np.minimum.at(low, prompt, phi)
    np.maximum.at(high, prompt, phi)
    return low.mean(axis=0), high.mean(axis=0)


def _require_reachable(dual: _Dual, moments: Sequence[Moment], place: str) -> None:
    """Raise InfeasibleTarget unless 0 lies strictly inside what reweighting can reach, alone and together."""
    low, high = reachable(dual.phi, dual.prompt)
    for k, moment in enumerate(moments):
        slack = 1e-12 * (high[k] - low[k])
        if not low[k] + slack < 0 < high[k] - slack:
            raise InfeasibleTarget(place + _out_of_reach(moment, float(low[k]), float(high[k])))
    if len(moments) > 1:
        _require_joint(dual, moments, place)


def _out_of_reach(moment: Moment, low: float, high: float) -> str:
    """One line on a moment whose wanted value lies outside [low, high], or on its edge."""
    if moment.share:
        lacking = "the category occurs" if high <= 0 else "the other listed categories occur"
        return (
            f"share {moment} cannot be reached: {lacking} in none or too few of the base's draws "
            f"(1[category] - share * 1[any listed] spans {low:.4g} to {high:.4g} and must have 0 inside)"
        )
    low, high = low + moment.wanted, high + moment.wanted
    if high - low < 1e-12:
        return f"moment {moment} cannot be fitted: it is {low:.6g} whatever the weights of the base's draws"
    return f"moment {moment} cannot be reached: the base's draws span {low:.6g} to {high:.6g}"


def _require_joint(dual: _Dual, moments: Sequence[Moment], place: str) -> None:
    """Raise unless all moments are 0 for some weights that are positive on every distinct draw (a linear program)."""
    listed = " and ".join(map(str, moments))
    table = np.unique(np.column_stack([dual.prompt, dual.phi]), axis=0)
    prompt, phi = table[:, 0].astype(int), table[:, 1:] / dual.phi.std(axis=0)
    if _margin(phi, prompt) <= _MARGIN:
        low, high = reachable(dual.phi, dual.prompt)
        spans = "; ".join(
            f"'{m.name}' {lo + m.wanted * (not m.share):.4g} to {hi + m.wanted * (not m.share):.4g}"
            for m, lo, hi in zip(moments, low, high, strict=True)
        )
        raise InfeasibleTarget(f"{place}{listed} cannot be reached together (alone, the base's draws span {spans})")
    even = 1.0 / np.bincount(prompt)[prompt]
    if np.linalg.matrix_rank(phi - prompt_means(phi, even, prompt)[prompt], tol=1e-8) < len(moments):
        raise InfeasibleTarget(f"{place}{listed} say the same thing twice on the base's draws: drop one")


def _margin(phi: Array, prompt: Array) -> float:
    """The largest t ≤ 1 such that weights ≥ t/N_c, summing to 1 in each prompt, make all moments 0; −1 if none."""
    count = np.bincount(prompt)
    even = 1.0 / count[prompt]
    sums = np.column_stack([(prompt == np.arange(len(count))[:, None]).astype(float), np.ones(len(count))])
    zeros = np.column_stack([phi.T, phi.T @ even])
    answer = linprog(
        c=np.append(np.zeros(len(phi)), -1.0),
        A_eq=np.vstack([sums, zeros]),
        b_eq=np.append(np.ones(len(count)), np.zeros(len(zeros))),
        bounds=[(0, None)] * len(phi) + [(0, 1)],
    )
    return float(answer.x[-1]) if answer.status == 0 else -1.0


def tilted_moments(
    values: Array, log_weight: Array, prompt: Array, names: Sequence[str], bound: Array | None = None
) -> dict[str, Estimate]:
    """mean_c E_{p_c}[values] from base draws weighted by exp(log_weight) = P/a, self-normalised within each prompt.

    `values` is (N, K), one column for each of `names`; `bound` (N,) is the largest log_weight of any draw of the same
    prompt, where it is known. 95 % delta intervals, draws independent (Owen, 2013), that allow for draws of p that the
    base's lack. Missing, with the reason, where the draws are worth too few of p.
    """
    refused = refusal(prompt, log_weight, SHARES)
    if refused:
        return {name: Estimate.missing(refused, len(prompt)) for name in names}
    weights, _ = self_normalised(log_weight, prompt)
    means, worth = prompt_means(values, weights, prompt), p_draws(prompt, log_weight)
    off = (weights[:, None] * (values - means[prompt])) ** 2
    variances = prompt_means(off, np.ones(len(prompt)), prompt) * (worth / np.maximum(worth - 1, 1.0))[:, None]
    answer = {}
    for name, value, spread, span in zip(names, means.mean(axis=0), variances.T, np.ptp(values, axis=0), strict=True):
        df = satterthwaite(spread, worth)
        found = _interval(float(value), float(spread.sum()) / len(means) ** 2, len(prompt), df)
        if not is_boolean(prompt, log_weight):
            by = unseen.moves(prompt, log_weight, bound, unseen.of_share(float(span)))
            found = unseen.widened(found, unseen.either_way(by), unseen.SETTLED * float(span))
        answer[name] = replace(found, ess=float(worth.sum()))
    return answer


def _interval(value: float, variance: float, n: int, df: float) -> Estimate:
    """Student's 95 % interval, or none where the draws do not differ."""
    if variance < 1e-30:
        return Estimate(value, n=n, note=FLAT)
    return normal(value, variance, n=n, df=df)


def with_lambda_error(measure: Callable[[Array], Mapping[str, Estimate]], lam_stderr: Array) -> dict[str, Estimate]:
    """Quantities of p at the true λ* from their estimates at λ̂: the same values, λ̂'s own error added to the intervals.

    `measure(shift)` estimates them, from the same draws, for λ̂ + shift; `lam_stderr` is (1, K) or (C, K) as
    `fit_lambda` gives it, and so is the shift. Delta method, slopes taken over one standard error; the errors of
    several moments of one fit are added as if they moved together, which is the widest they can be. λ must come from
    draws of its own.
    """
    here = measure(np.zeros(lam_stderr.shape))
    slopes: dict[str, Array] = {name: np.zeros(lam_stderr.shape) for name in here}
    for place in np.ndindex(lam_stderr.shape):
        shift = np.zeros(lam_stderr.shape)
        shift[place] = lam_stderr[place] / 2
        above, below = measure(shift), measure(-shift)
        for name, moved in slopes.items():
            moved[place] = _gap(above[name].value, below[name].value)
    return {name: _widened(estimate, slopes[name]) for name, estimate in here.items()}


def _gap(above: float | None, below: float | None) -> float:
    """|above − below|; NaN where either is not finite."""
    both = np.array([above, below], float)
    return float(abs(both[0] - both[1])) if np.isfinite(both).all() else np.nan


def _widened(here: Estimate, moved: Array) -> Estimate:
    """The estimate with an error (C, K) of λ̂ added to its own."""
    if here.value is None or here.stderr is None or here.ci_low is None or here.ci_high is None:
        return here
    if np.isnan(moved).any():
        return Estimate.missing("λ's error cannot be carried: it cannot be estimated near λ", n=here.n)
    extra = float((moved.sum(axis=1) ** 2).sum())
    low, high = (
        here.value + sign * np.sqrt((end - here.value) ** 2 + Z95**2 * extra)
        for sign, end in ((-1, here.ci_low), (1, here.ci_high))
    )
    return replace(here, stderr=float(np.hypot(here.stderr, np.sqrt(extra))), ci_low=float(low), ci_high=float(high))
