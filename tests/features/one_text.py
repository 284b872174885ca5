"""A feature's value of one text, and draws that are nothing but texts."""

import numpy as np

from alignbench.features import bind
from alignbench.types import Draws


def draws_of(*texts, prompt=None, length=None):
    n = len(texts)
    return Draws(
        prompt=np.zeros(n, int) if prompt is None else np.asarray(prompt), index=np.arange(n), texts=texts, tokens=None,
        length=np.full(n, 3) if length is None else np.asarray(length), finished=np.ones(n, bool), log_prob=None,
        token_log_prob=None, model_log_prob=None,
    )  # fmt: skip


def value(name, text, *, prompt="p", **params):
    return bind({"feature": name, **params})([prompt], draws_of(text))[0]
