"""Running: what is measured on what, in which order, and the Python way in."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from models import tiny_gpt2 as save_gpt2

import alignbench
from alignbench import Draws
from alignbench.api import evaluate
from alignbench.errors import RunError, SourceError, Unsupported, UsageError
from alignbench.generators.exact.world import exact
from alignbench.generators.hf import factory as hf_module
from alignbench.generators.law import Law
from alignbench.run import plan as plan_module
from alignbench.run.forecast import dry_run
from alignbench.run.models import name_of, recipe_of
from alignbench.run.rescore import rescore
from alignbench.run.rows import frame
from alignbench.run.runner import run
from alignbench.run.settings import Settings
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


def asked(tasks, models=(), aligners=(), **more):
    return Settings(tasks=tasks, model=models, aligner=aligners, **more)


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
    outcome = run(asked(tasks=("little.yaml",), models=(Spec("exact", {"seed": 1}), Spec("exact", {"seed": 2}))))
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
    from alignbench.generators.hf import factory as hf_module

    loads, right = [], hf_module._network
    monkeypatch.setattr(hf_module, "_network", lambda folder, **more: loads.append(folder) or right(folder, **more))
    text = TASK[: TASK.index("target:")] + "target: [{feature: windy, moment: 0.1}]\nmetrics: [perplexity]\n"
    for name in ("one", "two"):
        (task.parent / f"{name}.yaml").write_text(text.replace("little", name))
    spec = Spec("hf", {"pretrained": str(tiny_gpt2)})
    outcome = run(asked(("one.yaml", "two.yaml"), (spec,), base=spec, judge=spec, draws=60))
    assert {row.key.task for row in outcome.rows} == {"one", "two"} and not outcome.failures
    assert len(loads) == 1


def test_seeds_change_draws_and_streams_are_apart():
    one, two = (evaluate("exact", "little.yaml", seed=s) for s in (0, 1))
    a, b = (value(r, "satisfaction", "always").value for r in (one, two))
    assert a != b
    outcome = run(asked(tasks=("little.yaml",), models=(Spec("exact"),)))
    assert outcome.fresh == 4 * 120  # reference, fit, heldout, own


def test_failures_are_told_together_and_raise_in_python():
    with pytest.raises(
        RunError, match=r"^little: exact \+ prompt:text=zebra: prompt 'zebra rain': the world has no word"
    ):
        evaluate("exact", "little.yaml", aligners=["prompt:text=zebra", "best_of_n:n=2"])
    specs = (Spec("prompt", {"text": "zebra"}), Spec("best_of_n", {"n": 2}))
    outcome = run(asked(tasks=("little.yaml",), models=(Spec("exact"),), aligners=specs))
    assert len(outcome.failures) == 1 and outcome.exit_code == 2
    assert {r.key.aligner for r in outcome.rows} == {"", "best_of_n:n=2"}


def test_an_infeasible_moment_fails_its_task_and_not_the_next(task):
    (task.parent / "other.yaml").write_text(TASK.replace("[wind]", "[zebra]").replace("little", "other"))
    outcome = run(asked(tasks=("other.yaml", "little.yaml"), models=(Spec("exact"),)))
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
        ({"draws": 0}, "draws 0: must be a whole number >= 1"),
        ({"draws": "8"}, "draws '8': must be a whole number >= 1"), ({"seed": 1.5}, "seed 1.5: must be a whole"),
        ({"limit": 0}, "limit 0: must be a whole number >= 1"),
        ({"seed": -1}, "seed -1: must be a whole number >= 0"), ({"aligners": ["bst_of_n"]}, "unknown aligner"),
        ({"judge": "exat"}, "unknown generator 'exat'"), ({"include_path": ["nowhere"]}, "no such file or folder"),
    ],
)  # fmt: skip
def test_wrong_options_are_usage_errors(options, message):
    with pytest.raises(UsageError, match=message):
        evaluate("exact", "little.yaml", **options)


def test_several_may_be_any_iterable():
    rows = evaluate("exact", {"little.yaml": 1}.keys(), aligners=(f"best_of_n:n={n}" for n in (2, 3)))
    assert set(rows.aligner) == {"", "best_of_n:n=2", "best_of_n:n=3"}


def test_a_factory_keeps_its_own_defaults_where_nothing_is_said(registries):
    """And what torch calls a dtype or a device may be given as such."""
    import torch

    given = []

    @alignbench.generator
    def mine(*, batch_size: int = 3, device: str = "here", dtype: str = "fine"):
        """A law that notes what it was given."""
        given.append((batch_size, device, dtype))
        return exact()

    evaluate("mine", "little.yaml")
    evaluate("mine", "little.yaml", batch_size=7, device=torch.device("cpu"), dtype=torch.bfloat16)
    assert given == [(3, "here", "fine"), (7, "cpu", "bfloat16")]


def test_a_thing_that_cannot_be_sampled_is_refused_at_once():
    with pytest.raises((UsageError, RunError)):
        evaluate(3, "little.yaml", base="exact")


def test_limit_keeps_the_first_prompts_and_changes_the_hash():
    one, two = evaluate("exact", "little.yaml", limit=1), evaluate("exact", "little.yaml")
    assert one.task_hash.iloc[0] != two.task_hash.iloc[0] and "|prompts:1|" in one.signature.iloc[0]
    assert evaluate("exact", "little.yaml", limit=9).task_hash.iloc[0] == two.task_hash.iloc[0]


def test_plan_names_every_row_and_loads_no_model(monkeypatch):
    given = asked(
        tasks=("little.yaml",), models=(Spec("hf", {"pretrained": "nobody/nothing"}),),
        aligners=(Spec("best_of_n", {"n": 2}),), limit=1,
    )  # fmt: skip
    lines = list(dry_run(given))
    assert lines == [
        "little v1: 1 prompts × 60 draws × at most 3 tokens = 180 tokens for each generator",
        "  hf:pretrained=nobody/nothing (base), and as many reference draws, as many again twice to fit and test λ",
        "  hf:pretrained=nobody/nothing + best_of_n:n=2",
        "times of what is not on this machine yet are not told",
    ]


def test_names():
    assert name_of(exact(), Spec("exact", {"order": 2})) == "exact" and name_of(BlackBox(), None) == "BlackBox"
    assert name_of(BlackBox(), Spec("mine", {"a": 1})) == "mine:a=1"
    from alignbench.aligners.selection.best_of_n import BestOfN

    assert recipe_of(Spec("best_of_n"))[0] == recipe_of(BestOfN())[0] == "best_of_n:n=16"


def test_a_judge_measures_fluency_and_is_named():
    rows = evaluate("exact", "little.yaml", judge="exact:seed=9")
    assert rows.signature.str.contains(r"\|judge:exact").all()


# --- several seeds ----------------------------------------------------------------------------------------------------


def test_several_seeds_have_rows_of_their_own_and_a_mean():
    rows = evaluate("exact", "little.yaml", aligners=["rejection"], seed=[0, 1, 2])
    assert set(rows.seed.dropna()) == {0, 1, 2} and set(rows.seeds.dropna()) == {3}
    for seed in (0, 2):
        alone = evaluate("exact", "little.yaml", aligners=["rejection"], seed=seed)
        mine = rows[rows.seed == seed][alone.columns].reset_index(drop=True)
        varies = ["run_id", "measured", "seconds"]
        left, right = (t[t.metric != "cost"].drop(columns=varies) for t in (mine, alone))
        pd.testing.assert_frame_equal(left, right)
    kl = rows[(rows.metric == "divergence") & (rows.part == "kl_base") & (rows.aligner != "")]
    mean, each = kl[kl.seeds.notna()].iloc[0], kl[kl.seed.notna()]
    assert mean.value == pytest.approx(each.value.mean()) and mean.seed_sd == pytest.approx(each.value.std())
    assert mean.exact == pytest.approx(each.exact.mean()) and each.target_id.nunique() == 3  # λ differs
    [table] = alignbench.leaderboard(rows).tables
    assert [row.label for row in table.rows].count("rejection:cap=256") == 1 and "|seeds:0,1,2|" in table.signature


def test_a_seed_that_is_added_finds_the_draws_of_the_others():
    options = {"tasks": ("little.yaml",), "models": (Spec("exact"),), "output_path": Path("out")}
    assert run(asked(**options, seed=0)).fresh == 4 * 120
    outcome = run(asked(**options, seed=(0, 1, 2)))
    assert outcome.fresh == 2 * 4 * 120
    again = rescore(Path("out"))
    one, two = (t[t.metric != "cost"].sort_values(["seed", "generator", "metric", "part"]).reset_index(drop=True)
                for t in (outcome.frame(), frame(again.rows, again.primary)))  # fmt: skip
    pd.testing.assert_frame_equal(one[two.columns], two)


# --- series of checkpoints --------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoints(tmp_path, tiny_gpt2):
    for step in (20, 100, 3):
        shutil.copytree(tiny_gpt2, tmp_path / "ckpts" / f"step-{step}")
        save_gpt2(tmp_path / "ckpts" / f"step-{step}", seed=step)
    return Spec("hf", {"pretrained": "ckpts/step-*"})


def test_a_series_has_a_row_and_a_step_for_each_checkpoint_loaded_one_at_a_time(
    task, checkpoints, tiny_gpt2, monkeypatch
):
    """Planted bug: were models kept until the end, or by a variable until the next is there, three would be alive."""
    text = TASK[: TASK.index("target:")] + "target: [{feature: windy, moment: 0.1}]\nmetrics: [perplexity]\n"
    task.write_text(text.replace("draws: 60", "draws: 30"))
    alive, most, right = weakref.WeakSet(), [], hf_module._network

    def network(folder, **more):
        made = right(folder, **more)
        alive.add(made)
        most.append(len(alive))
        return made

    monkeypatch.setattr(hf_module, "_network", network)
    outcome = run(asked(("little.yaml",), (checkpoints,), base=Spec("hf", {"pretrained": str(tiny_gpt2)})))
    assert outcome.failures == [] and max(most) == 2  # the base and one other
    steps = outcome.frame()[["generator", "step"]].drop_duplicates().values.tolist()
    assert steps[:4] == [["tiny-gpt2", pd.NA], ["step-3", 3], ["step-20", 20], ["step-100", 100]]


def test_a_model_whose_row_fails_is_let_go_too(task, checkpoints, tiny_gpt2, monkeypatch):
    """Planted bug: an error that is kept keeps the frames that it came through, and their model."""
    alive, most, right, draw = weakref.WeakSet(), [], hf_module._network, Law.sample

    def network(folder, **more):
        made = right(folder, **more)
        alive.add(made)
        most.append(len(alive))
        return made

    def sample(self, *given, **more):
        if self.name.startswith("step-"):
            raise RunError(f"{self.name} is too large")
        return draw(self, *given, **more)

    text = TASK[: TASK.index("target:")] + "target: [{feature: windy, moment: 0.1}]\nmetrics: [perplexity]\n"
    task.write_text(text.replace("draws: 60", "draws: 30"))
    monkeypatch.setattr(hf_module, "_network", network)
    monkeypatch.setattr(Law, "sample", sample)
    outcome = run(asked(("little.yaml",), (checkpoints,), base=Spec("hf", {"pretrained": str(tiny_gpt2)})))
    assert len(outcome.failures) == 3 and len(most) == 4 and max(most) == 2
    assert outcome.errors[0].__traceback__ is not None, "where it failed can still be read"


def test_the_first_checkpoint_of_a_series_is_the_default_base(checkpoints):
    lines = list(dry_run(asked(("little.yaml",), (checkpoints,)), measured=False))
    assert [line.split("/")[-1].split(" ")[0] for line in lines[1:]] == ["step-3", "step-20", "step-100"]
    assert "(base)" in lines[1]


@pytest.fixture
def named(task, registries):
    """A generator named after both of its folders, as `hf` with an adapter is; three checkpoints and two adapters."""

    @alignbench.generator
    def pair(*, pretrained: str, peft: str):
        """A law named after its folders."""
        law = exact(seed=1)
        object.__setattr__(law.model, "name", f"{Path(pretrained).name}+{Path(peft).name}")
        return law

    for folder in ("ckpts/step-3", "ckpts/step-20", "ckpts/final", "step-7/adapters/checkpoint-500"):
        (task.parent / folder).mkdir(parents=True)
        (task.parent / folder / ("adapter_config.json" if "adapters" in folder else "config.json")).write_text("{}")
    shutil.copytree(task.parent / "step-7/adapters/checkpoint-500", task.parent / "step-7/adapters/last")
    return lambda pretrained, peft: Spec("pair", {"pretrained": pretrained, "peft": peft})


@pytest.mark.parametrize(
    ("pretrained", "peft", "steps"),
    [
        ("ckpts/step-*", "./step-7/adapters/checkpoint-500", [3, 20]),  # planted: the last number of the name, 500
        ("ckpts/*", "./step-7/adapters/checkpoint-500", [3, 20, None]),
        ("./ckpts/step-3", "step-7/adapters/*", [500, None]),
        ("ckpts/s*", "step-7/adapters/*", [500, 3, 500, 20]),
    ],
)
def test_the_step_is_told_by_the_argument_that_was_a_pattern(named, pretrained, peft, steps):
    outcome = run(asked(("little.yaml",), (named(pretrained, peft),)))
    assert outcome.failures == []
    told = {row.key.generator: row.key.step for row in outcome.rows if row.key.generator != "draws of p"}
    assert list(told.values()) == steps


@pytest.mark.parametrize("word", ["base", "judge"])
def test_a_pattern_of_one_checkpoint_can_be_the_base_or_judge(named, word):
    spec = named("ckpts/step-2*", "./step-7/adapters/last")
    outcome = run(asked(("little.yaml",), (Spec("exact"),), **{word: spec}))
    assert outcome.failures == []
    told = {(row.key.base, row.key.step) for row in outcome.rows if row.key.generator == "step-20+last"}
    assert told == ({("step-20+last", 20)} if word == "base" else set())
    assert word == "base" or all("|judge:pair:pretrained=ckpts/step-20," in row.key.signature for row in outcome.rows)


def test_names_that_end_in_a_number_are_no_steps(task):
    law = exact(seed=1)
    object.__setattr__(law.model, "name", "llama-3")
    assert "step" not in evaluate(law, "little.yaml")


# --- what fails is told, and the others go on -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("name: [\n", "broken.yaml:2:1: broken YAML: "),
        (TASK.replace("contains_any", "cntains_any"), "broken.yaml:8: unknown feature 'cntains_any'"),
        (TASK + "base: {name: exat}\n", "unknown generator 'exat'. Did you mean 'exact'?"),
    ],
)
def test_a_broken_task_does_not_stop_the_next(task, text, line):
    (task.parent / "broken.yaml").write_text(text)
    outcome = run(asked(("broken.yaml", "little.yaml"), (Spec("exact"),)))
    assert len(outcome.failures) == 1 and line in outcome.failures[0] and outcome.exit_code == 2
    assert {r.key.task for r in outcome.rows} == {"little"}
    with pytest.raises(UsageError, match="cannot be read"):  # a name that does not exist stops everything
        run(asked(("nowhere.yaml", "little.yaml"), (Spec("exact"),)))


def test_a_source_that_cannot_be_fetched_fails_its_task_alone(task, monkeypatch):
    right = plan_module.load_task

    def load(path):
        if "away" in str(path):
            raise SourceError("pypi:away==1: cannot be reached")
        return right(path)

    (task.parent / "away.yaml").write_text(TASK)
    monkeypatch.setattr(plan_module, "load_task", load)
    outcome = run(asked(("away.yaml", "little.yaml"), (Spec("exact"),)))
    assert outcome.failures == ["pypi:away==1: cannot be reached"] and outcome.exit_code == 1 and outcome.rows


def test_a_feature_that_returns_nonsense_fails_its_task_alone(task, registries):
    @alignbench.feature(version=1)
    def sometimes(prompts, draws, *, short: bool = False):
        """NaN, or too few."""
        return np.full(len(draws) - short, np.nan)

    for name in ("short", "nan"):
        mine = f"windy: {{feature: sometimes, short: {str(name == 'short').lower()}}}"
        text = TASK.replace("windy: {feature: contains_any, words: [wind]}", mine)
        (task.parent / f"{name}.yaml").write_text(text.replace("little", name))
    outcome = run(asked(("short.yaml", "nan.yaml", "little.yaml"), (Spec("exact"),)))
    assert outcome.failures[0].startswith("short: exact: feature 'sometimes' returned 119 values for 120 draws; the "
                                          "first without a value is draw 59 of prompt 1: ")  # fmt: skip
    assert outcome.failures[1].startswith("nan: exact: feature 'sometimes' returned nan, outside the finite numbers, "
                                          "for draw 0 of prompt 0: ")  # fmt: skip
    assert len(outcome.failures) == 2 and {r.key.task for r in outcome.rows} == {"little"}


def test_a_task_without_any_draw_of_p_says_so_once_and_goes_on(task):
    text = TASK.replace("[sun]", "[zebra]").replace("  - {feature: windy, moment: 0.5}\n", "")
    (task.parent / "never.yaml").write_text(text.replace("little", "never"))
    outcome = run(asked(("never.yaml", "little.yaml"), (Spec("exact"),), seed=(0, 1)))
    assert outcome.failures == [
        "never: none of the 120 reference draws is a draw of p, for any of its 2 prompts ('rain', 'sun wind'): "
        "divergences are bounds or missing; raise --draws, or give the task 'proposals' that reach p"
    ]
    assert outcome.exit_code == 1 and {r.key.task for r in outcome.rows} == {"never", "little"}


def test_a_failure_of_one_of_several_seeds_says_which(task):
    text = TASK.replace("words: [wind]", "words: [zebra]").replace("little", "far")
    (task.parent / "far.yaml").write_text(text)
    failures = run(asked(("far.yaml",), (Spec("exact"),), seed=(3, 4))).failures
    assert [line.partition(": exact: ")[0] for line in failures] == ["far (seed 3)", "far (seed 4)"]
    assert [line.partition(": exact: ")[0] for line in run(asked(("far.yaml",), (Spec("exact"),))).failures] == ["far"]


def test_a_model_that_cannot_be_loaded_leaves_the_others(task, tmp_path):
    (tmp_path / "empty").mkdir()
    wrong = (Spec("hf", {"pretrained": "./empty"}), Spec("hf", {"pretrained": "ckpts/step-*"}))
    outcome = run(asked(("little.yaml",), (Spec("exact"), *wrong, Spec("exact", {"seed": 8})), base=Spec("exact")))
    assert len({r.key.generator for r in outcome.rows}) == 3 and outcome.exit_code == 2
    empty, glob = outcome.failures
    assert "./empty: no model in this folder" in empty and "ckpts/step-*: matches nothing" in glob


@pytest.mark.parametrize("given", ["./empty", "ckpts/step-*"])
def test_a_base_that_cannot_be_loaded_fails_its_tasks_alone(task, tmp_path, given):
    (tmp_path / "empty").mkdir()
    (tmp_path / "own.yaml").write_text(TASK.replace("little", "own") + "base: exact\n")
    (tmp_path / "third.yaml").write_text(TASK.replace("little", "third"))
    job = asked(("little.yaml", "own.yaml", "third.yaml"), (Spec("hf", {"pretrained": given}), Spec("exact")))
    outcome = run(job)
    assert {r.key.task for r in outcome.rows} == {"own"} and outcome.exit_code == 2
    [line] = outcome.failures
    assert line.startswith("little, third: ") and given in line
    assert run(job.model_copy(update={"base": job.model[0], "model": ()})).failures == [line]


def test_a_series_cannot_be_the_base_or_judge(checkpoints):
    for word in ("base", "judge"):
        with pytest.raises(UsageError, match=f"--{word} .*: a series of checkpoints; name one of them"):
            run(asked(("little.yaml",), (Spec("exact"),), **{word: checkpoints}))


def test_a_metric_that_fails_on_draws_of_p_does_not_end_the_run(task, registries):
    @alignbench.metric
    def picky(evidence):
        """Fails on draws of p."""
        if "draws of p" in str(evidence.reasons):
            raise ValueError("no")
        return alignbench.Estimate(1.0)

    task.write_text(TASK.replace("[satisfaction, divergence]", "[picky]"))
    outcome = run(asked(("little.yaml",), (Spec("exact"),)))
    assert outcome.failures[0].startswith("little: draws of p: metric 'picky' failed: ValueError: no")
    assert len(outcome.failures) == 1 and {r.key.generator for r in outcome.rows} == {"exact"}


def test_a_metric_that_fails_leaves_the_others_of_its_row(task, registries):
    @alignbench.metric
    def broken(evidence):
        """Fails."""
        raise ValueError("no")

    task.write_text(TASK.replace("[satisfaction, divergence]", "[satisfaction, broken, divergence]"))
    job = asked(("little.yaml",), (Spec("exact"),), output_path=Path("out"))
    outcome, again = run(job), rescore(Path("out"))
    assert {(r.key.generator, r.metric) for r in outcome.rows} == {
        (who, metric) for who in ("exact", "draws of p") for metric in ("satisfaction", "divergence")
    }
    assert len(outcome.failures) == 2 and outcome.exit_code == 1
    assert len(again.rows) == len(outcome.rows)
    assert len(again.failures) == 1 and again.failures[0].startswith("metric 'broken' failed: ValueError: no")


def test_an_edited_reference_is_measured_anew_and_another_ci_over_is_rescored(task):
    """Planted bugs: evidence found again with the old references; `score` with the intervals of an earlier run."""
    text = TASK.replace("[satisfaction, divergence]", "[satisfaction, chrf]")
    job = asked(("little.yaml",), (Spec("exact"),), output_path=Path("out"))
    found = []
    for more in ("references: [[sun], [rain]]", "references: [[snow], [snow]]"):
        task.write_text(f"{text}\n{more}\n")
        found.append([r.estimate.value for r in run(job).rows if r.metric == "chrf"])
    assert len(found[0]) == 2 and found[0] != found[1]
    task.write_text(f"{text}\nreferences: [[snow], [snow]]\nci_over: prompts_like_these\n")
    rows, again = run(job).rows, rescore(Path("out")).rows
    assert {row.key.ci_over for row in rows} == {"prompts_like_these"} and all(row in again for row in rows)


def test_draws_for_a_task_that_is_not_run_are_refused():
    with pytest.raises(UsageError, match=r"^draws: unknown task 'litle'\. Did you mean 'little'\?"):
        run(asked(("little.yaml",), (Spec("exact"),), draws={"litle": 3}))


@pytest.mark.parametrize("again", ["run", "score"])
def test_a_metric_asked_for_later_is_in_the_merged_rows_whatever_was_run_since(task, again):
    """Planted bug: rows made again from stored evidence were in leaderboard.csv alone, which the next run replaces."""
    from alignbench.reports.gather import gather

    task.with_name("other.yaml").write_text(TASK.replace("name: little", "name: other"))
    first, other = (asked((f"{name}.yaml",), (Spec("exact"),), output_path=Path("out")) for name in ("little", "other"))
    run(first)
    task.write_text(TASK.replace("[satisfaction, divergence]", "[satisfaction, divergence, entropy]"))
    run(first)
    files = set(Path("out").glob("*/results_*.json"))
    run(first)
    assert set(Path("out").glob("*/results_*.json")) == files, "nothing new is no new file"
    if again == "score":
        for path in files:
            path.unlink()
        rescore(Path("out"))
    run(other)
    rows = gather([Path("out")]).rows
    assert set(rows[rows.metric == "entropy"].generator) == {"exact", "draws of p"}
    assert len(rows[(rows.task == "little") & (rows.part == "kl_target")]) == 2, "each measurement counts once"
