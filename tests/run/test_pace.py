"""How far a run is and how long it takes: the row of how many, the time that is left, and what is foretold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from alignbench.generators.exact.world import exact
from alignbench.run.forecast import Pilot, seconds_of
from alignbench.run.outcome import Watch
from alignbench.run.pace import Pace, Step
from alignbench.run.plan import base_draws, look_up
from alignbench.run.runner import run
from alignbench.run.settings import Settings
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of

STEPS = [
    Step("one", 0, "base", 300),
    Step("one", 0, "best", 100),
    Step("two", 0, "base", 600),
    Step("two", 0, "best", 200),
]


def paced(seconds):
    """A pace whose clock is told."""
    return Pace(clock=lambda: seconds[0], steps=STEPS)


def test_time_left_is_that_of_rows_alike_that_were_drawn():
    now = [100.0]
    pace = paced(now)
    assert pace.title == "" and pace.left is None
    pace.begin("one", 0, "base")
    assert pace.title == "[1/4] one · base" and pace.left is None
    now[0] = 103.0
    pace.drew(150)
    assert pace.left == pytest.approx((150 + 100 + 600 + 200) / 50)  # as many tokens as may be, 50 a second
    now[0], pace.drawn[0] = 106.0, 240
    pace.end()  # 40 a second, scoring and all
    assert pace.left == pytest.approx(0.8 * (100 + 600 + 200) / 40)  # draws end early
    pace.begin("one", 0, "best")
    now[0] = 116.0
    pace.drew(400)
    pace.end()
    assert pace.left == pytest.approx((0.8 * 600 + 4 * 200) / 40)  # best of four
    pace.begin("one", 0, "draws of p")
    assert pace.at == 1


def test_worlds_and_models_have_rates_of_their_own():
    """A token of an n-gram takes a thousandth of a network's: neither says how long the other takes."""
    now = [0.0]
    pace = Pace(
        clock=lambda: now[0],
        steps=[Step("w", 0, "base", 100, True), Step("r", 0, "base", 100), Step("v", 0, "base", 100, True)],
    )
    pace.begin("w", 0, "base")
    now[0] = 1.0
    pace.drew(100)
    pace.end()
    assert pace.left is None
    pace.begin("r", 0, "base")
    now[0] = 11.0
    pace.drew(50)
    assert pace.left == pytest.approx(50 * 10 / 50 + 100 * 1 / 100)


def test_rows_that_are_found_on_disk_say_nothing_of_the_rest():
    now = [0.0]
    pace = paced(now)
    for label in ("base", "best"):
        pace.begin("one", 0, label)
        pace.end()
    assert pace.left is None
    pace.begin("two", 0, "base")
    now[0] = 10.0
    pace.drew(300)
    assert pace.left == pytest.approx((300 + 200) / 30)


def test_a_run_counts_its_rows_and_each_token_once(tmp_path):
    """What a selecting law draws from the pool is counted there and not again as its own."""
    pace, titles, tasks = Pace(), [], []
    pace.changed = lambda: titles.append(pace.title)
    given = {"aligner": "best_of_n:n=3", "draws": 64, "output_path": tmp_path, "seed": (0, 1)}
    settings = Settings(tasks="exact_ngram", **given)
    run(settings, Watch(pace=pace, on_task=tasks.append))
    assert list(dict.fromkeys(titles)) == [
        "[1/4] exact_ngram · seed 0 · exact", "[2/4] exact_ngram · seed 0 · best_of_n:n=3",
        "[3/4] exact_ngram · seed 1 · exact", "[4/4] exact_ngram · seed 1 · best_of_n:n=3",
    ]  # fmt: skip
    assert pace.done == {0, 1, 2, 3} and pace.left is None
    assert pace.steps[1].tokens < pace.drawn[1] <= 3 * pace.steps[1].tokens, "three draws each, the kept one not again"
    [rows] = tasks  # once for all seeds
    assert set(rows["seed"]) >= {0, 1} and rows.attrs["primary"]
    again = Pace()
    run(settings, Watch(pace=again))
    assert again.tokens == 0 and again.left is None


def test_rows_of_a_task_that_fails_are_not_waited_for(tmp_path):
    pace = Pace()
    outcome = run(Settings(tasks="exact_ngram", aligner="rejection", draws=4, seed=(0, 1)), Watch(pace=pace))
    assert outcome.failures and pace.done == {0, 1, 2, 3}


def test_those_that_select_share_one_pool_in_a_forecast():
    """Best-of-4 and rejection draw no more than the one that tries most, of which the base's own row is the first."""
    plan = look_up(Settings(tasks="exact_rare", aligner=("best_of_n:n=4", "rejection", "best_of_n:n=3", "top_p:p=0.9")))
    [task] = plan.tasks
    drawn = collect(exact().sample(task.prompts[:3], rows_of(3, 8), max_tokens=5, seed=Seed()))
    pilot = Pilot(drawn, np.zeros(24), 3, 24.0, 0.0)
    draws = len(task.prompts) * task.draws
    assert seconds_of(plan, task, pilot, 0.5) / draws == pytest.approx(base_draws(task) + 1 + 4 - 1)
    assert seconds_of(plan, task, pilot, 0.1) / draws == pytest.approx(base_draws(task) + 1 + 10 - 1)
    slow = replace(pilot, seconds=0.0, scoring=1.0)
    assert seconds_of(plan, task, slow, 0.5) / draws == pytest.approx(2), "top_p alone is scored, own and reference"
