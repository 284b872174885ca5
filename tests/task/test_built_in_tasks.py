"""Every built-in task runs from its real data to a table, with tiny random networks that can do none of them."""

import pytest
from models import tiny_gpt2, tiny_t5

from alignbench.run.runner import run
from alignbench.run.settings import Settings
from alignbench.spec import Spec
from alignbench.task import all_tasks

WORDS = (
    "the", "a", "nurse", "he", "she", "said", "day", "sun", "rain", "Rechner", "12", "March", "2014", "{", "}", "le",
    "return", "good", "bad", "ocean", "night", "is", "and", ".", "cold", "doctor", "manager", "engineer", "writer",
    "assistant",
)  # fmt: skip
FOR_READERS = ("translation_terms", "summary_entities")
"""Tasks for encoder-decoder networks."""
UNREACHED = ("dialogue_reply", "occupation_fairness")
"""Tasks whose moments the draws of such a network cannot be given: one line says so."""


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("networks")
    return {
        "causal": tiny_gpt2(folder / "gpt2", WORDS, window=2048),
        "encoder-decoder": tiny_t5(folder / "t5", WORDS),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in all_tasks() if not name.startswith("exact_")])
def test_every_task_runs_from_its_real_data(name, networks):
    kind = "encoder-decoder" if name in FOR_READERS else "causal"
    spec = Spec("hf", {"pretrained": str(networks[kind])})
    outcome = run(Settings(tasks=name, model=spec, limit=2, draws=16))
    expected = ("draw of p", "cannot be fitted", "cannot be reached")
    assert all(any(told in line for told in expected) for line in outcome.failures), outcome.failures
    assert bool(outcome.rows) == (name not in UNREACHED)
    assert all(row.estimate.value is not None or row.estimate.note for row in outcome.rows)
