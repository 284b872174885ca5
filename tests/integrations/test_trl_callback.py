"""The callback on trl's own trainers with a tiny network: rows in the folder and in the logs, and nothing disturbed."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignbench.errors import UsageError
from alignbench.testing.worlds import save_network

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning")

from alignbench.integrations.trl import AlignbenchCallback  # noqa: E402

TASK = """
name: tiny
version: 1
summary: The sun is always there.
prompts: [rain, wind sun]
max_tokens: 4
draws: 8
features: {sunny: {feature: contains_any, words: [sun]}}
target: [{feature: sunny, always: true}]
metrics: [satisfaction, divergence]
"""
PLAIN = {"max_steps": 4, "per_device_train_batch_size": 4, "report_to": [], "save_strategy": "no", "logging_steps": 1,
         "disable_tqdm": True, "use_cpu": True, "bf16": False, "learning_rate": 1e-2, "seed": 3}  # fmt: skip
TEXTS = ["sun sun", "rain sun", "wind", "sun rain wind"] * 2


@pytest.fixture
def network(tmp_path):
    return save_network(tmp_path / "net", ("rain", "sun", "wind"), kind="llama")


def trainer_of(kind, network, folder):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(network), AutoTokenizer.from_pretrained(network)
    more = {"model": model, "processing_class": tokenizer, "peft_config": LoraConfig(r=4, target_modules="all-linear")}
    if kind == "sft":
        rows = [{"text": text} for text in TEXTS]
        return trl.SFTTrainer(
            args=trl.SFTConfig(output_dir=folder, **PLAIN), train_dataset=Dataset.from_list(rows), **more
        )
    if kind == "dpo":
        rows = [{"prompt": "rain", "chosen": f" {one}", "rejected": f" {two}"} for one, two in pairwise(TEXTS)]
        return trl.DPOTrainer(
            args=trl.DPOConfig(output_dir=folder, **PLAIN), train_dataset=Dataset.from_list(rows), **more
        )
    args = trl.GRPOConfig(output_dir=folder, num_generations=2, max_completion_length=4, **PLAIN)
    rows = [{"prompt": "rain"}, {"prompt": "wind sun"}] * 2
    return trl.GRPOTrainer(args=args, train_dataset=Dataset.from_list(rows), reward_funcs=sunny, **more)


def sunny(completions, **more):
    return [float("sun" in text) for text in completions]


def weights(trainer):
    return torch.cat([p.detach().flatten() for _, p in sorted(trainer.model.named_parameters()) if p.requires_grad])


@pytest.mark.parametrize("kind", ["sft", "dpo", "grpo"])
def test_what_a_trainer_trains_is_measured_and_not_disturbed(kind, network, tmp_path):
    (tmp_path / "tiny.yaml").write_text(TASK)
    alone = trainer_of(kind, network, tmp_path / "alone")
    alone.train()
    trainer = trainer_of(kind, network, tmp_path / "watched")
    trainer.add_callback(AlignbenchCallback(
        trainer, str(tmp_path / "tiny.yaml"), base=f"hf:pretrained={network}", every=2, name=kind,
        output_path=str(tmp_path / "out")))  # fmt: skip
    trainer.train()
    assert (weights(trainer) == weights(alone)).all(), "its draws and its random numbers are those without the callback"
    told = [log for log in trainer.state.log_history if "alignbench/tiny/divergence.kl_target" in log]
    assert [log["step"] for log in told] == [2, 4]
    assert all(np.isfinite(log["alignbench/tiny/satisfaction.always"]) for log in told)
    names = {path.parent.name for path in Path(tmp_path / "out").glob("*/results*")}
    assert len(names) == 4 and sum("step" in name for name in names) == 2, names


def test_what_it_refuses(network, tmp_path):
    trainer = trainer_of("sft", network, tmp_path)
    with pytest.raises(UsageError, match="every=0: must be a whole number of at least 1"):
        AlignbenchCallback(trainer, "lexical_word", base="exact", every=0)
    with pytest.raises(UsageError, match="dict is no trainer"):
        AlignbenchCallback({}, "lexical_word", base="exact")
