"""What tests ask a store for: draws of a law on three words."""

import numpy as np

from alignbench.generators.exact.world import exact
from alignbench.seeds import Seed
from alignbench.store.draws import DrawRequest
from alignbench.types import rows_of

PROMPTS = ("rain", "sun wind")
LAW = exact(batch_size=7)
ZERO = Seed(0)


def request(rows=None, prompts=PROMPTS, max_tokens=4, seed=ZERO):
    return DrawRequest(prompts, rows_of(len(prompts), 10) if rows is None else np.array(rows), max_tokens, seed)


def ask(store, wished, law=LAW):
    told = []
    return store.sample(law, law.identity(), wished, told.append), told


def same(a, b):
    assert a.texts == b.texts and np.array_equal(a.tokens, b.tokens) and np.array_equal(a.prompt, b.prompt)
    assert np.array_equal(a.index, b.index) and np.array_equal(a.log_prob, b.log_prob)
