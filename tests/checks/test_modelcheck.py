"""Checks of a user's own model: sound ones pass, and each planted bug fails the check that is there for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from exact_decoders import constrained
from exact_patterns import contains_any

from alignbench.checks import modelcheck
from alignbench.checks.modelcheck import Trial
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.exact.world import exact
from alignbench.generators.hf import slots
from alignbench.generators.hf.causal import HFModel
from alignbench.generators.law import Law
from alignbench.seeds import Seed
from alignbench.spec import Spec
from alignbench.types import silent

PROMPTS = ("rain", "the nurse said that", "she said that he said that the sun and the wind")


def trial(folder, draws=8, **arguments):
    return replace(modelcheck.load(Spec("hf", {"pretrained": str(folder), **arguments})), prompts=PROMPTS, draws=draws)


def verdicts(tried):
    return {f.check: f.verdict for f in modelcheck.check(tried, silent)}


def failed(tried):
    return {check for check, verdict in verdicts(tried).items() if verdict == "FAIL"}


def broken(tried, kind, **parts):
    """The same trial, its model (or law) made over into a broken kind of it."""
    if issubclass(kind, Law):
        return replace(tried, law=kind(tried.law.model))
    model = tried.law.model
    given = {"network": model.network, "tokenizer": model.tokenizer, "name": model.name, "weights": model.weights}
    return replace(tried, law=Law(kind(**given, **parts)))


# --- what is sound ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["tiny_gpt2", "tiny_llama"])
def test_a_sound_model_passes_every_check(model, request, registries):
    found = modelcheck.check(trial(request.getfixturevalue(model)), silent)
    assert {f.check for f in found} == {
        "rescoring", "batch of 1", "batch of 7", "padding, sampling", "padding, scoring", "EOS ids", "after EOS",
        "EOS term", "dtype",
    }  # fmt: skip
    assert {f.verdict for f in found if f.check != "EOS ids"} == {"ok"}
    eos = next(f for f in found if f.check == "EOS ids")
    assert eos.verdict == "said" and "31 </s>" in eos.found and "pad == eos" in eos.reason
    ended = next(f for f in found if f.check == "after EOS")
    assert not ended.found.startswith("0 of"), "some draws end, else nothing was seen of them"


def test_half_precision_says_how_far_it_is_from_float32(tiny_llama, registries):
    found = {f.check: f for f in modelcheck.check(trial(tiny_llama, draws=2, dtype="bfloat16"), silent)}
    assert found["dtype"].verdict == "said" and "bfloat16 and float32: mean" in found["dtype"].found
    gaps = [float(word) for word in found["dtype"].found.replace(",", "").split() if word[0].isdigit()]
    assert 0 < gaps[0] <= gaps[1] < 1


def test_the_dtype_gap_is_the_mean_and_largest_difference(tiny_gpt2, registries):
    coarse = trial(tiny_gpt2, draws=2, dtype="bfloat16")
    fine = coarse.in_float32()
    off = np.abs(fine.log_prob(PROMPTS, coarse.drawn) - coarse.law.log_prob(PROMPTS, coarse.drawn))
    (found,) = modelcheck.rounding(coarse)
    assert f"mean {off.mean():.2g}, max {off.max():.2g} nats" in found.found
    assert trial(tiny_gpt2).in_float32 is None


def test_any_law_can_be_checked():
    law = exact(words="sun rain wind", seed=3)
    found = verdicts(Trial(law, ("sun", "rain wind sun"), 20, 4))
    assert found.pop("dtype") == "said" and set(found.values()) == {"ok"}  # n-grams do not say what they compute in


def test_a_model_whose_batch_size_cannot_be_set_is_checked_all_the_same():
    base = exact(words="sun rain wind", seed=3)
    law = constrained(base, contains_any(base.vocab, ["sun"]))
    found = {f.check: f for f in modelcheck.check(Trial(law, ("sun", "rain wind sun"), 20, 4), silent)}
    assert "cannot be set" in found["batch of 1"].reason and found["rescoring"].verdict == "ok"


def test_scores_that_are_no_numbers_fail():
    class Broken(Law):
        def log_prob(self, prompts, draws):
            return np.full(len(draws), np.nan)

    law = exact(words="sun rain wind", seed=3)
    found = list(modelcheck.rescoring(Trial(Broken(law.model), ("sun",), 5, 4)))
    assert [f.verdict for f in found] == ["FAIL"]


def test_half_precision_is_judged_by_what_a_run_trusts(tiny_gpt2, registries):
    """Padding and EOS are checked in float32, where a mistake can be told from rounding."""
    coarse = trial(tiny_gpt2, draws=2, dtype="bfloat16")
    assert coarse.limit == pytest.approx(0.02 * coarse.max_tokens) and coarse.exact.dtype == "float32"
    assert "FAIL" not in {f.verdict for f in modelcheck.check(coarse, silent)}


def test_what_is_no_law_is_refused(registries):
    registries["generators"]("mute")(lambda: object())
    with pytest.raises(Unsupported, match="makes no law that both samples and scores; --model hf does"):
        modelcheck.load(Spec("mute"))


def test_a_prompt_that_does_not_fit_is_refused(tiny_gpt2, registries):
    with pytest.raises(UsageError, match="context window of 64"):
        modelcheck.check(replace(trial(tiny_gpt2), max_tokens=64), silent)


# --- planted bugs -----------------------------------------------------------------------------------------------------


class Plainly(HFModel):
    """Run as transformers runs it, which is what is broken here."""

    trial = slots.Trial(False)


@dataclass(eq=False)
class NoPositions(Plainly):
    """Left padding without position ids: GPT-2 then counts pads as positions."""

    def __post_init__(self):
        super().__post_init__()
        self._positions = False


@dataclass(eq=False)
class NoMask(Plainly):
    """Pads are attended to."""

    def _forward(self, ids, mask, positions, **more):
        return super()._forward(ids, mask * 0 + 1, positions, **more)


@dataclass(eq=False)
class BatchNoise(Plainly):
    """Logits that depend on how many rows are computed at once."""

    def _forward(self, ids, mask, positions, **more):
        out = super()._forward(ids, mask, positions, **more)
        out.logits = out.logits * (1 + 0.02 * len(ids))
        return out


@dataclass(eq=False)
class OtherEOS(Plainly):
    """The EOS ids of the generation config are not read."""

    def _eos_ids(self):
        return {0}


class DropsEOS(Law):
    """Scoring masks the pad id, which is the EOS id: the EOS term is lost."""

    def token_log_prob(self, prompts, draws):
        scores = super().token_log_prob(prompts, draws)
        ids = np.pad(draws.tokens, ((0, 0), (0, scores.shape[1] - draws.tokens.shape[1])), constant_values=-1)
        return np.where(np.isin(ids, list(self.vocab.eos)), 0.0, scores)


class ForgetsTemperature(Law):
    """Sampling at another temperature than scoring."""

    def sample(self, prompts, rows, *, max_tokens, seed):
        yield from Law(self.model).warped(temperature=0.7).sample(prompts, rows, max_tokens=max_tokens, seed=seed)


class GoesOn(Law):
    """Draws that go on after an EOS."""

    def sample(self, prompts, rows, *, max_tokens, seed):
        for draws in super().sample(prompts, rows, max_tokens=max_tokens, seed=seed):
            tokens, length = draws.tokens.copy(), draws.length.copy()
            short = np.flatnonzero(draws.finished & (length < max_tokens))
            tokens[short, length[short]] = 1
            length[short] += 1
            yield replace(draws, tokens=tokens, length=length)


@pytest.mark.parametrize(
    ("kind", "checks"),
    [
        (NoPositions, {"padding, sampling", "padding, scoring"}),
        (NoMask, {"padding, sampling", "padding, scoring"}),
        (BatchNoise, {"batch of 1", "batch of 7"}),
        (OtherEOS, {"EOS ids"}),
        (DropsEOS, {"rescoring", "EOS term"}),
        (ForgetsTemperature, {"rescoring"}),
        (GoesOn, {"after EOS"}),
    ],
)
def test_a_planted_bug_fails(kind, checks, tiny_gpt2, registries):
    assert checks <= failed(broken(trial(tiny_gpt2), kind))


def test_rotary_positions_hide_the_missing_ids(tiny_llama, registries):
    """Only differences of positions count there: this is why the bug is planted on GPT-2."""
    assert failed(broken(trial(tiny_llama), NoPositions)) == set()


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_checks_a_model(command, tiny_gpt2):
    said = command("selfcheck", "--model", "hf", "--model_args", f"pretrained={tiny_gpt2}", "--prompts", "rain",
                   "--prompts", "the nurse said that", "--draws", 3, "--max_tokens", 8)  # fmt: skip
    assert said.code == 0 and said.err == ""
    assert "tiny-gpt2" in said.out and said.out.rstrip().endswith("ok") and "6 draws, max |Δ log-prob|" in said.out


def test_the_command_fails_where_a_check_does(command, tiny_gpt2, monkeypatch):
    monkeypatch.setattr(HFModel, "_eos_ids", lambda self: {0})
    said = command("selfcheck", "--model", f"hf:pretrained={tiny_gpt2}", "--draws", 2, "--max_tokens", 4)
    assert said.code == 1 and "FAIL: 1 of 9 checks" in said.out and "Traceback" not in said.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--prompts", "x"), "--prompts without --model"),
        (("--model_args", "pretrained=x"), "--model_args without --model"),
        (("--model", "hf", "--worlds", "exact_rare"), "--worlds with --model: it is for the worlds"),
        (("--draws", 9), "--draws without --model"),
        (("--model", "hf", "--seeds", 9), "--seeds with --model"),
        (("--model", "hff"), "Did you mean 'hf'?"),
        (("--model", "hf", "--model_args", "pretrained=./nothing"), "no such folder"),
    ],
)
def test_a_mistake_gets_one_line(command, words, line):
    said = command("selfcheck", *words)
    assert said.code == 2 and said.out == "" and line in said.err and len(said.err.splitlines()) == 1


def test_seeds_differ():
    law = exact(words="sun rain", seed=3)
    one, other = (Trial(law, ("sun",), 20, 4, Seed(n)).drawn.texts for n in (0, 1))
    assert one != other
