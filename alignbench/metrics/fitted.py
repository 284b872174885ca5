"""The target itself: the fitted λ and how well it meets its moments on fresh draws."""

from __future__ import annotations

import numpy as np

from alignbench.registry import metric
from alignbench.stats.intervals import normal
from alignbench.types import Estimate, Evidence


@metric("target", better="", detail=True)
def fitted_target(evidence: Evidence) -> dict[str, Estimate]:
    """λ of each moment (lam.<moment>, nats per unit) and E_p[φ] − wanted on held-out base draws (heldout.<moment>).

    One λ for the task, or lam.<moment>.<prompt number> where each prompt has its own. The same for all generators of
    a task: how sure p itself is, which no interval of a divergence from p includes.
    """
    fit = evidence.fit
    found = {}
    for k, name in enumerate(fit.heldout):
        for c, (lam, error) in enumerate(zip(fit.lam[:, k], fit.lam_stderr[:, k], strict=True)):
            part = f"lam.{name}" if len(fit.lam) == 1 else f"lam.{name}.{c}"
            n = fit.heldout[name].n
            found[part] = (
                normal(float(lam), float(error) ** 2, n=n) if np.isfinite(error) else Estimate(float(lam), n=n)
            )
    found |= {f"heldout.{name}": off for name, off in fit.heldout.items()}
    return found or {"": Estimate.missing("the target asks for no moment")}
