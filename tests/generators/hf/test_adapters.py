"""Adapters on a model: what they make of it, and every way in which they do not fit."""

from __future__ import annotations

import importlib.util
import json
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from models import tiny_gpt2, tiny_llama
from safetensors.torch import load_file, save_file

from alignbench.errors import UsageError
from alignbench.generators.hf import factory as hf_module
from alignbench.generators.hf.factory import hf
from alignbench.testing import check

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft, in training
if importlib.util.find_spec("peft") is None:
    pytest.skip("peft is an extra", allow_module_level=True)

WORDS = ("rain", "sun", "wind", "snow", "she", "he")
PROMPTS = ("rain", "sun wind")
PREFIX = "base_model.model."


def lora(base, folder, *targets, seed=0, **settings):
    """A LoRA adapter of random weights, saved as peft saves one."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = LoraConfig(r=2, lora_alpha=6, target_modules=list(targets), init_lora_weights=False, **settings)
        get_peft_model(AutoModelForCausalLM.from_pretrained(str(base)), config).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tiny Llama, a tiny GPT-2, and an adapter of each."""
    home = tmp_path_factory.mktemp("adapters")
    llama, gpt2 = tiny_llama(home / "llama", WORDS), tiny_gpt2(home / "gpt2", WORDS)
    lora(llama, home / "tuned", "q_proj", "v_proj")
    lora(gpt2, home / "tuned-gpt2", "c_attn", fan_in_fan_out=True)
    return home


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy of them that a test may spoil, as the working folder."""
    shutil.copytree(made, tmp_path / "made")
    monkeypatch.chdir(tmp_path / "made")
    return tmp_path / "made"


def refused(**arguments):
    with pytest.raises(UsageError) as caught:
        hf(**arguments)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    return str(caught.value)


def logits(law, ids=((1, 3, 2, 5, 4),)):
    with torch.no_grad():
        return law.model.network(input_ids=torch.tensor(ids)).logits


# --- what an adapter makes of a model


def test_merged_weights_are_w_plus_scaled_b_a(here):
    law = hf(pretrained="llama", peft="tuned")
    before, adapter = load_file("llama/model.safetensors"), load_file("tuned/adapter_model.safetensors")
    after = law.model.network.state_dict()
    changed = [name for name, weight in before.items() if not torch.equal(weight, after[name])]
    assert len(changed) == 4, "q and v of two layers"
    for name in changed:
        a, b = (adapter[f"{PREFIX}{name.removesuffix('weight')}lora_{x}.weight"] for x in "AB")
        torch.testing.assert_close(after[name], before[name] + 6 / 2 * b @ a)


@pytest.mark.parametrize(("base", "adapter"), [("llama", "tuned"), ("gpt2", "tuned-gpt2")])
def test_a_model_with_an_adapter_is_one_model_and_goes_the_fast_way(here, base, adapter):
    law, plain = hf(pretrained=base, peft=adapter), hf(pretrained=base)
    assert law.name == f"{base}+{adapter}"
    assert law.model.trial.works
    assert type(law.model.network) is type(plain.model.network)
    assert float((logits(law) - logits(plain)).abs().max()) > 0.01
    assert check(law, PROMPTS, max_tokens=2)


def merging_says_what_peft_says_unmerged(base, adapter):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter).eval()
    with torch.no_grad():
        want = theirs(input_ids=torch.tensor([[1, 3, 2, 5, 4]])).logits
    torch.testing.assert_close(logits(hf(pretrained=base, peft=adapter)), want, atol=1e-4, rtol=0)


def test_merging_says_what_peft_says_unmerged(here):
    merging_says_what_peft_says_unmerged("llama", "tuned")


@pytest.mark.filterwarnings("ignore::UserWarning")  # peft's, in training
@pytest.mark.parametrize("target", ["lm_head", "wte"])
def test_an_adapter_on_one_of_two_layers_that_share_weights_leaves_the_other(here, target):
    """GPT-2's embeddings are its output layer: merging into one must not change both."""
    lora("gpt2", "head", target, "c_attn", fan_in_fan_out=False)
    merging_says_what_peft_says_unmerged("gpt2", "head")


def test_the_identity_is_of_base_and_adapter(here, tmp_path):
    def identity(base, adapter=None):
        return json.dumps(hf(pretrained=str(base), peft=adapter and str(adapter)).identity(), sort_keys=True)

    first = identity("llama", "tuned")
    other = lora("llama", tmp_path / "other", "q_proj", "v_proj", seed=1)
    tiny_llama(tmp_path / "base", WORDS, seed=1)
    assert len({identity("llama"), first, identity("llama", other), identity(tmp_path / "base", "tuned")}) == 4
    shutil.copytree("tuned", tmp_path / "moved")
    (tmp_path / "moved" / "README.md").write_text("told anew")
    assert identity("llama", tmp_path / "moved") == first, "content counts; place and words do not"
    config = json.loads((tmp_path / "moved/adapter_config.json").read_text())
    (tmp_path / "moved/adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 7}))
    assert identity("llama", tmp_path / "moved") != first


def test_on_quantised_weights_an_adapter_stays_beside_them(here, monkeypatch):
    right = hf_module._network

    def quantised(folder, **options):
        network = right(folder, **options)
        network.is_quantized = True
        return network

    merged = hf(pretrained="llama", peft="tuned")
    monkeypatch.setattr(hf_module, "_network", quantised)
    law = hf(pretrained="llama", peft="tuned")
    after = law.model.network.state_dict()
    assert torch.equal(
        after["model.layers.0.self_attn.q_proj.base_layer.weight"],
        load_file("llama/model.safetensors")["model.layers.0.self_attn.q_proj.weight"],
    )
    torch.testing.assert_close(logits(law), logits(merged), atol=1e-5, rtol=0)
    assert law.model.trial.works
    assert check(law, PROMPTS, max_tokens=2)


# --- what does not fit


def test_an_adapter_of_another_architecture(here):
    assert refused(pretrained="llama", peft="tuned-gpt2") == (
        "peft=tuned-gpt2: this adapter does not fit llama: it is for a network of kind 'gpt2', not 'llama'; "
        f"it was trained on '{told('tuned-gpt2')}': give that as pretrained="
    )


def told(adapter):
    return json.loads((Path(adapter) / "adapter_config.json").read_text())["base_model_name_or_path"]


def elsewhere(adapter):
    """The adapter's model is not on this disk."""
    path = Path(adapter) / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "someone/model"}))


def test_the_model_it_was_trained_on_may_lie_broken_beside(here):
    config = json.loads(Path("tuned/adapter_config.json").read_text())
    Path("tuned/adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "gpt2"}))
    Path("gpt2/config.json").write_text("{")
    assert hf(pretrained="llama", peft="tuned").name == "llama+tuned"


def test_modules_that_the_model_has_not(here):
    elsewhere("tuned-gpt2")
    assert refused(pretrained="llama", peft="tuned-gpt2") == (
        "peft=tuned-gpt2: this adapter does not fit llama: Target modules {'c_attn'} not found in the base model; "
        "it was trained on 'someone/model': give that as pretrained="
    )


def resized(here, **changes):
    from transformers import AutoModelForCausalLM, LlamaConfig

    config = LlamaConfig.from_pretrained(str(here / "llama"), **changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(str(here / "other"))
    return lora(here / "other", here / "misfit", "q_proj")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"hidden_size": 32}, "its weights have other shapes"),
        ({"num_hidden_layers": 3}, f"2 of its weights have no place there, the first is {PREFIX}model.layers.2.self_"),
        ({"num_hidden_layers": 1}, f"2 of its weights are missing, the first is {PREFIX}model.layers.1.self_attn.q_"),
    ],
)
def test_weights_for_a_model_of_another_size(here, changes, why):
    resized(here, **changes)
    said = refused(pretrained="llama", peft="misfit")
    assert said.startswith(f"peft=misfit: this adapter does not fit llama: {why}")
    assert said.endswith("other': give that as pretrained=")


def test_planted_adapter_of_which_a_part_is_lost(here):
    """peft fills it with random numbers and a warning."""
    weights = load_file("tuned/adapter_model.safetensors")
    weights.pop(f"{PREFIX}model.layers.1.self_attn.v_proj.lora_B.weight")
    save_file(weights, "tuned/adapter_model.safetensors", metadata={"format": "pt"})
    assert "1 of its weights are missing, the first is" in refused(pretrained="llama", peft="tuned")


def test_another_name_for_the_model_that_fits_is_said(here, caplog):
    elsewhere("tuned")
    with caplog.at_level(logging.INFO):
        hf(pretrained="llama", peft="tuned")
    assert "peft=tuned: trained on 'someone/model', put on llama, which it fits" in caplog.messages


def test_a_folder_without_an_adapter(here):
    assert refused(pretrained="llama", peft="gpt2") == (
        "peft=gpt2: no adapter in this folder (adapter_config.json is missing)"
    )
    assert refused(pretrained="llama", peft="./nowhere") == "peft=./nowhere: no such folder"
    (here / "tuned/adapter_model.safetensors").unlink()
    assert refused(pretrained="llama", peft="tuned") == (
        "peft=tuned: no weights in this adapter (adapter_model.safetensors is missing)"
    )


def test_a_hub_adapter_that_cannot_be_had(here):
    assert refused(pretrained="llama", peft="nobody/nothing").startswith(
        "peft=nobody/nothing: no such folder, and not to be had from the hub ("
    )


@pytest.mark.parametrize(("peft", "commit"), [("me/tuned", "a"), ("hf:me/tuned@v2", "b")])
def test_an_adapter_of_the_hub_is_its_files(here, monkeypatch, peft, commit):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(here / "hub"))
    home = here / "hub/models--me--tuned"
    (home / "refs").mkdir(parents=True)
    for seed, (ref, each) in enumerate({"main": "a" * 40, "v2": "b" * 40}.items()):
        lora("llama", home / "snapshots" / each, "q_proj", seed=seed)
        (home / "refs" / ref).write_text(each)
    law, local = hf(pretrained="llama", peft=peft), hf(pretrained="llama", peft=str(home / "snapshots" / (commit * 40)))
    assert law.name == "llama+me/tuned"
    assert law.identity() == local.identity()


def test_an_adapter_given_as_the_model(here):
    assert refused(pretrained="tuned") == "tuned: this is an adapter; give pretrained=<its model>,peft=tuned"


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_a_broken_adapter_is_one_line(here, name):
    (here / "tuned" / name).write_text("{broken")
    assert refused(pretrained="llama", peft="tuned").startswith("peft=tuned: this adapter ")


@pytest.mark.parametrize("kind", ["PrefixTuning", "PromptEncoder"])
def test_other_prompts_than_soft_ones_are_refused(here, kind):
    import peft
    from transformers import AutoModelForCausalLM

    config = getattr(peft, f"{kind}Config")(num_virtual_tokens=2, task_type="CAUSAL_LM")
    peft.get_peft_model(AutoModelForCausalLM.from_pretrained("gpt2"), config).save_pretrained("virtual")
    name = {"PrefixTuning": "PREFIX_TUNING", "PromptEncoder": "P_TUNING"}[kind]
    said = f"peft=virtual: this adapter is of kind {name}: LoRA and its kin can be run, and PROMPT_TUNING"
    assert refused(pretrained="gpt2", peft="virtual") == said
    with pytest.raises(UsageError, match=said):
        hf_module.outline(pretrained="gpt2", peft="virtual")


def test_weights_that_are_not_numbers_are_not_merged(here):
    weights = load_file("tuned/adapter_model.safetensors")
    for weight in weights.values():
        weight.fill_(np.nan)
    save_file(weights, "tuned/adapter_model.safetensors", metadata={"format": "pt"})
    assert refused(pretrained="llama", peft="tuned").startswith(
        "peft=tuned: this adapter cannot be merged into the weights of llama: NaNs detected"
    )


def test_a_pickle_is_read_only_when_asked(here):
    safe = hf(pretrained="llama", peft="tuned")
    torch.save(load_file("tuned/adapter_model.safetensors"), "tuned/adapter_model.bin")
    (here / "tuned/adapter_model.safetensors").unlink()
    assert refused(pretrained="llama", peft="tuned") == (
        "peft=tuned: its weights are a pickle (adapter_model.bin); convert them to safetensors, "
        "or have them read with use_safetensors=false"
    )
    law = hf(pretrained="llama", peft="tuned", use_safetensors=False)
    torch.testing.assert_close(logits(law), logits(safe))
    assert law.identity() != safe.identity()


def test_without_peft_the_extra_is_named(here, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    assert refused(pretrained="llama", peft="tuned") == (
        "peft=tuned: adapters need the package peft: pip install 'alignbench[train]'"
    )
