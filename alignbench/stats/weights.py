"""What the draws of the base are worth as draws of the target, and when to refuse.

r = log P − log a on draws of the base (−inf where a hard constraint is broken); weights are exp(r) up to a constant.
"""

from __future__ import annotations

import numpy as np
from arviz_stats.base import array_stats

from alignbench.stats.jackknife import prompts_in, strata
from alignbench.types import Array

TIE = 1e-6  # nats: ratios closer than this are one value (rounding of two sums of ~100 nats in float64 is 1e-13)
UNDERFLOW = 700.0  # nats: weights so far below the largest are 0 in float64, and arviz's k̂ is no number then
LOGS = 10.0  # p-draws in all that a KL or a log Z needs
SHARES = 50.0  # p-draws in all that TV, JS and moments under p need
# p-draws a prompt that a jackknifed log needs. Binomial, 128 draws, exact: with 10 hits expected the gate at 5 leaves a
# bias of +0.03 nats (0.1 standard deviations; plain log k/N: −0.05), a gate at 10 would itself bias by +0.23, because
# it keeps the lucky samples only.
PER_PROMPT = 5.0


def cells(values: Array, tie: float = TIE) -> tuple[Array, Array]:
    """Distinct values (K,) ascending, and the cell (B,) of each; −inf is a cell, gaps up to `tie` are none."""
    values = np.asarray(values, float)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    new = np.concatenate([[0], (ranked[1:] > ranked[:-1] + tie).astype(int)]) if values.size else np.zeros(0, int)
    code = np.empty(values.size, int)
    code[order] = np.cumsum(new)
    return ranked[np.flatnonzero(np.concatenate([[1], new[1:]]))] if values.size else ranked, code


def is_boolean(prompt: Array, r: Array) -> bool:
    """Whether within every prompt all draws that the target allows have one weight: a hard constraint, nothing else."""
    return all(_distinct(np.asarray(r)[rows]) <= 1 for rows, _ in strata(prompt))


def is_tied(prompt: Array, r: Array) -> bool:
    """Whether the ratios take few values (on average at least two draws share one), so that cells can be counted."""
    counts = np.array([(_distinct(x), np.isfinite(x).sum()) for x in _by_prompt(prompt, r)])
    return bool(is_boolean(prompt, r) or 2 * counts[:, 0].sum() <= counts[:, 1].sum())


def p_draws(prompt: Array, r: Array) -> Array:
    """(C,) how many draws of the target each prompt's base draws are worth.

    Continuous weights: Kish's (Σw)²/Σw². Tied weights: (Σw²)²/Σw⁴, the number of draws that carry Σw²; it is the
    number of hits for a boolean target, and sees the few draws of a heavy rare class that Kish's formula overcounts.
    """
    power = 2 if is_tied(prompt, r) else 1
    return np.array([_effective(x, power) for x in _by_prompt(prompt, r)])


def pareto_k(prompt: Array, r: Array) -> float:
    """Pareto k̂ of the weights, normalised within each prompt and pooled; −inf for a flat (bounded) tail.

    Source: Vehtari, Simpson, Gelman, Yao and Gabry, Pareto smoothed importance sampling (2024).
    """
    logs = np.concatenate([_normalised(x) for x in _by_prompt(prompt, r)])
    logs = logs[np.isfinite(logs)]
    top = np.sort(logs)[-int(np.ceil(min(0.2 * logs.size, 3 * np.sqrt(logs.size)))) - 1 :]
    if top.size < 5 or np.ptp(top) <= TIE:  # arviz raises on a flat tail
        return -np.inf
    if top[-1] - top[top.size // 4] > UNDERFLOW:
        return np.inf
    return float(array_stats.psislw(-logs)[1])  # it takes minus the log-weights


def refusal(prompt: Array, r: Array, needed: float, per_prompt: float = PER_PROMPT) -> str:
    """Why an average under the target must not be printed; empty when it may."""
    worth = p_draws(prompt, r)
    if worth.sum() < needed:
        return f"{worth.sum():.3g} draws of the target among {np.size(r)} base draws, {needed:g} are needed"
    if worth.min() < per_prompt:
        where = int(prompts_in(prompt)[worth.argmin()])
        return f"{worth.min():.3g} draws of the target for prompt {where}, {per_prompt:g} are needed for each"
    return "" if is_tied(prompt, r) else _heavy(prompt, r)


def _heavy(prompt: Array, r: Array) -> str:
    k, size = pareto_k(prompt, r), int(np.isfinite(r).sum())
    limit = min(1 - 1 / np.log10(max(size, 11)), 0.7)
    return f"Pareto k̂ = {k:.2f} of the weights is above {limit:.2f}: their mean cannot be trusted" if k >= limit else ""


def _by_prompt(prompt: Array, r: Array) -> list[Array]:
    return [np.asarray(r, float)[rows] for rows, _ in strata(prompt)]


def _distinct(r: Array) -> int:
    return len(cells(r[np.isfinite(r)])[0])


def _effective(r: Array, power: int) -> float:
    if not np.isfinite(r).any():
        return 0.0
    w = np.exp(power * (r - r.max()))
    return float(w.sum() ** 2 / (w**2).sum())


def _normalised(r: Array) -> Array:
    """Logs of the weights over their mean."""
    if not np.isfinite(r).any():
        return r
    return np.asarray(r - r.max() - np.log(np.exp(r - r.max()).mean()))
