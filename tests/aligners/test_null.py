"""Null models: point masses at a text that is known beforehand, measured like any other law."""

from __future__ import annotations

import numpy as np
import pytest
import tiny_world

from alignbench import evaluate
from alignbench.aligners.base import Setting
from alignbench.aligners.null import Constant, Copy
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.hf.factory import hf
from alignbench.generators.point_mass import POINT
from alignbench.registry import load_plugins
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of


@pytest.fixture(scope="module", autouse=True)
def _plugins():
    load_plugins()


def said(generator, prompts, max_tokens, draws=3):
    return collect(generator.sample(prompts, rows_of(len(prompts), draws), max_tokens=max_tokens, seed=Seed(0)))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from models import tiny_gpt2

    return hf(pretrained=str(tiny_gpt2(tmp_path_factory.mktemp("null") / "gpt2")), device="cpu")


def test_a_constant_says_one_text_whatever_it_is_asked(model):
    """Its ids are the tokenizer's own, an EOS after them, and its log-probability is 0 there alone."""
    law = Constant("rain snow").align(Setting(model, None, (), 6, Seed(0)))
    draws = said(law, ["the nurse", "she"], 6)
    assert {text.strip() for text in draws.texts} == {"rain snow"}
    assert draws.finished.all()
    assert (draws.calls if draws.calls is not None else draws.spent).sum() == 0, "no model was called"
    assert (law.log_prob(["the nurse", "she"], draws) == 0).all()
    other = collect(model.sample(["the nurse", "she"], rows_of(2, 3), max_tokens=6, seed=Seed(1)))
    assert (law.log_prob(["the nurse", "she"], other) == -np.inf).any()
    assert law.remark == POINT


def test_a_copy_says_its_own_prompt_and_is_cut_where_it_must_be(model):
    law = Copy().align(Setting(model, None, (), 2, Seed(0)))
    draws = said(law, ["the nurse said", "she"], 2)
    assert [text.strip() for text in draws.texts[::3]] == ["the nurse", "she"]
    assert draws.finished.tolist() == [False] * 3 + [True] * 3
    assert draws.length.tolist() == [2] * 6
    assert law.identity()["says"] == " {prompt}", "after a space, as a text goes on"


def test_the_base_s_log_probability_of_it_is_its_kl_from_the_base(tmp_path):
    """KL(π‖a) = −log a of the one continuation: enumerated, and as a run tells it."""
    rows = evaluate(
        "exact:order=2,seed=1", "exact_ngram", aligners=["constant", "copy"], draws=64, output_path=tmp_path
    )
    told = rows[(rows.metric == "divergence") & (rows.part == "kl_base")].set_index("aligner")
    for name in ("constant", "copy"):
        assert told.loc[name].value == pytest.approx(told.loc[name].exact, abs=1e-9)
        assert POINT in told.loc[name].note
    always = rows[(rows.metric == "satisfaction") & (rows.part == "always")].set_index("aligner")
    assert always.loc["constant"].value == 0, "the empty text has neither sun nor snow"


def test_what_cannot_be_said_is_one_line():
    with pytest.raises(UsageError, match="no word 'wnd'"):
        law = Constant("wnd").align(Setting(tiny_world.BASE, None, (), 3, Seed(0)))
        said(law, ["rain"], 3)
    with pytest.raises(UsageError, match="must be a text"):
        Constant(3)
    with pytest.raises(Unsupported, match="constant"):
        Constant().align(Setting(object(), None, (), 3, Seed(0)))
