"""Means of what the target does not ask for."""

import numpy as np
from task_on_base import TaskOnBase

from alignbench import metrics
from alignbench.generators.exact.world import exact
from alignbench.registry import load_plugins
from alignbench.seeds import Seed
from alignbench.stats.intervals import share
from alignbench.store.draws import DrawStore
from alignbench.task import load_task
from alignbench.types import silent

TASK = """
name: tiny
version: 1
summary: A world of four words.
prompts: [rain, sun]
max_tokens: 3
draws: 64
features:
  bright: {feature: contains_any, words: [sun]}
  windy: {feature: contains_any, words: [wind]}
  pronoun: {feature: pronoun_gender}
  size: {feature: length_tokens}
target:
  - {feature: bright, always: true}
"""


def evidence(tmp_path, text=TASK):
    load_plugins()
    path = tmp_path / "tiny.yaml"
    path.write_text(text)
    base = exact(words="sun rain wind she", seed=3)
    bench = TaskOnBase(load_task(path), base, "exact", DrawStore(None), draws=64, seed=Seed(0), progress=silent)
    return bench.measure("exact", base)


def test_what_the_target_does_not_ask_for(tmp_path):
    found = evidence(tmp_path)
    parts = metrics.measure("features", found)
    assert set(parts) == {"windy", "pronoun.she", "pronoun.he", "size"}
    own = found.own
    windy = own.features["windy"]
    assert parts["windy"] == share(own.draws.prompt, windy > 0)
    assert parts["pronoun.she"].value == np.mean(
        [np.mean(own.features["pronoun"][own.draws.prompt == c] == 0) for c in (0, 1)]
    )
    assert parts["size"].value == np.mean(own.draws.length)
    assert parts["size"].ci_low < parts["size"].value < parts["size"].ci_high
    assert parts["pronoun.he"].value == 0 and parts["pronoun.he"].ci_high > 0  # no word for it: a bound, not a bare 0


def test_nothing_else_is_measured(tmp_path):
    text = "\n".join(line for line in TASK.splitlines() if not line.startswith(("  windy", "  pronoun", "  size")))
    (only,) = metrics.measure("features", evidence(tmp_path, text)).values()
    assert only.value is None and "does not ask for" in only.note
