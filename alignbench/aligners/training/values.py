"""A value head: what is to come after a prefix, linear in the base's last hidden state there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from alignbench.types import Array

RIDGE = 1.0
"""ρ over the mean of the diagonal of Σ hhᵀ: the weights as they were count as much as the new places do on average."""


@dataclass
class ValueHead:
    """V(x_<t) = w·(h, s), h the hidden state, s a constant of its size; learned by least squares, step by step.

    Each time the w are those that minimise Σ (V − wanted)² + ρ·|w − w before|², ρ as `RIDGE` has it. So there is no
    rate, and what is kept of all places before is w. Of a table, whose hidden states are unit vectors, a value is a
    moving mean of what came after the prefix.
    """

    weights: Array = field(default_factory=lambda: np.zeros(0))
    size: float = 0.0

    def __call__(self, hidden: Array) -> Array:
        """(…,) values of hidden states (…, D)."""
        if not len(self.weights):
            return np.zeros(hidden.shape[:-1])
        return np.asarray(hidden @ self.weights[:-1] + self.size * self.weights[-1])

    def sums(self, hidden: Array, wanted: Array) -> tuple[Array, Array]:
        """What `learn` takes of P places (P, D) and (P,); those of several processes can be added."""
        full = np.concatenate([hidden.astype(float), np.full((len(hidden), 1), self.size)], 1)
        return full.T @ full, full.T @ wanted

    def learn(self, squares: Array, products: Array) -> None:
        """Take in the sums."""
        if not len(self.weights):
            self.weights = np.zeros(len(products))
        trust = RIDGE * np.trace(squares) / len(products)
        ridge = trust * np.eye(len(products))
        self.weights = np.linalg.solve(squares + ridge, products + trust * self.weights)
