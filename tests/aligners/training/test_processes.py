"""Several processes that train together: they take the steps of one, whoever has which draws."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import torch
from aligner_worlds import has
from safetensors.torch import load_file
from typer.testing import CliRunner

from alignbench.aligners.base import Setting
from alignbench.aligners.training import processes as told
from alignbench.aligners.training.batch import Batch
from alignbench.aligners.training.budget import Budget
from alignbench.aligners.training.cdpg import CDPG
from alignbench.aligners.training.contrastive import Contrastive
from alignbench.aligners.training.distil import Distil
from alignbench.aligners.training.dpg import DPG
from alignbench.aligners.training.f_dpg import FDPG
from alignbench.aligners.training.folder import Folder
from alignbench.aligners.training.gdc import GDC
from alignbench.aligners.training.grpo import GRPO
from alignbench.aligners.training.loop import Loop
from alignbench.aligners.training.passes import Passes
from alignbench.aligners.training.ppo import PPO
from alignbench.aligners.training.preferences import DPO, KTO
from alignbench.aligners.training.processes import Processes
from alignbench.aligners.training.q_learning import QLearning
from alignbench.aligners.training.reinforce import Reinforce
from alignbench.aligners.training.sft import SFT
from alignbench.aligners.training.sft_control import SFTControl
from alignbench.aligners.training.soft_q import SoftQ
from alignbench.aligners.training.work import Work
from alignbench.cli import app
from alignbench.errors import UsageError
from alignbench.generators.hf.factory import device_of
from alignbench.generators.policy import policy_of
from alignbench.seeds import Seed
from alignbench.target import Constraint, Target
from alignbench.testing.worlds import save_network, table_world
from alignbench.types import Training

PROMPTS, LENGTH = ("sun", "wind"), 4
SHORT = {"steps": 6, "batch": 9, "lr": 0.05, "warmup": 0}
RECIPES = {
    "dpg": DPG(**SHORT, pool=64),
    "dpg, drawn each step": DPG(**SHORT, pool=64, renew=1),
    "dpg, replayed": DPG(**SHORT, pool=64, replay=0.4),
    "dpg by prefix": DPG(**SHORT, pool=64, baseline="prefix"),
    "sft": SFT(**SHORT),
    "sft_control": SFTControl(**SHORT),
    "cdpg": CDPG(**SHORT, hits=2),
    "gdc": GDC(**SHORT, pool=64, adapt=3),
    "f_dpg": FDPG(**SHORT, pool=64, f="js"),
    "reinforce": Reinforce(**SHORT),
    "grpo": GRPO(**SHORT),
    "ppo": PPO(**SHORT, renew=2, target_kl=0.1),
    "contrastive": Contrastive(**SHORT | {"batch": 8}, negatives=3),
    "distil": Distil(teacher="best_of_n:n=2", **SHORT),
    "dpo": DPO(**SHORT | {"batch": 10}),
    "kto": KTO(**SHORT | {"batch": 10}),
    "soft_q": SoftQ(**SHORT, backup="soft", sync=2),
    "q_learning": QLearning(**SHORT, tau=0.7, sync=2),
}


@dataclass
class Hall:
    """Where threads that stand for processes meet."""

    count: int
    hands: list = field(default_factory=list)
    weight: float = 1.0  # of the summed gradients: 1/count would be their mean

    def __post_init__(self) -> None:
        self.hands, self.barrier = [None] * self.count, Barrier(self.count, timeout=300)


@dataclass(frozen=True)
class Threads(Processes):
    """Processes of one process."""

    hall: Hall = field(default_factory=lambda: Hall(1), compare=False)

    def gathered(self, part):
        self.hall.hands[self.rank] = part
        self.hall.barrier.wait()
        found = list(self.hall.hands)
        self.hall.barrier.wait()
        return found

    def summed(self, parameters):
        hands = self.gathered([told._gradient(p).clone() for p in parameters])
        for p, *parts in zip(parameters, *hands, strict=True):
            p.grad = self.hall.weight * sum(parts)


def setting() -> Setting:
    target = Target([Constraint("sun", "always")], {}, {"sun": (0.0, 1.0)}, measures={"sun": has("sun")})
    fitted = target.fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS)
    return Setting(table_world(prompts=PROMPTS, max_tokens=LENGTH), fitted, PROMPTS, LENGTH, Seed(5, "train"))


class Killed(Exception):
    """In place of a signal."""


def trained(recipe, processes: Processes, out: Path | None = None, stop: int | None = None) -> Loop:
    """The loop after a training, which is killed after `stop` steps."""

    def report(step, numbers):
        if step == stop:
            raise Killed

    given = replace(setting(), out=out, report=report)
    work = Work(given, policy_of(given.base, recipe.adapter), processes)
    loop = Loop(recipe, recipe.method, work, Folder(out, recipe.name, {}, 0))
    with suppress(Killed):
        loop.run()
    return loop


def together(recipe, count: int, weight: float = 1.0, **more) -> list[Loop]:
    """The loop of each of so many processes; where one fails, the others do not wait, and its error is raised."""
    hall, failed = Hall(count, weight=weight), []

    def one(rank: int) -> Loop:
        try:
            return trained(recipe, Threads(rank, count, hall), **more)
        except Exception as error:
            failed.append(error)
            hall.barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        loops = [pool.submit(one, rank) for rank in range(count)]
    if failed:
        raise failed[0]
    return [loop.result() for loop in loops]


def weights(loop: Loop) -> torch.Tensor:
    return loop.work.policy.parameters[0].detach()


def apart(recipe, count: int, weight: float = 1.0) -> float:
    """Largest difference of the weights that processes together and one alone end with."""
    return max(float((weights(loop) - weights(trained(recipe, Processes()))).abs().max())
               for loop in together(recipe, count, weight))  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_end_with_the_weights_of_one(name):
    alone = trained(RECIPES[name], Processes())
    loops = together(RECIPES[name], 2)
    for loop in loops:
        assert (weights(loop) - weights(alone)).abs().max() < 1e-9
    assert loops[0].spent.drawn == alone.spent.drawn, "the bill is that of all"
    assert loops[0].spent.trained == alone.spent.trained
    one, two = alone.curve[-1], loops[0].curve[-1]
    assert {k: two[k] for k in two if k != "seconds"} == pytest.approx(
        {k: one[k] for k in one if k != "seconds"}, nan_ok=True, rel=1e-9, abs=1e-9
    )


def test_a_gradient_that_is_averaged_is_caught():
    alone = trained(RECIPES["dpg"], Processes())
    for weight in (1.0, 0.5):  # AdamW's steps hide a factor; what is clipped, and the curve, show it
        loop, _ = together(RECIPES["dpg"], 2, weight)
        assert loop.curve[0]["grad_norm"] == pytest.approx(weight * alone.curve[0]["grad_norm"], rel=1e-9)


def test_a_loss_that_counts_only_its_own_draws_is_caught(monkeypatch):
    recipe, gathered = RECIPES["dpg, drawn each step"], Threads.gathered

    def own(self, part):
        found = gathered(self, part)
        joins = isinstance(part, tuple) and isinstance(part[0], Batch)
        return [hand if rank == self.rank else (hand[0].take(np.zeros(0, int)), hand[1][:0])
                for rank, hand in enumerate(found)] if joins else found  # fmt: skip

    monkeypatch.setattr(Threads, "gathered", own)
    assert apart(recipe, 2) > 1e-3


def test_memory_that_runs_out_here_does_not_keep_the_others_waiting(monkeypatch):
    forward, failed = Passes.forward, []

    def short(self, batch):
        if self.work.processes.rank == 1 and self.accumulate == 1 and not failed:
            failed.append(1)
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return forward(self, batch)

    alone = trained(RECIPES["dpg"], Processes())
    monkeypatch.setattr(Passes, "forward", short)
    loops = together(RECIPES["dpg"], 2)
    assert failed and loops[1].passes.accumulate == 2
    assert (weights(loops[0]) - weights(alone)).abs().max() < 1e-9


def test_all_stop_at_once_whatever_their_clocks_and_shares_say():
    loops = together(replace(RECIPES["dpg"], steps=None, tokens=700), 2)
    alone = trained(replace(RECIPES["dpg"], steps=None, tokens=700), Processes())
    assert {loop.step for loop in loops} == {alone.step}
    loops = together(replace(RECIPES["sft"], patience=1, steps=40, data="fixed", draws=2), 2)
    assert loops[0].step == loops[1].step and loops[0].stopping.best == loops[1].stopping.best


@pytest.mark.parametrize("name", ["dpg", "sft", "cdpg", "gdc"])
def test_killed_together_they_go_on_together(tmp_path, monkeypatch, name):
    monkeypatch.setattr("alignbench.aligners.training.loop.SAVE_EVERY", 0.0)
    assert together(RECIPES[name], 2, out=tmp_path, stop=5)[1].step < 6
    loops, alone = together(RECIPES[name], 2, out=tmp_path), trained(RECIPES[name], Processes())
    assert len(loops[1].curve) == 6
    for loop in loops:
        assert (weights(loop) - weights(alone)).abs().max() < 1e-9
    assert loops[0].spent.trained == alone.spent.trained, "steps that were made twice are booked once"
    assert json.loads((tmp_path / "cost.json").read_text())["trained"] == alone.spent.trained


def test_a_budget_of_minutes_is_told_by_numbers_alone():
    recipe = replace(RECIPES["dpg"], steps=None, minutes=1.0)
    assert Budget(recipe, began=-1e9).share(3, Training(seconds=30.0)) == 0.5


def test_fewer_draws_than_processes_are_refused():
    with pytest.raises(UsageError, match="draws of a step: 2 for 3 processes: raise batch, or start at most 2"):
        trained(DPG(steps=2, batch=2, pool=64), Threads(0, 3))
    with pytest.raises(UsageError, match="own draws of a step: 1 for 2 processes"):
        trained(SFTControl(steps=2, batch=3), Threads(0, 2))


@pytest.mark.parametrize(("environment", "count", "first"), [
    ({}, 1, True),
    ({"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "ACCELERATE_MIXED_PRECISION": "no"}, 2, False),
    ({"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "0"}, 4, True),
])  # fmt: skip
def test_what_a_launcher_tells(monkeypatch, environment, count, first):
    for name in (*told.COUNT, *told.RANK, "MASTER_ADDR", "ACCELERATE_MIXED_PRECISION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert (told.launched(), told.first_launched()) == (count, first)


def test_a_launcher_that_starts_one_of_several_is_refused(monkeypatch):
    for name in told.COUNT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    with pytest.raises(UsageError, match=r"started one process, not several.*torchrun --nproc_per_node N"):
        told.launched()


def test_a_run_is_one_process(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    answer = CliRunner().invoke(app, ["run", "--tasks", "exact_ngram"])
    assert isinstance(answer.exception, UsageError)
    assert "run is one process, and 2 were started" in str(answer.exception)


def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert device_of("auto") == device_of("cuda") == torch.device("cuda:1")
    with pytest.raises(UsageError, match="device=cuda:0: each of 2 processes needs a GPU of its own"):
        Processes.here(torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match=r"2 processes on this machine, and it has 1 GPUs"):
        device_of("auto")


TASK = """
name: tiny
version: 1
summary: A world of three words.
prompts: [rain, sun wind]
max_tokens: 4
draws: 20
features:
  bright: {feature: contains_any, words: [sun]}
target:
  - {feature: bright, always: true}
"""


def aligned(folder: Path, out: str, *launcher: str) -> subprocess.CompletedProcess:
    """`alignbench align` started by a launcher, or by none."""
    words = ["-m", "alignbench", "align", "--model", f"hf:pretrained={folder / 'net'}", "--include_path", str(folder),
             "--tasks", "tiny", "--aligner", "dpg:steps=5,batch=9,pool=32", "--out", str(folder / out), "--device",
             "cpu", "--dtype", "float32"]  # fmt: skip
    start = [sys.executable, *launcher] if launcher else [sys.executable]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run([*start, *words], capture_output=True, text=True, env=environment, timeout=600)


@pytest.mark.slow
def test_two_processes_of_the_command_line_end_with_the_weights_of_one(tmp_path):
    save_network(tmp_path / "net", "rain sun wind", kind="llama")
    (tmp_path / "tiny.yaml").write_text(TASK, encoding="utf-8")
    two = "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"
    runs = [aligned(tmp_path, "one"), aligned(tmp_path, "two", *two)]
    assert [run.returncode for run in runs] == [0, 0], [run.stderr for run in runs]
    assert len(runs[1].stdout.splitlines()) == 1, "the first process alone tells"
    one, other = (load_file(tmp_path / out / "adapter_model.safetensors") for out in ("one", "two"))
    assert max(float((one[name] - other[name]).abs().max()) for name in one) < 1e-6
    refused = aligned(tmp_path, "one", *two)
    assert refused.returncode != 0 and "holds another training (dpg" in refused.stderr
    assert "processes 1, not 2" in refused.stderr
