"""Quasi-rejection through the aligner: a Poisson law as the base, another as the target, their table to four digits."""

import numpy as np
import pytest
from scipy.stats import poisson

from alignbench.aligners.base import Setting
from alignbench.aligners.selection.quasi_rejection import QuasiRejection
from alignbench.generators.exact.world import NGram
from alignbench.generators.law import Law
from alignbench.seeds import Seed
from alignbench.target import Constraint, Target
from alignbench.target.truth import exact_values
from alignbench.types import collect, rows_of

COUNTS = np.arange(50)  # one word each; beyond them 4e-18 of the base and 3e-16 of the target
EACH = 3000


def world():
    """The base says one word, the Poisson(10) number of it, and the target has it be Poisson(11)."""
    words = tuple(f"w{k}" for k in COUNTS)
    table = np.append(poisson.logpmf(COUNTS, 10), -np.inf)[None]
    table -= np.log(np.exp(table).sum())
    base = Law(NGram(words, table, 1))
    gain = poisson.logpmf(COUNTS, 11) - poisson.logpmf(COUNTS, 10)

    def ratio(prompts, draws):
        return gain[draws.tokens[:, 0]]

    target = Target(
        (Constraint("gain", "reward", beta=1.0),), {}, {"gain": (gain.min(), gain.max())}, measures={"gain": ratio}
    )
    return base, target.fitted({}, np.zeros(0, int), {}, np.zeros(0, int), ("w0",))


@pytest.mark.parametrize(
    ("beta", "acceptance", "tv"), [(0.5, 0.9995, 0.1229), (1.0, 0.8768, 0.0749), (2.0, 0.4982, 0.0035)]
)
def test_the_table(beta, acceptance, tv):
    base, target = world()
    sampler = QuasiRejection(beta=beta).align(Setting(base, target, ("w0",), 1, Seed(0, "train")))
    assert exact_values(base, sampler, target, ("w0",), 1)["divergence.tv"] == pytest.approx(tv, abs=5e-5)
    drawn = collect(sampler.sample(("w0",), rows_of(1, EACH), max_tokens=1, seed=Seed(0)))
    tried = drawn.proposals.sum()
    assert abs(EACH / tried - acceptance) < 4 * np.sqrt(acceptance * (1 - acceptance) / tried) + 1e-3
    law = np.minimum(poisson.pmf(COUNTS, 11), beta * poisson.pmf(COUNTS, 10))
    mean, spread = law @ COUNTS / law.sum(), np.sqrt(law @ COUNTS**2 / law.sum() - (law @ COUNTS / law.sum()) ** 2)
    assert abs(drawn.tokens[:, 0].mean() - mean) < 4 * spread / np.sqrt(EACH)
