"""Quasi-rejection sampling: a proposal's draw is kept with probability min(1, P/(βq)), so that π_β ∝ min(P, βq).

Everything is a function of the weights P/q on draws of q: no density of π_β is needed. Source: Eikema, Kruszewski,
Dance, Elsahar and Dymetman, An approximate sampler for energy-based models with divergence diagnostics (2022).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.special import rel_entr

from alignbench.errors import UsageError
from alignbench.stats import discrete
from alignbench.stats.intervals import folded, hull, normal, on_root_scale, satterthwaite, spread_or_none
from alignbench.stats.jackknife import corrected, each_left_out, strata, tilts
from alignbench.stats.weights import LOGS, SHARES, cells, p_draws, refusal, scaled
from alignbench.types import Array, Estimate

CARRIED = 150.0
"""Draws above β that the distances from p need, counted by what each adds (Kish): Poisson table, β = 1: KL covered
90 % with 47 of them, 93.6 % with 100. No correction for skewness helps, the large weights not seen being the matter."""
TIED = 60.0
"""The same where each value of P/q above β was drawn `OFTEN` times, so that a larger one is hardly still to be seen.
Weights of 1 and 7.4, three β, 150 to 1,000 draws a prompt, 60 to 250 carriers: KL(p‖π) covered 93 to 98 %, TV 93 to
96 %, KL(π‖p) 93 to 98 %."""
OFTEN = 5
PARTS = ("acceptance", "tv_bound", "tv", "kl_target", "kl_reverse", "js", "kl_base", "kl_target_vs_base")

BY_SHARES = ("tv_bound", "tv", "js")
NEAR_ZERO = ("kl_target", "kl_reverse", "js")  # squares of a distance near 0
TOP = discrete.TOP | {"acceptance": 1.0, "tv_bound": 1.0}


def exact(weights: Array, beta: float, masses: Array | None = None, log_base: Array | None = None) -> Array:
    """(8,) `PARTS` from weights P/q (n,) and the masses under q of what has them (default: equal).

    With m = min(w, β): Z_β/β; 1 − Z_β/Z; E(w/Z − m/Z_β)⁺; E_p log(w/m) + log(Z_β/Z); log(Z/Z_β) − E_π log(w/m);
    Jensen and Shannon's of w/Z and m/Z_β; E_π log(m·q/a) − log Z_β;
    KL(p‖π) − KL(p‖a) = log Z_β − E_p log(m·q/a). `log_base` (n,): log a − log q, 0 by default.
    """
    q = np.full(weights.size, 1 / weights.size) if masses is None else masses
    m = np.minimum(weights, beta)
    z, z_beta = float(q @ weights), float(q @ m)
    cut = np.log(np.divide(weights, m, out=np.ones(m.shape), where=m > 0))
    tv = q @ np.maximum(weights / z - m / z_beta, 0.0)
    to_target = (q * weights) @ cut / z + np.log(z_beta / z)
    reverse = np.log(z / z_beta) - (q * m) @ cut / z_beta
    p, pi = weights / z, m / z_beta
    js = q @ (rel_entr(p, (p + pi) / 2) + rel_entr(pi, (p + pi) / 2)) / 2
    shift = np.zeros(m.shape) if log_base is None else np.where(m > 0, log_base, 0.0)
    from_base = q @ rel_entr(pi, np.exp(shift))
    nearer = q @ (p * (shift - np.log(np.where(m > 0, pi, 1.0))))
    return np.array([z_beta / beta, 1 - z_beta / z, tv, to_target, reverse, js, from_base, nearer])


def quasi_rejection(
    prompt: Array, r: Array, beta: float, *, group: Array | None = None, log_base: Array | None = None
) -> dict[str, Estimate]:
    """`PARTS` of π_β from r = log P − log q (B,) on draws of q, mean over prompts; divergences in nats, others 0 to 1.

    acceptance: Z_β/β with Z_β = E_q min(P/q, β). tv = TV(p, π_β) ≤ tv_bound = 1 − Z_β/Z. kl_target = KL(p‖π_β),
    kl_reverse = KL(π_β‖p), js theirs. kl_base = KL(π_β‖a), with `log_base` (B,) = log a − log q, 0 by default;
    kl_target_vs_base = KL(p‖π_β) − KL(p‖a). β is in
    units of P/q; a β for each prompt is r − log β_c and a β of 1. Jackknifed, Ẑ with the rest. Raises UsageError unless
    β is above 0.
    """
    if not 0 < beta < np.inf:
        raise UsageError(f"beta must be above 0, not {beta!r}")
    r, n = np.asarray(r, float), np.size(r)
    refused = {part: refusal(prompt, r, SHARES if part in BY_SHARES else LOGS) for part in PARTS}
    refused["kl_base"] = refusal(prompt, np.minimum(r, np.log(beta)), LOGS)
    carried = _carried(prompt, r, beta)
    needed = CARRIED if _rare(prompt, r, beta) else TIED
    if carried < needed:  # 0: that P/q never goes above β is not shown by draws that do not
        few = f"{carried:.3g} draws of q above β carry the distance, {needed:g} are needed"
        refused |= {part: refused[part] or few for part in PARTS if part not in ("acceptance", "kl_base")}
    if all(refused.values()):
        return {part: Estimate.missing(why, n=n) for part, why in refused.items()}
    offset = np.zeros(n) if log_base is None else np.asarray(log_base, float)
    table = [_of_prompt(r[rows], offset[rows], unit, beta) for rows, unit in strata(prompt, group)]
    numbers = np.array(table)  # (C, 4, 8)
    worth = p_draws(prompt, r)
    found = {part: replace(_mean(part, numbers[:, :, k], worth), n=n) for k, part in enumerate(PARTS)}
    return {part: Estimate.missing(refused[part], n=n) if refused[part] else e for part, e in found.items()}


def _mean(part: str, table: Array, worth: Array) -> Estimate:
    """Mean over prompts of a part, from its value, variance, least and greatest on the path of each (C, 4)."""
    values, variances, lows, highs = table.T
    df = satterthwaite(variances, worth)
    answer = normal(float(values.mean()), float(variances.sum()) / values.size**2, n=0, df=df)
    answer = hull(on_root_scale(answer) if part in NEAR_ZERO else answer, values, lows, highs)
    answer = answer if part not in TOP else folded(answer, TOP[part])
    return spread_or_none(replace(answer, ess=float(worth.sum())))


def _carried(prompt: Array, r: Array, beta: float) -> float:
    """How many draws carry Σ w·log(w/m), over all prompts; 0 where none is above β."""
    count = 0.0
    for rows, _ in strata(prompt):
        w, limit = _weights(r[rows], beta)
        part = w * np.log(np.maximum(w / limit, 1.0))
        count += float(part.sum() ** 2 / (part**2).sum()) if part.any() else 0.0
    return count


def _rare(prompt: Array, r: Array, beta: float) -> bool:
    """Whether some value of P/q above β has been drawn fewer than `OFTEN` times, in some prompt."""
    for rows, _ in strata(prompt):
        w, limit = _weights(r[rows], beta)
        drawn = np.bincount(cells(r[rows])[1][w > limit])
        if (drawn[drawn > 0] < OFTEN).any():
            return True
    return False


def _weights(r: Array, beta: float) -> tuple[Array, float]:
    """Weights in a unit of their own, and β in it."""
    w, shift = scaled(r)
    return w, float(np.exp(np.log(beta) - shift))


def _of_prompt(r: Array, log_base: Array, unit: Array, beta: float) -> Array:
    """(4, 8) of each part the value, its variance, and the least and greatest on the path of `tilts`."""
    w, limit = _weights(r, beta)

    def parts(kept: Array) -> Array:
        return exact(w[kept], limit, log_base=log_base[kept])

    whole, without = each_left_out(parts, unit)
    if not np.isfinite(without).all():
        return np.array([*corrected(whole, without), *np.full((2, whole.size), np.nan)])
    paths = [
        [exact(w, limit, law / law.sum(), log_base)[k] for law in tilts(without[:, k])[:, unit]]
        for k in range(whole.size)
    ]
    return np.array([*corrected(whole, without), np.min(paths, axis=1), np.max(paths, axis=1)])


def log_beta_for_acceptance(log_weight: Array, acceptance: float) -> float:
    """Log β (nats) with which this share of draws of q is accepted, E_q min(P/(βq), 1), by their log P − log q (n,).

    The share must not be above that of the draws with P > 0.
    """
    w, shift = scaled(log_weight)
    inverse = np.sort(1 / w[w > 1e-300])  # weights further below the largest are 0
    accepted = np.minimum(w[:, None] * inverse, 1.0).sum(axis=0)  # linear in 1/β between these
    wanted = min(acceptance * w.size, float(inverse.size))
    return shift - float(np.log(np.interp(wanted, np.append(0.0, accepted), np.append(0.0, inverse))))


def log_beta_for_tv(log_weight: Array, bound: float) -> float:
    """The smallest log β (nats) where 1 − Z_β/Z ≥ TV(p, π_β) is at most `bound`, from log P − log q (n,)."""
    w, shift = scaled(log_weight)
    beta = np.sort(w[w > 0])
    kept = np.minimum(w[:, None], beta).sum(axis=0)  # linear in β between these
    wanted = (1 - bound) * float(w.sum())
    return shift + float(np.log(np.interp(wanted, np.append(0.0, kept), np.append(0.0, beta))))
