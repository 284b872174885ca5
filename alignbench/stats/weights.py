"""What the draws of the base are worth as draws of the target, and when to refuse.

r = log P − log a on draws of the base (−inf where a hard constraint is broken); weights are exp(r) up to a constant.
"""

from __future__ import annotations

import numpy as np

from alignbench.stats.jackknife import prompts_in, strata
from alignbench.types import Array

TIE = 1e-6  # nats: ratios closer than this are one value (rounding of two sums of ~100 nats in float64 is 1e-13)
UNDERFLOW = 700.0  # nats: weights so far below the largest are 0 in float64, and arviz's k̂ is no number then
SMALL = 225  # weights: of so many arviz takes the largest fifth for the tail, of more 3√n
TAILED = 25  # weights that a tail of 5 needs
LOGS = 10.0  # p-draws in all that a KL or a log Z needs
SHARES = 50.0  # p-draws in all that TV, JS and moments under p need
# p-draws that a prompt needs on average. A gate on each prompt's own hits lets the lucky prompts pass: 40 prompts that
# expect 8 hits each covered 83.5 % of the 2 % of runs that "at least 5 for each" let through, this gate 94.9 % of 99 %.
PER_PROMPT = 5.0
PER_ROOT = 4.0
"""p-draws that each of C prompts needs on average for a mean of ratios, per cube root of C: a ratio's bias is corrected
to second order, and what is left falls as n^-2 a prompt, the error of the mean as (nC)^-1/2. KL(p‖π) of weights
exp(0.8 N(0, 1)), 400 prompts of 6.3, 12.6 and 21 p-draws: off by 1.6, 0.8 and 0.6 standard errors, 58 % covered."""
CARRIED = 16.0
"""Draws that must carry the error of a mean of continuous weights. Weights exp(λφ), φ ~ Beta(1, 5), λ 2 to 8, 128 to
3,000 draws, KL(p‖π): 31 to 91 % covered with 2 to 7 of them, 89 to 93 % with 8 to 12, 93 to 95 % from 16 on. Their
effective size does not tell: 175 of 300 where 4 carry the error."""
FEWEST = 2.0  # p-draws without which the spread of a prompt's weights is not known; one does where all are equal


def cells(values: Array) -> tuple[Array, Array]:
    """Distinct values (K,) ascending, and the cell (B,) of each; −inf is a cell, gaps up to `TIE` are none."""
    values = np.asarray(values, float)
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    new = np.concatenate([[0], (ranked[1:] > ranked[:-1] + TIE).astype(int)]) if values.size else np.zeros(0, int)
    code = np.empty(values.size, int)
    code[order] = np.cumsum(new)
    return ranked[np.flatnonzero(np.concatenate([[1], new[1:]]))] if values.size else ranked, code


def scaled(r: Array) -> tuple[Array, float]:
    """Weights exp(r − shift) (n,) and the shift, max r; all zeros and 0.0 where nothing is finite."""
    shift = float(r.max()) if np.isfinite(r).any() else 0.0
    return np.exp(r - shift), shift


def is_boolean(prompt: Array, r: Array) -> bool:
    """Whether within every prompt all draws that the target allows have one weight: a hard constraint, nothing else."""
    return all(_distinct(x) <= 1 for x in _by_prompt(prompt, r))


def is_tied(prompt: Array, r: Array) -> bool:
    """Whether the ratios take few values (on average at least two draws share one), so that cells can be counted."""
    counts = np.array([(_distinct(x), np.isfinite(x).sum()) for x in _by_prompt(prompt, r)])
    return bool(counts[:, 0].max() <= 1 or 2 * counts[:, 0].sum() <= counts[:, 1].sum())


def p_draws(prompt: Array, r: Array) -> Array:
    """(C,) how many draws of the target each prompt's base draws are worth.

    Continuous weights: Kish's (Σw)²/Σw². Tied weights: (Σw²)²/Σw⁴, the number of draws that carry Σw²; it is the
    number of hits for a boolean target, and sees the few draws of a heavy rare class that Kish's formula overcounts.
    """
    power = 2 if is_tied(prompt, r) else 1
    return np.array([_effective(x, power) for x in _by_prompt(prompt, r)])


def pareto_k(prompt: Array, r: Array) -> float:
    """Pareto k̂ of the weights, normalised within each prompt and pooled; −inf for a flat (bounded) tail.

    NaN where the tail has fewer than 5 weights (`TAILED` weights in all). Source: Vehtari, Simpson, Gelman, Yao and
    Gabry, Pareto smoothed importance sampling (2024).
    """
    logs = np.concatenate([_normalised(x) for x in _by_prompt(prompt, r)])
    logs = np.sort(logs[np.isfinite(logs)])
    if logs.size < TAILED:
        return np.nan
    tail = logs[-_tail(logs.size) - 1 :]
    if tail[-1] - tail[tail.size // 4] > UNDERFLOW:
        return np.inf
    logs = _without_atom(logs)
    flat = not logs.size or np.ptp(logs[-_tail(logs.size) :]) <= TIE  # arviz raises on a tail of one value
    if flat:
        return -np.inf
    from arviz_stats.base import array_stats  # here, since it takes a second, which a run that measures nothing saves

    return float(array_stats.psislw(-logs)[1])  # it takes minus the log-weights


def _tail(size: int) -> int:
    """How many of so many weights arviz takes for the tail: the largest fifth, or 3√n."""
    return int(3 * size**0.5) if size > SMALL else size // 5


def _without_atom(logs: Array) -> Array:
    """Sorted log-weights, so that a quarter of the tail that arviz takes does not tie with its threshold.

    It divides by the exceedances' lower quarter, which is 0 where a score is the same for many draws. Draws at the
    threshold do not exceed it: what lies above is the tail then, and fewer than 5 are none.
    """
    tail = logs[-_tail(logs.size) :]
    threshold = logs[-tail.size - 1]
    if tail[int(tail.size / 4 + 0.5) - 1] - threshold > TIE:
        return logs
    above = tail[tail - threshold > TIE]
    if above.size < 5:
        return np.zeros(0)
    whole = 5 * above.size if 5 * above.size <= SMALL else int(np.ceil((above.size / 3) ** 2))
    return np.append(np.full(whole - above.size, threshold), above)


def few_carriers(influence: Array) -> str:
    """Why a mean over continuous weights has no interval to be trusted, from what each draw adds to it (B,).

    (Σψ²)²/Σψ⁴ draws carry its spread: a third of them for a normal ψ. Empty where they are enough.
    """
    squares = np.asarray(influence, float) ** 2
    count = float(squares.sum() ** 2 / (squares**2).sum()) if squares.any() else np.inf
    return "" if count >= CARRIED else f"{count:.3g} draws carry the error of the weights' mean, {CARRIED:g} are needed"


def for_ratios(prompt: Array, r: Array) -> float:
    """P-draws that a prompt needs on average where ratios of weighted means are averaged over prompts."""
    prompts = prompts_in(prompt).size
    return PER_PROMPT if is_boolean(prompt, r) else max(PER_PROMPT, PER_ROOT * prompts ** (1 / 3))


def refusal(prompt: Array, r: Array, needed: float, per_prompt: float = PER_PROMPT) -> str:
    """Why an average under the target must not be printed; empty when it may.

    It asks for `needed` p-draws in all, `per_prompt` on average, and hardly any of each prompt: sums pass nearly always
    or nearly never, so that passing says little of the luck of the draw. What passes may lack heavy draws all the
    same: `unseen` allows for them.
    """
    worth = p_draws(prompt, r)
    if worth.sum() < needed:
        return f"{worth.sum():.3g} draws of the target among {np.size(r)} reference draws, {needed:g} are needed"
    if worth.mean() < per_prompt:
        return f"{worth.mean():.3g} draws of the target a prompt, {per_prompt:.3g} are needed on average"
    fewest = PER_PROMPT if needed >= SHARES else 1.0 if is_boolean(prompt, r) else FEWEST
    if worth.min() < fewest * (1 - 1e-9):
        where = int(prompts_in(prompt)[worth.argmin()]) + 1
        return f"draws of the target for prompt number {where}: {worth.min():.3g}, {fewest:g} are needed for each"
    return "" if is_tied(prompt, r) else _heavy(prompt, r)


def _heavy(prompt: Array, r: Array) -> str:
    k, size = pareto_k(prompt, r), int(np.isfinite(r).sum())
    if np.isnan(k):
        return f"{size} weights are too few to tell how heavy their tail is, {TAILED} are needed"
    limit = min(1 - 1 / np.log10(max(size, 11)), 0.7)
    return f"Pareto k̂ = {k:.2f} of the weights is above {limit:.2f}: their mean cannot be trusted" if k >= limit else ""


def _by_prompt(prompt: Array, r: Array) -> list[Array]:
    return [np.asarray(r, float)[rows] for rows, _ in strata(prompt)]


def _distinct(r: Array) -> int:
    """How many finite values there are, gaps up to `TIE` being none; as many as `cells` finds."""
    ranked = np.sort(r[np.isfinite(r)])
    return int((ranked[1:] > ranked[:-1] + TIE).sum()) + bool(ranked.size)


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
