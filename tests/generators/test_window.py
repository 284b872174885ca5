"""Attention windows: what is sampled and scored is what a forward pass says under a mask that is written out here."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models import tiny_bart, tiny_gpt2, tiny_llama, tiny_t5
from test_architectures import PAIRS, RUN, saved
from test_slots import Device
from transformers.modeling_outputs import BaseModelOutput

from alignbench import testing
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.exact import dynamic
from alignbench.generators.exact.world import NGram, enumerate_draws, exact
from alignbench.generators.hf import causal as transformer
from alignbench.generators.hf import encoder_decoder, slots
from alignbench.generators.hf.causal import HFModel
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import Law, compare
from alignbench.generators.replicas import replicated
from alignbench.generators.window import Window
from alignbench.seeds import Seed
from alignbench.testing import LawBroken, check
from alignbench.types import collect, rows_of

WORDS = ("rain", "sun", "wind")
PROMPTS = ("rain", "sun wind rain sun wind", "sun rain")  # of unequal length: batches are padded
EVERY_LAW = [law.__name__ for laws in testing.LAWS.values() for law in laws]
CAUSAL, PLAIN, PAIR = ("gpt2", "llama"), ("gpt2 plain", "llama plain"), ("t5", "bart")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Tiny models, causal ones by slots and as transformers runs them, and an n-gram world."""
    folder = tmp_path_factory.mktemp("windows")
    save = {"gpt2": tiny_gpt2, "llama": tiny_llama, "t5": tiny_t5, "bart": tiny_bart}
    laws = {name: hf(pretrained=str(make(folder / name, WORDS))) for name, make in save.items()}
    return {**laws, "exact": exact(words=WORDS, order=3, seed=4)}


def windowed(worlds, world, *window):
    """A world under a window; "… plain" is run as transformers runs it."""
    law = worlds[world.removesuffix(" plain")]
    model = law.model.windowed(Window(*window))
    if world.endswith("plain"):
        model.trial = slots.Trial(False)
    else:
        assert world not in CAUSAL or model.trial.works
    return replace(law, model=model)


def drawn(law, prompts=PROMPTS, draws=6, max_tokens=5):
    return collect(law.sample(prompts, rows_of(len(prompts), draws), max_tokens=max_tokens, seed=Seed(3)))


# --- one draw at a time, no padding, no cache, the mask spelled


def spelled(size, k):
    """(1, 1, size, size) 1 where column j is one of the last k up to row i."""
    return [[[[i - k < j <= i for j in range(size)] for i in range(size)]]]


def mask_for(network, allowed):
    allowed = torch.tensor(allowed)
    return allowed if network.config._attn_implementation == "sdpa" else (~allowed).float() * -1e30


def causal_logits(network, prompt, said, k):
    ids = torch.tensor([[*prompt, *said]])
    mask = mask_for(network, spelled(ids.shape[1], k))
    out = network(input_ids=ids, attention_mask=mask, position_ids=torch.arange(ids.shape[1])[None], use_cache=False)
    return out.logits[0, len(prompt) - 1 : -1]


def pair_logits(network, prefix, prompt, said, window):
    source, ids = torch.tensor([prompt]), torch.tensor([[*prefix, *said]])
    hidden = network.get_encoder()(input_ids=source).last_hidden_state
    read = torch.tensor([[float(i in range(len(prompt))[window.source]) for i in range(len(prompt))]])
    mask = mask_for(network, spelled(ids.shape[1], window.k))
    out = network(encoder_outputs=BaseModelOutput(hidden), attention_mask=read, decoder_input_ids=ids,
                  decoder_attention_mask=mask, use_cache=False)  # fmt: skip
    return out.logits[0, len(prefix) - 1 : -1]


def scores_are_those_of_the_spelled_mask(law, prompts=PROMPTS):
    model, draws = law.model, drawn(law, prompts)
    scored = law.log_prob(prompts, draws)
    for row in range(len(draws)):
        prompt, said = model.encode(prompts[draws.prompt[row]], 5), draws.tokens[row, : draws.length[row]].tolist()
        with torch.no_grad():
            if hasattr(model, "prefix"):
                logits = pair_logits(model.network, model.prefix, prompt, said, model.window)
            else:
                logits = causal_logits(model.network, prompt, said, model.window.k)
        truth = logits.double().log_softmax(-1)[torch.arange(len(said)), said].sum()
        np.testing.assert_allclose([draws.log_prob[row], scored[row]], truth, atol=1e-4)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("world", [*CAUSAL, *PLAIN, *PAIR])
def test_scores_are_those_of_a_forward_pass_under_the_mask(worlds, world, k):
    scores_are_those_of_the_spelled_mask(windowed(worlds, world, k))


@pytest.mark.parametrize("span", [(1, None), (None, 1), (-1, None)])
@pytest.mark.parametrize("world", PAIR)
def test_a_span_of_the_source_is_all_that_the_decoder_reads(worlds, world, span):
    """The encoder reads the whole prompt; the decoder attends to the slice alone."""
    prompts = PROMPTS[1:]
    law = windowed(worlds, world, 2, *span)
    scores_are_those_of_the_spelled_mask(law, prompts)
    other = (
        law.start(prompts, max_tokens=2).log_probs - windowed(worlds, world, 2).start(prompts, max_tokens=2).log_probs
    )
    assert other.abs().max() > 1e-3


@pytest.mark.parametrize("world", ["exact", *CAUSAL, *PLAIN, *PAIR])
def test_every_law_holds(worlds, world):
    assert check(windowed(worlds, world, 2), PROMPTS[:2], max_tokens=2) == EVERY_LAW


@pytest.mark.parametrize("world", ["exact", *CAUSAL, *PAIR])
def test_a_window_of_everything_is_the_base_and_a_shorter_one_is_not(worlds, world):
    base, far = worlds[world], {}
    for k in (2, 5 + 4):  # the longest prompt, and a draw
        law = windowed(worlds, world, k) if world != "exact" else windowed(worlds, world, k // 2)
        draws = drawn(law, max_tokens=4)
        _, _, far[k] = compare(law, base, PROMPTS, draws)
    assert far[9].max() < 1e-5 < 1e-3 < far[2].mean()


def test_with_one_layer_and_k_1_only_the_last_token_of_a_prompt_counts(tmp_path):
    config = {**RUN["Llama"][1], "num_hidden_layers": 1}
    law = hf(pretrained=str(saved(tmp_path, "LlamaForCausalLM", config)))
    for k, alike in ((1, True), (2, False)):
        under = replace(law, model=law.model.windowed(Window(k)))
        pair = ["sun wind rain", "wind sun rain"]
        by_slots = under.model.decoder(2, 4).prefill(pair)[:].log_softmax(-1)
        for first in (under.start(pair, max_tokens=1).log_probs, by_slots):
            assert (float((first[0] - first[1]).abs().max()) < 1e-6) is alike


def test_a_word_out_of_the_window_was_not_said(worlds):
    """An n-gram world of order 3 under a window of one word knows the last word and nothing before it."""
    base, law = worlds["exact"], windowed(worlds, "exact", 1)
    state = law.start(["sun wind rain"], max_tokens=3)
    for word in (0, 2, 1):
        np.testing.assert_array_equal(state.log_probs, base.start([WORDS[word]], max_tokens=3).log_probs)
        state = state.extend(torch.tensor([{0: 2, 2: 1, 1: 0}[word]]))
    everything = enumerate_draws(law, ["sun wind"], max_tokens=3)
    ended = np.exp(everything.log_prob[everything.finished]).sum()
    chain = dynamic.chain_of(law)
    live, done = chain.belief("sun wind"), 0.0
    for _ in range(3):
        done += (live @ chain.says)[chain.ends].sum()
        live = np.einsum("h,hvk->k", live, chain.steps * ~chain.ends[:, None])
    assert done == pytest.approx(ended, abs=1e-12)


def test_planted_word_out_of_the_window_read_as_another(worlds, monkeypatch):
    def first_word(self, window):
        contexts = len(self.table)
        recent = (len(self.words) + 2) ** min(window.k, self.order - 1)
        return replace(self, table=self.table[np.arange(contexts) % recent], window=window)

    monkeypatch.setattr(NGram, "windowed", first_word)
    with pytest.raises(AssertionError):
        test_a_word_out_of_the_window_was_not_said(worlds)


# --- planted bugs


def wrong(law):
    with pytest.raises(AssertionError):
        scores_are_those_of_the_spelled_mask(law)


def broken(law):
    with pytest.raises(LawBroken) as caught:
        check(law, PROMPTS, max_tokens=3)
    return str(caught.value).partition(":")[0]


def test_planted_window_forgotten_in_the_prompt_pass(worlds, monkeypatch):
    """Sampling and scoring agree: the spelled mask tells, and the laws where states are walked the other way."""
    law, right = windowed(worlds, "llama", 2), slots.run_prompts
    monkeypatch.setattr(slots, "run_prompts", lambda network, encoded, window: right(network, encoded))
    wrong(law)
    assert broken(law) == "probabilities_sum_to_one"


@pytest.mark.parametrize(("world", "module"), [("gpt2", slots), ("gpt2 plain", transformer), ("bart", encoder_decoder)])
def test_planted_window_off_by_one(worlds, world, module, monkeypatch):
    law, right = windowed(worlds, world, 2), module.seen
    monkeypatch.setattr(module, "seen", lambda at, width, w: right(at, width, w and Window(w.k + 1)))
    wrong(law)


@pytest.mark.parametrize("world", ["llama", "llama plain", "t5"])
def test_planted_window_forgotten_when_scoring(worlds, world, monkeypatch):
    law = windowed(worlds, world, 2)
    model = type(law.model)
    right = model.forced

    def unwindowed(self, rendered, draws):
        other = replace(self, window=None)
        if world == "llama plain":
            other.trial = slots.Trial(False)
        return right(other, rendered, draws)

    monkeypatch.setattr(model, "forced", unwindowed)
    assert broken(law) == "rescoring_is_sampling"


def test_planted_window_forgotten_when_decoding(worlds, monkeypatch):
    law, right = windowed(worlds, "gpt2", 2), slots.Slots.__init__
    monkeypatch.setattr(slots.Slots, "__init__", lambda self, *given: right(self, *given[:4]))
    assert broken(law) == "rescoring_is_sampling"


def test_planted_window_forgotten_in_the_states(worlds, monkeypatch):
    law = windowed(worlds, "llama", 2)
    monkeypatch.setattr(HFModel, "_mask", lambda self, real, count: real)
    assert broken(law) == "probabilities_sum_to_one"


def test_planted_span_forgotten(worlds, monkeypatch):
    law = windowed(worlds, "t5", 2, 1)
    monkeypatch.setattr(encoder_decoder.HFEncoderDecoder, "_read", lambda self, mask: mask)
    with pytest.raises(AssertionError):
        scores_are_those_of_the_spelled_mask(law, PROMPTS[1:])


# --- families: what obeys masks is run, whatever windows of its own it has; what does not is refused


@pytest.mark.parametrize("name", ["Mistral, window of 5", "GPT-Neo", "Gemma 3", "OPT", "Llama, eager"])
def test_a_family_whose_layers_have_windows_of_their_own(name, tmp_path):
    """Longer rows than their own windows: states and slots must not forget keys that the mask shows."""
    kind, config, _ = RUN[name]
    changed = {"window_size": 18} if name == "GPT-Neo" else {"sliding_window": 18} if name == "Gemma 3" else {}
    law = hf(pretrained=str(saved(tmp_path, kind, {**config, **changed})))
    under = replace(law, model=law.model.windowed(Window(4)))
    prompts = ("rain", "sun wind rain sun " * 6)
    scores_are_those_of_the_spelled_mask(under, prompts)
    state = under.start(prompts, max_tokens=4).extend(torch.tensor([0, 1])).extend(torch.tensor([2, 2]))
    with torch.no_grad():
        for row, said in enumerate(([0, 2, 0], [1, 2, 0])):
            logits = causal_logits(law.model.network, law.model.encode(prompts[row], 4), said, 4)[-1]
            np.testing.assert_allclose(state.log_probs[row], logits.log_softmax(-1), atol=1e-5)


def test_a_decoder_beside_an_encoder_with_windows_of_its_own(tmp_path):
    kind, config, _ = PAIRS["T5Gemma"]
    config = config | {side: {**config[side], "sliding_window": 3} for side in ("encoder", "decoder")}
    law = hf(pretrained=str(saved(tmp_path, kind, config)))
    under = replace(law, model=law.model.windowed(Window(2)))
    scores_are_those_of_the_spelled_mask(under)


@pytest.mark.parametrize("name", ["Bloom", "Falcon, alibi", "LED"])
def test_a_family_that_does_not_do_what_masks_say_is_refused(name, tmp_path):
    kind, config, _ = RUN.get(name) or PAIRS[name]
    law = hf(pretrained=str(saved(tmp_path, kind, config)))
    refused(law.model, Window(3), "can have no attention window: what its tokens see is not what masks say")


def refused(model, window, message):
    with pytest.raises(Unsupported) as caught:
        model.windowed(window)
    said = str(caught.value)
    assert said == f"{model.name}: a network of kind '{model.network.config.model_type}' {message}"
    return said


def test_planted_layer_that_ignores_the_mask_is_refused(tmp_path):
    """One of two layers; what it says of a whole row is right, so that it can be loaded."""
    model = hf(pretrained=str(tiny_gpt2(tmp_path / "deaf", WORDS))).model
    block = model.network.transformer.h[1]
    right = block.forward

    def deaf(hidden, cache=None, attention_mask=None, *more, **given):
        mask = given.pop("attention_mask", attention_mask)
        size = hidden.shape[1]
        if mask is not None and mask.shape[-1] == size:
            mask = torch.ones(size, size, dtype=torch.bool).tril()[None, None] & (mask | mask.any())
        return right(hidden, cache, mask, *more, **given)

    block.forward = deaf
    refused(model, Window(3), "can have no attention window: what its tokens see is not what masks say")


def test_a_layer_that_sees_less_than_the_window_is_refused(tmp_path):
    kind, config, _ = RUN["Mistral, window of 5"]
    model = hf(pretrained=str(saved(tmp_path, kind, config))).model
    assert model.windowed(Window(5)).window == Window(5)
    refused(model, Window(6), "has layers that see 5 positions: k=6 must be at most that")


@pytest.mark.parametrize(
    ("setting", "message"),
    [({"_attn_implementation": "flash_attention_2"}, "its attention, 'flash_attention_2', takes no masks"),
     ({"attention_chunk_size": 8}, "some of its layers attend in chunks")],
)  # fmt: skip
def test_attention_without_masks_or_in_chunks_is_refused(worlds, setting, message):
    true = worlds["gpt2"].model.network

    class Config:
        def get_text_config(self, decoder=False):
            return self

        def __getattr__(self, name):
            return setting[name] if name in setting else getattr(true.config, name)

    parts = {"forward": true.forward, "modules": true.modules, "dtype": true.dtype}
    network = SimpleNamespace(config=Config(), eval=lambda: None, **parts)
    model = replace(worlds["gpt2"].model, network=network)
    refused(model, Window(3), f"can have no attention window: {message}")


def test_a_network_whose_config_cannot_be_read_is_refused(worlds, monkeypatch):
    def strange(network):
        raise AttributeError("no layers here")

    monkeypatch.setattr("alignbench.generators.hf.pretrained.own_window", strange)
    refused(worlds["llama"].model, Window(3), "can have no attention window: what its tokens see is not what masks say")


# --- the rest


@pytest.mark.parametrize("world", ["gpt2", "exact"])
def test_a_span_of_the_source_needs_an_encoder(worlds, world):
    with pytest.raises(
        UsageError, match="source_begin and source_end are a span of what an encoder reads; it has none"
    ):
        windowed(worlds, world, 4, 0, 3)


def test_a_span_without_a_token_of_some_prompt_is_one_line(worlds):
    law = windowed(worlds, "t5", 4, 2, 4)
    law.check(PROMPTS[1:2], 4)
    with pytest.raises(UsageError) as caught:
        law.check(PROMPTS[1:], 4)
    assert str(caught.value) == (
        "t5: prompt 'sun rain' has 2 tokens, none of them in the span source_begin=2, source_end=4"
    )


@pytest.mark.parametrize("world", ["gpt2", "t5", "exact"])
def test_the_window_belongs_to_the_identity_and_the_base_stays_as_it_was(worlds, world):
    before = worlds[world].identity()
    found = {str(windowed(worlds, world, k).identity()) for k in (2, 3, 9)}
    assert len(found) == 3
    assert worlds[world].identity() == before
    assert "window" not in before["model"]


def test_graphs_of_a_gpu_draw_under_the_window(worlds, monkeypatch):
    law = windowed(worlds, "gpt2", 2)
    plain, device = drawn(law), Device(monkeypatch)
    law.model.forget()
    np.testing.assert_array_equal(drawn(law).tokens, plain.tokens)
    assert device.replays


def test_copies_share_the_work_and_the_window(tmp_path):
    folder = tiny_llama(tmp_path / "tiny", WORDS)
    one, three = (hf(pretrained=str(folder), batch_size=4) for _ in range(2))
    replicated(three.model, [torch.device("cpu")] * 2)
    mine, shared = (Law(law.model.windowed(Window(2))) for law in (one, three))
    assert [r.window for r in shared.model.replicas] == [Window(2)] * 2
    draws = drawn(mine)
    np.testing.assert_array_equal(draws.tokens, drawn(shared).tokens)
    np.testing.assert_allclose(shared.log_prob(PROMPTS, draws), draws.log_prob, atol=1e-5)
