"""Policies as laws: what trains is what samples, its gradient is right, its base stays; and planted bugs."""

from __future__ import annotations

import importlib.util
import json
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import tiny_bart
from policy_world import (
    LENGTH,
    PROMPTS,
    SUN,
    WORDS,
    drawn,
    same,
    scored,
    stirred,
    trained,
    trained_of,
    walked,
    within,
)
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from alignbench.generators import law as law_module
from alignbench.generators.exact.world import enumerate_draws
from alignbench.generators.hf import heads, slots
from alignbench.generators.hf import policy as policy_module
from alignbench.generators.hf.causal import HFModel
from alignbench.generators.hf.encoder_decoder import HFEncoderDecoder
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import compare
from alignbench.generators.policy import Scorer, policy_of
from alignbench.generators.replicas import replicated
from alignbench.generators.warp import PLAIN
from alignbench.generators.window import Window
from alignbench.seeds import Seed
from alignbench.testing import LAWS, check, differing, gap, save_network, table_world, tiny_network
from alignbench.types import collect, rows_of

if importlib.util.find_spec("peft") is None:
    pytest.skip("peft is an extra", allow_module_level=True)

EVERY_LAW = [law.__name__ for laws in LAWS.values() for law in laws]
WHOLE = {
    "temperature": {"temperature": 0.7},
    "penalty": {"repetition_penalty": 1.6},
    "both": {"temperature": 1.4, "repetition_penalty": 0.8},
}
CUT = {
    "top-k": {"top_k": 2},
    "top-p": {"top_p": 0.8},
    "min-p": {"min_p": 0.1},
    "typical": {"typical_p": 0.8},
    "all": {"temperature": 1.3, "repetition_penalty": 1.3, "top_k": 3, "top_p": 0.95, "min_p": 0.02, "typical_p": 0.9},
}
SETTINGS = {"plain": {}} | WHOLE | CUT


# --- worlds


def two_ends(folder):
    """A Llama with two EOS ids."""
    save_network(folder, (*WORDS, "snow"), kind="llama")
    return configured(folder, eos_token_id=[len(WORDS), len(WORDS) + 1])


def configured(folder, **settings):
    """The network of a folder, of which `generation_config.json` says something else."""
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    return hf(pretrained=str(folder))


class Polite:
    """A frame: what is around each prompt."""

    remark = uncounted = ""

    def identity(self):
        return {"kind": "polite"}

    def fill(self, template, prompt):
        return f"sun sun {template.replace('{prompt}', prompt)}"


def bases(folder):
    """One of each kind that a policy can be made of."""
    nets = {kind: tiny_network(folder / kind, WORDS, kind=kind) for kind in ("gpt2", "llama", "t5")}
    bart = hf(pretrained=str(tiny_bart(folder / "bart", WORDS)))
    windowed = replace(nets["gpt2"], model=nets["gpt2"].model.windowed(Window(2)))
    return {
        "table": table_world(WORDS, PROMPTS, LENGTH), **nets, "bart": bart, "two ends": two_ends(folder / "ends"),
        "template": replace(nets["llama"], template="wind {prompt} sun"), "window": windowed,
        "frame": nets["gpt2"].framed(Polite(), chat=False),
        "never": configured(save_network(folder / "never", WORDS, kind="t5"), bad_words_ids=[[0]]),
    }  # fmt: skip


ADAPTERS = {"bart": "full", "two ends": "full", "gpt2, whole": "full", "t5, whole": "full"}
"""Of the others it is LoRA, or the soft prompt that their name tells."""
WAYS = {
    "gpt2, states": {"trial": slots.Trial(False)},
    "llama, states": {"trial": slots.Trial(False)},
    "gpt2, whole": {"trial": slots.Trial(False), "headed": False},
    "t5, whole": {"headed": False},
    **{f"{kind}, prompt": {} for kind in ("gpt2", "llama", "t5")},
    "gpt2, prompt, states": {"trial": slots.Trial(False)},
    "gpt2, prompt, whole": {"trial": slots.Trial(False), "headed": False},
}
"""Networks that are run otherwise: by states, where logits cannot be made of hidden states, or after a soft prompt."""
NAMES = ("table", "gpt2", "llama", "t5", "bart", "two ends", "template", "window", "frame", "never", *WAYS)
DOUBLES = ("table", "gpt2", "llama", "t5", "bart", "two ends", *WAYS)


def made(known, name, **settings):
    """A new policy over one of the bases, run as its name says."""
    adapter = ADAPTERS.get(name, "prompt:tokens=3" if "prompt" in name else "lora:r=2")
    policy = policy_of(known[name.split(",")[0]].warped(**settings), adapter)
    for what, value in WAYS.get(name, {}).items():
        setattr(policy.model, what, value)
    return policy


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return bases(tmp_path_factory.mktemp("policies"))


@pytest.fixture(scope="module")
def policies(known):
    """Policies that are not their bases any more; no test trains them."""
    return {name: stirred(made(known, name)) for name in (*known, *WAYS)}


@pytest.fixture(scope="module")
def doubles(known):
    """The same in float64, the tables as they are."""
    found = {}
    for name in DOUBLES:
        found[name] = made(known, name)
        if name != "table":
            found[name].learner.network.double()
        stirred(found[name])
    return found


@pytest.fixture
def float64(monkeypatch):
    """What Llama and T5 cast to float32 (norms, softmax) is cast to float64: else a slope is known to 3 digits."""
    monkeypatch.setattr(torch, "float32", torch.float64)
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)


# --- the law that samples is the law that trains


def scores_as_it_draws(policy):
    draws = drawn(policy)
    found = policy.module(PROMPTS, draws)
    assert found.requires_grad and found.shape == draws.tokens.shape
    assert not found[~torch.as_tensor(within(draws))].any(), "0 after the end"
    assert gap(found.detach().numpy(), draws.token_log_prob) < 1e-4
    assert gap(policy.token_log_prob(PROMPTS, draws), draws.token_log_prob) < 1e-4
    part = draws.take(np.random.default_rng(0).permutation(len(draws))[:7])
    assert gap(scored(policy, part), part.token_log_prob) < 1e-4, "in another order and company"
    return draws


SCORED = [(name, one) for name in ("table", "gpt2", "llama", "t5") for one in SETTINGS]
SCORED += [(name, one) for name in NAMES[4:] for one in ("plain", "both", "all")]


@pytest.mark.parametrize(("name", "settings"), SCORED)
def test_a_policy_scores_as_it_draws(policies, name, settings):
    draws = scores_as_it_draws(policies[name].warped(**SETTINGS[settings]))
    assert not draws.finished.all() and (draws.finished.any() or settings in CUT), "cut ones beside finished ones"


@pytest.mark.parametrize("settings", CUT.values(), ids=CUT)
@pytest.mark.parametrize("name", ["table", "gpt2", "t5"])
def test_a_draw_that_the_settings_cut_has_no_probability_and_a_finite_gradient(policies, name, settings):
    policy = policies[name].warped(**settings)
    draws = drawn(policies[name])
    found = policy.module(PROMPTS, draws)
    assert gap(found.detach().numpy(), policy.token_log_prob(PROMPTS, draws)) < 1e-4
    assert (found == -torch.inf).any()
    kept = torch.where(found == -torch.inf, 0, found).sum()
    assert all(x.isfinite().all() for x in torch.autograd.grad(kept, trained_of(policy)))


def test_columns_after_all_ends_are_0(policies):
    draws = drawn(policies["gpt2"])
    wide = replace(draws, tokens=np.pad(draws.tokens, ((0, 0), (0, 3)), constant_values=-1))
    np.testing.assert_array_equal(scored(policies["gpt2"], wide)[:, :LENGTH], scored(policies["gpt2"], draws))
    assert scored(policies["gpt2"], wide).shape == (len(draws), LENGTH + 3)
    one = draws.take(draws.length == 1)
    assert len(one) and scored(policies["gpt2"], one).shape == (len(one), LENGTH)


CHECKED = {"table": "penalty", "gpt2": "temperature", "llama, states": "top-k", "t5": "penalty", "bart": "plain",
           "two ends": "all"}  # fmt: skip


@pytest.mark.parametrize(("name", "settings"), CHECKED.items(), ids=CHECKED)
def test_every_law_holds_before_and_after_training(known, name, settings):
    """Untrained it draws what its base draws."""
    policy = made(known, name, **SETTINGS[settings])
    base = known[name.split(",")[0]].warped(**SETTINGS[settings])
    before = drawn(policy)
    assert not differing(before, drawn(base)).any() and gap(before.log_prob, base.log_prob(PROMPTS, before)) < 1e-4
    if name in ("gpt2", "bart"):
        assert check(policy, PROMPTS[1:], max_tokens=2, draws=8) == EVERY_LAW
    trained(policy)
    assert differing(before, drawn(policy)).any() and gap(before.log_prob, policy.log_prob(PROMPTS, before)) > 0.1
    assert check(policy, PROMPTS[1:], max_tokens=2, draws=8) == EVERY_LAW
    scores_as_it_draws(policy)


@pytest.mark.parametrize("name", ["template", "window", "frame", "never"])
def test_a_policy_begins_as_its_base(known, policies, name):
    """With its template, window and frame, and what it never says."""
    policy, draws = made(known, name), drawn(known[name])
    assert same(drawn(policy), draws) and not same(drawn(policies[name]), draws)
    assert gap(scored(policy, draws), draws.token_log_prob) < 1e-4
    assert name != "never" or policy.model.headed, "what is never said is known where logits are made in parts"
    assert policy.identity()["template"] == known[name].template and policy.frame == known[name].frame


def test_training_goes_where_it_is_sent(known):
    """More "sun", under a penalty that works against it."""
    policy = made(known, "llama").warped(repetition_penalty=1.3)
    before = (drawn(policy, 200).tokens == SUN).mean()
    assert (drawn(trained(policy, 10), 200).tokens == SUN).mean() > before + 0.1


def test_a_policy_beside_its_base(known, policies):
    """KL and both log-probabilities, as for any two laws."""
    draws = drawn(policies["gpt2"])
    log_gen, log_base, kl = compare(policies["gpt2"], known["gpt2"], PROMPTS, draws)
    assert gap(log_gen, draws.log_prob) < 1e-4 and gap(log_base, known["gpt2"].log_prob(PROMPTS, draws)) < 1e-4
    assert (kl > 0).all()


# --- its gradient


def slopes(policy, step=3e-5):
    """(2, 2) the slope of a random sum of what it says along two random directions: by differences, by the gradient.

    The differences are of a walk through its states, which is how it samples.
    """
    draws, rng = drawn(policy, 3), np.random.default_rng(0)
    weights, tensors = rng.normal(size=draws.tokens.shape), trained_of(policy)
    gradient = torch.autograd.grad((policy.module(PROMPTS, draws) * torch.as_tensor(weights)).sum(), tensors)

    @torch.no_grad()
    def value(along, by):
        for p, x in zip(tensors, along, strict=True):
            p += by * x
        return (weights * walked(policy, draws)).sum()

    found = []
    for _ in range(2):
        along = [torch.as_tensor(rng.normal(size=p.shape)) for p in tensors]
        by = step / math.sqrt(sum(float((x * x).sum()) for x in along))
        rise = value(along, by) - value(along, -2 * by)
        value(along, by)
        found.append((rise / (2 * by), sum(float((g * x).sum()) for g, x in zip(gradient, along, strict=True))))
    return np.array(found)


def gradient_is_the_slope(policy):
    by_differences, by_gradient = slopes(policy).T
    np.testing.assert_allclose(by_gradient, by_differences, rtol=1e-6, atol=0)


SLOPES = [(name, settings) for name in DOUBLES for settings in ("temperature", "penalty", "top-k") if name not in WAYS]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "settings"), [*SLOPES, *((name, "all") for name in DOUBLES)])
def test_the_gradient_is_that_of_the_law_that_samples(doubles, name, settings):
    gradient_is_the_slope(doubles[name].warped(**SETTINGS[settings]))


def test_a_tables_gradient_is_one_hot_minus_softmax(doubles):
    """At each prefix that the draw goes through, and 0 at all others."""
    policy = doubles["table"]
    logits, draws = policy.learner.network.logits, drawn(policy, 2)
    soft, eos = logits.detach().softmax(-1), len(WORDS)
    for k in range(len(draws)):
        expected, row = torch.zeros_like(soft), 0
        first = draws.prompt[k] * (len(soft) // len(PROMPTS))
        for token in draws.tokens[k, : draws.length[k]]:
            expected[first + row] = torch.nn.functional.one_hot(torch.tensor(token), eos + 1) - soft[first + row]
            row = row * len(WORDS) + 1 + token
        (found,) = torch.autograd.grad(policy.module(PROMPTS, draws.take([k])).sum(), [logits])
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)


def scores_average_to_zero(policy):
    """Σ π(x) ∇ log π(x) over all continuations of each prompt, weighted at random."""
    every = enumerate_draws(policy, PROMPTS, max_tokens=LENGTH)
    assert every.finished.any() and not every.finished.all()
    found = policy.module(PROMPTS, every).sum(1)
    mass = found.detach().exp()
    sums = [float(mass[every.prompt == c].sum()) for c in range(len(PROMPTS))]
    assert sums == pytest.approx([1] * len(PROMPTS), abs=1e-8)
    share = torch.tensor([0.5, 0.7, 1.1])[every.prompt] * mass
    gradient = torch.autograd.grad((share * found).sum(), trained_of(policy))
    assert max(float(g.abs().max()) for g in gradient) < 1e-8


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("settings", ["plain", "temperature", "penalty", "top-k", "all"])
@pytest.mark.parametrize("name", ["table", "gpt2", "llama, states", "t5", "two ends", "gpt2, prompt", "t5, prompt"])
def test_scores_average_to_zero_over_all_continuations(doubles, name, settings):
    """EOS and cut continuations are among them."""
    scores_average_to_zero(doubles[name].warped(**SETTINGS[settings]))


def gradients(policy, draws):
    return torch.autograd.grad(policy.module(PROMPTS, draws).sum(), trained_of(policy))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["gpt2", "llama", "llama, states", "t5", "llama, prompt"])
def test_in_parts_and_in_another_thread_the_gradient_is_the_same(doubles, name, monkeypatch):
    """A GPU goes backward in a thread of its own; prompts, too, may be run in parts."""
    policy = doubles[name].warped(repetition_penalty=1.3)
    draws = drawn(policy, 8)
    whole = gradients(policy, draws)
    monkeypatch.setitem(law_module.CHUNK_BYTES, "cpu", 7 * 4 * len(policy.vocab))
    monkeypatch.setattr(slots, "PROMPTS", 4)
    found, out = [], policy.module(PROMPTS, draws).sum()
    thread = threading.Thread(target=lambda: found.extend(torch.autograd.grad(out, trained_of(policy))))
    thread.start()
    thread.join()
    assert len(found) == len(whole)
    for one, other in zip(found, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)


# --- its base


def leaves_its_base(base, adapter, work=trained):
    """Not a bit of the base changes when a policy of it is trained, nor of that when another is; returns the two."""
    network = base.model.network

    def state():
        told = {n: (p.data_ptr(), p.requires_grad, p.detach().clone()) for n, p in network.named_parameters()}
        return told, drawn(base), dict(base.identity()), [type(m) for m in network.modules()]

    parameters, draws, *told = state()
    policy = policy_of(base, adapter)
    work(policy, 1)
    after, again, *still = state()
    assert same(again, draws) and not same(drawn(policy), draws)
    for name, (place, wants, value) in parameters.items():
        assert after[name][:2] == (place, wants) and torch.equal(after[name][2], value), name
    assert still == told
    mine, other = drawn(policy), policy_of(base, adapter, seed=1)
    work(stirred(other), 1)
    assert same(drawn(policy), mine) and not same(drawn(other), mine) and same(drawn(base), draws)
    return policy, other


@pytest.mark.parametrize("adapter", ["lora:r=2", "prompt:tokens=2", "full"])
@pytest.mark.parametrize("name", ["table", "gpt2", "llama", "t5"])
def test_its_base_stays_as_it_was(known, name, adapter):
    base = known[name]
    policies = leaves_its_base(base, adapter)
    places = {p.data_ptr() for p in base.model.network.parameters()}
    for policy in policies:
        mine = {p.data_ptr() for p in trained_of(policy)}
        frozen = {p.data_ptr() for p in policy.module.parameters() if not p.requires_grad}
        assert mine and not mine & places
        assert frozen == (set() if adapter == "full" or name == "table" else places)


@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart"])
def test_lora_trains_pairs_of_low_rank_alone(known, name):
    """Two for each linear layer but the last; of the rank and scale asked for."""
    policy = policy_of(known[name], "lora:r=3,alpha=12")
    names = [n for n, p in policy.module.named_parameters() if p.requires_grad]
    assert len(names) % 2 == 0 and all("lora_A" in n or "lora_B" in n for n in names)
    assert not any("lm_head" in n for n in names)
    assert {min(p.shape) for p in trained_of(policy)} == {3}
    layers = [m for m in policy.module.modules() if hasattr(m, "lora_A")]
    assert len(layers) == len(names) // 2 and {m.scaling["default"] for m in layers} == {12 / 3}


def test_its_identity_is_that_of_its_numbers_now(known):
    base = known["llama"]
    told, policy = base.identity(), policy_of(base, "lora:r=2")
    begun = {name: p.detach().clone() for name, p in policy.learner.trained.tensors.items()}
    seen = [str(policy.identity()), str(told)]
    for _ in range(3):
        trained(policy, 1)
        seen.append(str(policy.identity()))
        drawn(policy)
        assert str(policy.identity()) == seen[-1], "a draw changes nothing"
    assert len(set(seen)) == 5
    with torch.no_grad():
        for name, p in policy.learner.trained.tensors.items():
            p.copy_(begun[name])
    assert str(policy.identity()) == seen[0]
    assert base.identity() == told
    assert policy.warped(top_k=2).identity() != policy.identity()


@pytest.mark.parametrize(("name", "adapter"), [("table", "lora"), ("gpt2", "lora:r=2"), ("gpt2", "prompt:tokens=6")])
def test_equal_seeds_are_equal_policies(known, name, adapter):
    state = torch.get_rng_state()
    one, same, other = (policy_of(known[name], adapter, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert one.identity() == same.identity()
    assert name == "table" or one.identity() != other.identity()
    assert all(torch.equal(a, b) for a, b in zip(trained_of(one), trained_of(same), strict=True))
    assert trained(one).identity() == trained(same).identity()


# --- dropout


@pytest.fixture(scope="module")
def dropping(tmp_path_factory):
    """Policies over networks whose dropout would act."""
    home, made = tmp_path_factory.mktemp("dropout"), {}
    config = {
        "gpt2": dict.fromkeys(("attn_pdrop", "resid_pdrop", "embd_pdrop"), 0.5),
        "llama": {"attention_dropout": 0.5}, "t5": {"dropout_rate": 0.5},
    }  # fmt: skip
    for kind, shape in config.items():
        made[kind] = hf(pretrained=str(save_network(home / kind, WORDS, kind=kind, **shape)))
    made["bart"] = hf(pretrained=str(tiny_bart(home / "bart", WORDS, dropout=0.5, activation_dropout=0.5)))
    return {kind: stirred(policy_of(base, "lora:r=2")) for kind, base in made.items()}


def is_the_same_while_it_trains(policy):
    draws = drawn(policy)
    before = scored(policy, draws)
    policy.module.train()
    try:
        assert policy.module.training
        assert all(np.array_equal(scored(policy, draws), before) for _ in range(2))
        assert same(drawn(policy), draws)
    finally:
        policy.module.eval()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bart"])
def test_dropout_never_acts(dropping, kind):
    is_the_same_while_it_trains(dropping[kind])


# --- memory


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """Networks over 2,000 words."""
    home, words = tmp_path_factory.mktemp("wide"), [f"w{i}" for i in range(1999)]
    return {kind: tiny_network(home / kind, words, kind=kind) for kind in ("gpt2", "llama", "t5")}


class Sizes(TorchDispatchMode):
    """Numbers in the largest tensor that is made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.most = max([self.most, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor))])
        return out


def makes_no_logits_at_once(policy, monkeypatch, times=1):
    """Nothing as large as draws × tokens × words is made, or kept for the backward pass; each place so many times."""
    prompts = ("w1", "w2 w3 w4")
    draws = collect(policy.sample(prompts, rows_of(2, 6), max_tokens=6, seed=Seed(1)))
    policy.log_prob(prompts, draws)  # what is tried on a network is tried by then
    every, saved, parts, right = int(draws.length.sum()) * len(policy.vocab), [], [], heads.head
    monkeypatch.setitem(law_module.CHUNK_BYTES, "cpu", 5 * 4 * len(policy.vocab))
    monkeypatch.setattr(heads, "head", lambda network, hidden: parts.append(len(hidden)) or right(network, hidden))
    with Sizes() as sizes:
        with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x.numel()) or x, lambda x: x):
            out = policy.module(prompts, draws).sum()
        out.backward()
    assert max(saved) < every and sizes.most < every
    assert max(parts) == 5 and sum(parts) == times * int(draws.length.sum())


@pytest.mark.parametrize(
    ("kind", "settings", "fast"),
    [("gpt2", "penalty", True), ("llama", "plain", True), ("gpt2", "plain", False), ("t5", "plain", False)],
)
def test_logits_are_made_in_parts(wide, kind, settings, fast, monkeypatch):
    policy = policy_of(wide[kind].warped(**SETTINGS[settings]), "lora:r=2")
    policy.model.trial = slots.Trial(fast)
    makes_no_logits_at_once(policy, monkeypatch)


def test_logits_are_made_again_where_what_makes_them_is_trained(wide, monkeypatch):
    makes_no_logits_at_once(policy_of(wide["llama"], "full"), monkeypatch, times=2)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_planted_logits_of_all_places_at_once(wide, kind, monkeypatch):
    policy = policy_of(wide[kind], "lora:r=2")
    policy.model.headed, policy.model.trial = False, slots.Trial(False)
    broken(makes_no_logits_at_once, policy, monkeypatch)


# --- copies on other devices


def copies_follow(base, adapter):
    """Trained alike, a policy whose base has copies draws and scores as one without."""
    three = replace(base, model=replicated(replace(base.model), [torch.device("cpu")] * 2))
    policies = [policy_of(law, adapter) for law in (base, three)]
    assert len(policies[1].model.replicas) == 2
    begun = drawn(policies[0])
    for _ in range(2):
        one, other = (drawn(trained(policy, 1)) for policy in policies)
        assert not same(one, begun) and not differing(one, other).any() and gap(one.log_prob, other.log_prob) < 1e-5
        assert gap(*(policy.log_prob(PROMPTS, one) for policy in policies)) < 1e-5
        assert policies[0].identity() == policies[1].identity()
    assert gap(base.log_prob(PROMPTS, one), three.log_prob(PROMPTS, one)) < 1e-5, "copies of the base stay"


@pytest.mark.parametrize("adapter", ["lora:r=2", "prompt:tokens=2"])
def test_copies_follow_what_is_trained(known, adapter):
    copies_follow(known["llama"], adapter)


def test_planted_copies_that_do_not_follow(known, monkeypatch):
    monkeypatch.setattr(policy_module.Trained, "follow", lambda self, first: None)
    broken(copies_follow, known["llama"], "lora:r=2")


# --- data parallelism


@pytest.fixture
def alone(tmp_path):
    """A process group of this process."""
    from torch import distributed

    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    try:
        yield
    finally:
        distributed.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("name", ["gpt2", "llama", "t5", "bart", "t5, prompt"])
def test_ddp_wraps_a_policy(known, name):
    """Its parameters then keep their gradients in buckets: so it is a policy of its own."""
    from torch.nn.parallel import DistributedDataParallel

    policy = stirred(made(known, name)).warped(temperature=0.8)
    draws = drawn(policy)
    expected = gradients(policy, draws)
    wrapped = DistributedDataParallel(policy.module)
    wrapped.train()
    wrapped(PROMPTS, draws).sum().backward()
    for p, g in zip(trained_of(policy), expected, strict=True):
        torch.testing.assert_close(p.grad, g, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["table", "gpt2", "t5, whole"])
def test_no_draws_have_a_gradient_of_zeros(policies, name):
    """So that a process without a share of the draws does not keep the others waiting."""
    policy = policies[name]
    nats = policy.module(PROMPTS, drawn(policy).take(np.arange(0)))
    assert nats.shape == (0, LENGTH) and nats.dtype == (torch.float64 if name == "table" else torch.float32)
    found = torch.autograd.grad(nats.sum(), trained_of(policy))
    assert not any(g.any() for g in found)


# --- planted bugs


def broken(law, *given):
    with pytest.raises(AssertionError):
        law(*given)


class Unwarped(Scorer):
    """Right numbers, but the gradient is that of the model without its settings."""

    def forward(self, prompts, draws):
        plain = Scorer(replace(self.law, warp=PLAIN))(prompts, draws)
        return super().forward(prompts, draws).detach() + plain - plain.detach()


class Endless(Scorer):
    """EOS has no term."""

    def forward(self, prompts, draws):
        return super().forward(prompts, draws).masked_fill(torch.as_tensor(draws.tokens == len(WORDS)), 0)


class EndlessGradient(Scorer):
    """Right numbers, but EOS has no gradient."""

    def forward(self, prompts, draws):
        right = super().forward(prompts, draws)
        return torch.where(torch.as_tensor(draws.tokens == len(WORDS)), right.detach(), right)


class Mean(Scorer):
    """Each draw's numbers are divided by its length."""

    def forward(self, prompts, draws):
        return super().forward(prompts, draws) / torch.as_tensor(draws.length)[:, None]


def with_module(policy, kind):
    policy.__dict__["module"] = kind(policy)
    return policy


UNWARPED = [("table", "top-k"), ("gpt2", "temperature"), ("gpt2", "top-k"), ("t5", "penalty")]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("name", "settings"), UNWARPED)
def test_planted_gradient_of_the_unwarped_model(doubles, name, settings):
    policy = with_module(doubles[name].warped(**SETTINGS[settings]), Unwarped)
    scores_as_it_draws(policy)
    broken(gradient_is_the_slope, policy)
    broken(scores_average_to_zero, policy)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["table", "gpt2"])
def test_planted_eos_left_out(doubles, name):
    for kind in (Endless, Mean):
        broken(scores_as_it_draws, with_module(doubles[name].warped(), kind))
        broken(scores_average_to_zero, with_module(doubles[name].warped(), kind))
    policy = with_module(doubles[name].warped(), EndlessGradient)
    scores_as_it_draws(policy)
    broken(gradient_is_the_slope, policy)
    broken(scores_average_to_zero, policy)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", ["bart", "two ends"])
def test_planted_pad_that_is_not_trained(doubles, name):
    """What torch makes of an embedding's `padding_idx`, here the id of BOS too, which the empty prompt reads."""
    policy = doubles[name]
    layers = [x for x in policy.learner.network.modules() if isinstance(x, nn.Embedding) and x.num_embeddings <= 5]
    assert layers and all(x.padding_idx is None for x in layers)
    try:
        for x in layers:
            x.padding_idx = len(policy.vocab) - 1
        broken(gradient_is_the_slope, policy)
    finally:
        for x in layers:
            x.padding_idx = None


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "bart"])
def test_planted_dropout_that_acts(dropping, kind, monkeypatch):
    monkeypatch.setattr(Scorer, "train", nn.Module.train)
    broken(is_the_same_while_it_trains, dropping[kind])


def merged(policy, steps):
    """Trained, then added to the weights, as peft does in place."""
    trained(policy, steps).learner.trained.wrapped.merge_adapter()


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_planted_adapter_that_is_merged_into_shared_weights(kind, tmp_path):
    broken(leaves_its_base, tiny_network(tmp_path, WORDS, kind=kind), "lora:r=2", merged)


def shared_by_full(patch):
    def put_on(self, base, seed):
        return policy_module.Trained(policy_module.sharing(base.network).requires_grad_(True), self)

    patch.setattr(policy_module.Full, "put_on", put_on)


def put_on_the_base(patch):
    patch.setattr(policy_module, "sharing", lambda network: network)


def thawed(patch):
    right = policy_module.Lora.put_on

    def put_on(self, *given):
        made = right(self, *given)
        made.network.requires_grad_(True)
        return made

    patch.setattr(policy_module.Lora, "put_on", put_on)


PLANTS = {"full": shared_by_full, "lora:r=2": put_on_the_base, "lora:r=3": thawed, "prompt:tokens=2": put_on_the_base}


@pytest.mark.filterwarnings("ignore:Already found:UserWarning")  # peft's, of a second adapter
@pytest.mark.parametrize("adapter", PLANTS)
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_planted_base_that_is_trained(kind, adapter, tmp_path, monkeypatch):
    """Its tensors are shared by a policy that trains them all; it has the adapter; frozen parameters are trained."""
    PLANTS[adapter](monkeypatch)
    broken(leaves_its_base, tiny_network(tmp_path, WORDS, kind=kind), adapter)


@pytest.mark.parametrize("name", ["gpt2, prompt", "gpt2, prompt, states", "gpt2, prompt, whole", "t5, prompt"])
def test_planted_virtual_tokens_that_are_not_scored(policies, name, monkeypatch):
    """They are read before draws alone."""
    policy = policies[name]
    kind, right = type(policy.model), type(policy.model).forced

    def deaf(self, rendered, draws):
        with monkeypatch.context() as patch:
            patch.setitem(self.__dict__, "virtual", [])
            return right(self, rendered, draws)

    scores_as_it_draws(policy)
    monkeypatch.setattr(kind, "forced", deaf)
    broken(scores_as_it_draws, policy)


def all_first(ids):
    return torch.zeros_like(ids)


def padding_counted(ids):
    return torch.arange(ids.shape[1]).expand_as(ids)


@pytest.mark.parametrize("wrong", [all_first, padding_counted])
@pytest.mark.parametrize("name", ["gpt2", "gpt2, states"])
def test_planted_positions_of_scored_tokens(known, name, wrong, monkeypatch):
    """Rotary positions would hide that paddings are counted."""
    hidden = slots._hidden

    def by_slots(network, **inputs):
        draws = inputs["attention_mask"] is not None and inputs["input_ids"].shape[1] > 1
        return hidden(network, **inputs | ({"position_ids": wrong(inputs["input_ids"])} if draws else {}))

    def by_states(self, part, ids, mask, keep=None):
        return self._forward(ids, mask, wrong(ids), keep=keep, part=part, use_cache=False)

    policy = stirred(made(known, name))
    monkeypatch.setattr(slots, "_hidden", by_slots)
    monkeypatch.setattr(HFModel, "_run", by_states)
    broken(scores_as_it_draws, policy)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gpt2, states", "llama, states", "t5", "bart"])
def test_planted_mask_that_hides_nothing(known, name, monkeypatch):
    """Not the padding before a prompt, nor after it; once it was tried that the head can be taken alone."""
    policy, mask, padded = stirred(made(known, name)), slots.SlotCache._mask, HFEncoderDecoder._right_padded
    policy.model.__dict__["headed"] = True

    def by_slots(self, positions, width):
        right = mask(self, positions, width)
        return right if positions.shape[1] == 1 else torch.ones_like(right, dtype=torch.bool)

    def by_states(self, part, ids, mask, keep=None):
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return self._forward(ids, torch.ones_like(mask), positions, keep=keep, part=part, use_cache=False)

    def by_encoder(self, encoded, which, said):
        with monkeypatch.context() as patch:
            patch.setattr(type(self), "_right_padded", lambda *given: (padded(*given)[0], 0 * padded(*given)[1] + 1))
            return right(self, encoded, which, said)

    right = HFEncoderDecoder._said
    monkeypatch.setattr(slots.SlotCache, "_mask", by_slots)
    monkeypatch.setattr(HFModel, "_run", by_states)
    monkeypatch.setattr(HFEncoderDecoder, "_said", by_encoder)
    broken(scores_as_it_draws, policy)
