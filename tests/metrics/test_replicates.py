"""Replicates: what leaves together, which numbers have any, and that they know the error of a number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evidences import of_texts
from paired_world import PairedWorld, kl_alone, records

from alignbench import metrics
from alignbench.metrics import replicates as module
from alignbench.metrics.prompts import left_out
from alignbench.metrics.replicates import (
    Measured,
    block_of,
    blocks_in,
    number_in_prompt,
    replicates,
    replicates_of,
    spelled,
)
from alignbench.seeds import APART
from alignbench.stats.intervals import mean_over_prompts
from alignbench.stats.ranks import jackknife_error

pytestmark = pytest.mark.usefixtures("as_shipped")
GIVEN, LIKE = "prompts_given", "prompts_like_these"
WORLD = PairedWorld(1)


def told(name, evidence, **params):
    return Measured(name, params, metrics.measure(name, evidence, **params))


def of(name, evidence, over=GIVEN, **params):
    return replicates([told(name, evidence, **params)], evidence, over)[0]


def grouped(scored, group):
    return replace(scored, draws=replace(scored.draws, group=np.asarray(group)))


def test_a_replicate_is_the_metric_on_the_rest():
    e = WORLD.evidence(0, each=40)[0]
    found = of("divergence", e)
    rest = np.flatnonzero(e.own.draws.index % 20 != 3)
    again = replace(e, own=module.picked(e.own, rest), ref=module.picked(e.ref, rest))
    assert found["kl_target"].shape == (20,)
    assert found["kl_target"][3] == metrics.measure("divergence", again)["kl_target"].value
    assert set(found) >= {"kl_target", "tv", "js", "kl_base"}


def test_replicates_know_the_error_of_a_mean():
    """Of 20 draws a prompt each block is one draw: the jackknife's error is that of the mean, but for the strata."""
    e = WORLD.evidence(2, each=20)[0]
    values = e.own.features["kept"].reshape(3, 20).mean(axis=0)  # one draw of each prompt
    left = of("satisfaction", e)["always"]
    assert jackknife_error(left) == pytest.approx(values.std(ddof=1) / np.sqrt(20), rel=1e-9)
    assert mean_over_prompts(e.own.draws.prompt, e.own.features["kept"]).value == pytest.approx(left.mean())


def test_blocks_go_by_sample_number_so_that_a_lost_draw_moves_no_other():
    e = WORLD.evidence(0, each=40)[0]
    some = module.picked(e.own, np.flatnonzero(e.own.draws.index != 0))
    assert block_of(some, 20).tolist() == (some.draws.index % 20).tolist()
    assert blocks_in(e) == 20 and blocks_in(WORLD.evidence(0, each=13)[0]) == 13


def test_draws_of_a_proposal_are_counted_from_its_own_beginning():
    ref = WORLD.evidence(0, each=13)[0].ref
    later = replace(ref, draws=replace(ref.draws, index=ref.draws.index + APART))
    assert block_of(later, 13).tolist() == block_of(ref, 13).tolist()
    assert APART % 13 != 0  # planted: the plain number modulo G


def test_draws_of_one_run_leave_together():
    e = WORLD.evidence(0, each=40)[0]
    runs = e.own.draws.index // 4
    blocks = block_of(grouped(e.own, runs), 20)
    assert blocks.tolist() == runs.tolist()
    assert block_of(grouped(e.own, e.own.draws.index // 10), 20) is None  # 4 runs are too few
    assert of("satisfaction", replace(e, own=grouped(e.own, e.own.draws.index // 10))) == {}


def test_the_copies_of_a_point_mass_stay():
    e = WORLD.evidence(0, each=40)[0]
    one = replace(grouped(e.own, np.zeros(120, int)), log_gen=np.zeros(120))
    assert (block_of(one, 20) == -1).all()
    left = of("satisfaction", replace(e, own=one))["always"]
    assert left.size == 20 and np.ptp(left) == 0


@pytest.mark.parametrize(("each", "size"), [(7, None), (8, 8), (20, 20), (21, 20), (64, 20)])
def test_there_are_at_most_20_blocks_and_none_under_8(each, size):
    left = of("satisfaction", WORLD.evidence(1, each=each)[0]).get("always")
    assert (None if left is None else left.size) == size


def test_all_kinds_of_draws_leave_together():
    e = WORLD.evidence(0, each=20)[0]
    proposed = np.stack([e.own.draws.prompt, np.full(60, 3), np.ones(60, int)], axis=1)
    rests = list(module._without_blocks(replace(e, proposal=e.ref, proposed=proposed)))
    for g, rest in enumerate(rests):
        for scored in (rest.own, rest.ref, rest.proposal):
            assert set(scored.draws.index.tolist()) == set(range(20)) - {g}
        assert len(rest.proposed) == 57


def test_texts_leave_by_whole_blocks():
    """Without one draw of 8, all later blocks would be others: their mean would jump for no reason."""
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(list("abcdefgh"), 16)) for _ in range(160)]
    e = of_texts(texts, prompt=np.repeat([0, 1], 80))
    e = replace(e, own=replace(e.own, draws=replace(e.own.draws, index=np.tile(np.arange(80), 2))))
    e = replace(e, ref=e.own)
    found = of("distinct", e)["distinct_2"]
    whole = metrics.measure("distinct", e)["distinct_2"]
    assert found.size == 10 and jackknife_error(found) == pytest.approx(whole.stderr, rel=0.5)
    planted = [metrics.measure("distinct", rest)["distinct_2"].value for rest in module._without_blocks(e)]
    assert jackknife_error(np.array(planted)) > 1.5 * whole.stderr
    assert of("self_bleu", e)[""].size == 10 and of("unique_share", e).get("", np.zeros(10)).size == 10


def test_over_prompts_like_these_prompts_leave():
    world = PairedWorld(5, prompts=9)
    e = world.evidence(0, each=10)[0]
    left = of("satisfaction", e, LIKE)["always"]
    assert left[4] == metrics.measure("satisfaction", left_out(e, 4))["always"].value and left.size == 9
    few = WORLD.evidence(0, each=10)[0]
    assert of("satisfaction", few, LIKE)["always"].size == 3  # planted: none under 8, and normal limits instead
    assert of("satisfaction", left_out(few, 1, 2), LIKE) == {}
    many = PairedWorld(5, prompts=25).evidence(0, each=4)[0]
    left = of("satisfaction", many, LIKE)["always"]
    assert left[4] == metrics.measure("satisfaction", left_out(many, 4, 24))["always"].value and left.size == 20


def test_what_is_missing_infinite_or_without_an_interval_has_none():
    e = WORLD.evidence(0, each=20)[0]
    assert np.isinf(metrics.measure("divergence", e)["kl_reverse"].value)
    assert "kl_reverse" not in of("divergence", e)
    assert of("cost", e) == {} and of("length", e) == {}  # measured once; a detail


def test_a_number_that_carries_the_error_of_lambda_has_none():
    """Planted bug: differences of such numbers knew nothing of λ's error, and each number did."""
    e = WORLD.evidence(0, each=20)[0]
    carried = replace(told("satisfaction", e), params={"at": "asked"})
    assert replicates([carried, told("satisfaction", e)], e, GIVEN)[0] == {}


def test_a_number_that_a_replicate_refuses_has_none(monkeypatch):
    e = WORLD.evidence(0, each=20)[0]
    one = told("satisfaction", e)
    fine = metrics.measure("satisfaction", e)

    def refusing(name, evidence, **params):
        gone = 7 not in evidence.own.draws.index
        return {} if gone else fine

    monkeypatch.setattr(module, "measure", refusing)
    assert replicates([one], e, GIVEN) == [{}]


def test_exact_numbers_have_equal_replicates():
    e = replace(WORLD.evidence(0, each=20)[0], is_base=True)
    assert np.all(of("divergence", e)["kl_base"] == 0.0)


def test_the_column_keeps_eight_digits():
    values = np.array([1 / 3, 0.0, -2e-9, 12345.678901])
    words = spelled(values)
    assert words == "0.33333333 0 -2e-09 12345.679"
    np.testing.assert_allclose(replicates_of({"replicates": words}), values, rtol=1e-7)
    assert spelled(replicates_of({"replicates": words})) == words
    assert replicates_of({"replicates": ""}) is None and replicates_of({"replicates": np.nan}) is None


def test_rows_of_one_seed_share_their_reference_draws():
    with kl_alone():
        rows = records(WORLD.evidence(0), "kl_target")
    assert all(replicates_of(row).size == 20 for row in rows)


def test_numbers_begin_anew_in_each_prompt():
    np.testing.assert_array_equal(number_in_prompt(np.array([1, 0, 1, 0, 0, 2])), [0, 0, 1, 1, 2, 0])
