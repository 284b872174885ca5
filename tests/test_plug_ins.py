"""The plug-ins of docs/plug-ins.md, as they stand there: they run, are found again, and are short."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from alignbench.aligners.training import loop
from alignbench.generators import checkpoint
from alignbench.testing import tiny_network

PAGE = Path(__file__).parents[1] / "docs" / "plug-ins.md"
TASK = """\
name: little
version: 1
summary: Sun always, and wind in half of the draws.
prompts: [rain, sun]
max_tokens: 3
draws: 60
features:
  sunny: {feature: contains_any, words: [sun]}
  windy: {feature: contains_any, words: [wind]}
target:
  - {feature: sunny, always: true}
  - {feature: windy, moment: 0.5}
metrics: [divergence, cost]
"""
RUN = ("run", "--tasks", "little.yaml", "--output_path", "out")
BIGRAM = (*RUN, "--include_path", "bigram.py", "--model", "exact:words=rain sun wind", "--aligner", "bigram:draws=200")


def plug_in(name: str) -> str:
    found = re.search(rf"<!-- {name}:start -->\n```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    return found[1]


@pytest.fixture(autouse=True)
def here(command):
    for name in ("engine.py", "bigram.py", "matched.py", "rule.py"):
        Path(name).write_text(plug_in(name), encoding="utf-8")
    Path("little.yaml").write_text(TASK)


def rows():
    from alignbench.reports.rows import read_rows

    found = read_rows(Path("out/leaderboard.csv"))
    found = found[found.generator != "draws of p"]
    return found.set_index(["aligner", "metric", "part"]).sort_index()


def raising(text: str) -> str:
    """A plug-in whose `align` must not be called."""
    return text.replace("def align(self, setting):", "def align(self, setting):\n        raise SystemExit")


def swap(table: Path) -> None:
    """Other weights: the first two words change their places."""
    table.write_bytes(np.fromfile(table).reshape(-1, 4)[:, [1, 0, 2, 3]].tobytes())


def untimed(found):
    return found.value.drop(["seconds", "tokens_per_second", "peak_memory_mb"], level="part")


@pytest.mark.parametrize("name", ["engine.py", "bigram.py"])
def test_they_are_short(name):
    assert len(plug_in(name).splitlines()) < 30


def test_a_rule_is_short():
    """Its aligner included; blank lines are not counted."""
    assert sum(bool(line.strip()) for line in plug_in("rule.py").splitlines()) < 25


def test_an_engine_is_base_and_proposal_and_is_not_asked_again(command, monkeypatch):
    words = (*RUN, "--include_path", "engine.py", "--model", "engine", "--aligner", "best_of_n:n=2")
    assert command(*words).code == 0
    first = rows()
    source = Path("engine.py").read_text().replace("        self.server = exact", "        raise SystemExit  # ")
    Path("engine.py").write_text(source.replace("self.vocab = self.server.vocab", "self.vocab = None"))
    said = command(*words)
    assert said.code == 0 and "every draw was found on disk" in said.err
    assert first.value.equals(rows().value)


def test_a_trained_table_is_nearer_to_p_than_the_base(command):
    assert command(*BIGRAM).code == 0
    exact = rows().exact
    assert exact["bigram:draws=200", "divergence", "kl_target"] < 0.7 * exact["", "divergence", "kl_target"]


def test_what_is_trained_is_found_again_and_booked(command, monkeypatch):
    """A second run calls no `align`; with its evidence gone, the table is found in its folder, and nothing is drawn."""
    assert command(*BIGRAM).code == 0
    [folder] = (path for path in Path("out/aligned").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == {"table", "cost.json"}
    booked = json.loads((folder / "cost.json").read_text())
    first = rows()
    assert (
        booked["seconds"] > 0
        and booked["steps"] == 1
        and first.value["bigram:draws=200", "cost", "training_drawn"] == booked["drawn"] > 400
    )

    Path("bigram.py").write_text(raising(plug_in("bigram.py")))
    again = command(*BIGRAM)
    assert again.code == 0 and "every draw was found on disk" in again.err and first.value.equals(rows().value)

    Path("bigram.py").write_text(plug_in("bigram.py").replace("setting.base_draws(", "setting.no_draws("))
    for path in Path("out").glob("*bigram*/evidence_*"):
        path.unlink()
    assert command(*BIGRAM).code == 0
    assert untimed(first).equals(untimed(rows()))


def test_other_weights_are_measured_anew_and_never_mixed(command):
    assert command(*BIGRAM).code == 0
    first, [table] = rows(), Path("out/aligned").glob("*/table")
    swap(table)
    assert command(*BIGRAM).code == 0
    second = rows()
    at = ("bigram:draws=200", "divergence", "kl_target")
    assert second.exact[at] > first.exact[at]
    ids = {r.generator_id.iloc[0] for r in (first.loc["bigram:draws=200"], second.loc["bigram:draws=200"])}
    assert len(ids) == 2
    shutil.rmtree("out/aligned")  # what was measured stands where the weights are gone
    Path("bigram.py").write_text(raising(plug_in("bigram.py")))
    assert command(*BIGRAM).code == 0 and rows().value.equals(second.value)


def test_a_generator_that_does_not_tell_its_weights_is_refused_with_others(command):
    """Its law says its name alone: draws of one table would be found for another, as a row's own or as a proposal's."""
    law = "\n\nclass Quiet(NGram):\n    def identity(self):\n        return {'bigram': 'mine'}\n"
    Path("bigram.py").write_text(plug_in("bigram.py").replace("model=NGram(", "model=Quiet(") + law)
    assert command(*BIGRAM).code == 0
    [table] = Path("out/aligned").glob("*/table")
    swap(table)
    said = command(*BIGRAM, "--aligner", "{name: sir, n: 2, proposal: 'bigram:draws=200'}")
    assert said.code == 1 and said.err.count("its generator's identity is that of other weights") == 2


def test_an_aligner_that_does_not_say_what_it_depends_on_is_measured_each_time_and_said_once(command, caplog):
    text = plug_in("bigram.py").replace("def identity(", "def no_identity(")
    Path("bigram.py").write_text(text)
    for _ in range(2):
        caplog.clear()
        assert command(*BIGRAM, "--seed", "0,1").code == 0
        assert caplog.text.count("the aligner does not say what its generator depends on") == 1
    assert not Path("out/aligned").exists()


@pytest.fixture
def matched(tmp_path):
    """The words of a run of the policy on a tiny network; p is sun always, so that no λ is fitted."""
    tiny_network(tmp_path / "tiny", kind="gpt2")
    Path("little.yaml").write_text(TASK.replace("  - {feature: windy, moment: 0.5}\n", ""))
    return (*RUN, "--draws", "200", "--include_path", "matched.py", "--model", "hf", "--model_args", "pretrained=tiny",
            "--aligner", "matched:steps=40,lr=0.01")  # fmt: skip


def test_a_policy_is_nearer_to_p_than_the_base_and_trains_once(command, matched, monkeypatch):
    """KL(p‖π) falls by more than half. A second run trains nothing; one with another file would."""
    assert command(*matched).code == 0
    first = rows()
    own = "matched:steps=40,lr=0.01"
    kl = first.value.xs(("divergence", "kl_target"), level=("metric", "part"))
    assert kl[own] < 0.5 * kl[""]
    assert first.value[own, "cost", "training_steps"] == 40
    monkeypatch.setattr(loop.Loop, "run", None)
    again = command(*matched)
    assert again.code == 0 and "every draw was found on disk" in again.err and first.value.equals(rows().value)
    Path("matched.py").write_text(plug_in("matched.py") + "# another\n")
    assert command(*matched).code != 0


def test_a_policy_that_is_killed_goes_on(command, matched, monkeypatch):
    """After 29 of 40 steps, by the same command: the weights are those of the run that was not killed."""

    def state():
        [folder] = (path for path in Path("out/aligned").iterdir() if path.is_dir())
        return (folder / "state-40.safetensors").read_bytes()

    assert command(*matched).code == 0
    whole = state()
    shutil.rmtree("out")
    right = checkpoint.write_atomic

    def killed(path, content):
        if path.name == "state-30.safetensors":
            raise KeyboardInterrupt
        right(path, content)

    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(checkpoint, "write_atomic", killed)
    assert command(*matched).code != 0
    monkeypatch.setattr(checkpoint, "write_atomic", right)
    assert command(*matched).code == 0
    assert state() == whole


def test_a_rule_says_its_word_more_often_and_is_found_again(command):
    """Sun in 91 % of all that may be said, after 83 %; by listing. A second run weighs nothing."""
    words = (*RUN, "--include_path", "rule.py", "--model", "exact:words=rain sun wind", "--aligner", "doubled:word=sun")
    Path("little.yaml").write_text(TASK.replace("[divergence,", "[satisfaction,"))
    assert command(*words).code == 0
    first = rows()
    kept = first.exact.xs(("satisfaction", "always"), level=("metric", "part"))
    assert kept["doubled:word=sun"] > kept[""] + 0.05
    Path("rule.py").write_text(plug_in("rule.py").replace("return nats +", "raise SystemExit  #"))
    again = command(*words)
    assert again.code == 0 and "every draw was found on disk" in again.err and first.value.equals(rows().value)


@pytest.mark.parametrize(
    ("model", "word", "line"),
    [
        ("exact", "rain sun", "exact: 'rain sun' takes 2 tokens ('rain', 'sun'): give a text of one token"),
        ("exact", "hail", "text 'hail': the world has no word 'hail'. Known: rain, sun, wind."),
        ("engine", "sun", "aligner 'doubled' changes next-token probabilities, and Engine has none to change"),
    ],
)
def test_a_rule_that_cannot_be_had_is_one_line_that_says_why(command, model, word, line):
    files = ("--include_path", "rule.py", "--include_path", "engine.py")
    recipe = f"{{name: doubled, word: {word}}}"
    said = command(*RUN, *files, "--model", f"{model}:words=rain sun wind", "--aligner", recipe)
    assert said.code == 2 and "Traceback" not in said.err
    [found] = [one for one in said.err.splitlines() if "doubled" in one]
    assert found.startswith(f"alignbench: little: {model}") and f" + doubled:word={word}: {line}" in found


def test_a_work_folder_that_cannot_be_written_is_one_line(command):
    Path("out").mkdir()
    Path("out/aligned").write_text("in the way")
    said = command(*BIGRAM)
    assert said.code == 1 and "Traceback" not in said.err
    [line] = [line for line in said.err.splitlines() if "aligned" in line]
    assert "cannot be written" in line and "little: exact + bigram:draws=200" in line
