"""An engine that answers with tokens and their log-probabilities, and is no `Law`: a citizen like any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ENGINE = '''\
from dataclasses import dataclass
from alignbench import Draws, generator
from alignbench.generators.exact import exact

@dataclass
class Engine:
    """Stands for a server: it says tokens and log-probabilities, and nothing of how."""
    seed: int
    words: str
    name: str = "engine"
    def __post_init__(self):
        self.law = exact(seed=self.seed, words=self.words)
        self.vocab = self.law.vocab
    def identity(self):
        return {"engine": self.seed, "words": self.words}
    def check(self, prompts, max_tokens):
        self.law.check(prompts, max_tokens)
    def sample(self, prompts, rows, *, max_tokens, seed):
        yield from self.law.sample(prompts, rows, max_tokens=max_tokens, seed=seed)
    def log_prob(self, prompts, draws):
        return self.law.log_prob(prompts, draws)

@generator
def engine(*, seed: int = 0, words: str = "rain sun wind snow cloud fog"):
    "A server that answers with tokens."
    return Engine(seed, words)
'''
TASK = """\
name: little
version: 1
summary: Sun always.
prompts: [rain, sun]
max_tokens: 3
draws: 200
features:
  sunny: {feature: contains_any, words: [sun]}
target:
  - {feature: sunny, always: true}
metrics: [perplexity, satisfaction, divergence]
"""
WORDS = ("run", "--tasks", "little.yaml", "--output_path", "out", "--include_path", "engine.py")


@pytest.fixture(autouse=True)
def here(tmp_path, command):
    Path("engine.py").write_text(ENGINE)
    Path("little.yaml").write_text(TASK)


def rows():
    from alignbench.reports.rows import read_rows

    return read_rows(Path("out/leaderboard.csv"))


def number(found, metric, part="", **where):
    for column, value in {"metric": metric, "part": part, **where}.items():
        found = found[found[column].fillna("") == value]
    assert len(found) == 1
    return found.iloc[0]


def test_an_engine_is_shorter_than_thirty_lines():
    assert len(ENGINE.splitlines()) < 30


def test_an_engine_can_be_the_base_with_aligners_on_it(command):
    said = command(*WORDS, "--model", "engine", "--aligner", "rejection", "--aligner", "best_of_n:n=2",
                   "--aligner", "sir:n=4")  # fmt: skip
    assert said.code == 0, said.err
    found = rows()
    assert number(found, "satisfaction", "always", aligner="rejection:cap=256").value == 1.0
    assert np.isfinite(number(found, "divergence", "kl_target", generator="engine", aligner="").value)


def test_an_engine_beside_a_law_of_its_tokens_is_what_that_law_is(command):
    """As a model and as the judge: the same numbers as the law that it stands for."""
    models = ("--base", "exact:seed=5", "--model", "engine:seed=3", "--model", "exact:seed=3")
    said = command(*WORDS, *models, "--judge", "engine:seed=7")
    assert said.code == 0, said.err
    found = rows()
    others = [name for name in found.generator.unique() if name.startswith("exact#")]
    for metric, part in (("divergence", "kl_target"), ("divergence", "tv"), ("perplexity", "")):
        mine, law = (number(found, metric, part, generator=name, aligner="") for name in ("engine", *others))
        assert mine.value == pytest.approx(law.value, abs=1e-9), (metric, part)


def test_an_engine_can_be_a_proposal(command):
    said = command(*WORDS, "--model", "exact:seed=5", "--aligner",
                   "{name: sir, n: 4, proposal: {name: engine, seed: 9}}")  # fmt: skip
    assert said.code == 0, said.err
    found = rows()
    [sir] = [name for name in found.aligner.dropna().unique() if "sir" in name]
    assert number(found, "satisfaction", "always", aligner=sir).value == 1.0, "all its draws are of p, or left out"


@pytest.mark.parametrize("word", ["--model", "--judge"])
def test_an_engine_of_other_tokens_is_refused(command, word):
    """Planted: were only laws asked for their tokens, its ids would be scored as if they were the base's."""
    said = command(*WORDS, "--base", "exact:seed=5", "--model", "exact:seed=5", word, "engine:words=sun rain fog")
    assert said.code == 2 and "engine and exact have different tokenizers" in said.err, said.err
    assert "Traceback" not in said.err


def test_prompts_that_an_engine_cannot_read_are_told_before_a_draw(command):
    Path("little.yaml").write_text(TASK.replace("[rain, sun]", "[rain, zebra]"))
    said = command(*WORDS, "--model", "engine")
    assert said.code == 2 and "the world has no word 'zebra'" in said.err and not list(Path("out").glob("draws/*"))


def test_an_engine_takes_part_in_selfcheck(command):
    said = command("selfcheck", "--model", "engine", "--include_path", "engine.py", "--prompts", "rain", "--prompts",
                   "sun wind", "--max_tokens", 4)  # fmt: skip
    assert said.code == 0, said.err
    for line in ("rescoring", "padding, sampling", "after EOS"):
        assert line in said.out
    assert "it gives no next-token probabilities" in " ".join(said.out.split())


def test_a_planted_engine_that_contradicts_itself_is_found_by_selfcheck(command):
    Path("engine.py").write_text(ENGINE.replace("return self.law.log_prob", "return 0.9 * self.law.log_prob"))
    said = command("selfcheck", "--model", "engine", "--include_path", "engine.py", "--prompts", "rain")
    assert said.code == 1 and "disagree" in " ".join(said.out.split())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('{"engine": self.seed, "words": self.words}', '{"model": "llama-3", "seed": self.seed}'),
        ("self.vocab = self.law.vocab", 'self.vocab, self.model = self.law.vocab, "llama-3"'),
        ("self.vocab = self.law.vocab", 'self.vocab = {"sun": 1}'),  # no vocabulary that is known here: a black box
    ],
)
def test_engines_may_say_what_they_like_of_themselves(command, old, new):
    """Planted by a reviewer: each of these was a traceback."""
    Path("engine.py").write_text(ENGINE.replace(old, new))
    assert command(*WORDS, "--base", "exact:seed=5", "--model", "engine").code == 0
    said = command("selfcheck", "--model", "engine", "--include_path", "engine.py", "--prompts", "rain")
    assert said.code in (0, 2) and "Traceback" not in said.err


def test_a_base_that_gives_no_identity_has_no_stored_draws_for_another_to_find(command):
    """Planted: the draws of best-of-n on one such base were those of another in the same folder."""
    Path("engine.py").write_text(ENGINE.replace('return {"engine": self.seed, "words": self.words}', "return None"))
    means = []
    for seed in (3, 11):
        assert command(*WORDS, "--model", f"engine:seed={seed}", "--aligner", "best_of_n:n=2").code == 0
        means.append(number(rows(), "satisfaction", "always", aligner="best_of_n:n=2").value)
    apart = [word if word != "out" else "apart" for word in WORDS]
    alone = command(*apart, "--model", "engine:seed=11", "--aligner", "best_of_n:n=2")
    assert alone.code == 0
    from alignbench.reports.rows import read_rows

    own = number(read_rows(Path("apart/leaderboard.csv")), "satisfaction", "always", aligner="best_of_n:n=2").value
    assert means[1] == own != means[0]


def test_an_engine_whose_draws_are_of_no_vocabulary_is_one_line(command):
    sample = "        yield from self.law.sample(prompts, rows, max_tokens=max_tokens, seed=seed)\n"
    other = """\
        from dataclasses import replace
        for batch in self.law.sample(prompts, rows, max_tokens=max_tokens, seed=seed):
            yield replace(batch, vocab="", log_prob=None, model_log_prob=None)
"""
    assert sample in ENGINE
    Path("engine.py").write_text(ENGINE.replace(sample, other))
    said = command(*WORDS, "--model", "engine")
    assert said.code == 1 and len(said.err.splitlines()) == 1
    assert "engine: its own draws are not ids of its vocabulary, so it cannot score them" in said.err


def test_an_aligner_of_the_former_protocol_is_told_what_to_do(command):
    old = """
from alignbench import aligner

@aligner("old")
class Old:
    def align(self, base, target, prompts, *, max_tokens, seed):
        return base
"""
    Path("engine.py").write_text(ENGINE + old)
    said = command(*WORDS, "--model", "exact", "--aligner", "old", "--dry_run")
    assert said.code == 2 and said.err == "alignbench: aligner Old: its align must take one argument, the setting\n"


@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ("raise TimeoutError('timed out')", "log_prob of engine failed: TimeoutError: timed out"),
        ("return self.law.log_prob(prompts, draws)[1:]", "must give a number for each of"),
        ("return self.law.token_log_prob(prompts, draws)", "must give a number for each of"),
        ("return None", "must give a number for each of"),
        ("return self.law.log_prob(prompts, draws) * np.nan", "log_prob of engine gave NaN"),
        ("return -self.law.log_prob(prompts, draws)", "log_prob of engine gave a probability above 1"),
    ],
)
@pytest.mark.parametrize("word", ["--model", "--judge"])
def test_log_probabilities_that_are_none_are_one_line_and_other_rows_go_on(command, wrong, line, word):
    """Planted by a stranger: tracebacks, and a perplexity of 0.2."""
    text = ENGINE.replace("return self.law.log_prob(prompts, draws)", wrong)
    Path("engine.py").write_text("import numpy as np\n" + text)
    said = command(*WORDS, "--base", "exact:seed=5", "--model", "exact:seed=5", word, "engine")
    assert said.code == 1 and line in said.err and "Traceback" not in said.err
    assert word == "--judge" or "exact" in said.out
