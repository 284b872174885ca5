"""Evidence of texts alone, for tests of metrics that look at nothing else."""

import numpy as np

from alignbench.types import Draws, Evidence, Fit, Scored


def of_texts(texts, prompt=None, references=None, prompts=None, features=None, wanted=(), categories=None, group=None):
    """Draws with these texts of these prompts (all of one by default)."""
    prompt = np.zeros(len(texts), int) if prompt is None else np.asarray(prompt)
    draws = Draws.from_texts(np.stack([prompt, np.arange(prompt.size)], axis=1), texts)
    if group is not None:
        object.__setattr__(draws, "group", np.asarray(group))
    own = Scored(draws, features or {}, *[None] * 4)
    return Evidence(
        own=own, ref=own, fit=Fit(tuple(wanted), np.zeros((1, 0)), np.zeros((1, 0))), references=references,
        prompts=prompts or [f"prompt {c}" for c in range(int(prompt.max()) + 1)], categories=categories or {},
    )  # fmt: skip
