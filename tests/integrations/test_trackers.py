"""Trackers are told of every finished row, and cannot harm one; stand-ins have the words of the real packages."""

from __future__ import annotations

import sys
from math import inf, nan
from types import SimpleNamespace

import pytest

from alignbench import evaluate
from alignbench.errors import UsageError
from alignbench.integrations.trackers import report, tracker
from alignbench.run.rows import Row, RowKey
from alignbench.spec import Spec, parse_spec
from alignbench.types import Estimate

KEY = RowKey("f00d", "little", 1, "0" * 64, "exact", "abad1dea", "top_k:k=3", "exact", "ba5e", "7a49", "", 3, 24,
             "2026-01-02T03:04:05+00:00", "alignbench|task:little.v1#00000000", step=200)  # fmt: skip
ROWS = [
    Row(KEY, "divergence", "kl_target", Estimate(0.5, 0.1, 0.3, 0.7, n=24), "lower", 1.0),
    Row(KEY, "divergence", "kl_reverse", Estimate(inf, note="0.2 of π breaks a hard constraint"), "lower", 1.0),
    Row(KEY, "divergence", "tv", Estimate(None, ci_low=0.1, note="too few draws"), "lower", 1.0),
    Row(KEY, "perplexity", "", Estimate(4.0, 0.5, 3.0, inf, n=24), "lower", 1.0),
]
NUMBERS = {
    "divergence.kl_target": 0.5, "divergence.kl_target.stderr": 0.1, "divergence.kl_target.ci_low": 0.3,
    "divergence.kl_target.ci_high": 0.7, "divergence.tv.ci_low": 0.1, "perplexity": 4.0, "perplexity.stderr": 0.5,
    "perplexity.ci_low": 3.0,
}  # fmt: skip


class Wandb(SimpleNamespace):
    """A stand-in for wandb and for trackio."""

    def __init__(self, fails=()):
        super().__init__(told=[], Settings=lambda **words: words)
        self.fails = fails

    def init(self, project=None, name=None, group=None, config=None, resume="never", **more):
        print("* initialized")
        self._note("init", project, name, group, config, resume)
        return self

    def log(self, metrics, step=None):
        self._note("log", metrics, step)

    def finish(self):
        self._note("finish")

    def _note(self, what, *told):
        if what in self.fails:
            raise ConnectionError("no route\nto host")
        self.told.append((what, *told))


class Mlflow(SimpleNamespace):
    """A stand-in for mlflow, with a store of runs by their tag."""

    def __init__(self):
        super().__init__(runs={}, live=None, uri=None, experiment=None)

    def set_tracking_uri(self, uri):
        self.uri = uri

    def set_experiment(self, experiment_name):
        self.experiment = experiment_name

    def search_runs(self, filter_string, output_format):
        found = [run for run in self.runs.values() if f"'{run.tag}'" in filter_string]
        return [SimpleNamespace(info=SimpleNamespace(run_id=run.run_id)) for run in found]

    def start_run(self, run_id=None, run_name=None, tags=None):
        run_id = run_id or f"m{len(self.runs)}"
        tag = (tags or {}).get("alignbench.run_id")
        self.live = self.runs.setdefault(
            run_id, SimpleNamespace(run_id=run_id, tag=tag, name=run_name, params={}, texts={}, metrics=[], ended=0)
        )

    def log_params(self, params):
        assert all(len(str(value)) <= 500 for value in params.values())
        self.live.params |= params

    def log_text(self, text, artifact_file):
        self.live.texts[artifact_file] = text

    def log_metrics(self, metrics, step=None):
        self.live.metrics.append((metrics, step))

    def end_run(self):
        self.live.ended += 1


@pytest.fixture
def install(monkeypatch):
    def put(name, module):
        monkeypatch.setitem(sys.modules, name, module)
        return module

    return put


def specs(*words):
    return [parse_spec(word, "--tracker") for word in words]


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_row_is_a_run(install, name, capsys):
    module, said = install(name, Wandb()), []
    report(specs(f"{name}:project=mine"), said.append)(ROWS)
    (_, project, label, group, config, resume), (_, numbers, step), (last,) = module.told
    assert (project, group, resume, last, said) == ("mine", "little", "allow", "finish", [])
    assert label.startswith("little: exact + top_k:k=3, seed 3")
    assert numbers == NUMBERS and step == 200
    assert config["task_hash"] == "0" * 64 and config["seed"] == 3 and config["signature"] == KEY.signature
    assert config["notes"].split("\n") == [
        "divergence.kl_reverse: inf 0.2 of π breaks a hard constraint", "divergence.tv: — too few draws"
    ]  # fmt: skip
    assert capsys.readouterr() == ("", "* initialized\n")  # standard output is the leaderboard's


def test_mlflow_goes_on_in_the_run_of_the_same_row(install):
    module = install("mlflow", Mlflow())
    long = [Row(KEY, "tv", "", Estimate(None, note="x" * 600), "lower", 1.0), *ROWS]
    for _ in range(2):
        report(specs("mlflow:tracking_uri=file,experiment_name=e"), print)(long)
    (run,) = module.runs.values()
    assert (module.uri, module.experiment, run.ended, run.tag) == ("file", "e", 2, "f00d")
    assert run.metrics == [(NUMBERS, 200)] * 2 and run.params["aligner"] == "top_k:k=3"
    assert "x" * 600 in run.texts["notes.txt"] and "notes" not in run.params


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_tracker_that_fails_is_told_once_and_left_out(install, fails):
    broken, sound, said = install("wandb", Wandb({fails})), install("trackio", Wandb()), []
    tell = report(specs("wandb", "trackio"), said.append)
    tell(ROWS)
    tell(ROWS)
    told = "--tracker wandb: ConnectionError: no route to host; no more rows go there; results are kept"
    assert said == [told] and [what for what, *_ in sound.told] == ["init", "log", "finish"] * 2
    assert (("finish",) in broken.told) == (fails == "log")  # a run that was begun is ended


@pytest.mark.parametrize(
    ("spec", "wrong"),
    [
        ("wand", "--tracker: unknown tracker 'wand'. Did you mean 'wandb'?"),
        ("wandb:projct=x", "--tracker wandb: unknown setting 'projct'. Did you mean 'project'?"),
        ("wandb:config=x", "--tracker wandb: unknown setting 'config'."),
        ("mlflow:uri=x", "unknown setting 'uri'."),
    ],
)
def test_mistakes_are_found_before_the_first_draw(install, spec, wrong):
    install("wandb", Wandb())
    install("mlflow", Mlflow())
    with pytest.raises(UsageError) as error:
        tracker(parse_spec(spec, "--tracker"))
    assert wrong in str(error.value)


def test_a_missing_package_is_named(install):
    install("trackio", None)  # importing it raises ImportError
    with pytest.raises(UsageError, match=r"trackio is not installed: pip install 'alignbench\[trackio\]'"):
        tracker(Spec("trackio"))


def test_nan_is_no_number(install):
    module = install("trackio", Wandb())
    report(specs("trackio"), print)([Row(KEY, "tv", "", Estimate(0.5, nan, None, None, note="no interval"), "", 1.0)])
    assert module.told[1] == ("log", {"tv": 0.5}, 200)


def test_a_training_is_a_run_of_its_own_until_another_begins(install):
    """One run at a time: trackers have one that is current. Planted bug: a row's run begun inside a training's."""
    module = install("wandb", Wandb())
    tell = report(specs("wandb"), print)
    for who, step in (("little: a", 1), ("little: a", 2), ("little (seed 1): b", 1), ("little: a", 3)):
        tell.on_step(who, step, {"loss": 0.5 / step, "ess": inf, "grad": nan})
    tell(ROWS)
    tell.on_step("little: c", 0, {"loss": nan})
    tell.finish()
    tell.finish()
    told = [t[2] if t[0] == "init" else t[1] if t[0] == "log" and len(t[1]) < 4 else t[0] for t in module.told]
    a, b, c = "training, little: a", "training, little (seed 1): b", "training, little: c"
    assert told == [a, {"loss": 0.5}, {"loss": 0.25}, "finish", b, {"loss": 0.5}, "finish", a, {"loss": 0.5 / 3},
                    "finish", "little: exact + top_k:k=3, seed 3", "log", "finish", c, "finish"]  # fmt: skip
    assert [t[2] for t in module.told if t[0] == "log"] == [1, 2, 1, 3, 200]
    assert {(t[3], t[4]["task"]) for t in module.told if t[0] == "init"} == {("little", "little")}


def test_a_training_that_is_gone_on_with_has_its_run_again(install):
    module = install("mlflow", Mlflow())
    tell = report(specs("mlflow"), print)
    for who in ("little: a", "little: b", "little: a"):
        tell.on_step(who, 1, {"loss": 1.0})
    tell.finish()
    assert [(run.name, len(run.metrics), run.ended) for run in module.runs.values()] == [
        ("training, little: a", 2, 2), ("training, little: b", 1, 1)
    ]  # fmt: skip
    report(specs("mlflow"), print).on_step("little: a", 1, {"loss": 1.0})
    assert len(module.runs) == 3  # of another command: it may be another training


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_tracker_that_fails_while_an_aligner_trains_is_left_out(install, fails):
    broken, sound, said = install("wandb", Wandb({fails})), install("trackio", Wandb()), []
    tell = report(specs("wandb", "trackio"), said.append)
    for step in (1, 2):
        tell.on_step("little: a", step, {"loss": 1.0})
    tell(ROWS)
    told = "--tracker wandb: ConnectionError: no route to host; no more rows go there; results are kept"
    assert said == [told] and [what for what, *_ in sound.told] == ["init", "log", "log", "finish", *CYCLE]
    assert (("finish",) in broken.told) == (fails == "log")


CYCLE = ("init", "log", "finish")
RUN = ("run", "--model", "exact", "--tasks", "little.yaml", "--draws", "8", "--output_path", "out")
TASK = """\
name: little
version: 1
summary: Sun always.
prompts: [rain, sun]
max_tokens: 4
draws: 8
features: {sunny: {feature: contains_any, words: [sun]}}
target: [{feature: sunny, always: true}]
metrics: [satisfaction]
"""


def test_run_tells_as_rows_finish_and_keeps_results_whatever_happens(install, command, tmp_path):
    (tmp_path / "little.yaml").write_text(TASK)
    module = install("trackio", Wandb())
    install("wandb", Wandb({"init"}))
    done = command(*RUN, "--aligner", "top_k:k=2", "--tracker", "trackio:project=p", "--tracker", "wandb")
    names = [told[2] for told in module.told if told[0] == "init"]
    assert done.code == 0 and done.err.count("no more rows go there") == 1
    assert [name.rpartition(" ")[0] for name in names] == [
        "little: exact, seed 0", "little: exact + top_k:k=2, seed 0", "little: draws of p, seed 0"
    ]  # fmt: skip
    assert (tmp_path / "out" / "leaderboard.csv").is_file()
    (page,) = (tmp_path / "out").glob("config_*.yaml")
    assert "tracker:\n- {name: trackio, project: p}\n- {name: wandb}\n" in page.read_text()
    again = command("run", "--config", str(page))
    assert again.code == 0 and [t[2] for t in module.told if t[0] == "init"] == names * 2  # the same runs
    assert command(*RUN, "--tracker", "mlflw").code == 2


TRAINS = """
from dataclasses import dataclass
from alignbench import aligner


@aligner(target_driven=True)
@dataclass(frozen=True)
class walks:
    steps: int = 2

    def identity(self, setting):
        return {"steps": self.steps}

    def align(self, setting):
        for step in range(self.steps):
            setting.report(step + 1, {"loss": 1.0 / (step + 1)})
        return setting.base
"""


def test_an_aligner_that_trains_tells_of_its_steps(install, command, tmp_path):
    (tmp_path / "little.yaml").write_text(TASK)
    (tmp_path / "walks.py").write_text(TRAINS)
    module = install("trackio", Wandb())
    words = (*RUN, "--include_path", "walks.py", "--aligner", "walks:steps=3", "--seed", "0,1", "--tracker", "trackio")
    done = command(*words)
    assert done.code == 0, done.err
    trained = [i for i, told in enumerate(module.told) if told[0] == "init" and told[2].startswith("training")]
    names = [module.told[i][2].rpartition(" ")[0] for i in trained]
    assert names == [f"training, little (seed {seed}): walks:steps=3" for seed in (0, 1)]
    for i in trained:
        steps = [("log", {"loss": 1 / s}, s) for s in (1, 2, 3)]
        assert module.told[i + 1 : i + 5] == [*steps, ("finish",)] and module.told[i + 5][0] == "init"


def test_the_run_of_a_training_that_is_interrupted_is_ended(install, command, tmp_path):
    (tmp_path / "little.yaml").write_text(TASK)
    (tmp_path / "walks.py").write_text(TRAINS.replace("return setting.base", "raise KeyboardInterrupt"))
    module = install("trackio", Wandb())
    done = command(*RUN, "--include_path", "walks.py", "--aligner", "walks:steps=1", "--tracker", "trackio")
    assert done.code == 130 and [told[0] for told in module.told] == [*CYCLE, *CYCLE]  # of the base, of the training


def test_a_python_user_is_told_of_training_steps(tmp_path, registries):
    (tmp_path / "little.yaml").write_text(TASK)
    (tmp_path / "walks.py").write_text(TRAINS)
    told, words = [], {"draws": 4, "include_path": [str(tmp_path / "walks.py")], "aligners": "walks:steps=1"}
    evaluate("exact", str(tmp_path / "little.yaml"), on_step=lambda *what: told.append(what), **words)
    assert told == [("little: walks:steps=1", 1, {"loss": 1.0})]


def test_python_users_have_the_same_callback(tmp_path, registries):
    (tmp_path / "little.yaml").write_text(TASK)
    told = []
    evaluate("exact", str(tmp_path / "little.yaml"), draws=4, on_rows=told.append)
    assert [rows[0].key.generator for rows in told] == ["exact", "draws of p"]
    with pytest.raises(UsageError, match="'trackers'"):
        evaluate("exact", "little.yaml", trackers=("wandb",))  # would be told of nothing
