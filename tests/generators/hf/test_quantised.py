"""Weights of few bits: int8 of our own, and checkpoints that were quantised or pruned elsewhere."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest
import torch
from models import tiny_gpt2, tiny_llama
from safetensors.torch import load_file, save_file
from torch import nn

from alignbench.errors import UsageError
from alignbench.generators.hf import factory as hf_module
from alignbench.generators.hf.factory import hf
from alignbench.generators.hf.quantised import Int8Linear, as_loaded, refuse_scheme
from alignbench.seeds import Seed
from alignbench.testing import check
from alignbench.types import collect, rows_of

WORDS = ("rain", "sun", "wind", "snow", "she", "he")
PROMPTS = ("rain", "sun wind")


@pytest.fixture
def folder(tmp_path):
    """A tiny Llama that a test may spoil."""
    return tiny_llama(tmp_path / "tiny", WORDS)


def refused(**arguments):
    with pytest.raises(UsageError) as caught:
        hf(**{k: str(v) if k == "pretrained" else v for k, v in arguments.items()})
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    return str(caught.value)


def said_quantised(folder, **scheme):
    """The folder, its config saying that its weights are quantised so."""
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": scheme}))
    return folder


def linear(rows, seed=0):
    weight = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
    weight[3] = 0  # a pruned row
    return weight, Int8Linear(weight, torch.arange(5.0)), torch.randn(rows, 8)


# --- int8


def test_int8_weights_are_within_half_a_step_of_the_weights():
    weight, small, _ = linear(1)
    step = weight.abs().amax(1) / 127
    got = small(torch.eye(8)).T - torch.arange(5.0)[:, None]
    assert ((got - weight).abs() <= step[:, None] / 2 + 1e-7).all()
    assert int(small.weight.abs().max()) == 127 and small.weight.dtype == torch.int8
    assert torch.equal(got[3], torch.zeros(8))


def test_an_int8_row_does_not_know_the_rows_beside_it():
    _, small, x = linear(6)
    beside = x.clone()
    beside[1:] *= 1000
    torch.testing.assert_close(small(x)[0], small(beside)[0])


@pytest.mark.parametrize("save", [tiny_llama, tiny_gpt2])
def test_every_law_holds_in_int8(save, tmp_path):
    """GPT-2's layers are transposed, of a kind of their own; its output layer is tied and stays as it is."""
    folder = save(tmp_path / "tiny", WORDS)
    law, whole = hf(pretrained=str(folder), quantize="int8"), hf(pretrained=str(folder))
    small = [layer for layer in law.model.network.modules() if isinstance(layer, Int8Linear)]
    assert len(small) == (14 if save is tiny_llama else 8)
    assert not any(type(x) is nn.Linear and x is not law.model.network.lm_head for x in law.model.network.modules())
    assert law.model.trial.works
    assert check(law, PROMPTS, max_tokens=3)
    ids = torch.tensor([[1, 3, 2, 5, 4]])
    with torch.no_grad():
        gap = (law.model.network(ids).logits - whole.model.network(ids).logits).abs().max()
    assert 1e-4 < float(gap) < 0.2


def test_sampling_is_scoring_in_int8_of_half_precision(folder):
    law = hf(pretrained=str(folder), quantize="int8", dtype="bfloat16", device="cpu")
    draws = collect(law.sample(PROMPTS, rows_of(2, 32), max_tokens=5, seed=Seed()))
    np.testing.assert_allclose(law.log_prob(PROMPTS, draws), draws.log_prob, atol=0.1)


def test_planted_scale_of_the_whole_batch_is_refused(folder, monkeypatch):
    """What torch's dynamic quantisation does: activations of 8 bits, scaled by the largest of all rows."""

    def forward(self, x):
        step = x.abs().max() / 127
        return (nn.functional.linear((x / step).round(), self.weight.to(x.dtype)) * step * self.scale).to(x.dtype)

    monkeypatch.setattr(Int8Linear, "forward", forward)
    assert refused(pretrained=folder, quantize="int8").endswith("depends on the prompts beside it, or on what follows")


def test_int8_is_in_the_identity_and_the_name(folder):
    whole, small = hf(pretrained=str(folder)), hf(pretrained=str(folder), quantize="int8")
    assert small.identity() != whole.identity()
    assert (whole.name, small.name) == ("tiny", "tiny-int8")


def test_an_unknown_scheme_and_another_device(folder):
    assert refused(pretrained=folder, quantize="itn8") == "unknown quantize 'itn8'. Did you mean 'int8'? Known: int8."
    with pytest.raises(UsageError) as caught:
        refuse_scheme("int8", torch.device("cuda:0"))
    assert str(caught.value) == (
        "quantize=int8: on a CPU only, not on 'cuda:0'; use device=cpu, or a checkpoint that is quantised"
    )


# --- quantised checkpoints


def fp8(folder):
    """Float8 weights with a scale a block, as DeepSeek's checkpoints; returns what they stand for."""
    weights, truth = load_file(folder / "model.safetensors"), {}
    for name in [n for n in weights if "_proj" in n]:
        scale = float(weights[name].abs().max()) / 448
        weights[name] = (weights[name] / scale).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv"] = torch.full((1, 1), scale)
        truth[name] = weights[name].float() * scale
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    said_quantised(folder, quant_method="fp8", weight_block_size=[128, 128])
    return truth


def test_a_quantised_checkpoint_is_loaded_as_it_says(folder):
    """Without a GPU transformers makes these weights floating again: another law than theirs, so it is in its name."""
    truth = fp8(folder)
    law = hf(pretrained=str(folder))
    got = law.model.network.state_dict()
    for name, want in truth.items():
        torch.testing.assert_close(got[name], want, rtol=0, atol=0)
    assert law.identity()["model"]["weights"].endswith("+dequantised")
    assert check(law, PROMPTS, max_tokens=2)


@pytest.mark.parametrize(
    ("scheme", "told"),
    [
        ({"quant_method": "gptq", "bits": 4}, "optimum"),
        ({"quant_method": "awq", "bits": 4}, "gptqmodel"),
    ],
)
def test_a_missing_package_is_named(folder, scheme, told):
    if importlib.util.find_spec(told):
        pytest.skip(f"{told} is installed")
    assert f"pip install {told}" in refused(pretrained=said_quantised(folder, **scheme))


def test_a_missing_module_is_named(folder, monkeypatch):
    def absent(folder, **options):
        raise ModuleNotFoundError("No module named 'torchao'", name="torchao")

    monkeypatch.setattr(hf_module, "_network", absent)
    assert refused(pretrained=folder) == f"{folder}: No module named 'torchao'; pip install torchao"


def test_a_scheme_for_gpus_only_is_one_line(folder):
    assert refused(pretrained=said_quantised(folder, quant_method="higgs"), device="cpu").startswith(
        f"{folder}: cannot be loaded as a language model: HIGGS quantization is only supported on GPU"
    )


def test_a_scheme_that_transformers_does_not_know(folder):
    """It would skip it with a warning, and take the numbers in the file for weights."""
    assert refused(pretrained=said_quantised(folder, quant_method="nosuch")) == (
        f"{folder}: its weights are quantised by 'nosuch', which transformers does not know"
    )


def test_a_dtype_that_a_quantised_checkpoint_does_not_take():
    network = nn.Linear(1, 1)
    network.dtype, network.is_quantized = torch.float32, True
    assert as_loaded(network, None, "tiny") == as_loaded(network, torch.float32, "tiny") == ""
    with pytest.raises(UsageError) as caught:
        as_loaded(network, torch.bfloat16, "tiny")
    assert str(caught.value) == (
        "tiny: dtype=bfloat16, but its weights are quantised and run in float32; leave dtype out"
    )


def test_int8_of_quantised_weights_is_refused(folder, monkeypatch):
    fp8(folder)
    right = hf_module._network

    def quantised(folder, **options):
        network = right(folder, **options)
        network.is_quantized = True
        return network

    monkeypatch.setattr(hf_module, "_network", quantised)
    assert refused(pretrained=folder, quantize="int8") == (
        f"{folder}: quantize=int8, but its weights are quantised already"
    )


# --- pruned checkpoints


def test_a_pruned_checkpoint_is_a_checkpoint(folder):
    weights = load_file(folder / "model.safetensors")
    for name in [n for n in weights if "_proj" in n]:
        small = weights[name].abs() < weights[name].abs().median()
        weights[name][small] = 0
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    law = hf(pretrained=str(folder))
    got = law.model.network.state_dict()
    assert all(torch.equal(got[name], weight) for name, weight in weights.items())
    assert law.model.trial.works


def test_heads_that_were_cut_out_are_one_line(tmp_path):
    """transformers 5 builds the whole layer whatever `pruned_heads` says."""
    folder = tiny_gpt2(tmp_path / "tiny", WORDS)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pruned_heads": {"0": [1]}}))
    weights = load_file(folder / "model.safetensors")
    for name in [n for n in weights if "h.0.attn.c_attn" in n]:
        weights[name] = weights[name][..., :24].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert refused(pretrained=folder) == (
        f"{folder}: cannot be loaded as a language model: 2 of its weights are missing or misshapen, "
        "the first is transformer.h.0.attn.c_attn.bias; its config prunes heads, which transformers 5 cannot"
    )
