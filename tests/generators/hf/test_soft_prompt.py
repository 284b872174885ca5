"""Soft prompts: what they are at first, who sees them, and that peft says the same of what is saved."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import chatty_llama, tiny_bart
from policy_world import LENGTH, PROMPTS, SUN, WORDS, drawn, same, scored, stirred, trained, trained_of, walked
from safetensors.torch import load_file, save_file

from alignbench.errors import Unsupported, UsageError
from alignbench.generators.checkpoint import load_training, save_training
from alignbench.generators.hf import slots
from alignbench.generators.hf.causal import HFModel
from alignbench.generators.hf.factory import hf, outline
from alignbench.generators.hf.pretrained import Pretrained
from alignbench.generators.hf.virtual import FIRST, VirtualTokens
from alignbench.generators.history import seen_of
from alignbench.generators.policy import policy_of
from alignbench.generators.window import Window
from alignbench.testing import LAWS, check, gap, save_network

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft's name for it is old
if importlib.util.find_spec("peft") is None:
    pytest.skip("peft is an extra", allow_module_level=True)

KINDS = ("gpt2", "llama", "t5", "scaled")
TOKENS, ADAPTER = 3, "prompt:tokens=3"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Folders of a network of each kind, `scaled` a BART that scales its embeddings, and of a policy of each."""
    home = tmp_path_factory.mktemp("soft")
    for kind in ("gpt2", "llama", "t5"):
        save_network(home / kind, WORDS, kind=kind)
    tiny_bart(home / "scaled", WORDS, scale_embedding=True)
    return home


@pytest.fixture(scope="module")
def bases(home):
    return {kind: hf(pretrained=str(home / kind)) for kind in KINDS}


@pytest.fixture(scope="module")
def policies(home, bases):
    """Policies that are saved as `<kind>-soft`; no test trains them."""
    made = {kind: stirred(policy_of(base, ADAPTER)) for kind, base in bases.items()}
    for kind, policy in made.items():
        policy.save(home / f"{kind}-soft")
    return made


@pytest.fixture
def here(home, policies, tmp_path, monkeypatch):
    """A copy of all of them that a test may spoil, as the working folder."""
    shutil.copytree(home, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "home")
    return tmp_path / "home"


def broken(law, *given):
    with pytest.raises(AssertionError):
        law(*given)


def loaded(home, kind, folder=None, **more):
    return hf(pretrained=str(home / kind), peft=str(folder or home / f"{kind}-soft"), **more)


def layer_of(law):
    return next(layer for layer in law.model.network.modules() if isinstance(layer, VirtualTokens))


# --- peft says the same


def by_peft(base, folder, draws):
    """(B, T) nats by token of the network in peft's own wrapping, one draw at a time."""
    import transformers
    from peft import PeftModel

    pair = base.model.network.config.is_encoder_decoder
    kind = "AutoModelForSeq2SeqLM" if pair else "AutoModelForCausalLM"
    network = getattr(transformers, kind).from_pretrained(base.model.source)
    theirs, found = PeftModel.from_pretrained(network, str(folder)).eval(), np.zeros(draws.tokens.shape)
    for k, tokens in enumerate(draws.tokens):
        said, prompt = tokens[: draws.length[k]].tolist(), base.model.encode(PROMPTS[draws.prompt[k]], 0)
        given = {"input_ids": prompt if pair else [*prompt, *said[:-1]]}
        if pair:
            given["decoder_input_ids"] = [*base.model.prefix, *said[:-1]]
        with torch.no_grad():
            logits = theirs(**{name: torch.tensor([ids]) for name, ids in given.items()}).logits[0, -len(said) :]
        found[k, : len(said)] = logits.log_softmax(-1)[range(len(said)), said].numpy()
    return found


def peft_says_the_same(law, base, folder):
    draws = drawn(law, 5)
    assert gap(law.token_log_prob(PROMPTS, draws), draws.token_log_prob) < 1e-4, "it scores as it draws"
    assert gap(by_peft(base, folder, draws), draws.token_log_prob) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_peft_says_the_same(home, bases, policies, kind):
    """Of a policy, and of what comes back of it."""
    folder = home / f"{kind}-soft"
    peft_says_the_same(policies[kind], bases[kind], folder)
    back = loaded(home, kind)
    peft_says_the_same(back, bases[kind], folder)
    assert same(drawn(back), drawn(policies[kind]))
    assert kind not in ("gpt2", "llama") or back.model.trial.works, "it goes the fast way"
    broken(peft_says_the_same, bases[kind], bases[kind], folder)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_what_peft_saved_is_loaded(home, bases, kind, tmp_path):
    """Of T5 it saves as many rows again for the decoder, which never reads them."""
    import transformers
    from peft import PromptTuningConfig, get_peft_model

    task = "SEQ_2_SEQ_LM" if kind == "t5" else "CAUSAL_LM"
    network = getattr(transformers, f"AutoModelFor{'Seq2Seq' if kind == 't5' else 'Causal'}LM").from_pretrained(
        str(home / kind)
    )
    get_peft_model(network, PromptTuningConfig(num_virtual_tokens=4, task_type=task)).save_pretrained(str(tmp_path))
    assert len(load_file(tmp_path / "adapter_model.safetensors")["prompt_embeddings"]) == (8 if kind == "t5" else 4)
    law = loaded(home, kind, tmp_path)
    assert len(law.model.virtual) == 4
    peft_says_the_same(law, bases[kind], tmp_path)


def behind(self, rendered):
    return [*self._ids(rendered), *self.virtual]


@pytest.mark.parametrize("kind", KINDS)
def test_planted_virtual_tokens_after_the_prompt(home, bases, policies, kind, monkeypatch):
    monkeypatch.setattr(Pretrained, "_all_ids", behind)
    broken(peft_says_the_same, policies[kind], bases[kind], home / f"{kind}-soft")


def test_planted_virtual_tokens_that_take_no_positions(home, bases, policies, monkeypatch):
    """The words begin at position 0 of GPT-2, as if nothing stood before them; alike in all passes."""
    right = slots._hidden

    def hidden(network, **inputs):
        where = (inputs["position_ids"] - TOKENS).clamp(min=0)
        return right(network, **inputs | {"position_ids": where})

    monkeypatch.setattr(slots, "_hidden", hidden)
    draws = drawn(policies["gpt2"])
    assert gap(policies["gpt2"].token_log_prob(PROMPTS, draws), draws.token_log_prob) < 1e-4, "it agrees with itself"
    broken(peft_says_the_same, policies["gpt2"], bases["gpt2"], home / "gpt2-soft")


def test_planted_rows_that_are_scaled_as_words_are(home, bases, policies, monkeypatch):
    def scaled(self, ids):
        return right(self, ids) * torch.where(ids >= FIRST, 4.0, 1.0)[..., None]  # the square root of D

    right = VirtualTokens.forward
    monkeypatch.setattr(VirtualTokens, "forward", scaled)
    broken(peft_says_the_same, policies["scaled"], bases["scaled"], home / "scaled-soft")


# --- a policy


@pytest.mark.parametrize("kind", KINDS)
def test_at_first_it_is_a_prompt_of_words(bases, kind):
    """The base says the same after the words whose embeddings were copied."""
    base = bases[kind]
    policy = policy_of(base, ADAPTER, seed=5)
    layer = layer_of(policy)
    known = layer.own(torch.arange(len(WORDS)))
    ids = [int((known == row).all(1).nonzero()[0]) for row in layer.prompt.weight.detach()]
    words = " ".join(WORDS[i] for i in ids)
    worded = replace(base, template=f"{words} {{prompt}}")
    for prompt in PROMPTS[:2]:
        draws = drawn(policy)
        draws = draws.take(draws.prompt == PROMPTS.index(prompt))
        assert gap(worded.log_prob(PROMPTS, draws), draws.log_prob) < 1e-4


def test_its_words_are_none_of_the_special_ones(bases):
    rows = layer_of(policy_of(bases["gpt2"], "prompt:tokens=50")).prompt.weight.detach()
    known = bases["gpt2"].model.network.get_input_embeddings().weight
    found = {int((known == row).all(1).nonzero()[0]) for row in rows}
    assert found == set(range(len(WORDS))), "every word, and not EOS"


@pytest.mark.parametrize("kind", KINDS)
def test_it_alone_is_trained_and_nothing_else_grows(bases, kind):
    policy, base = policy_of(bases[kind], ADAPTER), bases[kind]
    [rows] = policy.parameters
    assert rows.shape == (TOKENS, 16) and len(policy.vocab) == len(base.vocab)
    mine, theirs = policy.model.network, base.model.network
    assert mine.get_output_embeddings().weight.data_ptr() == theirs.get_output_embeddings().weight.data_ptr()
    assert policy.vocab == base.vocab
    if mine.config.is_encoder_decoder:
        assert type(mine.get_decoder().get_input_embeddings()) is type(theirs.get_decoder().get_input_embeddings())
    assert not any(isinstance(layer, VirtualTokens) for layer in theirs.modules())


def test_training_goes_where_it_is_sent(bases):
    policy = policy_of(bases["llama"], "prompt:tokens=8")
    optimiser = torch.optim.Adam(policy.parameters, lr=0.1)
    before = (drawn(policy, 200).tokens == SUN).mean()
    for step in range(8):
        draws = drawn(policy, 10, seed=step)
        said = torch.as_tensor((draws.tokens == SUN).sum(1) - (draws.tokens == SUN).sum(1).mean())
        optimiser.zero_grad()
        (-(said * policy.module(PROMPTS, draws).sum(1)).mean()).backward()
        optimiser.step()
    assert (drawn(policy, 200).tokens == SUN).mean() > before + 0.1


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_every_law_holds_after_training(bases, kind):
    policy = trained(policy_of(bases[kind], ADAPTER)).warped(repetition_penalty=1.3)
    assert check(policy, PROMPTS[1:], max_tokens=2, draws=8) == [law.__name__ for laws in LAWS.values() for law in laws]


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_slots_and_states_and_whole_passes_agree(policies, kind):
    policy, found = policies[kind], []
    draws = drawn(policy)
    for way in ({}, {"trial": slots.Trial(False)}, {"trial": slots.Trial(False), "headed": False}):
        other = replace(policy, model=replace(policy.model))
        for what, value in way.items():
            setattr(other.model, what, value)
        assert gap(scored(other, draws), draws.token_log_prob) < 1e-4
        assert gap(walked(other, draws), draws.token_log_prob) < 1e-4
        found.append(drawn(other))
    assert all(same(one, draws) or gap(one.log_prob, draws.log_prob) < 1e-4 for one in found)


def test_what_goes_on_ends_where_the_whole_ends(bases, tmp_path):
    def begun():
        policy = policy_of(bases["gpt2"], ADAPTER)
        return policy, torch.optim.Adam(policy.parameters, lr=0.05)

    def steps(policy, optimiser, numbers):
        for step in numbers:
            optimiser.zero_grad()
            policy.module(PROMPTS, drawn(policy, 4, seed=step)).sum().backward()
            optimiser.step()

    whole, part, later = begun(), begun(), begun()
    steps(*whole, range(4))
    steps(*part, range(2))
    save_training(tmp_path, part[0].module, part[1], step=2)
    assert load_training(tmp_path, later[0].module, later[1]) == (2, {})
    steps(*later, range(2, 4))
    assert later[0].identity() == whole[0].identity() != part[0].identity()


# --- who sees virtual tokens, and who does not


@pytest.mark.parametrize("kind", ["gpt2", "scaled"])
def test_they_are_read_and_neither_said_nor_remembered(bases, policies, kind):
    """A repetition penalty marks words alone, and decoding spells words alone, however many a tokenizer has."""
    model, base = policies[kind].model, bases[kind].model
    ids = [FIRST + i for i in range(TOKENS)]
    assert [model.encode(prompt, 4) for prompt in PROMPTS] == [[*ids, *base.encode(prompt, 4)] for prompt in PROMPTS]
    assert torch.equal(seen_of(model, PROMPTS), seen_of(base, PROMPTS))
    said = [np.array([SUN, 0]), np.array([])]
    assert model.decode("wind", said) == base.decode("wind", said)


def test_conversations_come_after_them(tmp_path):
    base = chatty_llama(tmp_path).model.conversing()
    model = base.trainable(ADAPTER, 0)
    rendered = model.render("rain sun")
    assert model.chat and rendered == base.render("rain sun")
    assert model.encode(rendered, 4) == [*model.virtual, *base.encode(rendered, 4)]


def test_they_count_in_the_context_window(home, bases, policies):
    policy = policies["gpt2"]
    policy.check(["rain"], 64 - TOKENS - 1)
    with pytest.raises(UsageError) as caught:
        policy.check(["rain"], 64 - TOKENS)
    assert str(caught.value) == (
        "gpt2: prompt 'rain' has 4 tokens, 3 of them virtual; with max_tokens 61 that is more than the model's context "
        "window of 64"
    )
    policies["scaled"].check(["rain " * 61], 4)
    with pytest.raises(UsageError, match=r"has 65 tokens, 3 of them virtual, more than the encoder's window of 64"):
        policies["scaled"].check(["rain " * 62], 4)
    for kind in ("gpt2", "llama", "scaled"):
        with pytest.raises(UsageError) as caught:
            policy_of(bases[kind], "prompt:tokens=64")
        assert str(caught.value) == (
            f"{kind}: 64 virtual tokens leave no room for a prompt in its context window of 64: train fewer"
        )
        assert policy_of(bases[kind], "prompt:tokens=63").model.virtual
    assert len(policy_of(bases["t5"], "prompt:tokens=200").model.virtual) == 200


def test_under_a_window_they_are_forgotten_as_words_are(bases):
    """Where a token sees itself alone, they change nothing but its position."""
    law = replace(bases["gpt2"], model=bases["gpt2"].model.windowed(Window(1)))
    policy, other = (stirred(policy_of(law, ADAPTER), seed=seed) for seed in (0, 1))
    draws = drawn(policy)
    assert gap(scored(policy, draws), draws.token_log_prob) < 1e-4
    assert gap(policy.log_prob(PROMPTS, draws), other.log_prob(PROMPTS, draws)) < 1e-4
    wider = (replace(one, model=replace(one.model, window=Window(2))) for one in (policy, other))
    assert gap(*(one.log_prob(PROMPTS[:1], draws.take(draws.prompt == 0)) for one in wider)) > 0.1


def test_a_span_of_the_source_is_one_of_words(home, policies):
    """Of which the decoder sees those asked for, wherever virtual tokens stand; the encoder reads it all."""
    law = loaded(home, "t5")
    model = law.model.windowed(Window(LENGTH, 1, 2))
    prompt = "sun wind rain"
    assert model.encode(prompt, 4) == [*model.virtual, 1, 2, 0]
    assert model._read(torch.ones(1, 6, dtype=torch.long)).tolist() == [[0, 0, 0, 0, 1, 0]]
    with pytest.raises(UsageError, match=r"prompt 'rain' has 1 tokens, none of them in the span"):
        model.encode("rain", 4)
    assert check(replace(law, model=model), [prompt], max_tokens=2, draws=8)


# --- loaded


def told(folder, **more):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | more))


def rewritten(folder, **tensors):
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def test_its_identity_is_of_model_and_prompt(here, policies):
    laws = [loaded(here, "gpt2"), hf(pretrained="gpt2"), policies["gpt2"]]
    assert laws[0].name == "gpt2+gpt2-soft" and laws[0].model.adapted
    shutil.copytree("gpt2-soft", "moved")
    assert loaded(here, "gpt2", "moved").identity() == laws[0].identity()
    rewritten(here / "moved", prompt_embeddings=torch.zeros(TOKENS, 16))
    laws.append(loaded(here, "gpt2", "moved"))
    assert len({json.dumps(law.identity(), sort_keys=True) for law in laws}) == 4


@pytest.mark.parametrize("kind", KINDS)
def test_without_weights_it_has_its_identity_and_its_checks(home, policies, kind):
    law = outline(pretrained=str(home / kind), peft=str(home / f"{kind}-soft"))
    assert law.device.type == "meta" and law.identity() == loaded(home, kind).identity()
    assert law.model.encode("rain", 4) == policies[kind].model.encode("rain", 4)
    if kind == "gpt2":
        with pytest.raises(UsageError, match="3 of them virtual"):
            law.check(["rain"], 64)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_in_bfloat16_its_rows_are_float32(home, kind, tmp_path):
    base = hf(pretrained=str(home / kind), dtype="bfloat16", device="cpu")
    policy = stirred(policy_of(base, ADAPTER))
    policy.save(tmp_path)
    back = loaded(home, kind, tmp_path, dtype="bfloat16", device="cpu")
    for law in (policy, back):
        assert law.model.network.dtype == torch.bfloat16 and law.identity()["model"]["dtype"] == "bfloat16"
        assert layer_of(law).prompt.weight.dtype == torch.float32
    draws = drawn(policy)
    assert same(drawn(back), draws) and not same(drawn(base), draws)
    gradient = torch.autograd.grad(policy.module(PROMPTS, draws).sum(), trained_of(policy))
    assert all(g.dtype == torch.float32 and g.isfinite().all() and g.any() for g in gradient)


def test_before_weights_of_8_bits(home, policies):
    law = loaded(home, "llama", quantize="int8", device="cpu")
    assert law.model.virtual == policies["llama"].model.virtual
    assert check(law, PROMPTS[:1], max_tokens=2, draws=8)


def test_nothing_is_trained_beside_it(home, policies):
    with pytest.raises(Unsupported) as caught:
        policy_of(loaded(home, "gpt2"), "lora:r=2")
    assert str(caught.value) == (
        "gpt2+gpt2-soft: has a soft prompt, and an adapter beside it could not be loaded again: leave out peft="
    )


# --- what does not fit


def refused(here, kind, folder="gpt2-soft"):
    """What is said of it, with weights and without."""
    said = []
    for load in (hf, outline):
        with pytest.raises(UsageError) as caught:
            load(pretrained=kind, peft=str(folder))
        said.append(str(caught.value))
    assert said[0] == said[1] and "\n" not in said[0]
    return said[0]


def misfit(kind, why):
    return (
        f"peft=gpt2-soft: this adapter does not fit {kind}: {why}; it was trained on 'someone/model': give that as "
        "pretrained="
    )


def test_a_prompt_of_another_network(here, policies):
    assert "it is for a network of kind 'gpt2', not 'llama'" in refused(here, "llama")
    told(here / "gpt2-soft", base_model_name_or_path="someone/model")
    assert refused(here, "t5") == misfit("t5", "it is for the task 'CAUSAL_LM', not 'SEQ_2_SEQ_LM'")
    assert loaded(here, "llama", "gpt2-soft").model.virtual, "of the same size"
    told(here / "gpt2-soft", task_type=None)
    assert refused(here, "gpt2") == misfit("gpt2", "it is for the task 'None', not 'CAUSAL_LM'")


@pytest.mark.parametrize("shape", [(TOKENS, 8), (TOKENS + 1, 16), (2 * TOKENS, 16), (TOKENS * 16,), (0, 16)])
def test_weights_of_other_shapes(here, shape):
    told(here / "gpt2-soft", base_model_name_or_path="someone/model")
    rewritten(here / "gpt2-soft", prompt_embeddings=torch.zeros(shape))
    assert refused(here, "gpt2") == misfit("gpt2", "its weights have other shapes")


@pytest.mark.parametrize("tokens", [None, "3", 0, 4, -3, 3.0])
def test_another_number_of_tokens_than_it_tells(here, tokens):
    told(here / "gpt2-soft", base_model_name_or_path="someone/model", num_virtual_tokens=tokens)
    assert refused(here, "gpt2") == misfit("gpt2", "its weights have other shapes")


def test_weights_that_are_lost_strange_or_no_numbers(here):
    told(here / "gpt2-soft", base_model_name_or_path="someone/model")
    rows = torch.zeros(TOKENS, 16)
    rewritten(here / "gpt2-soft", rows=rows)
    assert refused(here, "gpt2") == misfit("gpt2", "1 of its weights are missing, the first is prompt_embeddings")
    rewritten(here / "gpt2-soft", prompt_embeddings=rows, more=rows.clone())
    assert refused(here, "gpt2") == misfit("gpt2", "1 of its weights have no place there, the first is more")
    rewritten(here / "gpt2-soft", prompt_embeddings=rows / 0)
    assert refused(here, "gpt2") == "peft=gpt2-soft: this adapter has weights that are not numbers"
    (here / "gpt2-soft/adapter_model.safetensors").write_text("{broken")
    assert refused(here, "gpt2").startswith("peft=gpt2-soft: this adapter cannot be read: ")


def test_more_tokens_than_its_context_window_holds(here, home):
    rewritten(here / "gpt2-soft", prompt_embeddings=torch.zeros(64, 16))
    told(here / "gpt2-soft", num_virtual_tokens=64)
    assert refused(here, "gpt2") == (
        "gpt2+gpt2-soft: 64 virtual tokens leave no room for a prompt in its context window of 64: train fewer"
    )


@pytest.mark.parametrize("error", ["", "no embeddings here\nand more"])
def test_a_network_that_reads_more_of_an_id_than_its_embedding(home, error, monkeypatch):
    base = hf(pretrained=str(home / "gpt2"))
    right = type(base.model.network).forward

    def forward(self, input_ids=None, inputs_embeds=None, **more):
        if error and inputs_embeds is not None:
            raise RuntimeError(error)
        out = right(self, input_ids=input_ids, inputs_embeds=inputs_embeds, **more)
        if input_ids is not None:
            out.logits = out.logits + (input_ids % 3)[..., None] * torch.arange(4)
        return out

    monkeypatch.setattr(type(base.model.network), "forward", forward)
    with pytest.raises(Unsupported) as caught:
        policy_of(base, ADAPTER)
    assert str(caught.value) == (
        f"gpt2: no virtual tokens can stand before its prompts: "
        f"{error.splitlines()[0] if error else 'it reads more of an id than its embedding'}"
    )


def test_planted_ids_of_words_that_a_network_does_not_know(policies):
    """They are an error, and are not read as virtual tokens."""
    with pytest.raises(IndexError):
        HFModel._whole(policies["gpt2"].model, [4])
