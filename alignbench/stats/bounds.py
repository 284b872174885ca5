"""Two-sided bounds where a log-probability is not known: log Z between importance samplers that do and do not see p.

Importance sampling and sequential Monte Carlo give unbiased Ẑ, so that E log Ẑ ≤ log Z (Jensen); with an exact draw of
p among the particles E log Ẑ ≥ log Z. Source: Grosse, Ghahramani and Adams, Sandwiching the marginal likelihood using
bidirectional Monte Carlo (2015); Burda, Grosse and Salakhutdinov (2015).
"""

from __future__ import annotations

import numpy as np
from scipy.special import stdtrit

from alignbench.errors import UsageError
from alignbench.types import Array, Estimate

_ONE_SIDED = 0.975  # each side alone, so that both hold together with 95 %
HARD = "no lower bound: in some run every particle breaks a hard constraint, so that E log Ẑ = −∞"


def run_log_z(log_weights: Array, run: Array) -> Array:
    """(R,) log Ẑ of each run: the log of the mean weight of its particles, from log weights (B,) and runs (B,) int.

    −∞ where all particles of a run have weight 0. For SMC, add the log Ẑ of the steps before the last resampling.
    """
    code, logs = np.unique(run, return_inverse=True)[1], np.asarray(log_weights, float)
    total = np.full(int(code.max()) + 1, -np.inf)
    np.logaddexp.at(total, code, logs)
    return np.asarray(total - np.log(np.bincount(code)))


def log_z_bounds(without: Array, seeing: Array | None = None) -> Estimate:
    """95 % limits of one log Z in nats from log Ẑ of independent runs; no value, since the truth lies between.

    `without` (R,): runs of importance sampling or SMC. `seeing` (S,): runs whose particles include one exact draw of p
    (conditional SMC), None where none is at hand. Limits are Student's t of the two means, at 97.5 % each.
    Raises UsageError where no run is given, or one that saw p has weight 0.
    """
    below = np.asarray(without, float)
    above = np.zeros(0) if seeing is None else np.asarray(seeing, float)
    if not below.size:
        raise UsageError("bounds of log Z need at least one run")
    if np.any(above == -np.inf):
        raise UsageError("a run that has a draw of p among its particles cannot have weight 0")
    low, high = _limit(below, -1), _limit(above, +1)
    notes = [
        "" if np.all(below > -np.inf) else HARD,
        "" if above.size else "no upper bound: no draw of p at hand",
    ]
    notes += [_few("lower", below), _few("upper", above)]
    note = "; ".join(filter(None, notes)) or "bounds: E log Ẑ on either side"
    return Estimate(None, ci_low=low, ci_high=high, n=below.size + above.size, note=note)


def _limit(values: Array, side: int) -> float | None:
    """Student's one-sided limit of the mean; None where there are too few runs or one is infinite."""
    if values.size < 2 or not np.all(np.isfinite(values)):
        return None
    error = float(values.std(ddof=1)) / np.sqrt(values.size)
    return float(values.mean() + side * error * stdtrit(values.size - 1, _ONE_SIDED))


def _few(side: str, values: Array) -> str:
    return f"no {side} bound: 2 runs are needed" if values.size == 1 else ""
