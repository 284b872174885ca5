"""Draws, estimates and protocols: what concatenating, taking and sorting must keep."""

from dataclasses import fields, replace

import numpy as np
import pytest

from alignbench.types import Distribution, Draws, Estimate, Sampler, collect, rows_of


def draws(prompt, index, tokens, **more):
    tokens = np.array(tokens)
    length = (tokens >= 0).sum(1)
    return Draws(
        prompt=np.array(prompt), index=np.array(index),
        texts=tuple(f"{p}.{i}" for p, i in zip(prompt, index, strict=True)),
        tokens=tokens, length=length, finished=length < tokens.shape[1], log_prob=-1.0 * length,
        token_log_prob=-1.0 * (tokens >= 0), model_log_prob=-2.0 * length, vocab="v", **more,
    )  # fmt: skip


SHORT = draws([0, 1], [0, 0], [[1, -1], [2, 3]])
LONG = draws([1, 0], [1, 1], [[1, 2, 3], [1, -1, -1]])


def test_concat_pads_tokens_with_minus_one_and_scores_with_zero():
    both = Draws.concat([SHORT, LONG])
    assert len(both) == 4 and both.vocab == "v" and both.texts == ("0.0", "1.0", "1.1", "0.1")
    assert both.tokens.tolist() == [[1, -1, -1], [2, 3, -1], [1, 2, 3], [1, -1, -1]]
    assert both.token_log_prob.tolist() == [[-1, 0, 0], [-1, -1, 0], [-1, -1, -1], [-1, 0, 0]]
    assert np.array_equal(both.token_log_prob.sum(1), both.log_prob)
    assert both.group is both.proposals is both.spent is both.accepted is None


def test_concat_drops_what_some_part_lacks():
    both = Draws.concat([SHORT, replace(LONG, log_prob=None, tokens=None)])
    assert both.log_prob is None and both.tokens is None and both.model_log_prob is not None


def test_concat_fills_in_what_an_ordinary_draw_costs():
    costly = replace(LONG, proposals=np.array([5, 6]), spent=np.array([50, 60]), accepted=np.array([True, False]))
    both = Draws.concat([SHORT, costly])
    assert both.proposals.tolist() == [1, 1, 5, 6] and both.accepted.tolist() == [True, True, True, False]
    assert both.spent.tolist() == [1, 2, 50, 60]  # an ordinary draw spends its own length
    counted = Draws.concat([SHORT, costly, replace(LONG, calls=np.array([7, 8]))])
    assert counted.calls.tolist() == [1, 2, 50, 60, 7, 8]  # and a model call for each token


def test_concat_of_nothing_is_an_error():
    with pytest.raises(ValueError, match=r"^no draws to concatenate$"):
        Draws.concat([])


@pytest.mark.parametrize("rows", [[2, 0], np.array([2, 0]), np.array([True, False, True, False])])
def test_take_moves_every_field(rows):
    """Planted bug: a field forgotten (texts is a tuple, not an array)."""
    both = replace(Draws.concat([SHORT, LONG]), group=np.arange(4), proposals=np.arange(4), spent=np.arange(4),
                   accepted=np.ones(4, bool), calls=np.arange(4))  # fmt: skip
    some = both.take(np.array(rows))
    order = [2, 0] if np.asarray(rows).dtype != bool else [0, 2]
    for f in fields(Draws):
        value = getattr(both, f.name)
        if f.name == "texts":
            assert some.texts == tuple(value[i] for i in order)
        elif f.name != "vocab":
            assert np.array_equal(getattr(some, f.name), value[order]), f.name
    assert len(both.take(np.zeros(0, int))) == 0


def test_collect_sorts_by_prompt_then_number():
    both = collect(iter([LONG, SHORT]))
    assert list(zip(both.prompt, both.index, strict=True)) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert both.texts == ("0.0", "0.1", "1.0", "1.1")


def test_rows_go_prompt_by_prompt():
    assert rows_of(2, 3).tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert rows_of(0, 3).shape == (0, 2)


def test_an_estimate_without_a_value_says_why_and_notes_add_up():
    missing = Estimate.missing("no density", n=3, ci_low=0.1)
    assert (missing.value, missing.note, missing.n, missing.ci_low, missing.ci_high) == (
        None,
        "no density",
        3,
        0.1,
        None,
    )
    assert missing.noted("and more").note == "no density; and more" and Estimate(1.0).noted("x").note == "x"


def test_capabilities_are_told_apart():
    class Draw:
        def sample(self, prompts, rows, *, max_tokens, seed): ...

    class Density(Draw):
        def log_prob(self, prompts, draws): ...

    kinds = (Sampler, Distribution)
    assert [isinstance(Draw(), k) for k in kinds] == [True, False]
    assert [isinstance(Density(), k) for k in kinds] == [True, True]
