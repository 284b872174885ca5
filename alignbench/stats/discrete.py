"""Divergences of exact mass functions: the truth that the estimators of this folder are tested against."""

from __future__ import annotations

import numpy as np
from scipy.special import rel_entr

from alignbench.types import Array

TOP = {"tv": 1.0, "js": float(np.log(2))}
"""The largest that a bounded distance can be (JS in nats)."""


def times(weight: Array, log_value: Array) -> Array:
    """Product weight · log_value with 0 · (−inf) = 0: the one place where it is taken."""
    weight, log_value = np.broadcast_arrays(np.asarray(weight, float), np.asarray(log_value, float))
    return np.multiply(weight, log_value, out=np.zeros(weight.shape), where=weight != 0)


def normalised(log_masses: Array) -> Array:
    """(…, K) probabilities proportional to exp(log_masses); −inf is mass 0. At least one must be finite."""
    log_masses = np.asarray(log_masses, float)
    masses = np.exp(log_masses - log_masses.max(axis=-1, keepdims=True))
    return np.asarray(masses / masses.sum(axis=-1, keepdims=True))


def kl(p: Array, q: Array) -> Array:
    """KL(p‖q) in nats of probability vectors (…, K); ∞ where q lacks what p has."""
    return np.asarray(rel_entr(p, q).sum(axis=-1))


def tv(p: Array, q: Array) -> Array:
    """Total variation distance of probability vectors (…, K), between 0 and 1."""
    return np.asarray(np.abs(np.asarray(p) - np.asarray(q)).sum(axis=-1) / 2)


def js(p: Array, q: Array) -> Array:
    """Jensen-Shannon divergence in nats of probability vectors (…, K), at most log 2 (Lin, 1991)."""
    middle = (np.asarray(p) + np.asarray(q)) / 2
    return (kl(p, middle) + kl(q, middle)) / 2
