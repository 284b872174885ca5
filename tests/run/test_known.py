"""What is known before any work: a second run of a finished job loads no weights, fits no λ and calls no `align`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from models import tiny_gpt2 as save_gpt2

from alignbench.generators.hf import factory
from alignbench.generators.law import Law
from alignbench.store.packed import pack, unpack
from alignbench.target import Target

TASK = """\
name: little
version: 1
summary: Rain always, and wind in half of the draws.
prompts: [rain, sun wind]
max_tokens: 4
draws: 60
features:
  rainy: {feature: contains_any, words: [rain]}
  windy: {feature: contains_any, words: [wind]}
target:
  - {feature: rainy, always: true}
  - {feature: windy, moment: 0.5}
metrics: [perplexity, satisfaction, divergence]
"""
WORKER = """\
from dataclasses import dataclass
from pathlib import Path
from alignbench import aligner, generator
from alignbench.generators.exact import exact

@aligner
@dataclass(frozen=True)
class worker:
    t: float = 0.5
    def identity(self, setting):
        return {"t": self.t}
    def align(self, setting):
        with open("worked", "a") as file:
            file.write("once\\n")
        return setting.base.warped(temperature=self.t)

@generator
def slow(*, seed: int = 3, table: str = "table.txt"):
    with open("loaded", "a") as file:
        file.write("once\\n")
    return exact(words="rain sun wind", seed=seed + len(Path(table).read_text()))
"""
ALIGNERS = ["temperature:t=0.5", "rejection", "best_of_n:n=2", "sir:n=2", "quasi_rejection:acceptance=0.2", "greedy",
            "few_shot:k=1", "attention_window:k=2", "{name: constrained, any_of: [rain]}", "constant", "worker",
            "{name: chain, steps: [worker, 'top_k:k=5']}", "{name: sir, n: 2, proposal: worker}",
            "{name: rejection, proposal: {name: constrained, any_of: [rain]}}"]  # fmt: skip


@pytest.fixture(autouse=True)
def here(command):
    Path("little.yaml").write_text(TASK)
    Path("worker.py").write_text(WORKER)
    Path("table.txt").write_text("abc")


@pytest.fixture
def work(monkeypatch):
    """What is done: weights that are loaded, draws that are made, targets that are fitted."""
    done = []
    network, sample, fitted = factory._network, Law.sample, Target.fitted
    monkeypatch.setattr(factory, "_network", lambda folder, **more: done.append(folder) or network(folder, **more))
    monkeypatch.setattr(Law, "sample", lambda self, *a, **k: done.append("drawn") or sample(self, *a, **k))
    monkeypatch.setattr(Target, "fitted", lambda self, *a, **k: done.append("fitted") or fitted(self, *a, **k))
    return done


def tiny(name, **more):
    save_gpt2(Path(name), ("rain", "sun", "wind"), **more)


def lines(name):
    path = Path(name)
    return len(path.read_text().splitlines()) if path.exists() else 0


def anew():
    """Plug-ins are read from their files again, as in another process."""
    for name in [name for name in sys.modules if name.startswith("alignbench_plugin_")]:
        del sys.modules[name]


def go(command, *words, aligners=()):
    anew()
    asked = [word for text in aligners for word in ("--aligner", text)]
    said = command(
        "run", "--tasks", "little.yaml", "--output_path", "out", "--include_path", "worker.py", *words, *asked
    )
    assert said.code == 0, said.err
    return Path("out/leaderboard.csv").read_text().splitlines()


def test_a_second_run_loads_no_weights_fits_nothing_and_calls_no_align(command, work):
    for name, more in {"base": {}, "other": {"seed": 5}, "judge": {"seed": 6}}.items():
        tiny(name, **more)
    words = ("--model", "hf:pretrained=./base", "--model", "hf:pretrained=./other", "--judge", "hf:pretrained=./judge")
    first = go(command, *words, aligners=ALIGNERS)
    assert {"base", "other", "judge", "drawn", "fitted"} == set(work) and lines("worked") == 3
    work.clear()
    assert go(command, *words, aligners=ALIGNERS) == first
    assert work == [] and lines("worked") == 3


def test_decoding_settings_of_a_model_are_part_of_what_is_known(command, work):
    tiny("base")
    tiny("other", seed=5)
    words = ("--model", "hf:pretrained=./base", "--model", "hf:pretrained=./other", "--gen_kwargs", "temperature=0.7")
    go(command, *words)
    work.clear()
    go(command, *words)
    assert work == []
    go(command, *words[:-1], "temperature=0.6")
    assert "other" in work


def test_other_weights_in_the_same_folder_are_another_base(command, work):
    """Planted bug: an identity by the spec alone."""
    tiny("base")
    first = go(command, "--model", "hf:pretrained=./base")
    shutil.rmtree("base")
    tiny("base", seed=9)
    work.clear()
    assert go(command, "--model", "hf:pretrained=./base") != first and "drawn" in work


def test_what_a_plug_in_said_is_remembered_until_its_files_change(command):
    words = ("--model", "slow:seed=3")
    first = go(command, *words, aligners=ALIGNERS[:3])
    loaded = lines("loaded")
    assert go(command, *words, aligners=ALIGNERS[:3]) == first and lines("loaded") == loaded == 1
    Path("table.txt").write_text("abcd")
    assert go(command, *words, aligners=ALIGNERS[:3]) != first and lines("loaded") == 2
    Path("table.txt").write_text("abc")
    assert go(command, *words, aligners=ALIGNERS[:3]) == first and lines("loaded") == 2
    Path("worker.py").write_text(WORKER + "# another version\n")
    assert go(command, *words, aligners=ALIGNERS[:3]) == first and lines("loaded") == 3


def test_a_factory_may_tell_the_identity_itself(command):
    told = WORKER.replace("@generator\n", "@generator(identity=lambda seed=3, table='': {'slow': seed})\n")
    Path("worker.py").write_text(told.replace("return exact(", "law = exact(").rstrip() + TOLD)
    first = go(command, "--model", "slow", aligners=["temperature:t=0.5", "worker"])
    Path("table.txt").write_text("nothing that its identity depends on")
    assert go(command, "--model", "slow", aligners=["temperature:t=0.5", "worker"]) == first
    assert lines("loaded") == 1 and lines("worked") == 1


TOLD = """
    from alignbench.generators.law import Law
    class Slow(Law):
        def identity(self):
            return {"slow": seed}
    return Slow(law.model)
"""


def test_the_fit_is_stored_and_used(command, work):
    """A λ that is planted in the file is the λ of the rows that are measured next."""
    go(command, "--model", "exact:words=rain sun wind")
    [path] = Path("out/known").glob("fit_little_*.npz")
    fit = unpack(path)["fit"]
    assert fit.lam.shape == (1, 1) and np.isfinite(fit.log_z).all() and (fit.log_z_stderr > 0).all() and fit.heldout
    work.clear()
    go(command, "--model", "exact:words=rain sun wind", aligners=["rejection"])
    assert "fitted" not in work and "drawn" in work
    planted = fit.lam + 1
    path.write_bytes(pack({"fit": type(fit)(**{**vars(fit), "lam": planted}), "without_p": ""}))
    go(command, "--model", "exact:words=rain sun wind", aligners=["sir:n=2"])
    from alignbench.reports.rows import read_rows

    told = read_rows(Path("out/leaderboard.csv")).signature
    assert told.str.contains(f"lam:{planted[0, 0]:.4g}", regex=False).any()


QUICK = """
from alignbench.aligners.base import Immediate

@aligner
@dataclass(frozen=True)
class quick(Immediate):
    t: float = 0.5
    def align(self, setting):
        return setting.base.warped(temperature=self.t)
"""


@pytest.mark.parametrize("model", ["exact:words=rain sun wind", "slow:seed=3"])
def test_another_code_of_a_plug_in_is_another_aligner(command, model):
    """Planted bug: an aligner that is asked on an outline remembered by its hyper-parameters alone."""
    Path("worker.py").write_text(WORKER + QUICK)
    first = go(command, "--model", model, aligners=["quick"])
    Path("worker.py").write_text(WORKER + QUICK.replace("self.t)", "self.t * 3)"))
    second = go(command, "--model", model, aligners=["quick"])
    assert second != first
    assert go(command, "--model", model, aligners=["quick"]) == second


@pytest.mark.parametrize("model", ["exact:words=rain sun wind", "slow:seed=3"])
def test_a_nested_aligner_is_known_by_what_it_says(command, model):
    nested = ["worker", "{name: chain, steps: [worker, 'top_k:k=5']}", "{name: sir, n: 2, proposal: worker}"]
    first = go(command, "--model", model, aligners=nested)
    text = WORKER.replace('return {"t": self.t}', 'return {"t": self.t, "version": 2}').replace("=self.t)", "=3.0)")
    Path("worker.py").write_text(text)
    second = go(command, "--model", model, aligners=nested)
    by_row = [{line.split(",")[5]: line for line in rows if ",perplexity," in line} for rows in (first, second)]
    assert len(by_row[0]) == 4
    assert all(by_row[0][name] != by_row[1][name] for name in by_row[0] if name)


def test_a_raised_format_is_another_aligner(command, work, monkeypatch):
    from alignbench.aligners.selection.sir import SIR

    save_gpt2(Path("base"), ("rain", "sun", "wind"))
    words = ("--model", "hf:pretrained=./base")
    go(command, *words, aligners=["sir:n=2"])
    monkeypatch.setattr(SIR, "format", 3)
    monkeypatch.setattr("alignbench.run.known.code", lambda: "other code")
    work.clear()
    go(command, *words, aligners=["sir:n=2"])
    assert work == ["base"], "loaded for the row, whose attempts are in the pool"


def test_what_a_factory_says_is_asked_each_time(command):
    told = WORKER.replace("@generator\n", "@generator(identity=lambda: {'slow': Path('table.txt').read_text()})\n")
    own = TOLD.replace('{"slow": seed}', '{"slow": Path(table).read_text()}')
    Path("worker.py").write_text(told.replace("return exact(", "law = exact(").rstrip() + own)
    first = go(command, "--model", "slow")
    Path("table.txt").write_text("abcd")
    assert go(command, "--model", "slow") != first and lines("loaded") == 2


def test_a_factory_that_tells_another_identity_is_refused(command):
    """Planted: rows of the base by what was told and rows of aligners by what was made, in one table."""
    Path("worker.py").write_text(WORKER.replace("@generator\n", "@generator(identity=lambda: {'slow': 'a lie'})\n"))
    said = command("run", "--tasks", "little.yaml", "--include_path", "worker.py", "--model", "slow")
    assert said.code == 1 and "its identity is not the one that was told before it was made" in said.err


def test_what_the_command_line_hands_to_a_factory_is_part_of_what_is_known(command):
    Path("worker.py").write_text(WORKER.replace("(*, seed", "(*, dtype, seed"))
    go(command, "--model", "slow", "--dtype", "float32")
    go(command, "--model", "slow", "--dtype", "float32")
    assert lines("loaded") == 1
    go(command, "--model", "slow", "--dtype", "bfloat16")
    assert lines("loaded") == 2


def test_a_proposal_of_the_task_that_changes_is_another_mixture(command):
    Path("little.yaml").write_text(TASK + "proposals: ['slow:seed=5']\n")
    first = go(command, "--model", "exact:words=rain sun wind")
    Path("table.txt").write_text("abcd")
    assert go(command, "--model", "exact:words=rain sun wind") != first


@pytest.mark.parametrize(("wrong", "line"), [
    ("identity=lambda: 1 / 0", "'identity' of the generator 'slow' failed: ZeroDivisionError"),
    ("files=lambda: 1 / 0, outline=lambda: 1 / 0", "'outline' of the generator 'slow' failed: ZeroDivisionError"),
])  # fmt: skip
def test_a_factory_that_cannot_tell_is_one_line(command, wrong, line):
    Path("worker.py").write_text(WORKER.replace("@generator\n", f"@generator({wrong})\n"))
    said = command("run", "--tasks", "little.yaml", "--include_path", "worker.py", "--model", "slow")
    assert said.code == 2 and line in said.err and "Traceback" not in said.err


@pytest.mark.parametrize(("wrong", "line"), [
    ('{"x": object()}', "identity of worker failed: TypeError"),
    ('"name"', "an aligner's identity must be a mapping of plain data, not a str"),
])  # fmt: skip
def test_an_identity_that_is_no_plain_data_is_one_line(command, wrong, line):
    Path("worker.py").write_text(WORKER.replace('{"t": self.t}', wrong))
    words = ("run", "--tasks", "little.yaml", "--include_path", "worker.py", "--model", "exact:words=rain sun wind")
    said = command(*words, "--aligner", "worker", "--aligner", "greedy")
    assert said.code == 2 and line in said.err and "Traceback" not in said.err and "greedy" in said.out


def test_an_align_that_makes_nothing_or_ends_python_is_one_line(command):
    for wrong, line in (("return None", "align of worker gave a NoneType, which has no 'sample'"),
                        ("raise SystemExit(3)", "align of worker failed: SystemExit: 3")):  # fmt: skip
        Path("worker.py").write_text(WORKER.replace("return setting.base.warped(temperature=self.t)", wrong))
        said = command("run", "--tasks", "little.yaml", "--include_path", "worker.py", "--model",
                       "exact:words=rain sun wind", "--aligner", "worker")  # fmt: skip
        assert said.code == 1 and line in said.err
        anew()


@pytest.mark.parametrize("damage", [b"", b"no zip", pack({"fit": 1})])
def test_a_damaged_fit_is_made_again_and_told(command, work, caplog, damage):
    first = go(command, "--model", "exact:words=rain sun wind")
    [path] = Path("out/known").glob("fit_little_*.npz")
    path.write_bytes(damage)
    work.clear()
    assert go(command, "--model", "exact:words=rain sun wind") == first
    assert work == ["fitted"] and str(path) in caplog.text and "fitting again from the stored draws" in caplog.text


def test_a_folder_of_version_0_1_without_what_is_known_still_reads(command, work):
    """Its draws and evidence are found; only λ is fitted again, from its draws."""
    first = go(command, "--model", "exact:words=rain sun wind", aligners=["temperature:t=0.5"])
    shutil.rmtree("out/known")
    work.clear()
    assert go(command, "--model", "exact:words=rain sun wind", aligners=["temperature:t=0.5"]) == first
    assert work == ["fitted"]


def test_a_base_that_cannot_be_loaded_is_one_line(command):
    tiny("base")
    Path("base/model.safetensors").write_bytes(b"cut short")
    Path("other.yaml").write_text(TASK.replace("little", "other"))
    said = command(
        "run", "--tasks", "little.yaml,other.yaml", "--model", "hf:pretrained=./base", "--output_path", "out"
    )
    assert said.code != 0 and said.err.count("cannot be loaded as a language model") == 1
