"""Policies on disk: what is saved is what comes back, in float32 and in bfloat16; every adapter that is refused."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import tiny_bart, tokenizer
from policy_world import PROMPTS, SUN, WORDS, drawn, same, scored, stirred, trained, trained_of
from safetensors.torch import load_file

from alignbench.errors import StoreError, Unsupported, UsageError
from alignbench.generators.exact.world import exact
from alignbench.generators.hf import adapters, factory
from alignbench.generators.hf import policy as policy_module
from alignbench.generators.hf.factory import hf
from alignbench.generators.hf.policy import Trained
from alignbench.generators.policy import policy_of
from alignbench.generators.reweighted import reweighted
from alignbench.testing import differing, gap, load_table, save_network, table_world

if importlib.util.find_spec("peft") is None:
    pytest.skip("peft is an extra", allow_module_level=True)

KINDS = ("gpt2", "llama", "t5", "bart")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Folders of a tiny network of each kind, and of a Llama whose output layer is its embeddings."""
    home = tmp_path_factory.mktemp("saved")
    for kind in ("gpt2", "llama", "t5"):
        save_network(home / kind, WORDS, kind=kind)
    save_network(home / "tied", WORDS, kind="llama", tie_word_embeddings=True)
    tiny_bart(home / "bart", WORDS)
    return home


@pytest.fixture(scope="module")
def bases(home):
    return {kind: hf(pretrained=str(home / kind)) for kind in (*KINDS, "tied")}


def back_from(base, adapter, folder, **more):
    """What a user loads of a saved policy."""
    if adapter == "full":
        return hf(pretrained=str(folder), **more)
    return hf(pretrained=str(base), peft=str(folder), **more)


def comes_back(policy, back):
    """Within 1e-4 nats, and 99 of 100 draws are the same."""
    draws = drawn(policy, 171)
    assert len(set(draws.texts)) > 10, "not one draw that is sure"
    assert gap(back.log_prob(PROMPTS, draws), draws.log_prob) < 1e-4
    again = drawn(back, 171)
    assert differing(draws, again).mean() <= 0.01 and again.vocab == draws.vocab
    assert gap(back.log_prob(PROMPTS, again), again.log_prob) < 1e-4


# --- saved and loaded


@pytest.mark.parametrize(
    ("kind", "adapter"),
    [
        *((kind, "lora:r=2") for kind in ("gpt2", "llama", "tied", "t5")),
        *((kind, "lora:r=2,layers=1") for kind in ("gpt2", "llama", "bart")),
        *((kind, "prompt:tokens=3") for kind in ("gpt2", "tied", "t5", "bart")),
        *(("gpt2", "full"), ("bart", "full")),
    ],
)
def test_a_saved_policy_comes_back(home, bases, kind, adapter, tmp_path):
    policy = policy_of(bases[kind], adapter)
    for _ in range(2):  # the second time over the first
        trained(policy, 2).save(tmp_path)
    back = back_from(home / kind, adapter, tmp_path)
    comes_back(policy, back)
    draws = drawn(policy)
    assert gap(bases[kind].log_prob(PROMPTS, draws), draws.log_prob) > 0.5
    assert not any(hasattr(layer, "lora_A") for layer in back.model.network.modules())
    assert back.identity() != bases[kind].identity() and back.identity() != policy.identity()
    assert type(back.model.network) is type(bases[kind].model.network)
    if kind in ("gpt2", "tied"):
        network = back.model.network
        assert network.get_output_embeddings().weight is network.get_input_embeddings().weight


def test_a_saved_table_comes_back(tmp_path):
    policy = trained(policy_of(table_world(WORDS, PROMPTS, 4)))
    policy.save(tmp_path)
    comes_back(policy, load_table(tmp_path))


def test_settings_are_no_part_of_what_is_saved(home, bases, tmp_path):
    policy = stirred(policy_of(bases["llama"], "lora:r=2")).warped(temperature=0.7, repetition_penalty=1.4)
    policy.save(tmp_path)
    back = back_from(home / "llama", "lora", tmp_path)
    assert back.plain
    comes_back(policy, back.warped(temperature=0.7, repetition_penalty=1.4))


def test_what_came_back_is_trained_further(home, bases, tmp_path):
    """All weights; over a loaded adapter a second is refused."""
    policy = trained(policy_of(bases["gpt2"], "full"))
    policy.save(tmp_path)
    back = back_from(None, "full", tmp_path)
    further = policy_of(back, "lora:r=2")
    assert gap(further.log_prob(PROMPTS, drawn(back)), drawn(back).log_prob) < 1e-4
    before = (drawn(further, 100).tokens == SUN).mean()
    assert (drawn(trained(further), 100).tokens == SUN).mean() > before
    further.save(tmp_path / "adapter")
    comes_back(further, back_from(tmp_path, "lora", tmp_path / "adapter"))


# --- its files


LORA = ["adapter_config.json", "adapter_model.safetensors"]
FULL = ["config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]


def names(folder):
    return sorted(file.name for file in folder.iterdir())


@pytest.mark.parametrize(("adapter", "files"), [("lora:r=2,alpha=5", LORA), ("full", FULL)])
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_only_tensors_and_settings_are_written(home, bases, kind, adapter, files, tmp_path):
    policy = policy_of(bases[kind], adapter)
    policy.save(tmp_path / "new" / "folder")
    folder = tmp_path / "new" / "folder"
    assert names(folder) == files
    for file in folder.glob("*.json"):
        json.loads(file.read_text())
    weights = load_file(next(folder.glob("*.safetensors")))
    assert all(isinstance(x, torch.Tensor) for x in weights.values())
    assert all(file.stat().st_mode & 0o777 == 0o644 for file in folder.iterdir()), "others may read"
    if adapter != "full":
        told = json.loads((folder / "adapter_config.json").read_text())
        assert told["base_model_name_or_path"] == str(home / kind)
        assert (told["r"], told["lora_alpha"], told["lora_dropout"], told["peft_type"]) == (2, 5, 0, "LORA")
        assert told["target_modules"] == sorted(told["target_modules"]), "in no order of a hash"
        assert sum(x.numel() for x in weights.values()) == sum(p.numel() for p in trained_of(policy))


def test_other_files_of_the_folder_stay(bases, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "notes").mkdir()
    policy = policy_of(bases["gpt2"], "lora:r=2")
    policy.save(tmp_path)
    assert names(tmp_path) == sorted(["README.md", *LORA, "notes"])
    assert (tmp_path / "README.md").read_text() == "mine"


def test_equal_policies_are_saved_as_equal_files(bases, tmp_path):
    for name in ("one", "other"):
        policy_of(bases["llama"], "lora:r=2", seed=3).save(tmp_path / name)
    for file in LORA:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_soft_prompt_is_one_tensor(home, bases, kind, tmp_path):
    policy = policy_of(bases[kind], "prompt:tokens=5", seed=3)
    policy.save(tmp_path)
    assert names(tmp_path) == LORA
    [(name, rows)] = load_file(tmp_path / "adapter_model.safetensors").items()
    assert name == "prompt_embeddings" and rows.shape == (5, 16)
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(home / kind)
    assert (told["peft_type"], told["num_virtual_tokens"], told["token_dim"]) == ("PROMPT_TUNING", 5, 16)
    assert told["task_type"] == ("SEQ_2_SEQ_LM" if kind == "t5" else "CAUSAL_LM")
    before = (tmp_path / "adapter_config.json").read_bytes()
    policy_of(bases[kind], "prompt:tokens=5").save(tmp_path)
    assert (tmp_path / "adapter_config.json").read_bytes() == before
    assert not torch.equal(load_file(tmp_path / "adapter_model.safetensors")[name], rows)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("lost"), KeyboardInterrupt()])
@pytest.mark.parametrize("adapter", ["lora:r=2", "full"])
def test_what_fails_halfway_leaves_what_was_there(home, bases, adapter, error, tmp_path, monkeypatch):
    policy, right = policy_of(bases["gpt2"], adapter), Trained._write
    policy.save(tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    stirred(policy)

    def fails(self, folder, tokenizer):
        right(self, folder, tokenizer)
        raise error

    monkeypatch.setattr(Trained, "_write", fails)
    with pytest.raises(StoreError if isinstance(error, OSError) else type(error)) as caught:
        policy.save(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    if isinstance(error, OSError):
        assert str(caught.value) == f"{tmp_path}: cannot be written: No space left on device"


@pytest.mark.parametrize("adapter", ["lora:r=2", "full"])
def test_a_disk_that_is_full_is_one_line(bases, adapter, tmp_path):
    """safetensors has an error of its own for it."""
    policy, (soft, hard) = policy_of(bases["gpt2"], adapter), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match=r"cannot be written: .*File too large") as caught:
            policy.save(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(caught.value) and not names(tmp_path)


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_a_folder_that_cannot_be_made(bases, place, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written") as caught:
        policy_of(bases["gpt2"], "lora:r=2").save(tmp_path / place)
    assert "\n" not in str(caught.value) and names(tmp_path) == ["file"]


def test_the_file_that_tells_of_the_others_comes_last(bases, tmp_path, monkeypatch):
    """A run that is killed leaves a folder in which `hf` finds nothing, rather than half of something."""
    order, right = [], os.replace
    monkeypatch.setattr(os, "replace", lambda source, to: order.append(to.name) or right(source, to))
    for adapter, last in (("lora:r=2", "adapter_config.json"), ("full", "config.json")):
        policy_of(bases["gpt2"], adapter).save(tmp_path / adapter)
        assert order[-1] == last


# --- bfloat16


@pytest.fixture(scope="module")
def halves(home):
    """Policies in bfloat16 that are not their bases any more."""
    bases = {kind: hf(pretrained=str(home / kind), dtype="bfloat16", device="cpu") for kind in ("gpt2", "llama", "t5")}
    return {kind: stirred(policy_of(base, "lora:r=2"), 0.1) for kind, base in bases.items()}


def off(law, draws):
    """Mean |nats| by token that it is off those of the draws."""
    return np.abs(law.token_log_prob(PROMPTS, draws) - draws.token_log_prob).sum() / draws.length.sum()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_in_bfloat16_an_adapter_stays_beside_the_weights(home, halves, kind, tmp_path, monkeypatch):
    """Then it is the policy bit for bit, batch by batch; merged into weights of 8 bits it is another law."""
    policy = halves[kind]
    policy.save(tmp_path)

    def loaded(dtype):
        return back_from(home / kind, "lora", tmp_path, dtype=dtype, device="cpu")

    back, whole = loaded("bfloat16"), loaded("float32")
    lora = [p for name, p in back.model.network.named_parameters() if "lora_" in name]
    assert len(lora) == len(trained_of(policy)) and back.identity() != whole.identity()
    assert {p.dtype for p in lora} == {p.dtype for p in trained_of(policy)} == {torch.float32}
    monkeypatch.setattr(factory, "HALVES", ())
    merged = loaded("bfloat16")
    assert not any("lora_" in name for name, _ in merged.model.network.named_parameters())
    assert merged.identity() != back.identity()
    draws = drawn(policy)
    assert off(back, draws) < 1e-6 and same(drawn(back), draws)
    assert off(merged, draws) > 1e-4


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5"])
def test_in_bfloat16_it_scores_as_it_draws(halves, kind):
    draws = drawn(halves[kind])
    assert gap(scored(halves[kind], draws), draws.token_log_prob) < 0.1
    assert all(p.grad is None for p in trained_of(halves[kind]))
    gradient = torch.autograd.grad(halves[kind].module(PROMPTS, draws).sum(), trained_of(halves[kind]))
    assert all(g.dtype == torch.float32 and g.isfinite().all() for g in gradient)


def test_full_weights_of_bfloat16_come_back(home, tmp_path):
    base = hf(pretrained=str(home / "llama"), dtype="bfloat16", device="cpu")
    policy = stirred(policy_of(base, "full"), 0.1)
    policy.save(tmp_path)
    assert {x.dtype for x in load_file(tmp_path / "model.safetensors").values()} == {torch.bfloat16}
    back = back_from(None, "full", tmp_path, dtype="bfloat16", device="cpu")
    assert same(drawn(policy), drawn(back)) and not same(drawn(policy), drawn(base))


# --- planted: an adapter that counts twice


def broken(law, *given):
    with pytest.raises(AssertionError):
        law(*given)


def test_planted_adapter_that_is_merged_and_still_there(home, bases, tmp_path, monkeypatch):
    from peft.tuners.tuners_utils import BaseTunerLayer

    policy = trained(policy_of(bases["gpt2"], "lora:r=2"))
    policy.save(tmp_path / "adapter")
    once = back_from(home / "gpt2", "lora", tmp_path / "adapter")
    comes_back(policy, once)

    def twice(adapter, network, base, *, beside=False):
        wrapped = adapters._put_on(adapter, network, base)
        wrapped.merge_adapter()
        for layer in wrapped.modules():
            if isinstance(layer, BaseTunerLayer):
                layer.merged_adapters = []
        return wrapped.get_base_model()

    with monkeypatch.context() as patch:
        patch.setattr(adapters, "merged", twice)
        broken(comes_back, policy, back_from(home / "gpt2", "lora", tmp_path / "adapter"))
    once.model.network.save_pretrained(tmp_path / "merged")
    once.model.tokenizer.save_pretrained(tmp_path / "merged")
    comes_back(policy, hf(pretrained=str(tmp_path / "merged")))
    broken(comes_back, policy, back_from(tmp_path / "merged", "lora", tmp_path / "adapter"))


def test_planted_adapter_that_is_lost(home, bases, tmp_path):
    policy = trained(policy_of(bases["llama"], "lora:r=2"))
    broken(comes_back, policy, bases["llama"])


# --- what is refused


class Empty:
    """A rule that changes nothing."""

    name, truncates = "empty", False

    def identity(self):
        return {}

    def start(self, prompts, max_tokens):
        return None

    def extend(self, memory, tokens):
        return memory

    def select(self, memory, rows):
        return memory

    def weigh(self, log_probs, memory):
        return log_probs


class Mute:
    """A sampler that is no law."""

    name = "mute"

    def sample(self, prompts, rows, *, max_tokens, seed):
        yield from ()


def refused(kind, base, *given):
    with pytest.raises(kind) as caught:
        policy_of(base, *given)
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("lorra", "adapter: unknown adapter 'lorra'. Did you mean 'lora'? Known: full, head, lora, prompt."),
        ("lora:rank=4", "adapter 'lora': unknown argument 'rank'. Known: alpha, layers, r."),
        ("full:r=4", "adapter 'full': unknown argument 'r'. Known: none."),
        ("lora:r=0", "lora: r=0: must be at least 1"),
        ("lora:r=-2", "lora: r=-2: must be at least 1"),
        ("prompt:tokens=0", "prompt: tokens=0: must be at least 1"),
        ("prompt:r=2", "adapter 'prompt': unknown argument 'r'. Known: tokens."),
        ("lora:alpha=0", "lora: alpha=0: must be at least 1"),
        ("lora:layers=0", "lora: layers=0: must be at least 1"),
        ("lora:r=x", "adapter 'lora' argument 'r': input should be a valid integer, not 'x'"),
        ("lora:r", "adapter 'lora': 'r' is not key=value (where a value holds a comma, use inline YAML: "),
        ("", "adapter: '' names nothing"),
    ],
)
def test_adapters_that_are_none(bases, given, said):
    assert refused(UsageError, bases["llama"], given).startswith(said)


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_layers_alone(bases, kind):
    numbers = [
        {int(found[1]) for name in policy_of(bases[kind], given).learner.trained.tensors
         if (found := re.search(r"\.(\d+)\.", name))}
        for given in ("lora:r=2", "lora:r=2,layers=1")
    ]  # fmt: skip
    assert len(numbers[0]) > 1 and numbers[1] == {max(numbers[0])}


def test_adapters_in_yaml(bases):
    policy = policy_of(bases["llama"], "{name: lora, r: 3}")
    assert {min(p.shape) for p in trained_of(policy)} == {3}


def test_bases_without_weights(bases):
    untrained = "has no weights that can be trained; a language model of transformers has"
    assert refused(Unsupported, Mute()) == f"mute: {untrained}"
    assert refused(Unsupported, exact(words=WORDS)) == f"exact: {untrained}"
    assert refused(Unsupported, reweighted(bases["llama"], Empty())) == f"llama empty: {untrained}"


@pytest.mark.parametrize("adapter", ["lora:r=2", "full"])
@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_quantised_weights_are_not_trained(home, kind, adapter):
    """Nor what is left beside them: norms, embeddings."""
    quantised = hf(pretrained=str(home / kind), quantize="int8", device="cpu")
    assert refused(Unsupported, quantised, adapter) == (
        f"{kind}-int8: its weights are quantised, and are not trained: give its unquantised model"
    )


@pytest.mark.parametrize("adapter", ["lora:r=2", "full"])
def test_an_adapter_is_not_put_on_another(home, bases, adapter, tmp_path):
    first = policy_of(bases["llama"], "lora:r=2")
    first.save(tmp_path / "first")
    loaded = back_from(home / "llama", "lora", tmp_path / "first")
    assert refused(Unsupported, loaded, adapter).startswith(
        "llama+first: has an adapter, and one more over it could not"
    )
    for policy in (first, policy_of(bases["llama"], "full")):
        assert refused(Unsupported, policy, adapter) == (
            "llama: is a policy already: save it, and make the next one of what loads it"
        )


def test_draws_of_another_tokenizer(bases):
    policy, draws = policy_of(bases["llama"], "lora:r=2"), drawn(bases["llama"])
    for strange in (replace(draws, vocab="0123456789ab"), replace(draws, vocab=""), replace(draws, tokens=None)):
        with pytest.raises(UsageError, match="these draws are ids of another tokenizer"):
            policy.module(PROMPTS, strange)


def test_without_peft_the_extra_is_named(bases, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    for name in ("lora", "prompt"):
        assert refused(UsageError, bases["llama"], name) == (
            f"adapter={name}: needs the package peft: pip install 'alignbench[train]'"
        )
    assert policy_of(bases["llama"], "full")


# --- what other networks bring


def network_of(folder, kind, **config):
    """A random network of a class of transformers, saved."""
    import transformers

    made = getattr(transformers, kind)
    ends = {"bos_token_id": 3, "eos_token_id": 3, "pad_token_id": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = made(made.config_class(**{"vocab_size": 4, **ends, **config}))
    network.save_pretrained(str(folder))
    tokenizer(WORDS).save_pretrained(str(folder))
    return folder


PAIR = {"init_std": 0.3, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 64,
        "decoder_start_token_id": 3}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "config"),
    [("MarianMTModel", {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 4}),
     ("PegasusForConditionalGeneration", {})],
)  # fmt: skip
def test_all_that_full_trains_has_a_gradient(tmp_path, kind, config):
    """Also the pad that the decoder begins with; positions that are computed are not trained."""
    policy = policy_of(hf(pretrained=str(network_of(tmp_path / "base", kind, **PAIR, **config))), "full")
    policy.module(PROMPTS, drawn(policy)).sum().backward()
    assert all(p.grad is not None for p in policy.parameters)
    words = policy.model.network.get_decoder().embed_tokens.weight.grad
    assert words[3].any()
    known = dict(policy.model.network.named_parameters())
    assert all("embed_positions" in name for name in known.keys() - policy.model.trained.tensors.keys())
    comes_back(stirred(policy, 0.1), saved_and_loaded(policy, tmp_path))


def saved_and_loaded(policy, folder, **more):
    policy.save(folder / "saved")
    if "full" in repr(policy.model.trained.recipe).lower():
        return hf(pretrained=str(folder / "saved"), **more)
    return hf(pretrained=str(folder / "base"), peft=str(folder / "saved"), **more)


@pytest.mark.filterwarnings("ignore:The following .*_pattern keys:RuntimeWarning")  # peft's, of the fused experts
def test_a_mixture_of_experts_comes_back(tmp_path):
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
             "num_key_value_heads": 1, "num_local_experts": 2, "initializer_range": 0.3}  # fmt: skip
    base = hf(pretrained=str(network_of(tmp_path / "base", "MixtralForCausalLM", **shape)))
    policy = stirred(policy_of(base, "lora:r=2"))
    comes_back(policy, saved_and_loaded(policy, tmp_path))


def test_a_tokenizer_with_several_templates_is_saved_twice(home, tmp_path):
    base = hf(pretrained=str(home / "llama"))
    base.model.tokenizer.chat_template = {"default": "{{ messages }}", "tool": "tools: {{ messages }}"}
    policy = policy_of(base, "full")
    for _ in range(2):
        policy.save(str(tmp_path))
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert folders and all(path.stat().st_mode & 0o100 for path in folders)
    hf(pretrained=str(tmp_path), apply_chat_template="tool")


@pytest.mark.parametrize("adapter", ["lora:r=2", "full"])
def test_killed_while_it_overwrites_it_is_no_model_but_never_a_mixture(bases, home, tmp_path, monkeypatch, adapter):
    policy_of(bases["llama"], adapter).save(tmp_path)
    right, done = os.replace, []

    def killed(source, target):
        if done:
            raise KeyboardInterrupt
        done.append(target)
        right(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(policy_module.os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            stirred(policy_of(bases["llama"], adapter.replace("r=2", "r=2,alpha=64"))).save(tmp_path)
    with pytest.raises(UsageError, match=r"no adapter in this folder|no model in this folder"):
        back_from(home / "llama", adapter, tmp_path)


def test_all_weights_in_the_folder_of_an_adapter(bases, tmp_path):
    policy_of(bases["llama"]).save(tmp_path)
    policy = stirred(policy_of(bases["llama"], "full"), 0.1)
    policy.save(tmp_path)
    comes_back(policy, hf(pretrained=str(tmp_path)))


def test_two_recipes_with_equal_numbers_are_two_laws(bases):
    one, other = (stirred(policy_of(bases["gpt2"], f"lora:r=2,alpha={alpha}")) for alpha in (4, 64))
    assert all(torch.equal(p, q) for p, q in zip(one.parameters, other.parameters, strict=True))
    assert one.identity() != other.identity()


def test_a_policy_that_is_frozen_is_itself(bases):
    one, other = (stirred(policy_of(bases["gpt2"]), seed=seed) for seed in (0, 1))
    before = one.identity()
    for policy in (one, other):
        policy.module.requires_grad_(False)
    assert one.identity() == before != other.identity()


def test_an_adapter_in_half_precision_under_8_bits_is_merged_first(home, halves, tmp_path):
    """Else its own factors would be rounded to 8 bits too: whole nats off."""
    halves["llama"].save(tmp_path)
    load = {"dtype": "bfloat16", "device": "cpu", "quantize": "int8"}
    back = back_from(home / "llama", "lora", tmp_path, **load)
    assert not any("lora_" in name for name, _ in back.model.network.named_modules())
    assert off(back, drawn(halves["llama"])) < 0.1


def test_an_adapter_tells_its_base_as_the_user_named_it(bases, home, tmp_path):
    policy_of(bases["llama"]).save(tmp_path)
    told = json.loads((tmp_path / "adapter_config.json").read_text())
    assert told["base_model_name_or_path"] == str(home / "llama")
