"""The divergence frontier of two histograms, and the area below it: MAUVE, from draws in buckets.

Between q and p lie the mixtures r_λ = λp + (1 − λ)q. The frontier is the curve of exp(−c KL(q‖r_λ)) and
exp(−c KL(p‖r_λ)): what of q's and of p's mass a mixture accounts for. p = q has the area 1, disjoint p and q nearly 0.
Source: Pillutla et al., MAUVE: measuring the gap between neural text and human text using divergence frontiers (2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy

from alignbench.stats.intervals import normal, on_logit_scale, satterthwaite, spread_or_none
from alignbench.stats.jackknife import prompts_in, spread_of_sum, strata
from alignbench.types import Array, Estimate

SCALING = 5.0
NODES = 24
"""Of Gauss and Legendre on each half of the frontier: off by less than 1e-10 from a sum over two million steps."""
Slopes = tuple[Array, Array]


def mauve_from_histograms(p: Array, q: Array, c: float = SCALING) -> float:
    """MAUVE, 0 to 1, of histograms p and q (K,) with scaling c: the area below the frontier, by quadrature."""
    return area_and_slopes(p, q, c)[0]


def area_and_slopes(p: Array, q: Array, c: float = SCALING) -> tuple[float, Slopes]:
    """The area below the frontier, and its derivatives (K,) by p and by q.

    The rectangle below the point λ = ½, and what lies beside it and above it: from λ = ½ on the two laws change
    places. A derivative by a mass of 0 is of no use, since no draw is there, and is finite.
    """
    p, q = np.asarray(p, float), np.asarray(q, float)
    seen = (p > 0) | (q > 0)
    middle, beside, (p_one, q_one) = _half(p[seen], q[seen], c)
    _, above, (q_two, p_two) = _half(q[seen], p[seen], c)
    by_p, by_q = np.zeros(p.size), np.zeros(q.size)
    by_p[seen], by_q[seen] = p_one + p_two, q_one + q_two
    return middle + beside + above, (by_p, by_q)


def _half(p: Array, q: Array, c: float) -> tuple[float, float, Slopes]:
    """x·y at λ = ½, the area ∫ y |dx| over λ from 0 to ½, and what this half adds to the derivatives by p and by q.

    With x = exp(−c KL(q‖r)) and y = exp(−c KL(p‖r)); the area changes by ∫ (δy |x'| + δx y') dλ, its ends adding
    nothing. λ = u⁴/2, since y goes as λ^(c·p(q = 0)) near 0.
    """
    u, weight = np.polynomial.legendre.leggauss(NODES)
    u = (u + 1) / 2
    lam, weight = (u**4 / 2)[:, None], weight * u**3  # dλ = 2u³ du, and du is half a unit
    r = lam * p + (1 - lam) * q
    over_p, over_q = p / r, q / r
    x, y = (np.exp(-c * xlogy(f, f / r).sum(axis=1)) for f in (q, p))
    falls, rises = -c * x * (over_q @ (p - q)), c * y * (over_p @ (p - q))
    log_p, log_q = (np.log(f, out=np.zeros(r.shape), where=f > 0) for f in (over_p, over_q))
    dy, dx = weight * falls * c * y, weight * rises * c * x
    by_p = dx @ (lam * over_q) - dy @ (log_p + 1 - lam * over_p)
    by_q = dy @ ((1 - lam) * over_p) - dx @ (log_q + 1 - (1 - lam) * over_q)
    middle = (p + q) / 2
    corner = np.exp(-c * float(xlogy(p, p / middle).sum() + xlogy(q, q / middle).sum()))
    return float(corner), float(weight @ (y * falls)), (by_p, by_q)


@dataclass(frozen=True)
class Binned:
    """Draws of one law in K buckets, once for each of S ways to make the buckets."""

    prompt: Array  # (n,)
    bucket: Array  # (n, S) int
    weight: Array  # (n,) with the mean 1 in every prompt
    worth: Array  # (C,) independent draws that each prompt's are worth
    group: Array | None = None
    component: Array | None = None

    @property
    def share(self) -> Array:
        """(n,) what each draw adds to the histogram: prompts weigh equally."""
        number, count = np.unique(self.prompt, return_inverse=True, return_counts=True)[1:]
        return np.asarray(self.weight / count[number] / count.size)

    def histogram(self, way: int, size: int) -> Array:
        """(size,) masses of the buckets, made in this way."""
        return np.bincount(self.bucket[:, way], self.share, size)

    def variances(self, slope: Array) -> Array:
        """(C,) what each prompt adds to the variance of Σ share · slope, `slope` (n,) being what a draw's mass does."""
        found = []
        for rows, unit in strata(self.prompt, self.group):
            weight, mean = self.weight[rows], np.average(slope[rows], weights=self.weight[rows])
            drawn = None if self.component is None else np.asarray(self.component)[rows]
            found.append(spread_of_sum(weight * (slope[rows] - mean), unit, drawn) / rows.size**2)
        return np.array(found) / prompts_in(self.prompt).size ** 2


def mauve(p: Binned, q: Binned, c: float = SCALING) -> Estimate:
    """MAUVE, 0 to 1, of the laws of two independent sets of draws in the same buckets, mean over the ways to make them.

    The delta interval is for the score of as many draws in these buckets: what finite draws take off the score, even
    where the laws are one, is not corrected; see `of_one_law`. The note tells how much the ways differ, which the
    interval does not hold.
    """
    size = int(max(p.bucket.max(), q.bucket.max())) + 1
    ways = p.bucket.shape[1]
    areas, slope_p, slope_q = np.zeros(ways), np.zeros(p.prompt.size), np.zeros(q.prompt.size)
    for way in range(ways):
        areas[way], (by_p, by_q) = area_and_slopes(p.histogram(way, size), q.histogram(way, size), c)
        slope_p += by_p[p.bucket[:, way]] / ways
        slope_q += by_q[q.bucket[:, way]] / ways
    variances = np.concatenate([p.variances(slope_p), q.variances(slope_q)])
    df = satterthwaite(variances, np.concatenate([p.worth, q.worth]))
    note = f"standard deviation between {ways} clusterings {areas.std(ddof=1):.2g}" if ways > 1 else "one clustering"
    found = normal(float(areas.mean()), float(variances.sum()), n=q.prompt.size, df=df, note=note)
    if found.stderr is None:
        return found.noted("no interval: some prompt has one independent draw")
    return on_logit_scale(spread_or_none(found))


REPEATS = 40
"""Pairs of samples of one law: a fresh pair scores outside of all of them once in 20 times."""


def of_one_law(p: Binned, q: Binned, c: float = SCALING) -> tuple[float, float]:
    """Lowest and highest score of `REPEATS` pairs of samples of one law, each worth as many draws as the two sets.

    The law is the mean of both histograms, in the first way; the samples are multinomial, whatever the prompts.
    """
    size, rng = int(max(p.bucket.max(), q.bucket.max())) + 1, np.random.default_rng(0)
    law = (p.histogram(0, size) + q.histogram(0, size)) / 2
    law /= law.sum()  # rounding alone can make it more than 1, which numpy refuses
    of_p, of_q = (rng.multinomial(n, law, REPEATS) / n for n in (max(1, round(x.worth.sum())) for x in (p, q)))
    scores = [mauve_from_histograms(a, b, c) for a, b in zip(of_p, of_q, strict=True)]
    return min(scores), max(scores)
