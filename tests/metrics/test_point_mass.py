"""Metrics of a generator that says one thing a prompt: what is exact is told so, and nothing claims 200 draws."""

import numpy as np
import pytest
from task_on_base import TaskOnBase
from tiny_world import BASE, BRIGHT, TASK

from alignbench import metrics
from alignbench.aligners.decoding.search import Beam, Greedy
from alignbench.aligners.decoding.settings import TopK
from alignbench.generators.exact.world import exact
from alignbench.metrics.distance import divergence
from alignbench.metrics.prompts import left_out, over_prompts
from alignbench.registry import load_plugins, metric
from alignbench.seeds import Seed
from alignbench.store.draws import DrawStore
from alignbench.task import load_task
from alignbench.types import silent

load_plugins()
MOMENT = "  - {feature: windy, moment: 0.5}\n"


@pytest.fixture
def measured(tmp_path):
    def make(aligner, target="", base=BASE):
        (tmp_path / "tiny.yaml").write_text(TASK + target)
        bench = TaskOnBase(load_task(tmp_path / "tiny.yaml"), base, "exact", DrawStore(None), 200, Seed(7), silent)
        return bench.measure("own", aligner.align(bench.setting))

    return make


@pytest.mark.parametrize("target", [BRIGHT, MOMENT, BRIGHT + MOMENT])
@pytest.mark.parametrize("aligner", [Greedy(), Beam(), TopK(1)])
def test_divergences_of_a_point_mass(measured, aligner, target):
    for base in (BASE, exact(words="sun rain wind", seed=10)):
        evidence = measured(aligner, target, base)
        found, truth = divergence(evidence), evidence.truth
        for part in ("kl_base", "kl_base_rb", "kl_base_k1"):
            assert found[part].value == pytest.approx(truth[f"divergence.{part}"])
            assert found[part].ci_low == found[part].value == found[part].ci_high
            assert found[part].note.startswith("exact for the prompts given: −log a")
        for part in ("kl_target", "kl_reverse", "tv", "js"):
            cell, exactly = found[part], truth[f"divergence.{part}"]
            if cell.value == np.inf:
                assert exactly == np.inf
            elif cell.ci_low is not None:
                slack = 1.5 * (cell.ci_high - cell.ci_low) + 1e-9
                assert cell.ci_low - slack <= exactly <= cell.ci_high + slack
            else:
                assert cell.note


def test_kl_base_is_not_exact_for_prompts_like_these(measured):
    """Known without error of each prompt given, it differs between them; of one prompt nothing is known of others."""
    evidence = measured(Greedy(), BRIGHT)
    each = [divergence(left_out(evidence, c))["kl_base"].value for c in (1, 0)]
    half = 12.706 * np.std(each, ddof=1) / np.sqrt(2)  # Student's t, one degree of freedom
    found = over_prompts(divergence, evidence)
    for part in ("kl_base", "kl_base_rb", "kl_base_k1"):
        assert found[part].ci_high - found[part].value == pytest.approx(half, rel=1e-4) and half > 0.1
        alone = over_prompts(divergence, left_out(evidence, 1))[part]
        assert alone.ci_low is None and "one prompt says nothing of others" in alone.note


def test_kl_reverse_has_the_error_of_its_normaliser_alone(measured):
    """Own draws say exactly what they say; as dependent draws they would add the spread between prompts."""
    found = divergence(measured(Greedy(), MOMENT))
    assert found["kl_reverse"].stderr == pytest.approx(found["log_z"].stderr, rel=1e-6)


def test_every_cell_has_an_interval_or_a_note_and_divergences_the_remark(measured):
    evidence = measured(Greedy(), BRIGHT + MOMENT)
    names = [name for name in metric if not metric[name].meta.get("opt_in")]
    cells = {(name, part): e for name in names for part, e in metrics.measure(name, evidence).items()}
    assert len(cells) > 30
    for where, cell in cells.items():
        assert cell.ci_low is not None or cell.ci_high is not None or cell.note, where
    for (name, part), cell in cells.items():
        says = name == "divergence" and part != "log_z" and (cell.value, cell.ci_low, cell.ci_high) != (None,) * 3
        assert ("a point mass" in cell.note) == says, (name, part)


def test_means_do_not_claim_as_many_draws_as_there_are_copies(measured):
    evidence = measured(Greedy(), BRIGHT)
    share = metrics.measure("satisfaction", evidence)["always"]
    assert share.ci_high - share.ci_low > 0.5  # two continuations, not 400
