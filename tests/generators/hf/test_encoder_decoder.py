"""Encoder–decoders: their laws, what their decoder begins with, and what `generate` and a plain forward pass say."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import tiny_bart, tiny_t5
from transformers import AutoTokenizer, EncoderDecoderCache

from alignbench import testing
from alignbench.api import evaluate
from alignbench.checks import modelcheck
from alignbench.errors import UsageError
from alignbench.generators import law as law_module
from alignbench.generators.budget import Budget
from alignbench.generators.hf import encoder_decoder
from alignbench.generators.hf.encoder_decoder import HFEncoderDecoder
from alignbench.generators.hf.factory import hf
from alignbench.generators.replicas import replicated
from alignbench.seeds import Seed
from alignbench.spec import Spec
from alignbench.testing import LawBroken, check
from alignbench.types import collect, rows_of, silent

WORDS = ("rain", "sun", "wind", "snow")
EOS_ID = len(WORDS)
PROMPTS = ("rain", "sun wind rain snow sun wind", "snow sun")  # of unequal length: batches are padded
EVERY_LAW = [law.__name__ for laws in testing.LAWS.values() for law in laws]
ENDS = {"eos_token_id": EOS_ID, "pad_token_id": EOS_ID, "decoder_start_token_id": EOS_ID}
KINDS = {
    "T5": (tiny_t5, {}),
    "T5, gated and untied": (tiny_t5, {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
    "T5, starts and pads with its EOS": (tiny_t5, ENDS),
    "BART": (tiny_bart, {}),
    "BART, forced BOS": (tiny_bart, {}),
}
TEMPLATE = "{% for m in messages %}{{ m['content'] }} {% endfor %}snow"


@pytest.fixture(scope="module")
def laws(tmp_path_factory):
    """One law of each kind."""
    folder = tmp_path_factory.mktemp("pairs")
    saved = {kind: save(folder / kind, WORDS, **config) for kind, (save, config) in KINDS.items()}
    edit(saved["BART, forced BOS"] / "generation_config.json", forced_bos_token_id=1)
    return {kind: hf(pretrained=str(path)) for kind, path in saved.items()}


@pytest.fixture
def folder(tmp_path):
    """A tiny BART that a test may spoil."""
    return tiny_bart(tmp_path / "tiny", WORDS)


def edit(path, **changes):
    """Change keys of a JSON file; None removes one."""
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def sums_to_one(law):
    """The quick half of `check`."""
    case = testing.Case(law, PROMPTS, 3)
    for one in (testing.delivers_the_rows, testing.rescoring_is_sampling, testing.probabilities_sum_to_one):
        one(case)


def drawn(law, rows=None, max_tokens=5, prompts=PROMPTS):
    rows = rows_of(len(prompts), 16) if rows is None else rows
    return collect(law.sample(prompts, rows, max_tokens=max_tokens, seed=Seed(3)))


# --- the law


@pytest.mark.parametrize("kind", [k for k in KINDS if k not in ("T5", "BART")])
def test_laws_hold(laws, kind):
    """Plain T5 and BART are among the worlds of test_laws, where every law is tried."""
    sums_to_one(laws[kind])
    testing.batch_size_changes_nothing(testing.Case(laws[kind], PROMPTS, 3))
    testing.states_stay_as_they_were(testing.Case(laws[kind], PROMPTS, 3))


def scores_are_those_of_a_plain_forward_pass(law):
    """Sampling and scoring share their beginning: here one draw at a time, no padding, no cache, the prefix spelled."""
    config = law.model.network.generation_config
    begins = [i for i in (config.decoder_start_token_id, config.forced_bos_token_id) if i is not None]
    draws = drawn(law)
    for row in range(len(draws)):
        prompt = law.model.tokenizer(PROMPTS[draws.prompt[row]], return_tensors="pt").input_ids
        said = draws.tokens[row, : draws.length[row]].tolist()
        with torch.no_grad():
            out = law.model.network(input_ids=prompt, decoder_input_ids=torch.tensor([begins + said]), use_cache=False)
        steps = out.logits[0].double().log_softmax(-1)[len(begins) - 1 : -1]
        np.testing.assert_allclose(steps[torch.arange(len(said)), said].sum(), draws.log_prob[row], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_a_plain_forward_pass(laws, kind):
    scores_are_those_of_a_plain_forward_pass(laws[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_likeliest_tokens_are_those_of_generate(laws, kind):
    """`generate` says the prefix, and forces an EOS at its length limit: that is a setting of its search."""
    law, asked = laws[kind].warped(top_k=1), PROMPTS[1]
    draws = drawn(law, rows_of(1, 1), max_tokens=6, prompts=[asked])
    ids = law.model.tokenizer(asked, return_tensors="pt").input_ids
    made = law.model.network.generate(ids, do_sample=False, num_beams=1, max_new_tokens=8)[0].tolist()
    prefix, said = law.model.prefix, draws.tokens[0, : draws.length[0]].tolist()
    assert made[: len(prefix)] == prefix
    assert made[len(prefix) :][: len(said)] == said


def test_every_eos_of_the_generation_config_ends_a_draw(folder):
    edit(folder / "generation_config.json", eos_token_id=[EOS_ID, 0])
    law = hf(pretrained=str(folder))
    assert law.vocab.eos == {EOS_ID, 0}
    sums_to_one(law)
    assert {0, EOS_ID} == {drawn(law).tokens[i, n - 1] for i, n in enumerate(drawn(law).length) if n < 5}


def test_ids_that_the_model_must_never_say(folder):
    """Marian's pad is such a one: without the ban it is among the likeliest."""
    free = hf(pretrained=str(folder))
    edit(folder / "generation_config.json", bad_words_ids=[[1], [2, 3]])
    law = hf(pretrained=str(folder))
    assert law.model.never == [1], "a ban of two ids in a row shapes a search"
    sums_to_one(law)
    before, after = (x.start(PROMPTS, max_tokens=3).log_probs.exp() for x in (free, law))
    assert (after[:, 1] == 0).all() and (before[:, 1] > 0.01).all()
    np.testing.assert_allclose(after, (before * (after > 0)) / (1 - before[:, 1:2]), atol=1e-6)


def test_the_prefix_is_neither_drawn_nor_scored_and_belongs_to_the_identity(laws):
    plain, forced = laws["BART"], laws["BART, forced BOS"]
    assert plain.model.prefix == [EOS_ID] and forced.model.prefix == [EOS_ID, 1]
    spelled = plain.start(PROMPTS, max_tokens=4).extend(torch.tensor([1, 1, 1]))
    np.testing.assert_allclose(forced.start(PROMPTS, max_tokens=4).log_probs, spelled.log_probs, atol=1e-6)
    other = replace(plain.model)
    other.prefix = [EOS_ID, 1]
    assert other.identity() != plain.model.identity()


def test_copies_share_the_work_and_change_no_draw(folder):
    one, three = (hf(pretrained=str(folder), batch_size=4) for _ in range(2))
    replicated(three.model, [torch.device("cpu")] * 2)
    mine, shared = drawn(one), drawn(three)
    np.testing.assert_array_equal(mine.tokens, shared.tokens)
    np.testing.assert_allclose(three.log_prob(PROMPTS, mine), mine.log_prob, atol=1e-5)


# --- planted bugs


def broken(law, max_tokens=3):
    with pytest.raises(LawBroken) as caught:
        check(law, PROMPTS, max_tokens=max_tokens)
    return str(caught.value)


def unmasked(monkeypatch):
    right = HFEncoderDecoder._right_padded

    def padded(self, encoded):
        ids, mask = right(self, encoded)
        return ids, torch.ones_like(mask)

    monkeypatch.setattr(HFEncoderDecoder, "_right_padded", padded)


@pytest.mark.parametrize("kind", ["T5", "BART"])
def test_planted_padding_of_the_encoder_seen(laws, kind, monkeypatch):
    unmasked(monkeypatch)
    assert broken(laws[kind]).split(":")[0] in EVERY_LAW


def test_planted_padding_is_refused_at_loading(folder, monkeypatch):
    unmasked(monkeypatch)
    with pytest.raises(UsageError, match="kind 'bart' cannot be run here: what it says of a prompt depends on the pro"):
        hf(pretrained=str(folder))


@pytest.mark.parametrize("kind", ["T5", "BART"])
def test_planted_encoder_keys_that_are_not_selected(laws, kind, monkeypatch):
    """Rows move to other slots as others end; each must take its own prompt along."""

    def first_come(self, rows):
        self.self_attention_cache.batch_select_indices(rows)
        self.cross_attention_cache.batch_select_indices(torch.arange(len(rows)) % rows.max().add(1))

    monkeypatch.setattr(EncoderDecoderCache, "batch_select_indices", first_come)
    assert broken(laws[kind]).split(":")[0] in EVERY_LAW


def test_planted_state_written_in_place(laws, monkeypatch):
    monkeypatch.setattr(encoder_decoder, "fork", lambda cache: cache)
    with pytest.raises(LawBroken, match="two extensions of one state"):
        testing.states_stay_as_they_were(testing.Case(laws["BART"], PROMPTS, 3))


def test_planted_labels_shifted_by_one(laws, monkeypatch):
    right = HFEncoderDecoder.forced

    def ahead(self, rendered, draws):
        return right(self, rendered, replace(draws, tokens=np.roll(draws.tokens, -1, axis=1)))

    monkeypatch.setattr(HFEncoderDecoder, "forced", ahead)
    assert broken(laws["T5"]).startswith("rescoring_is_sampling")


@pytest.mark.parametrize("kind", ["T5", "BART, forced BOS"])
def test_planted_start_of_the_decoder_forgotten(laws, kind, monkeypatch):
    """Another law, in which sampling and scoring agree: only the network's own forward pass tells."""
    monkeypatch.setattr(laws[kind].model, "prefix", [2])
    with pytest.raises(AssertionError):
        scores_are_those_of_a_plain_forward_pass(laws[kind])


def test_planted_start_of_the_decoder_forgotten_when_scoring(laws, monkeypatch):
    right = HFEncoderDecoder.forced

    def elsewhere(self, rendered, draws):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self, "prefix", [2])
            return right(self, rendered, draws)

    monkeypatch.setattr(HFEncoderDecoder, "forced", elsewhere)
    assert broken(laws["T5"]).startswith("rescoring_is_sampling")


@pytest.mark.parametrize("kind", ["T5, starts and pads with its EOS", "BART"])
def test_planted_pads_masked_by_their_id(laws, kind, monkeypatch):
    """pad == eos: scoring every token but the pad id loses the EOS term."""
    right, pad = law_module.gather, laws[kind].model.network.config.pad_token_id
    assert pad in laws[kind].vocab.eos
    monkeypatch.setattr(law_module, "gather", lambda x, ids: torch.where(ids == pad, 0, right(x, ids)))
    assert broken(laws[kind]).startswith("rescoring_is_sampling")


# --- what it costs


def encoded(law, work):
    """(passes, prompts) that the encoder runs while `work` is done."""
    seen = []
    hook = law.model.network.get_encoder().register_forward_hook(lambda m, i, out: seen.append(len(out[0])))
    try:
        work()
    finally:
        hook.remove()
    return len(seen), sum(seen)


@pytest.mark.parametrize("kind", ["T5", "BART"])
def test_the_encoder_runs_once_for_all_draws_of_a_prompt(laws, kind):
    law = laws[kind]
    assert law.model.headed  # tried once, before it is counted
    asked = [PROMPTS[0], PROMPTS[2], PROMPTS[0]]
    assert encoded(law, lambda: drawn(law, prompts=asked)) == (1, 2)
    draws = drawn(law, prompts=asked)
    assert encoded(law, lambda: law.log_prob(asked, draws)) == (1, 2)


def test_rows_that_memory_holds(laws):
    model = replace(laws["T5"].model, batch_size=64, budget=Budget(40_000.0))
    assert model.position_bytes == 2 * 2 * 16 * 4  # keys and values of 2 layers, 2 heads of 8, in float32
    assert model.decoder(100, 10).slots == 40_000 // (2 * 10 * 256 + 16 * 5)
    assert model.decoder(3, 10).slots == 3
    model.too_many(4, 10)
    assert model.decoder(100, 10).slots == 2
    assert model.together(6, 4) == 2
    assert replace(model, budget=Budget(1e12)).together(6, 4) == 1024
    assert replace(model, budget=Budget(1.0)).together(600, 5000) == 1


def test_memory_that_runs_out_changes_no_draw(folder, monkeypatch):
    law = hf(pretrained=str(folder))
    whole, right = drawn(law), HFEncoderDecoder._forward

    def full(self, said, *more, **given):
        if len(said) > 9:
            raise torch.OutOfMemoryError("out of memory")
        return right(self, said, *more, **given)

    monkeypatch.setattr(HFEncoderDecoder, "_forward", full)
    again = drawn(law)
    np.testing.assert_array_equal(again.tokens, whole.tokens)
    np.testing.assert_allclose(law.log_prob(PROMPTS, whole), whole.log_prob, atol=1e-5)


# --- prompts and texts


def test_windows_of_encoder_and_decoder(folder, laws):
    law = hf(pretrained=str(folder))
    law.check([" ".join(["sun"] * 64)], 64)
    with pytest.raises(
        UsageError, match=r"^tiny: prompt 'sun .*…' has 65 tokens, more than the encoder's window of 64"
    ):
        law.check(["rain", " ".join(["sun"] * 65)], 4)
    with pytest.raises(UsageError, match="max_tokens 65, after a prefix of 1, is more than the decoder's window of 64"):
        law.check(["rain"], 65)
    with pytest.raises(UsageError, match="max_tokens 64, after a prefix of 2, is more than"):
        laws["BART, forced BOS"].check(["rain"], 64)
    laws["T5"].check([" ".join(["sun"] * 500)], 500)
    longest = drawn(law, max_tokens=64, prompts=[" ".join(["sun"] * 64)], rows=rows_of(1, 8))
    np.testing.assert_allclose(law.log_prob([" ".join(["sun"] * 64)], longest), longest.log_prob, atol=1e-4)


def test_a_draw_is_read_by_itself(laws):
    said = laws["T5"].model.decode("rain", [np.array([1, 2, EOS_ID]), np.array([EOS_ID])])
    assert said == ["sun wind", ""]


def test_an_empty_prompt_is_bos_and_refused_without(folder):
    law = hf(pretrained=str(folder))
    assert law.model.encode("", 4) == [EOS_ID]
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.bos_token = None
    tokenizer.save_pretrained(str(folder))
    with pytest.raises(UsageError, match="tiny: prompt '' is empty and the tokenizer has no BOS token to stand for it"):
        hf(pretrained=str(folder)).check([""], 4)


def test_a_chat_template_renders_what_the_encoder_reads(folder):
    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(str(folder))
    law = hf(pretrained=str(folder), apply_chat_template=True, system_instruction="sun")
    assert law.render("rain") == "sun rain snow"
    assert law.identity() != hf(pretrained=str(folder)).identity()
    plain = hf(pretrained=str(folder)).start(["sun rain snow"], max_tokens=2)
    np.testing.assert_allclose(law.start(["rain"], max_tokens=2).log_probs, plain.log_probs)


@pytest.mark.parametrize("start", [None, [0, 1]])
def test_a_decoder_that_begins_with_nothing_is_one_line(folder, start):
    edit(folder / "generation_config.json", decoder_start_token_id=start)
    with pytest.raises(UsageError, match=r"^tiny: its generation_config.json names no decoder_start_token_id"):
        hf(pretrained=str(folder))


# --- in a run


@pytest.mark.parametrize("kind", ["T5", "BART"])
def test_selfcheck_knows_them(laws, kind):
    found = modelcheck.check(modelcheck.Trial(laws[kind], prompts=PROMPTS, max_tokens=8), silent)
    assert {f.verdict for f in found if f.check != "EOS ids"} == {"ok"}
    assert {f.check for f in found} >= {"padding, sampling", "padding, scoring", "EOS term", "rescoring"}


TASK = """\
name: answers
version: 1
summary: Sun always, snow in four of ten.
prompts: [rain, sun wind rain]
max_tokens: 4
draws: 150
features:
  sunny: {feature: contains_any, words: [sun]}
  snowy: {feature: contains_any, words: [snow]}
target:
  - {feature: sunny, always: true}
  - {feature: snowy, moment: 0.4}
metrics: [satisfaction, divergence, perplexity]
"""


@pytest.mark.parametrize(("save", "seed"), [(tiny_t5, 3), (tiny_bart, 1)])
def test_a_task_from_end_to_end(save, seed, tmp_path, monkeypatch, registries):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answers.yaml").write_text(TASK)
    model = Spec("hf", {"pretrained": str(save(tmp_path / "pair", WORDS, seed=seed)), "dtype": "float32"})
    rows = evaluate(model, "answers.yaml", aligners=["temperature:t=0.7", "best_of_n:n=4", "rejection"])
    assert {row.split(":")[0] for row in rows.aligner} == {"", "temperature", "best_of_n", "rejection"}
    kl = rows[(rows.metric == "divergence") & (rows.part == "kl_target")].set_index("aligner").value
    assert np.isfinite(kl).all() and kl.filter(like="rejection").max() < kl[""].max()
    sunny = rows[(rows.metric == "satisfaction") & (rows.part == "always")].set_index("aligner").value
    assert sunny.filter(like="rejection").min() == 1 > sunny.filter(like="temperature").max()
    assert np.isfinite(rows[rows.metric == "perplexity"].value).all()
