"""The attention window as an aligner: its law is the base's under the window, and what it refuses."""

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS
from models import tiny_gpt2, tiny_t5

from alignbench.aligners.base import Setting
from alignbench.aligners.decoding.attention_window import AttentionWindow
from alignbench.aligners.decoding.settings import Temperature
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import compare
from alignbench.generators.window import Window
from alignbench.registry import aligner, load_plugins
from alignbench.seeds import Seed
from alignbench.spec import parse_spec

load_plugins()


def align(recipe, base, prompts=PROMPTS):
    return recipe.align(Setting(base, None, prompts, LENGTH, Seed()))


def named(text):
    return parse_spec(text, "--aligners").build(aligner, "--aligners")


def test_it_is_the_model_under_a_window_and_other_settings_stay():
    base = exact(words="sun rain wind", order=3, seed=3).warped(temperature=0.5)
    law = align(named("attention_window:k=1"), base)
    assert law.model.window == Window(1)
    assert law.warp == base.warp and not law.truncates
    assert align(AttentionWindow(), base).model.window == Window(64)


@pytest.mark.parametrize(("k", "far"), [(1, True), (2, False), (64, False)])
def test_kl_to_the_base_is_summed_exactly(k, far):
    """An n-gram world of order 3 looks two words back: a window of two or more hides nothing."""
    base = exact(words="sun rain wind", order=3, seed=3)
    law = align(AttentionWindow(k), base)
    every = enumerate_draws(law, PROMPTS, max_tokens=LENGTH)
    log_gen, log_base, by_step = compare(law, base, PROMPTS, every)
    kl = float((np.exp(log_gen) * (log_gen - log_base)).sum())
    assert kl == pytest.approx(float((np.exp(log_gen) * by_step).sum()), abs=1e-9)
    assert (kl > 0.01) is far and (kl == pytest.approx(0, abs=1e-12)) is not far


def test_it_composes_with_decoding_settings_in_either_order(tmp_path):
    base = hf(pretrained=str(tiny_gpt2(tmp_path / "tiny", PROMPTS[1].split())))
    one = align(Temperature(0.5), align(AttentionWindow(2), base, ["rain"]), ["rain"])
    other = align(AttentionWindow(2), align(Temperature(0.5), base, ["rain"]), ["rain"])
    assert one.identity() == other.identity() != base.identity()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"k": 0}, "attention_window:k=0: must be a whole number >= 1"),
        ({"k": "a"}, "attention_window:k=a: must be a whole number >= 1"),
        ({"k": True}, "attention_window:k=True: must be a whole number >= 1"),
        ({"source_begin": "b"}, "attention_window:source_begin=b: must be a whole number; one below 0 counts back"),
        ({"source_end": 1.5}, "attention_window:source_end=1.5: must be a whole number; one below 0 counts back"),
        ({"source_end": 0}, "attention_window:source_begin=0,source_end=0: an empty span of the source"),
        ({"source_begin": 4, "source_end": 4}, "attention_window:source_begin=4,source_end=4: an empty span of the"),
        ({"source_begin": -1, "source_end": -2}, "attention_window:source_begin=-1,source_end=-2: an empty span of"),
    ],
)
def test_a_value_out_of_range_is_refused_at_once(given, message):
    with pytest.raises(UsageError) as error:
        AttentionWindow(**given)
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("k=0", "attention_window:k=0: must be a whole number >= 1"),
        ("k=a", "--aligners 'attention_window' argument 'k': input should be a valid integer, not 'a'"),
        ("source_begin=4,source_end=2", "attention_window:source_begin=4,source_end=2: an empty span of the source"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(text, message):
    with pytest.raises(UsageError) as error:
        named(f"attention_window:{text}")
    assert str(error.value).endswith(message)


@pytest.mark.parametrize("span", [(0, 1), (None, -1), (-3, 2), (2, -1), (-2, -1), (3, None)])
def test_spans_that_hold_a_token_of_some_prompt_are_not_refused(span):
    AttentionWindow(4, *span)


def test_a_prompt_outside_the_span_is_refused_before_anything_is_drawn(tmp_path):
    base = hf(pretrained=str(tiny_t5(tmp_path / "tiny", ("sun", "rain", "wind"))))
    align(AttentionWindow(2, 1), base, ["rain wind"])
    with pytest.raises(UsageError, match="prompt 'sun' has 1 tokens, none of them in the span source_begin=1"):
        align(AttentionWindow(2, 1), base)


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (lambda: exact(hidden=2),
         "aligner 'attention_window' hides positions of a network or an n-gram model, not of a HiddenMarkov"),
        (lambda: align(AttentionWindow(2), exact(words="sun rain wind")),
         "aligner 'attention_window': exact is under a window of 2 already"),
        (lambda: "a black box", "aligner 'attention_window' changes next-token probabilities, and str has none"),
    ],
)  # fmt: skip
def test_a_base_without_positions_to_hide_is_refused(base, message):
    with pytest.raises(Unsupported) as error:
        align(AttentionWindow(4), base())
    assert str(error.value).startswith(message)
