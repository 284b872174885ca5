"""A trained head as a guide: the law that was trained, over any base that it fits."""

import json

import numpy as np
import pytest
import torch

from alignbench.aligners.base import Setting
from alignbench.aligners.guidance.head import Head
from alignbench.errors import StoreError, Unsupported, UsageError
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf.factory import hf
from alignbench.generators.policy import policy_of
from alignbench.seeds import Seed
from alignbench.target import Target
from alignbench.testing import tiny_network
from alignbench.testing.worlds import save_network
from alignbench.types import collect, rows_of

WORDS, PROMPTS, LENGTH = ("rain", "sun", "wind"), ("sun", "wind rain"), 3


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny_network(tmp_path_factory.mktemp("base"), WORDS, kind="llama")


@pytest.fixture(scope="module")
def policy(base):
    """A head that is none of a base."""
    found, source = policy_of(base, "head:rank=2"), torch.Generator().manual_seed(3)
    found.head.up.data += torch.randn(found.head.up.shape, generator=source)
    return found


@pytest.fixture(scope="module")
def saved(policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("head")
    policy.save(folder)
    return folder


def guided(base, path):
    return setting(base).aligned(Head(str(path)))


def setting(base) -> Setting:
    target = Target((), {}, {}).fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS)
    return Setting(base, target, PROMPTS, LENGTH, Seed(0, "train"))


def test_over_its_own_base_it_is_the_law_that_was_trained(base, policy, saved):
    draws, law = enumerate_draws(base, PROMPTS, max_tokens=LENGTH), guided(base, saved)
    assert law.log_prob(PROMPTS, draws) == pytest.approx(policy.log_prob(PROMPTS, draws), abs=1e-5)
    assert np.abs(law.log_prob(PROMPTS, draws) - draws.log_prob).max() > 0.1
    ours, theirs = (
        collect(one.sample(PROMPTS, rows_of(2, 8), max_tokens=LENGTH, seed=Seed(1))) for one in (law, policy)
    )
    assert (ours.tokens == theirs.tokens).all()


def test_it_guides_a_checkpoint_too(policy, saved, tmp_path):
    other = tiny_network(tmp_path, WORDS, kind="llama", seed=7)
    draws, law = enumerate_draws(other, PROMPTS, max_tokens=LENGTH), guided(other, saved)
    assert np.abs(law.log_prob(PROMPTS, draws) - draws.log_prob).max() > 0.1
    with torch.no_grad():
        head = policy.head
        row = other.model.network(torch.tensor([other.model.encode(other.render(PROMPTS[0]), 0)]),
                                  output_hidden_states=True)  # fmt: skip
        wanted = torch.log_softmax(
            torch.log_softmax(row.logits[0, -1], -1) + head(row.hidden_states[-1][0, -1:])[0], -1
        )
    first = [k for k in range(len(draws)) if draws.prompt[k] == 0]
    by_token = law.token_log_prob(PROMPTS, draws)
    for k in first:
        assert by_token[k, 0] == pytest.approx(float(wanted[draws.tokens[k, 0]]), abs=1e-5)


def test_heads_that_are_none_for_this_base(base, saved, tmp_path):
    def refused(kind, on, path):
        with pytest.raises(kind) as told:
            guided(on, path)
        return str(told.value)

    assert refused(UsageError, base, tmp_path / "none").endswith(
        "no head in this folder (head.safetensors is missing); soft_q and q_learning leave one"
    )
    assert "has no hidden states for a head" in refused(Unsupported, exact(words=WORDS), saved)
    words = tiny_network(tmp_path / "words", ("rain", "sun", "snow"), kind="llama")
    assert "its head is for another tokenizer" in refused(UsageError, words, saved)
    wide = hf(pretrained=str(save_network(tmp_path / "wide", WORDS, kind="llama", hidden_size=32)), device="cpu")
    assert "reads 16 numbers, and hidden states of" in refused(UsageError, wide, saved)
    (tmp_path / "head.json").write_text(json.dumps({"kind": "head"}))
    (tmp_path / "head.safetensors").write_bytes(b"no tensors")
    assert "its head cannot be read" in refused(StoreError, base, tmp_path)
    with pytest.raises(UsageError, match="path is empty"):
        Head("")


def test_another_head_is_another_identity(base, policy, saved, tmp_path):
    asked = setting(base)
    policy.save(tmp_path / "copy")
    assert Head(str(saved)).identity(asked) == Head(str(tmp_path / "copy")).identity(asked), "not where it lies"
    other = policy_of(base, "head:rank=2", seed=1)
    other.save(tmp_path / "other")
    assert Head(str(saved)).identity(asked) != Head(str(tmp_path / "other")).identity(asked)
