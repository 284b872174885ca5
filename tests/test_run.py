"""Running: what is measured on what, in which order, and the Python way in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import alignbench
from alignbench import Draws
from alignbench.errors import RunError, Unsupported, UsageError
from alignbench.generators.exact import exact
from alignbench.generators.law import Law
from alignbench.run import Job, evaluate, name_of, plan, recipe_of, run
from alignbench.spec import Spec

TASK = """\
name: little
version: 1
summary: Sun always, wind in half.
prompts: [rain, sun wind]
max_tokens: 3
draws: 60
features:
  sunny: {feature: contains_any, words: [sun]}
  windy: {feature: contains_any, words: [wind]}
target:
  - {feature: sunny, always: true}
  - {feature: windy, moment: 0.5}
metrics: [satisfaction, divergence]
"""


@pytest.fixture(autouse=True)
def task(tmp_path, monkeypatch, registries):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "little.yaml").write_text(TASK)
    return tmp_path / "little.yaml"


def value(rows, metric, part, aligner="", generator="exact"):
    at = (rows.metric == metric) & (rows.part == part) & (rows.aligner == aligner) & (rows.generator == generator)
    assert at.sum() == 1
    return rows[at].iloc[0]


def test_evaluate_gives_tidy_rows_and_leaderboard_views_them():
    rows = alignbench.evaluate("exact", "little.yaml", aligners=["rejection", {"name": "best_of_n", "n": 4}])
    assert isinstance(rows, pd.DataFrame) and not rows.duplicated(["generator", "aligner", "metric", "part"]).any()
    assert set(rows.aligner) == {"", "rejection:cap=256", "best_of_n:n=4"}
    assert set(rows.generator) == {"exact", "draws of p"} and set(rows.base) == {"exact"}
    board = alignbench.leaderboard(rows)
    assert len(board.tables) == 1 and "best_of_n:n=4" in str(board)


def test_estimates_lie_around_the_exact_values_beside_them():
    """All within 4 standard errors of the truth that the world tells."""
    rows = alignbench.evaluate(
        "exact", "little.yaml", aligners=["rejection", "best_of_n:n=4", "temperature:t=0.7"], draws=400
    )
    known = rows[rows.exact.notna() & rows.stderr.notna() & np.isfinite(rows.exact)]
    assert len(known) > 20
    far = known[(known.value - known.exact).abs() > 4 * known.stderr + 1e-9]
    assert far.empty, far[["aligner", "metric", "part", "value", "stderr", "exact"]]
    assert (rows[rows.value == np.inf].exact == np.inf).all()


def test_objects_stand_for_themselves():
    law = exact(seed=4)
    rows = evaluate(law.warped(temperature=0.5), "little.yaml", base=law)
    kl = rows[(rows.metric == "divergence") & (rows.part == "kl_base")].exact.dropna()
    assert sorted(kl > 0.01) == [False, True]  # the base itself, and the sharper law


def test_a_base_that_is_not_the_model():
    rows = evaluate("exact:seed=4", "little.yaml", base="exact:seed=5", draws=200)
    kl = rows[(rows.metric == "divergence") & (rows.part == "kl_base") & (rows.value > 0)]
    kl = kl[kl.generator != "draws of p"]
    assert len(kl) == 1 and abs(kl.value.iloc[0] - kl.exact.iloc[0]) < 4 * kl.stderr.iloc[0]


def test_two_models_that_differ_have_labels_that_differ():
    outcome = run(Job(tasks=("little.yaml",), models=(Spec("exact", {"seed": 1}), Spec("exact", {"seed": 2}))))
    rows = outcome.frame()
    assert not rows.duplicated(["generator", "aligner", "metric", "part"]).any()


def test_a_task_named_twice_is_run_once():
    rows = evaluate("exact", ["little.yaml", "./little.yaml"])
    assert not rows.duplicated(["task", "generator", "aligner", "metric", "part"]).any()


def test_the_same_aligner_twice_is_one_row():
    rows = evaluate("exact", "little.yaml", aligners=["rejection", "rejection:cap=256"])
    assert not rows.duplicated(["generator", "aligner", "metric", "part"]).any()


def test_nothing_is_written_without_an_output(task):
    evaluate("exact", "little.yaml")
    assert list(task.parent.iterdir()) == [task]


def test_the_output_is_where_asked_and_found_again(task, monkeypatch):
    first = evaluate("exact", "little.yaml", output_path="out", aligners=["rejection"])
    monkeypatch.setattr(Law, "sample", lambda *a, **k: pytest.fail("a draw was made"))
    again = evaluate("exact", "little.yaml", output_path="out", aligners=["rejection"])
    pd.testing.assert_frame_equal(first.drop(columns="run_id"), again.drop(columns="run_id"))


def test_a_model_is_loaded_once_a_run_and_not_once_a_task(task, tiny_gpt2, monkeypatch):
    """Base, model and judge of one spec are one object, whatever the number of tasks."""
    from alignbench.generators import hf as hf_module

    loads, right = [], hf_module._network
    monkeypatch.setattr(hf_module, "_network", lambda folder, **more: loads.append(folder) or right(folder, **more))
    text = TASK[: TASK.index("target:")] + "target: [{feature: windy, moment: 0.1}]\nmetrics: [perplexity]\n"
    for name in ("one", "two"):
        (task.parent / f"{name}.yaml").write_text(text.replace("little", name))
    spec = Spec("hf", {"pretrained": str(tiny_gpt2)})
    outcome = run(Job(("one.yaml", "two.yaml"), (spec,), base=spec, judge=spec, draws=60))
    assert {row.key.task for row in outcome.rows} == {"one", "two"} and not outcome.failures
    assert len(loads) == 1


def test_seeds_change_draws_and_streams_are_apart():
    one, two = (evaluate("exact", "little.yaml", seed=s) for s in (0, 1))
    a, b = (value(r, "satisfaction", "always").value for r in (one, two))
    assert a != b
    outcome = run(Job(tasks=("little.yaml",), models=(Spec("exact"),)))
    assert outcome.fresh == 4 * 120  # reference, fit, heldout, own


def test_failures_are_told_together_and_raise_in_python():
    with pytest.raises(
        RunError, match=r"^little: exact \+ prompt:text=zebra: prompt 'zebra rain': the world has no word"
    ):
        evaluate("exact", "little.yaml", aligners=["prompt:text=zebra", "best_of_n:n=2"])
    specs = (Spec("prompt", {"text": "zebra"}), Spec("best_of_n", {"n": 2}))
    outcome = run(Job(tasks=("little.yaml",), models=(Spec("exact"),), aligners=specs))
    assert len(outcome.failures) == 1 and outcome.exit_code == 2
    assert {r.key.aligner for r in outcome.rows} == {"", "best_of_n:n=2"}


def test_an_infeasible_moment_fails_its_task_and_not_the_next(task):
    (task.parent / "other.yaml").write_text(TASK.replace("[wind]", "[zebra]").replace("little", "other"))
    outcome = run(Job(tasks=("other.yaml", "little.yaml"), models=(Spec("exact"),)))
    assert len(outcome.failures) == 1 and outcome.failures[0].startswith("other: exact: ") and outcome.exit_code == 2
    assert {r.key.task for r in outcome.rows} == {"little"}


class BlackBox:
    """Says sun, always."""

    def sample(self, prompts, rows, *, max_tokens, seed):
        yield Draws(prompt=rows[:, 0], index=rows[:, 1], texts=(" sun",) * len(rows), tokens=None,
                    length=np.ones(len(rows), int), finished=np.ones(len(rows), bool), log_prob=None,
                    token_log_prob=None, model_log_prob=None)  # fmt: skip


def test_a_black_box_can_be_tested_but_not_be_a_base():
    rows = evaluate(BlackBox(), "little.yaml", base="exact")
    assert value(rows, "satisfaction", "always", generator="BlackBox").value == 1.0
    with pytest.raises(Unsupported, match=r"^base 'BlackBox': has no log_prob"):
        evaluate(BlackBox(), "little.yaml")
    with pytest.raises(UsageError, match="has no decoding settings"):
        evaluate(BlackBox(), "little.yaml", base="exact", gen_kwargs={"temperature": 0.5})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "--draws 0: must be a whole number >= 1"),
        ({"draws": "8"}, "--draws 8: must be a whole number >= 1"), ({"seed": 1.5}, "--seed 1.5: must be a whole"),
        ({"limit": 0}, "--limit 0: must be a whole number >= 1"),
        ({"seed": -1}, "--seed -1: must be a whole number >= 0"), ({"aligners": ["bst_of_n"]}, "unknown aligner"),
        ({"judge": "exat"}, "unknown generator 'exat'"), ({"include_path": ["nowhere"]}, "no such file or folder"),
    ],
)  # fmt: skip
def test_wrong_options_are_usage_errors(options, message):
    with pytest.raises(UsageError, match=message):
        evaluate("exact", "little.yaml", **options)


def test_an_unknown_option_gets_the_nearest():
    with pytest.raises((TypeError, UsageError), match="drws"):
        evaluate("exact", "little.yaml", drws=3)


def test_a_thing_that_cannot_be_sampled_is_refused_at_once():
    with pytest.raises((UsageError, RunError)):
        evaluate(3, "little.yaml", base="exact")


def test_limit_keeps_the_first_prompts_and_changes_the_hash():
    one, two = evaluate("exact", "little.yaml", limit=1), evaluate("exact", "little.yaml")
    assert one.task_hash.iloc[0] != two.task_hash.iloc[0] and "|prompts:1|" in one.signature.iloc[0]
    assert evaluate("exact", "little.yaml", limit=9).task_hash.iloc[0] == two.task_hash.iloc[0]


def test_plan_names_every_row_and_loads_no_model(monkeypatch):
    lines = plan(Job(tasks=("little.yaml",), models=(Spec("hf", {"pretrained": "nobody/nothing"}),),
                     aligners=(Spec("best_of_n", {"n": 2}),), limit=1))  # fmt: skip
    assert lines == [
        "little v1: 1 prompts × 60 draws × at most 3 tokens = 180 tokens for each generator",
        "  hf:pretrained=nobody/nothing (base), and as many reference draws, as many again twice to fit and test λ",
        "  hf:pretrained=nobody/nothing + best_of_n:n=2",
    ]


def test_names():
    assert name_of(exact(), Spec("exact", {"order": 2})) == "exact" and name_of(BlackBox(), None) == "BlackBox"
    assert name_of(BlackBox(), Spec("mine", {"a": 1})) == "mine:a=1"
    from alignbench.aligners.best_of_n import BestOfN

    assert recipe_of(Spec("best_of_n"))[0] == recipe_of(BestOfN())[0] == "best_of_n:n=16"


def test_a_judge_measures_fluency_and_is_named():
    rows = evaluate("exact", "little.yaml", judge="exact:seed=9")
    assert rows.signature.str.contains(r"\|judge:exact").all()
