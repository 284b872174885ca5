"""The target p: how far P and the base differ on the features of a draw.

log P(x) = log a(x) + Σ log b(x) + λ·φ(x) + r(x)/β, per prompt and unnormalised. Everything here works on arrays of
feature values by name; nothing knows a model or how a feature is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from alignbench.errors import InfeasibleTarget, UsageError, did_you_mean
from alignbench.stats.bins import BINS, edges, p_shares
from alignbench.stats.moments import Moment, fit_lambda, tilted_moments
from alignbench.target.constraint import Constraint
from alignbench.types import Array, Draws, Feature, Fit, Wanted


@dataclass(frozen=True)
class Target:
    """The base reweighted until it meets `constraints`; features are known by name.

    `categories` has the categories of each categorical feature, `ranges` the (lowest, highest) value of each other
    one, None where it is not known. `fit` holds λ once `fitted` has found it.
    """

    constraints: tuple[Constraint, ...] = ()
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    fit: Fit | None = None
    measures: Mapping[str, Feature] = field(default_factory=dict, compare=False)  # how each feature is computed

    def __post_init__(self) -> None:
        for constraint in self.constraints:
            self._check(constraint)
        asked = [(c.feature, c.kind) for c in self.constraints]
        for c in self.constraints:
            if asked.count((c.feature, c.kind)) > 1:
                raise UsageError(f"two {c.kind} constraints on '{c.feature}': keep one")
        if len({c.per for c in self._moments}) > 1:
            raise UsageError("all moment and distribution constraints must agree on 'per' (task or prompt)")

    def _check(self, constraint: Constraint) -> None:
        """Raise UsageError when the feature is unknown, or not of a kind that can be asked this."""
        known = {*self.categories, *self.ranges}
        if constraint.feature not in known:
            raise UsageError(f"unknown feature '{constraint.feature}'.{did_you_mean(constraint.feature, known)}")
        categories = self.categories.get(constraint.feature, ())
        if (constraint.kind == "distribution") != bool(categories):
            what = "is a number: ask for a 'moment'" if not categories else "is categorical: ask for a 'distribution'"
            raise UsageError(f"{constraint}: '{constraint.feature}' {what} instead")
        for name in constraint.shares:
            if name not in categories:
                raise UsageError(f"{constraint}: unknown category '{name}'.{did_you_mean(name, categories)}")
        self._check_range(constraint)

    def _check_range(self, constraint: Constraint) -> None:
        """Raise when no draw could ever have the wanted value."""
        low, high = self.ranges.get(constraint.feature) or (-math.inf, math.inf)
        if constraint.kind == "moment" and not low < constraint.number < high:
            hint = "; to have it on every draw, use 'always: true'" if constraint.number == high == 1 else ""
            raise InfeasibleTarget(
                f"moment '{constraint.feature}' = {constraint.number:g} cannot be reached: the feature lies between "
                f"{low:g} and {high:g}, and its mean must lie strictly inside{hint}"
            )
        if constraint.kind == "always" and not low <= 1 <= high:
            raise InfeasibleTarget(f"{constraint}: the feature lies between {low:g} and {high:g} and is never 1")

    @property
    def _moments(self) -> tuple[Constraint, ...]:
        return tuple(c for c in self.constraints if c.is_moment)

    @property
    def is_boolean(self) -> bool:
        """Whether p is the base conditioned on hard constraints and nothing else."""
        return all(c.kind == "always" for c in self.constraints)

    @property
    def needs_fit(self) -> bool:
        """Whether p has moments, so that λ must be fitted."""
        return bool(self._moments)

    @property
    def binned(self) -> tuple[str, ...]:
        """The features whose number, and not only whether it is 1, P depends on."""
        return tuple(dict.fromkeys(c.feature for c in self.constraints if c.kind in ("moment", "reward")))

    @property
    def per_prompt(self) -> bool:
        """Whether each prompt has its own λ."""
        return any(c.per == "prompt" for c in self._moments)

    @property
    def feature_names(self) -> tuple[str, ...]:
        """The features that P depends on, each once, in order."""
        return tuple(dict.fromkeys(c.feature for c in self.constraints))

    @property
    def moment_names(self) -> tuple[str, ...]:
        """(K,) names of the columns of `moments`: the feature, or feature.category."""
        return tuple(moment.name for moment in self._asked_moments())

    @property
    def identity(self) -> dict[str, Any]:
        """What p is, apart from the base and from λ, which follows from both.

        In the order given, since the columns of a stored λ follow it.
        """
        return {"constraints": [c.identity for c in self.constraints]}

    def wanted(self) -> tuple[Wanted, ...]:
        """Each thing asked, in order; a distribution asks one for each listed category."""
        return tuple(w for c in self.constraints for w in c.asks)

    def _asked_moments(self) -> tuple[Moment, ...]:
        return tuple(
            Moment(f"{w.feature}.{w.category}" if w.category else w.feature, float(w.value or 0), bool(w.category))
            for c in self._moments
            for w in c.free
        )

    def moments(self, features: Mapping[str, Array]) -> Array:
        """(B, K) φ, centred so that E_p[φ] = 0 is wanted.

        A moment's column is feature − wanted. A distribution has one for each listed category but the last, 1[category]
        − share · 1[any listed]; all of them together would sum to 0.
        """
        columns = [phi for c in self._moments for phi in self._phi(c, features[c.feature])]
        return np.stack(columns, axis=1) if columns else np.zeros((_count(features), 0))

    def _phi(self, constraint: Constraint, values: Array) -> list[Array]:
        """The columns of φ of one constraint."""
        if constraint.kind == "moment":
            return [values - constraint.number]
        codes = {name: self.categories[constraint.feature].index(name) for name in constraint.shares}
        listed = np.isin(values, list(codes.values()))
        return [
            (values == code) - constraint.shares[name] * listed.astype(float) for name, code in list(codes.items())[:-1]
        ]

    def log_ratio(self, features: Mapping[str, Array], prompt: Array, floor: float = -np.inf) -> Array:
        """(B,) log P − log a in nats: Σ log b + λ·φ + r/β; −inf where a hard constraint is broken.

        With `floor` = log ε, it is that of p_ε ∝ a·max(b, ε)·e^{λ·φ + r/β}, b = 0 where any hard constraint is broken.
        """
        tilt = np.zeros(len(prompt))
        if self.needs_fit:
            lam = self._lam()
            rows = lam[prompt] if self.per_prompt else lam
            tilt = np.sum(rows * self.moments(features), axis=1)
        return self._log_weight(features, prompt, floor) + tilt

    def measure(self, prompts: Sequence[str], draws: Draws) -> dict[str, Array]:
        """Feature name → (B,) values of `draws`, for every feature that has a measure."""
        return {name: measure(prompts, draws) for name, measure in self.measures.items()}

    def log_ratio_of(self, prompts: Sequence[str], draws: Draws) -> Array:
        """(B,) log P − log a of `draws` in nats: what aligners steer by."""
        return self.log_ratio(self.measure(prompts, draws), draws.prompt)

    def _log_weight(self, features: Mapping[str, Array], prompt: Array, floor: float = -np.inf) -> Array:
        """(B,) the part of `log_ratio` that needs no λ: log max(b, ε) + r/β, log ε = `floor`."""
        total, broken = np.zeros(len(prompt)), np.zeros(len(prompt), bool)
        for c in self.constraints:
            if c.kind == "always":
                broken |= ~c.holds(features[c.feature])
            elif c.kind == "reward":
                total += features[c.feature] / c.beta
        total[broken] += floor
        return total

    def _lam(self) -> Array:
        if self.fit is None:
            raise UsageError("this target has moments: fit λ on draws of the base first (Target.fitted)")
        return self.fit.lam

    def log_bound(self, n_prompts: int) -> Array | None:
        """(C,) the largest `log_ratio` that any draw can have, by prompt; None where a range is not known.

        The sum over features of each one's largest term, thus an upper bound when there are several.
        """
        total = np.zeros(n_prompts)
        for name in self.feature_names:
            most = self._most(name)
            if most is None or np.isposinf(most).any():
                return None
            total = total + most
        return total

    def _most(self, name: str) -> Array | None:
        """(1 or C,) the largest term that the constraints on feature `name` can add up to."""
        kinds = {c.kind for c in self.constraints if c.feature == name}
        if kinds == {"always"}:
            return np.zeros(1)
        if "distribution" in kinds:
            codes = np.arange(-1, len(self.categories[name]))
            return np.asarray(np.max(self._slope(name) @ self._phi_of(name, codes).T, axis=1))
        bounds = (1.0, 1.0) if "always" in kinds else self.ranges[name]
        return None if bounds is None else self._linear_most(name, bounds)

    def _linear_most(self, name: str, bounds: tuple[float, float]) -> Array:
        """(1 or C,) max over [low, high] of the moment's λ (f − wanted) plus the reward's f/β; may be +inf."""
        slope, offset = np.zeros(1), np.zeros(1)
        for c in (c for c in self.constraints if c.feature == name):
            if c.kind == "moment":
                lam = self._slope(name)[:, 0]
                slope, offset = slope + lam, offset - lam * c.number
            elif c.kind == "reward":
                slope = slope + 1 / c.beta
        edge = np.where(slope > 0, bounds[1], bounds[0])
        return offset + slope * np.where(slope == 0, 0.0, edge)

    def _slope(self, name: str) -> Array:
        """(1 or C, k) λ of the moments of feature `name`."""
        owner = [c.feature for c in self._moments for _ in c.free]
        return self._lam()[:, [k for k, feature in enumerate(owner) if feature == name]]

    def _phi_of(self, name: str, values: Array) -> Array:
        """(len(values), k) φ of the moments of feature `name` at these values of it."""
        return np.stack([p for c in self._moments if c.feature == name for p in self._phi(c, values)], axis=1)

    def fitted(
        self,
        features: Mapping[str, Array],
        prompt: Array,
        heldout_features: Mapping[str, Array],
        heldout_prompt: Array,
        prompts: Sequence[str] = (),
    ) -> Target:
        """The same target with λ fitted on draws of the base, its error, and moment errors on other draws of the base.

        `prompts` are the prompts' texts, for messages. Raises InfeasibleTarget when the moments cannot be reached.
        """
        count = max([len(prompts), *(int(p.max()) + 1 for p in (prompt, heldout_prompt) if len(p))])
        if not self.needs_fit:
            none = np.zeros((1, 0))
            bound = self.log_bound(count)
            return replace(self, fit=Fit(self.wanted(), none, none, log_bound=bound, bins=self._bins(features, prompt)))
        log_weight = self._log_weight(features, prompt)
        self._check_categories_occur(features, np.isfinite(log_weight))
        names = self._asked_moments()
        lam, error = fit_lambda(self.moments(features), log_weight, prompt, self.per_prompt, names, prompts)
        solved = replace(self, fit=Fit(self.wanted(), lam, error))
        bound = solved.log_bound(count)
        off = tilted_moments(
            self.moments(heldout_features), solved.log_ratio(heldout_features, heldout_prompt), heldout_prompt,
            self.moment_names, None if bound is None else bound[heldout_prompt],
        )  # fmt: skip
        bins = solved._bins(features, prompt)
        return replace(self, fit=Fit(self.wanted(), lam, error, heldout=off, log_bound=bound, bins=bins))

    def _bins(self, features: Mapping[str, Array], prompt: Array) -> dict[str, Array]:
        """Each asked number's edges: between its values where they are at most `BINS`, else p's quantiles."""
        names = [name for name in self.binned if len(features.get(name, ()))]
        if not names:
            return {}
        weight = p_shares(prompt, self.log_ratio(features, prompt))
        return {name: edges(features[name], weight, BINS) for name in names}

    def _check_categories_occur(self, features: Mapping[str, Array], allowed: Array) -> None:
        """Raise InfeasibleTarget when a category with a wanted share is on no allowed draw."""
        for c in self._moments:
            for name, share in c.shares.items():
                hits = features[c.feature][allowed] == self.categories[c.feature].index(name)
                if len(hits) and not hits.any():
                    raise InfeasibleTarget(
                        f"share '{c.feature}.{name}' = {share:g} cannot be reached: '{name}' occurs in none of the "
                        f"base's {len(hits)} draws that satisfy the hard constraints"
                    )


def _count(features: Mapping[str, Array]) -> int:
    return len(next(iter(features.values()), ()))
