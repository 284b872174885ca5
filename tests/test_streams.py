"""Every user of randomness has uniforms of its own: no two ever draw from one stream with one salt.

All that draws is put to work in one small world, each `Seed.rng` is noted with who asked for it, and no user is left
out: the source is searched for them. Rows share tokens and coins on the stream `own` on purpose, so that they can be
compared draw by draw; within a row, and on every other stream, nothing is shared.
"""

import ast
import sys
from collections import defaultdict
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

import pytest
from task_on_base import TaskOnBase
from tiny_world import BASE, BRIGHT, PROMPTS, TASK

import alignbench
from alignbench import seeds
from alignbench.aligners.prompting.few_shot import FewShot
from alignbench.aligners.selection.best_of_n import BestOfN
from alignbench.aligners.selection.filtered import Filtered
from alignbench.aligners.selection.quasi_rejection import QuasiRejection
from alignbench.aligners.selection.rejection import Rejection
from alignbench.aligners.selection.sir import SIR
from alignbench.aligners.training.cdpg import CDPG
from alignbench.aligners.training.contrastive import Contrastive
from alignbench.aligners.training.control_code import ControlCode
from alignbench.aligners.training.distil import Distil
from alignbench.aligners.training.dpg import DPG
from alignbench.aligners.training.f_dpg import FDPG
from alignbench.aligners.training.gdc import GDC
from alignbench.aligners.training.preferences import DPO
from alignbench.aligners.training.sft import SFT
from alignbench.aligners.training.sft_control import SFTControl
from alignbench.registry import load_plugins
from alignbench.seeds import APART, ATTEMPT, PLUGIN, Seed
from alignbench.store.draws import DrawStore
from alignbench.task import load_task
from alignbench.testing import table_world
from alignbench.types import collect, rows_of, silent

PACKAGE = Path(alignbench.__file__).parent
TOKENS = "generators/sampling.py"
TRAINABLE = table_world("sun rain wind", PROMPTS, 3, seed=3)
"""The words and prompts of the world above, with weights."""
BRIEF = {"steps": 2, "batch": 8, "lr": 1e-3}
INNER = {"name": "best_of_n", "n": 2, "proposal": "best_of_n:n=2"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    """A hard and a soft constraint, and a fitted one, on three words."""
    load_plugins()
    path = tmp_path_factory.mktemp("streams") / "tiny.yaml"
    path.write_text(TASK + BRIGHT + "  - {feature: windy, moment: 0.5}\n")
    return TaskOnBase(task=load_task(path), base=BASE, base_name="exact", store=DrawStore(None), draws=40,
                      seed=Seed(7), progress=silent)  # fmt: skip


def drawing(recipe):
    """What a row of an aligner draws."""

    def do(bench):
        sampler = recipe.align(bench.setting)
        return collect(sampler.sample(bench.prompts, rows_of(2, 3), max_tokens=3, seed=bench.seed))

    return do


def training(recipe):
    """What the training of an aligner draws, and then a row of it."""

    def do(bench):
        sampler = bench.setting.on(TRAINABLE).aligned(recipe)
        return collect(sampler.sample(bench.prompts, rows_of(2, 3), max_tokens=3, seed=bench.seed))

    return do


TRAININGS = {
    "dpg": training(DPG(pool=64, **BRIEF)), "dpg with replay": training(DPG(pool=64, replay=0.5, **BRIEF)),
    "f_dpg": training(FDPG(pool=64, **BRIEF)), "gdc": training(GDC(pool=64, **BRIEF)), "cdpg": training(CDPG(**BRIEF)),
    "sft": training(SFT(patience=1, held_out=2, **BRIEF | {"steps": 10})),
    "sft_control": training(SFTControl(**BRIEF)), "control_code": training(ControlCode(pool=64, form="", **BRIEF)),
    "dpo": training(DPO(**BRIEF)), "contrastive": training(Contrastive(**BRIEF)),
    "distil": training(Distil(teacher="best_of_n:n=2", **BRIEF)),
}  # fmt: skip
"""Aligners that train: rows share base draws, coins and a policy's uniforms on the stream `train`."""
WORK = {
    "draws of p": lambda bench: bench.ceiling(), "rejection": drawing(Rejection()), "sir": drawing(SIR(3)),
    "filtered": drawing(Filtered()),
    "best_of_n": drawing(BestOfN(3)), "a best_of_n over another": drawing(BestOfN(2, proposal=INNER)),
    "examples": drawing(FewShot(2)), "quasi_rejection": drawing(QuasiRejection(acceptance=0.1, pilot=40)),
    "training": lambda bench: bench.setting.base_draws(rows_of(2, 2)),
    **TRAININGS,
    "a plug-in": lambda bench: bench.setting.base_draws(rows_of(2, 2), PLUGIN),
}  # fmt: skip
"""Who → what draws: the references, and every aligner that does."""


def asker():
    """(file, object) of the innermost call in the package outside `seeds`, comprehensions read as their function."""
    frame = sys._getframe(1)
    while True:
        path = Path(frame.f_code.co_filename)
        inside = PACKAGE in path.parents and path != PACKAGE / "seeds.py"
        if inside and not frame.f_code.co_name.startswith("<"):
            return path.relative_to(PACKAGE).as_posix(), frame.f_locals.get("self")
        frame = frame.f_back


def learns(batch):
    """Whether what draws is a policy in training: it and the base share no uniforms."""
    network = getattr(batch.model, "network", None)
    return network is not None and network.logits.requires_grad


@contextmanager
def noted(monkeypatch):
    """(row on the stream own, stream, salt, numbers) → who asked for uniforms: the work, the file, the asker's number.

    Numbers of draws from `APART` on are for another use than those before.
    """
    users, held, askers, who = defaultdict(set), [], defaultdict(list), [""]
    right = Seed.rng

    def place(file, use, asking):
        """The asker's number among those of this file in one piece of work: two trainings share coins on purpose."""
        known = askers[who[0], file, use]
        if id(asking) not in known:
            known.append(id(asking))
        return known.index(id(asking))

    def rng(self, prompt, index):
        file, asking = asker()
        held.append(asking)  # so that no two have one id
        row = who[0] if self.stream == "own" else ""
        work = who[0] if self.stream in ("own", "train") else ""  # the others are the harness's own, the same for all
        work = "training" if work in TRAININGS and self.stream == "train" else work
        use = row, self.stream, self.salt, int(index) % ATTEMPT // APART
        users[use].add((work, file, learns(asking) if file == TOKENS else place(file, use, asking)))
        return right(self, prompt, index)

    with monkeypatch.context() as patch:
        patch.setattr(Seed, "rng", rng)
        yield users, who


def users_of(bench, monkeypatch):
    """Who drew what while all that draws was put to work anew."""
    with noted(monkeypatch) as (users, who):
        for who[0], do in WORK.items():
            do(bench.anew(store=DrawStore(None)))
    return users


def sharing(users):
    """Pairs of (work, file) that draw from one stream with one salt."""
    pairs = (pair for several in users.values() for pair in combinations(sorted(several), 2))
    return {tuple((who, file) for who, file, _ in pair) for pair in pairs}


def test_no_two_users_of_randomness_share_a_stream_and_a_salt(bench, monkeypatch):
    assert sharing(users_of(bench, monkeypatch)) == set()


def test_no_user_of_randomness_is_left_out(bench, monkeypatch):
    """Each call of `.rng(` or `.uniforms(` in the source is met above; a forecast measures nothing that is kept."""
    calls = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in (
                "rng", "uniforms"
            ):  # fmt: skip
                calls.add(path.relative_to(PACKAGE).as_posix())
    met = {file for several in users_of(bench, monkeypatch).values() for _, file, _ in several}
    assert calls - {"seeds.py", "run/forecast.py"} == met


SALTS = [
    ("aligners.selection.rounds", "ACCEPT"), ("aligners.selection.sir", "RESAMPLE"),
    ("aligners.selection.best_of_n", "TIES"), ("aligners.selection.quasi_rejection", "PILOT"),
    ("aligners.prompting.few_shot", "PICK"), ("aligners.prompting.few_shot", "EXAMPLES"),
    ("scoring.references", "ACCEPT"), ("aligners.training.of_target", "ACCEPT"),
    ("aligners.training.work", "POLICY"), ("aligners.training.method", "WATCHED"),
    ("aligners.training.control_code", "CODES"), ("aligners.training.pairs", "PAIRS"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), SALTS)
def test_planted_a_use_without_its_salt(module, name, bench, monkeypatch):
    """Its coins are then the tokens of its own draws, or of another's."""
    monkeypatch.setattr(f"alignbench.{module}.{name}", 0)
    assert sharing(users_of(bench, monkeypatch))


def test_planted_a_best_of_n_that_breaks_ties_by_the_coins_of_the_one_inside_it(bench, monkeypatch):
    monkeypatch.setattr("alignbench.aligners.selection.best_of_n.BestOfNSampler._depth", 0)
    file = "aligners/selection/best_of_n.py"
    assert (("a best_of_n over another", file),) * 2 in sharing(users_of(bench, monkeypatch))


def test_every_salt_that_a_module_names_is_planted_above():
    named = {name for name, value in vars(seeds).items() if name.isupper() and isinstance(value, int)}
    named -= {"APART", "ATTEMPT", "TRIES", "USES", "PLUGIN"}
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "alignbench.seeds":
                module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
                found |= {(module, alias.name) for alias in node.names if alias.name in named}
    assert found == set(SALTS)
