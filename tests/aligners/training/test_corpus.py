"""A task's corpus as draws to learn from: which text stands behind which prompt, its ids, its end."""

from __future__ import annotations

import importlib.util

import pytest

from alignbench.aligners.base import Setting
from alignbench.aligners.training.corpus import corpus_batch
from alignbench.aligners.training.processes import Processes
from alignbench.aligners.training.sft import SFT
from alignbench.aligners.training.work import Work
from alignbench.errors import UsageError
from alignbench.generators.policy import policy_of
from alignbench.seeds import Seed
from alignbench.target import Target
from alignbench.testing import tiny_network

if importlib.util.find_spec("peft") is None:
    pytest.skip("peft is an extra", allow_module_level=True)

PROMPTS, TEXTS = ("rain", "sun"), ("sun wind", "wind sun sun rain", "rain")


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    base = tiny_network(tmp_path_factory.mktemp("corpus"), kind="gpt2")
    return Setting(base, Target(), PROMPTS, 3, Seed(0, "train"), corpus=TEXTS)


def test_texts_go_in_turns_behind_the_prompts_and_end_or_are_cut(setting):
    work = Work(setting, policy_of(setting.base, "lora:r=2"), Processes())
    batch = corpus_batch(work, work.rows(0, 4))
    assert batch.draws.texts == ("sun wind", "wind sun sun rain", "rain", "sun wind")
    assert batch.draws.prompt.tolist() == [0, 1, 0, 1]
    eos = 3
    assert batch.draws.tokens.tolist() == [[1, 2, eos], [2, 1, 1], [0, eos, -1], [1, 2, eos]]
    assert batch.draws.finished.tolist() == [True, False, True, True] and batch.draws.length.tolist() == [3, 3, 2, 3]


def test_sft_on_it_makes_its_texts_likelier(setting):
    law = setting.aligned(SFT(data="corpus", steps=20, batch=6, lr=0.01, adapter="lora:r=2", cooldown=0))
    work = Work(setting, policy_of(setting.base, "lora:r=2"), Processes())
    draws = corpus_batch(work, work.rows(0, 6)).draws
    assert (law.log_prob(PROMPTS, draws) - setting.base.log_prob(PROMPTS, draws)).mean() > 0.5
    assert "corpus" in law.remark


def test_a_task_without_one_is_told(setting):
    from dataclasses import replace

    with pytest.raises(UsageError, match="the task has no corpus"):
        replace(setting, corpus=()).aligned(SFT(data="corpus", steps=1, adapter="lora:r=2"))
