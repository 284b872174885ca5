"""Stored draws and evidence are found by identities: these are those of version 0.1, and must stay.

ALIGNBENCH_REGENERATE=1 pytest -n 0 tests/test_golden_identities.py rewrites tests/golden/identities.json, each test its
part; an entry that changes there makes users draw and measure anew.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from dataclasses import replace
from hashlib import sha256
from types import SimpleNamespace

import pytest
from golden_files import GOLDEN, check_json
from models import CHAT, tiny_bart, tiny_gpt2, tiny_llama, tiny_t5

import alignbench
from alignbench.aligners.guidance.head import Head
from alignbench.generators.later import Later
from alignbench.generators.policy import policy_of
from alignbench.registry import aligner, generator, load_plugins
from alignbench.spec import parse_spec
from alignbench.target import Target
from alignbench.testing import table_world

load_plugins()
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft, in training

WORDS = ("rain", "sun", "wind", "snow", "she", "he")
MORE = ("user", "assistant", "system", "{}")  # what the chat template and the JSON Schema say
PLAIN = {"device": "cpu", "dtype": "float32"}
ALL = {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.95, "repetition_penalty": 1.3}
NETWORKS = {"gpt2": tiny_gpt2, "llama": tiny_llama, "t5": tiny_t5, "bart": tiny_bart}
EXTRAS = {"peft": "peft", "regex": "outlines_core", "json_schema": "llguidance", "lark": "llguidance"}
"""Words of a case → the package of an extra without which it cannot be made."""

EXACT = [
    "exact",
    "exact:order=3,seed=4",
    "{name: exact, words: [she, he], order: 1, seed: 2, concentration: 0.3}",
    "{name: exact, words: sun rain wind snow, hidden: 3, seed: 7}",
]
SETTINGS = {
    "plain": {},
    "temperature": {"temperature": 0.5},
    "top_k": {"top_k": 3},
    "top_p": {"top_p": 0.8},
    "min_p": {"min_p": 0.1},
    "typical_p": {"typical_p": 0.7},
    "repetition_penalty": {"repetition_penalty": 1.8},
    "all": ALL,
}
TRAINED = (
    "cdpg", "contrastive", "control_code", "distil",
    "dpg", "dpg:minutes=2.5,replay=0.5", "dpo", "f_dpg:f=js", "gdc", "grpo", "ipo", "kto",
    "orpo", "ppo", "prompt_tuning", "q_learning", "reinforce", "sft", "sft_control", "simpo", "soft_q", "squared",
    "trl",
)  # fmt: skip
HF = {
    "gpt2": ("gpt2", {}),
    "gpt2 bfloat16": ("gpt2", {"dtype": "bfloat16"}),
    "gpt2 int8": ("gpt2", {"quantize": "int8"}),
    "gpt2 peft": ("gpt2", {"peft": "adapter"}),
    "llama": ("llama", {}),
    "llama chat": ("llama", {"apply_chat_template": True}),
    "llama system": ("llama", {"apply_chat_template": True, "system_instruction": "rain"}),
    "t5": ("t5", {}),
    "bart": ("bart", {}),
}

TASK = """
name: golden
version: 1
summary: The wind is always there.
prompts: [rain, sun wind]
train: [snow, he sun]
max_tokens: 4
draws: 8
features:
  windy: {feature: contains_any, words: [wind]}
target:
  - {feature: windy, always: true}
metrics: [satisfaction]
"""
WORLDS = ("exact_shares", "exact_ngram", "exact_reward")
"""Built-in tasks whose base is exact: a distribution, a constraint and a moment, two rewards."""
OF_SHARES = "{name: best_of_n, n: 2, proposal: {name: exact, words: she he sun rain, seed: 9}}"
FILTERED = ["filtered", "{name: filtered, cap: 16, proposal: 'temperature:t=1.5'}"]
EACH = [
    "attention_window:k=1",
    "beam",
    "beam:num_beams=2,length_penalty=0.5",
    "best_of_n:n=4",
    "best_of_n:n=2,rank=likelihood",
    "{name: best_of_n, n: 2, proposal: {name: prompt, text: sun}}",
    OF_SHARES,
    "{name: chain, steps: ['top_k:k=3', {name: prompt, text: sun}, 'temperature:t=0.7']}",
    "{name: chain, steps: ['top_p:p=0.9', greedy]}",
    "{name: constrained, any_of: [sun]}",
    "{name: constrained, never: [rain], lookahead: true}",
    "constant",
    "constant:text=sun",
    "copy",
    "few_shot:k=2",
    "{name: few_shot, k: 1, text: sun, cap: 64}",
    *FILTERED,
    "greedy",
    "min_p:p=0.1",
    "prompt:text=sun",
    "{name: prompt, text: 'sun {prompt} rain'}",
    "quasi_rejection",
    "quasi_rejection:beta=2",
    "{name: quasi_rejection, beta: 3, proposal: {name: chain, steps: ['temperature:t=2', {name: prompt, text: sun}]}}",
    "rejection",
    "rejection:cap=16",
    "repetition_penalty:penalty=1.3",
    "sir:n=4",
    "{name: sir, n: 2, proposal: 'temperature:t=1.5'}",
    "temperature:t=0.7",
    "top_k:k=3",
    "top_p:p=0.9",
    "typical:p=0.9",
]
SPECIAL = {
    "exact_shares": [],
    "exact_ngram": ["best_of_n:n=2,rank=windy", "{name: best_of_n, n: 2, rank: bright}"],
    "exact_reward": [],
    "gpt2": [
        "attention_window:k=3",
        "{name: constrained, must: [wind], ignore_case: true}",
        "{name: constrained, regex: ' ?(rain|wind)'}",
        "{name: constrained, regex: '.*wind', include_prompt: true, first: true, lookahead: true}",
        "{name: constrained, lark: 'start: / ?[a-z]+/'}",
        "{name: constrained, json_schema: {type: object}}",
        "few_shot:k=2",
        "{name: rejection, proposal: {name: constrained, any_of: [wind]}}",
    ],
    "llama": ["{name: prompt, text: sun, chat: true, system: rain}", "{name: few_shot, k: 1, text: sun, chat: true}"],
    "bart": ["attention_window:k=2,source_begin=0,source_end=1", "greedy"],
}
NOT_THERE = {
    "exact_reward": ["attention_window:k=1", OF_SHARES, *FILTERED], "exact_ngram": [OF_SHARES],
    "exact_shares": FILTERED,
}  # fmt: skip
"""Cases that a world cannot do: no window on a hidden state, no words of another world, no hard constraint."""


class Probe:
    """An aligner that keeps the setting that a run puts it to work on, its target fitted, and gives the base."""

    def align(self, setting):
        self.setting = setting
        return setting.base


def unlabelled(base, task, draws):
    probe = Probe()
    alignbench.evaluate(base, str(task), aligners=[probe], draws=draws)
    return probe.setting


def plain(identity):
    """Plain data as a key is made of; hashes of a network's files, which versions of libraries change, are masked."""
    return json.loads(re.sub(r"\b[0-9a-f]{64}\b", "<sha256 of files>", json.dumps(identity)))


def can_be_made(case):
    return all(word not in case or importlib.util.find_spec(package) for word, package in EXTRAS.items())


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny networks on disk, one of them with a chat template, and an adapter of another."""
    home = tmp_path_factory.mktemp("golden")
    made = {name: make(home / name, (*WORDS, *MORE)) for name, make in NETWORKS.items()}
    _give_template(made["llama"])
    if importlib.util.find_spec("peft"):
        made["adapter"] = _adapter(made["gpt2"], home / "adapter")
    return made


def _give_template(folder):
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(str(folder))
    tokens.chat_template = CHAT.replace("TRIM", "")
    tokens.save_pretrained(str(folder))


def _adapter(base, folder):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
    get_peft_model(AutoModelForCausalLM.from_pretrained(str(base)), config).save_pretrained(str(folder))
    return folder


def hf(folders, name, make=None, **given):
    if "peft" in given:
        given["peft"] = str(folders[given["peft"]])
    make = make or generator["hf"].thing
    return make(**{**PLAIN, "pretrained": str(folders[name]), **given})


def check_part(part, found):
    """Compare with one part of the golden file, the others left as they are; what absent extras make is not asked."""
    path = GOLDEN / "identities.json"
    one_writer = "PYTEST_XDIST_WORKER" not in os.environ or "ALIGNBENCH_REGENERATE" not in os.environ
    assert one_writer, "regenerate with -n 0: several processes would overwrite each other's part"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if set(stored.get(part, {})) - set(found) and not all(importlib.util.find_spec(p) for p in EXTRAS.values()):
        found = {**{case: told for case, told in stored[part].items() if not can_be_made(case)}, **found}
    check_json(path, {**stored, part: found})


def built_in(registry):
    return {name for name, entry in registry.items() if entry.thing.__module__.startswith("alignbench.")}


def cases_of(world):
    everywhere = [case for case in EACH if case not in NOT_THERE.get(world, ())] if world in WORLDS else []
    return [*everywhere, *SPECIAL[world]]


def identities(setting, cases):
    """Case → the identity of the generator that it makes in the setting."""
    return {case: plain(setting.built(parse_spec(case, "case"), "case").identity()) for case in cases}


def test_exact_worlds():
    found = {}
    for case in EXACT:
        law = parse_spec(case, "case").build(generator, "case")
        found |= {f"{case} {name}": plain(law.warped(**settings).identity()) for name, settings in SETTINGS.items()}
    check_part("generator exact", found)


def test_networks(folders):
    laws = {case: hf(folders, name, **given) for case, (name, given) in HF.items() if can_be_made(case)}
    found = {case: plain(law.identity()) for case, law in laws.items()}
    for case in laws:  # what files tell is what weights tell
        name, given = HF[case]
        assert hf(folders, name, generator["hf"].meta["outline"], **given).identity() == laws[case].identity(), case
    found |= {f"{name} {how}": plain(laws[name].warped(**settings).identity())
              for name in ("gpt2", "t5") for how, settings in SETTINGS.items() if settings}  # fmt: skip
    check_part("generator hf", found)


def test_what_stands_for_a_network_is_a_hash_of_its_files(folders):
    """The part that is masked elsewhere, by its rule."""
    total = sha256()
    for path in sorted(folders["gpt2"].iterdir()):
        total.update(f"{path.name}\0{sha256(path.read_bytes()).hexdigest()}\n".encode())
    assert hf(folders, "gpt2").identity()["model"]["weights"] == total.hexdigest()


@pytest.mark.parametrize("world", WORLDS)
def test_aligners_on_an_exact_world(world):
    setting = unlabelled("exact", world, 64)
    check_part(f"aligners on {world}", identities(setting, cases_of(world)))


@pytest.mark.parametrize("world", sorted(set(SPECIAL) - set(WORLDS)))
def test_aligners_on_a_network(world, folders, tmp_path):
    task = tmp_path / "golden.yaml"
    task.write_text(TASK)
    setting = unlabelled(hf(folders, world), task, 8)
    found = identities(setting, filter(can_be_made, cases_of(world)))
    outlined = replace(setting, given=Later(hf(folders, world, generator["hf"].meta["outline"]), make=None))
    for case, identity in found.items():  # told before the base is loaded
        assert plain(outlined.identity_of(parse_spec(case, "case").build(aligner, "case"))) == identity, case
    check_part(f"aligners on {world}", found)


def test_trained_aligners_tell_their_hyper_parameters(monkeypatch, tmp_path):
    """All of them, whatever a label leaves out: a default that changes makes users train anew."""
    monkeypatch.setattr("alignbench.aligners.training.trl.version", lambda name: "1.16.0")
    setting = SimpleNamespace(target=Target((), {}, {}))
    found = {case: plain(parse_spec(case, "case").build(aligner, "case").identity(setting)) for case in TRAINED}
    policy_of(table_world(), "head:rank=64").save(tmp_path)
    found["head"] = plain(Head(str(tmp_path)).identity(setting))
    check_part("aligners on a policy", found)


def test_keys_of_stored_draws_and_evidence(command, tmp_path):
    """The folders of draws with what they stand for, and the names of evidence, of a run without λ.

    The last bits of λ depend on the machine, and so would the keys of what depends on it.
    """
    words = "run --tasks exact_rare,exact_reward --aligner rejection --aligner top_k:k=3 --draws 16 --seed 0,1"
    assert command(*words.split(), "--output_path", "out").code == 0
    out = tmp_path / "out"
    keys = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in out.glob("draws/*/key.json")}
    for name, key in keys.items():
        assert name == sha256(json.dumps(key, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]
    check_part("keys of draws", keys)
    evidence = {f"{path.parent.name}/{path.name}": path.stat().st_size > 0 for path in out.glob("*/evidence_*.npz")}
    check_part("names of evidence", evidence)


def test_every_built_in_generator_has_a_golden_identity():
    stored = json.loads((GOLDEN / "identities.json").read_text(encoding="utf-8"))
    assert {part.partition("generator ")[2] for part in stored if part.startswith("generator ")} == built_in(generator)


def test_every_built_in_aligner_has_a_golden_identity():
    stored = json.loads((GOLDEN / "identities.json").read_text(encoding="utf-8"))
    cases = [case for part in stored if part.startswith("aligners on ") for case in stored[part]]
    assert {parse_spec(case, "case").name for case in cases} == built_in(aligner)
