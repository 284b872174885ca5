"""Families of transformers, each as a tiny random network: how it is run, that every law holds, or that it is refused.

Nothing here is told to the code: whether slots fit a network is tried. The table says what is expected, so that a new
version of transformers that changes the way a family is run is noticed.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers
from models import tiny_llama, tokenizer

from alignbench import testing
from alignbench.errors import UsageError
from alignbench.generators.hf import causal as transformer
from alignbench.generators.hf import encoder_decoder, slots
from alignbench.generators.hf.factory import hf
from alignbench.generators.sampling import Stepwise
from alignbench.seeds import Seed
from alignbench.testing import LawBroken, check
from alignbench.types import collect, rows_of

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning")

WORDS = ("rain", "sun", "wind")
PROMPTS = ("rain", "sun wind rain sun " * 6)
"""1 and 24 tokens: side by side, one row's positions are far from the other's."""
EVERY_LAW = [law.__name__ for laws in testing.LAWS.values() for law in laws]

ENDS = {"bos_token_id": 3, "eos_token_id": 3, "pad_token_id": 3}
RANGE = {"vocab_size": 4, "initializer_range": 0.3, **ENDS}
USUAL = {**RANGE, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64,
         "intermediate_size": 32}  # fmt: skip
SHARED = {**USUAL, "num_key_value_heads": 1}
GPT = {**RANGE, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
FALCON = {**{k: v for k, v in USUAL.items() if k != "intermediate_size"}, "new_decoder_architecture": False}
NEO = {**RANGE, "hidden_size": 16, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]],
       "max_position_embeddings": 64}  # fmt: skip
EXPERTS = {"num_experts_per_tok": 1}
GEMMA = {**SHARED, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 40}
BIG = {"q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4, "v_head_dim": 8, "qk_nope_head_dim": 4}

BY_SLOTS, PLAINLY = True, False
RUN = {
    "Llama": ("LlamaForCausalLM", SHARED, BY_SLOTS),
    "Llama, eager": ("LlamaForCausalLM", {**SHARED, "attn_implementation": "eager"}, BY_SLOTS),
    "GPT-2, eager": ("GPT2LMHeadModel", {**GPT, "attn_implementation": "eager"}, BY_SLOTS),
    "Qwen2": ("Qwen2ForCausalLM", SHARED, BY_SLOTS),
    "Qwen2-MoE": (
        "Qwen2MoeForCausalLM",
        {**SHARED, **EXPERTS, "num_experts": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16},
        BY_SLOTS,
    ),
    "Qwen3": ("Qwen3ForCausalLM", {**SHARED, "head_dim": 8}, BY_SLOTS),
    "Mistral": ("MistralForCausalLM", {**SHARED, "sliding_window": 40}, BY_SLOTS),
    "Mistral, window of 5": ("MistralForCausalLM", {**SHARED, "sliding_window": 5}, PLAINLY),
    "Mixtral": ("MixtralForCausalLM", {**SHARED, **EXPERTS, "num_local_experts": 2}, BY_SLOTS),
    "Gemma 2": (
        "Gemma2ForCausalLM",
        {**GEMMA, "final_logit_softcapping": 2.0, "attn_logit_softcapping": 5.0},
        BY_SLOTS,
    ),
    "Gemma 3": ("Gemma3ForCausalLM", GEMMA, BY_SLOTS),
    "GPT-NeoX": ("GPTNeoXForCausalLM", USUAL, BY_SLOTS),
    "GPT-Neo": ("GPTNeoForCausalLM", {**NEO, "window_size": 40}, BY_SLOTS),
    "GPT-J": ("GPTJForCausalLM", {**GPT, "rotary_dim": 4}, BY_SLOTS),
    "GPTBigCode": ("GPTBigCodeForCausalLM", GPT, BY_SLOTS),
    "OPT": (
        "OPTForCausalLM",
        {**{k: v for k, v in USUAL.items() if k != "intermediate_size"}, "ffn_dim": 32, "word_embed_proj_dim": 16},
        PLAINLY,  # its head calls a part of its body
    ),
    "Phi": ("PhiForCausalLM", USUAL, BY_SLOTS),
    "Phi-3": ("Phi3ForCausalLM", SHARED, BY_SLOTS),
    "StableLM": ("StableLmForCausalLM", SHARED, BY_SLOTS),
    "Bloom": ("BloomForCausalLM", {**RANGE, "hidden_size": 16, "n_layer": 2, "n_head": 2}, PLAINLY),  # alibi, by mask
    "Falcon, alibi": ("FalconForCausalLM", {**FALCON, "alibi": True}, PLAINLY),
    "Falcon, rotary": ("FalconForCausalLM", {**FALCON, "alibi": False}, BY_SLOTS),
    "MPT": (
        "MptForCausalLM",
        {**RANGE, "d_model": 16, "n_layers": 2, "n_heads": 2, "expansion_ratio": 2, "max_seq_len": 64},
        BY_SLOTS,  # alibi, by the key's place
    ),
    "Cohere": ("CohereForCausalLM", {**SHARED, "logit_scale": 0.3}, BY_SLOTS),
    "Granite": ("GraniteForCausalLM", {**SHARED, "logits_scaling": 2.0, "residual_multiplier": 0.7}, BY_SLOTS),
    "DeepSeek 3": (
        "DeepseekV3ForCausalLM",
        {**USUAL, **EXPERTS, **BIG, "n_routed_experts": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
         "moe_intermediate_size": 16, "num_key_value_heads": 2},
        BY_SLOTS,
    ),
}  # fmt: skip
"""Name → class, config, and whether it goes by slots."""

PAIR = {**RANGE, "init_std": 0.3, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "max_position_embeddings": 64, "decoder_start_token_id": 3}  # fmt: skip
T5 = {**RANGE, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2, "decoder_start_token_id": 3,
      "relative_attention_num_buckets": 8, "relative_attention_max_distance": 16}  # fmt: skip
LED = {**{k: v for k, v in PAIR.items() if k != "max_position_embeddings"}, "attention_window": 4,
       "max_encoder_position_embeddings": 64, "max_decoder_position_embeddings": 32}  # fmt: skip
GEMMAS = {"encoder": GEMMA, "decoder": {**GEMMA, "cross_attention_hidden_size": 16}, "vocab_size": 4, **ENDS}
PAIRS = {
    "mT5": ("MT5ForConditionalGeneration", T5, (np.inf, np.inf)),
    "UMT5": ("UMT5ForConditionalGeneration", T5, (np.inf, np.inf)),
    "LongT5": ("LongT5ForConditionalGeneration", {**T5, "local_radius": 4}, (np.inf, np.inf)),
    "T5Gemma": ("T5GemmaForConditionalGeneration", {**GEMMAS, "decoder_start_token_id": 3}, (64, 64)),
    "mBART": ("MBartForConditionalGeneration", PAIR, (64, 64)),
    "Marian": ("MarianMTModel", {**PAIR, "pad_token_id": 2, "decoder_start_token_id": 2}, (64, 64)),
    "Pegasus": ("PegasusForConditionalGeneration", PAIR, (64, 64)),
    "Blenderbot": ("BlenderbotForConditionalGeneration", PAIR, (64, 64)),
    "LED": ("LEDForConditionalGeneration", LED, (64, 32)),
    "M2M100": ("M2M100ForConditionalGeneration", {**PAIR, "pad_token_id": 1}, (64, 64)),
}
"""Encoder–decoders: name → class, config, windows of encoder and decoder."""

REFUSED = {
    "Mamba": ("MambaForCausalLM", {**RANGE, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
    "RWKV": (
        "RwkvForCausalLM",
        {"vocab_size": 4, "hidden_size": 16, "num_hidden_layers": 2, "context_length": 64, **ENDS},
    ),
    "LFM2": ("Lfm2ForCausalLM", {**SHARED, "layer_types": ["conv", "full_attention"]}),
    "GPT-1": ("OpenAIGPTLMHeadModel", GPT),
    "Switch Transformers": ("SwitchTransformersForConditionalGeneration", {**T5, "num_experts": 2}),
    "BERT, which looks at what follows": ("BertLMHeadModel", USUAL),
}


def saved(folder, kind, config):
    """A random network of that class with the tests' tokenizer."""
    config = dict(config)
    attention = config.pop("attn_implementation", None)
    network_class = getattr(transformers, kind)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = network_class(network_class.config_class(**config))
    network.save_pretrained(str(folder))
    tokenizer(WORDS).save_pretrained(str(folder))
    if attention:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"attn_implementation": attention}))
    return folder


def scores_are_those_of_a_plain_forward_pass(law):
    """Both ways of ours might share a mistake: here one draw at a time, no padding, no cache, whole logits."""
    draws = collect(law.sample(PROMPTS, rows_of(2, 4), max_tokens=5, seed=Seed(1)))
    for row in range(len(draws)):
        prompt, said = law.model.encode(PROMPTS[draws.prompt[row]], 5), draws.tokens[row, : draws.length[row]].tolist()
        with torch.no_grad():
            logits = law.model.network(input_ids=torch.tensor([prompt + said]), use_cache=False).logits[0].double()
        steps = logits.log_softmax(-1)[len(prompt) - 1 : -1]
        np.testing.assert_allclose(steps[torch.arange(len(said)), said].sum(), draws.log_prob[row], atol=1e-4)


@pytest.mark.parametrize("name", RUN)
def test_every_law_holds_for_the_family(name, tmp_path):
    kind, config, by_slots = RUN[name]
    law = hf(pretrained=str(saved(tmp_path, kind, config)))
    assert law.model.trial.works is by_slots
    assert check(law, PROMPTS, max_tokens=3, draws=8) == EVERY_LAW
    scores_are_those_of_a_plain_forward_pass(law)
    if "attn_implementation" in config:
        assert law.model.network.config._attn_implementation == config["attn_implementation"]


@pytest.mark.parametrize("name", PAIRS)
def test_laws_hold_for_the_encoder_decoder(name, tmp_path):
    """All but the slow count of frequencies; a draw with M2M100's pad inside has no one probability, hence none."""
    kind, config, windows = PAIRS[name]
    law = hf(pretrained=str(saved(tmp_path, kind, config)))
    case = testing.Case(law, PROMPTS, 3)
    for one in (testing.batch_size_changes_nothing, testing.rescoring_is_sampling, testing.probabilities_sum_to_one,
                testing.states_stay_as_they_were):  # fmt: skip
        one(case)
    assert law.model.never == ([1] if name == "M2M100" else [])
    assert (law.model._window("encoder"), law.model._window("decoder")) == windows


def test_planted_pad_that_m2m100_may_say_is_refused(tmp_path, monkeypatch):
    kind, config, _ = PAIRS["M2M100"]
    monkeypatch.setattr(encoder_decoder, "UNSAID", ())
    with pytest.raises(UsageError, match="kind 'm2m_100' cannot be run here: what it says of a prompt depends on the"):
        hf(pretrained=str(saved(tmp_path, kind, config)))


@pytest.mark.parametrize("name", REFUSED)
def test_a_family_that_cannot_be_run_is_one_line(name, tmp_path):
    """Wrong numbers, or a traceback out of transformers, would be the alternative."""
    kind, config = REFUSED[name]
    folder = saved(tmp_path, kind, config)
    with pytest.raises(UsageError) as caught:
        hf(pretrained=str(folder))
    said = str(caught.value)
    assert said.startswith(
        f"{folder.name}: a network of kind '{json.loads((folder / 'config.json').read_text())['model_type']}'"
    )
    assert said.endswith("cannot be run here: it keeps no keys and values that rows can be picked from")
    assert "\n" not in said


def test_planted_padding_that_a_network_sees_is_refused(tmp_path, monkeypatch):
    """Where slots do not fit and a pad changes what is said, there is no right way left."""
    monkeypatch.setattr(slots.Trial, "of", staticmethod(lambda *_: slots.Trial(False)))
    folder = tiny_llama(tmp_path / "llama", WORDS)
    assert hf(pretrained=str(folder)).model.trial.works is False
    right = transformer.HFModel._left_padded

    def unmasked(self, encoded):
        ids, mask = right(self, encoded)
        return ids, torch.ones_like(mask)

    monkeypatch.setattr(transformer.HFModel, "_left_padded", unmasked)
    with pytest.raises(UsageError, match="kind 'llama' cannot be run here: what it says of a prompt depends on the"):
        hf(pretrained=str(folder))


def test_memory_that_runs_out_in_the_trial_of_the_plain_way_is_no_refusal(tmp_path, monkeypatch):
    monkeypatch.setattr(slots.Trial, "of", staticmethod(lambda *_: slots.Trial(False)))

    def full(self, encoded):
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(transformer.HFModel, "_begun", full)
    with pytest.raises(torch.OutOfMemoryError):
        hf(pretrained=str(tiny_llama(tmp_path / "llama", WORDS)))


@pytest.mark.parametrize("by_slots", [True, False])
def test_a_network_that_never_says_some_token_is_run(by_slots, tmp_path, monkeypatch):
    """A logit of −inf is −inf both ways: no difference, and not NaN."""
    right = transformers.LlamaForCausalLM.forward

    def muted(self, *args, **kwargs):
        out = right(self, *args, **kwargs)
        out.logits[..., 1] = -torch.inf
        return out

    monkeypatch.setattr(transformers.LlamaForCausalLM, "forward", muted)
    if not by_slots:
        monkeypatch.setattr(slots, "_window", lambda network: 0)
    law = hf(pretrained=str(tiny_llama(tmp_path / "llama", WORDS)))
    assert law.model.trial.works is by_slots
    assert check(law, PROMPTS, max_tokens=3, draws=8) == EVERY_LAW


# --- windows


@pytest.mark.parametrize(
    ("kind", "config", "window"),
    [
        ("MistralForCausalLM", {**SHARED, "sliding_window": 20}, 20),
        ("Gemma3ForCausalLM", {**GEMMA, "sliding_window": 20}, 20),
        ("GPTNeoForCausalLM", {**NEO, "window_size": 20}, 20),
        ("Cohere2ForCausalLM", {**SHARED, "sliding_window": 20}, 20),
    ],
)
def test_rows_wider_than_a_layer_s_window_are_run_plainly(kind, config, window, tmp_path):
    """Slots keep every position, and each layer sees them all: only while the row fits the window."""
    law = hf(pretrained=str(saved(tmp_path, kind, config)))
    assert law.model.trial.works
    assert law.model.trial.window == window
    assert isinstance(law.model.decoder(4, window), slots.Slots)
    assert isinstance(law.model.decoder(4, window + 1), Stepwise)
    prompts = ("rain", "sun " * 17, "wind " * 18, PROMPTS[1])  # the second fits with its draw, the third does not
    assert check(law, prompts, max_tokens=3, draws=8) == EVERY_LAW


@pytest.mark.parametrize("kind", ["MistralForCausalLM", "GPTNeoForCausalLM"])
def test_planted_window_that_is_not_seen(kind, tmp_path, monkeypatch):
    """A trial of a few tokens cannot see a window; the config must tell."""
    config = {**SHARED, "sliding_window": 16} if kind.startswith("Mistral") else {**NEO, "window_size": 16}
    law = hf(pretrained=str(saved(tmp_path, kind, config)))
    monkeypatch.setattr(law.model, "trial", slots.Trial(True, np.inf, law.model.trial.position_bytes))
    with pytest.raises(LawBroken):
        check(law, PROMPTS, max_tokens=3, draws=8)


def test_a_network_whose_config_cannot_be_read_is_run_plainly(tmp_path, monkeypatch):
    """Code of its own may have any config: the trial fails, and no more."""

    def strange(network):
        raise AttributeError("no layers here")

    monkeypatch.setattr(slots, "_window", strange)
    law = hf(pretrained=str(tiny_llama(tmp_path / "llama", WORDS)))
    assert law.model.trial == slots.Trial(False)
    assert check(law, PROMPTS, max_tokens=2) == EVERY_LAW
