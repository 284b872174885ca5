"""The laws, over whatever is registered: generators on tiny worlds, aligners on an exact one; and planted bugs."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from models import tiny_bart, tiny_classifier, tiny_encoder, tiny_gpt2, tiny_llama, tiny_t5

from alignbench import testing
from alignbench.aligners.base import Setting
from alignbench.aligners.training.recipe import Trained
from alignbench.api import evaluate
from alignbench.generators import history, sampling
from alignbench.generators import law as law_module
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf import causal as transformer_module
from alignbench.generators.hf import slots
from alignbench.generators.hf.causal import HFState
from alignbench.generators.hf.factory import hf
from alignbench.generators.policy import policy_of
from alignbench.generators.warp import Warp
from alignbench.registry import aligner, feature, generator, load_plugins
from alignbench.seeds import Seed
from alignbench.spec import parse_spec
from alignbench.target import Constraint, Target
from alignbench.target.truth import exact_values
from alignbench.testing import Case, LawBroken, check
from alignbench.types import Distribution, Sampler, collect, rows_of

load_plugins()
pytestmark = pytest.mark.usefixtures("uniforms_once")

WORDS = ("rain", "sun", "wind", "snow", "she", "he")
PROMPTS = ("rain", "sun wind rain snow", "she he")  # of unequal length: batches are padded
SETTINGS = {
    "T=1": {},
    "T=0.5": {"temperature": 0.5},
    "T=1.5": {"temperature": 1.5},
    "top-k": {"top_k": 3},
    "top-p": {"top_p": 0.8},
    "min-p": {"min_p": 0.1},
    "typical": {"typical_p": 0.7},
    "penalty": {"repetition_penalty": 1.8},
    "all": {"temperature": 0.8, "top_k": 5, "top_p": 0.9, "min_p": 0.01, "typical_p": 0.95, "repetition_penalty": 1.3},
}
EVERY_LAW = [law.__name__ for laws in testing.LAWS.values() for law in laws]


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """The registered generators, each in a form whose every continuation can be listed.

    The real networks are run by slots, and, as "… plain", as transformers runs them.
    """
    folder = tmp_path_factory.mktemp("laws")
    made = {"gpt2": tiny_gpt2(folder / "gpt2", WORDS), "llama": tiny_llama(folder / "llama", WORDS)}
    laws = {name: hf(pretrained=str(path)) for name, path in made.items()}
    assert all(law.model.trial.works for law in laws.values())
    plain = {f"{name} plain": plainly(hf(pretrained=str(path))) for name, path in made.items()}
    pairs = {"t5": tiny_t5(folder / "t5", WORDS), "bart": tiny_bart(folder / "bart", WORDS)}
    laws |= {name: hf(pretrained=str(path)) for name, path in pairs.items()}
    table = testing.table_world(WORDS, PROMPTS, 4, seed=4)
    return {"exact": exact(words=WORDS, order=3, seed=4), "table": table, **laws, **plain}


def kept(law, max_tokens=4, prompts=PROMPTS[:2]):
    """The names of the laws that hold, for a prompt of one word and one of four."""
    return check(law, prompts, max_tokens=max_tokens, draws=12)


def plainly(law):
    """The law with its network run as transformers runs it."""
    law.model.trial = slots.Trial(False)
    return law


GRID = [(world, name) for world in ("exact", "gpt2", "llama", "gpt2 plain", "llama plain") for name in SETTINGS]
ONCE_MORE = [pair for pair in GRID if "plain" in pair[0] and pair[1] not in ("T=1", "penalty", "all")]
"""Settings come after the logits: by slots they are checked each time, once more as transformers runs it if slow."""


@pytest.mark.parametrize(
    ("world", "settings"), [pytest.param(*pair, marks=[pytest.mark.slow] * (pair in ONCE_MORE)) for pair in GRID]
)
def test_every_law_holds(worlds, world, settings):
    assert kept(worlds[world].warped(**SETTINGS[settings])) == EVERY_LAW


@pytest.mark.parametrize("settings", ["T=1", "all"])
@pytest.mark.parametrize("world", ["t5", "bart"])
def test_every_law_holds_for_encoder_decoders(worlds, world, settings):
    assert kept(worlds[world].warped(**SETTINGS[settings]), 3) == EVERY_LAW


def test_every_registered_generator_is_among_the_worlds(worlds):
    kinds = {law.model.identity()["kind"] for law in worlds.values()}
    assert kinds == {"ngram", "hf", "table"}
    assert set(generator) == {"exact", "hf"}, "a new built-in generator needs a world here"


def test_the_tiny_models_pad_with_their_eos(worlds):
    for world in ("gpt2", "llama"):
        tokenizer = worlds[world].model.tokenizer
        assert tokenizer.pad_token_id in worlds[world].vocab.eos


def test_hf_batches_agree_with_enumeration_one_prompt_at_a_time(worlds):
    """Left padding and compaction change nothing: a prompt alone and among longer ones has the same continuations."""
    law = worlds["gpt2"]
    together = enumerate_draws(law, PROMPTS, max_tokens=3)
    rescored = law.log_prob(PROMPTS, together)
    for number, prompt in enumerate(PROMPTS):
        alone = enumerate_draws(law, [prompt], max_tokens=3)
        np.testing.assert_allclose(rescored[together.prompt == number], alone.log_prob, atol=1e-5)


# --- planted bugs: each must break the law that is there to catch it


def broken(law, settings=None, max_tokens=4, prompts=PROMPTS[:2]):
    with pytest.raises(LawBroken) as caught:
        kept(law.warped(**settings or {}), max_tokens, prompts)
    return str(caught.value)


HF_WORLDS = ["gpt2", "llama", "gpt2 plain"]


@pytest.mark.parametrize("world", ["exact", *HF_WORLDS])
def test_planted_eos_dropped_when_scoring(worlds, world, monkeypatch):
    right = law_module.Law._scores

    def without_eos(self, prompts, draws):
        scores = right(self, prompts, draws)
        last = np.arange(scores.shape[1]) == draws.length[:, None] - 1
        return np.where((last & draws.finished[:, None])[..., None], 0, scores)

    monkeypatch.setattr(law_module.Law, "_scores", without_eos)
    assert broken(worlds[world]).startswith("rescoring_is_sampling")


@pytest.mark.parametrize("world", HF_WORLDS)
def test_planted_pads_masked_by_their_id(worlds, world, monkeypatch):
    """pad == eos: scoring every token but the pad id loses the EOS term."""
    right = law_module.gather
    pad = worlds[world].model.tokenizer.pad_token_id
    monkeypatch.setattr(law_module, "gather", lambda x, ids: torch.where(ids == pad, 0, right(x, ids)))
    assert broken(worlds[world]).startswith("rescoring_is_sampling")


def test_planted_position_ids_missing(worlds, monkeypatch):
    """Only GPT-2 shows it: rotary positions are relative, so the Llama keeps every law."""
    for world in ("gpt2 plain", "llama plain"):
        monkeypatch.setattr(worlds[world].model, "_positions", False)
    assert "differ" in broken(worlds["gpt2 plain"]) or "other" in broken(worlds["gpt2 plain"])
    assert kept(worlds["llama plain"]) == EVERY_LAW


@pytest.mark.parametrize("world", ["exact", "gpt2"])
def test_planted_temperature_forgotten_when_scoring(worlds, world, monkeypatch):
    right = law_module.Law._scores
    monkeypatch.setattr(law_module.Law, "_scores", lambda self, p, d: right(replace(self, warp=Warp()), p, d))
    assert broken(worlds[world], {"temperature": 0.5}).startswith("rescoring_is_sampling")


@pytest.mark.parametrize("world", ["exact", "gpt2"])
def test_planted_top_k_by_default_when_sampling(worlds, world, monkeypatch):
    """What transformers' generate does when nobody says top_k=0, at this vocabulary's size."""
    right = sampling._pick
    monkeypatch.setattr(sampling, "_pick", lambda x, u: right(Warp(top_k=2)(x.log()).exp(), u))
    assert "frequencies_are_probabilities" in broken(worlds[world]) or "rescoring" in broken(worlds[world])


@pytest.mark.parametrize("world", ["exact", "gpt2", "gpt2 plain", "t5"])
def test_planted_history_forgotten_when_scoring(worlds, world, monkeypatch):
    """A penalty on the prompt's tokens alone."""
    right = history.Said.__getitem__
    monkeypatch.setattr(history.Said, "__getitem__", lambda self, part: right(
        replace(self, step=torch.zeros_like(self.step)), part))  # fmt: skip
    assert broken(worlds[world], SETTINGS["penalty"], 3).startswith("rescoring_is_sampling")


@pytest.mark.parametrize("world", ["exact", "gpt2", "t5"])
def test_planted_prompt_left_out_of_the_history(worlds, world, monkeypatch):
    """When scoring alone; an encoder–decoder's prompt is its decoder's prefix."""
    right = history.Said.of

    def without(model, rendered, draws):
        said = right(model, rendered, draws)
        return replace(said, first=torch.zeros_like(said.first))

    monkeypatch.setattr(history.Said, "of", without)
    if world == "t5":  # what it begins with is its pad, a word here
        assert worlds[world].model.history("rain") == [0]
    assert broken(worlds[world], SETTINGS["penalty"], 3).startswith("rescoring_is_sampling")


def test_planted_history_of_the_row_that_held_the_slot_before(worlds, monkeypatch):
    right = sampling._Batch._begin

    def stale(self, slots, rows):
        before = self.seen[slots]
        right(self, slots, rows)
        self.seen[slots] |= before

    monkeypatch.setattr(sampling._Batch, "_begin", stale)
    assert broken(worlds["gpt2"], SETTINGS["penalty"]).split(":")[0] in EVERY_LAW


def test_planted_penalty_of_normalised_logits(worlds, monkeypatch):
    """A penalty of nats is another law than one of logits: sampling, which has logits, shows it."""
    monkeypatch.setattr(law_module, "logits_of", lambda state: state.log_probs)
    assert broken(worlds["gpt2"], SETTINGS["penalty"], 3).startswith("probabilities_sum_to_one")


def test_planted_left_padding_seen_by_attention(worlds, monkeypatch):
    right = transformer_module.HFModel._left_padded

    def unmasked(self, encoded):
        ids, mask = right(self, encoded)
        return ids, torch.ones_like(mask)

    monkeypatch.setattr(transformer_module.HFModel, "_left_padded", unmasked)
    broken(worlds["llama plain"])


def test_planted_state_written_in_place(worlds, monkeypatch):
    monkeypatch.setattr(transformer_module, "fork", lambda cache: cache)
    assert broken(worlds["gpt2"], prompts=PROMPTS).split(":")[0] in EVERY_LAW


@pytest.mark.parametrize("world", ["exact", "gpt2"])
def test_planted_draws_that_depend_on_the_slot(worlds, world, monkeypatch):
    right = sampling._Batch._begin

    def by_place(self, places, rows):
        right(self, places, rows)
        drawn = [self.order.seed.uniforms("", int(place), self.order.max_tokens) for place in places]
        self.uniforms[places] = torch.as_tensor(np.stack(drawn))

    monkeypatch.setattr(sampling._Batch, "_begin", by_place)
    assert broken(worlds[world]).startswith("draws_depend_on_their_row_alone")


def test_planted_one_uniform_for_block_and_id(worlds, monkeypatch):
    """With one block the two uniforms cannot be told apart; over several, reusing one skews the ids in each block."""
    monkeypatch.setattr(sampling, "BLOCK", 2)
    right = sampling._pick
    assert kept(worlds["exact"], 3) == EVERY_LAW
    monkeypatch.setattr(sampling, "_pick", lambda x, u: right(x, u[:, :1].expand(-1, 2)))
    assert broken(worlds["exact"]).startswith("frequencies_are_probabilities")


# --- planted bugs of the slots


def test_planted_pads_of_a_shorter_prompt_seen(worlds, monkeypatch):
    """What a slot held before its row, or beyond its tokens, must not be seen."""
    right = slots.SlotCache._mask
    monkeypatch.setattr(slots.SlotCache, "_mask", lambda self, at, width: torch.ones_like(right(self, at, width)))
    assert broken(worlds["llama"]).split(":")[0] in EVERY_LAW


@pytest.mark.parametrize("world", ["gpt2", "llama"])
def test_planted_rows_written_at_another_s_position(worlds, world, monkeypatch):
    """Every row at the first row's position: right only while all prompts are alike."""
    right = slots.SlotLayer._write

    def at_the_first(self, held, new):
        if self.place.at is not None:
            self.place.at = self.place.at[:1].expand_as(self.place.at)
        return right(self, held, new)

    monkeypatch.setattr(slots.SlotLayer, "_write", at_the_first)
    assert broken(worlds[world]).split(":")[0] in EVERY_LAW


def test_planted_slot_filled_with_another_prompt(worlds, monkeypatch):
    right = slots.SlotCache.copy
    monkeypatch.setattr(slots.SlotCache, "copy", lambda self, source, which, to, width: right(
        self, source, torch.zeros_like(which), to, width))  # fmt: skip
    assert broken(worlds["llama"]).split(":")[0] in EVERY_LAW


def test_planted_compaction_that_moves_the_wrong_rows(worlds, monkeypatch):
    right = slots.SlotCache.keep
    monkeypatch.setattr(slots.SlotCache, "keep", lambda self, rows, width: right(self, rows.flip(0), width))
    assert broken(worlds["llama"]).split(":")[0] in EVERY_LAW


def test_looking_later_at_which_rows_have_ended_changes_nothing(worlds, monkeypatch):
    """On a GPU a look makes it wait: eight steps go by between two; a row that has ended keeps its tokens meanwhile."""
    right = slots.Slots.__init__

    def unwatched(self, *args):
        right(self, *args)
        self.unwatched = 3

    monkeypatch.setattr(slots.Slots, "__init__", unwatched)
    for world in ("gpt2", "llama"):
        assert kept(worlds[world]) == EVERY_LAW

    draw = sampling._Batch._draw

    def going_on(self, logits, places):
        self.live[places] |= self.step[places] < self.order.max_tokens
        draw(self, logits, places)

    monkeypatch.setattr(sampling._Batch, "_draw", going_on)
    assert broken(worlds["llama"]).split(":")[0] in EVERY_LAW


@pytest.mark.parametrize("bug", ["_mask", "positions"])
def test_a_network_that_slots_do_not_fit_is_run_as_transformers_runs_it(tmp_path, bug, monkeypatch):
    """The trial finds out: whatever a network does with masks and positions, its laws hold."""
    if bug == "_mask":
        right = slots.SlotCache._mask
        monkeypatch.setattr(slots.SlotCache, "_mask", lambda self, at, width: torch.ones_like(right(self, at, width)))
    else:
        right = slots._hidden
        monkeypatch.setattr(slots, "_hidden", lambda network, **x: right(
            network, **x | {"position_ids": torch.zeros_like(x["position_ids"])}))  # fmt: skip
    law = hf(pretrained=str(tiny_gpt2(tmp_path / "odd", WORDS)))
    assert not law.model.trial.works
    assert kept(law) == EVERY_LAW


def test_planted_select_gathers_another_cache(worlds, monkeypatch):
    right = HFState.select

    def with_first_cache(self, rows):
        return replace(right(self, rows), cache=right(self, torch.zeros_like(rows)).cache)

    monkeypatch.setattr(HFState, "select", with_first_cache)
    broken(worlds["gpt2 plain"])


# --- aligners and features that are registered

NEEDED = {"constrained": {"any_of": ["wind"]}, "prompt": {"text": "rain"}, "chain": {"steps": ["top_k:k=3"]},
          "cdpg": {"hits": 1}, "control_code": {"form": ""}}  # fmt: skip
"""The arguments without which an aligner cannot be had."""
BRIEF = {"steps": 2, "batch": 8, "lr": 1e-3}
"""A training of a moment."""


def trains(name):
    return issubclass(aligner[name].thing, Trained)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory):
    """What an aligner is given here, on this base."""

    def given(name, base):
        more = {"path": saved_head(base, tmp_path_factory.mktemp("head"))} if name == "head" else {}
        return NEEDED.get(name, {}) | (BRIEF if trains(name) else {}) | more

    return given


def saved_head(base, folder):
    """The folder of a head that moves a base."""
    policy = policy_of(base, "head:rank=2")
    policy.head.up.data += 0.5 * torch.randn(policy.head.up.shape, generator=torch.Generator().manual_seed(0))
    policy.save(folder)
    return str(folder)


def listed_base(name, worlds):
    """A base whose continuations can be listed; with weights, where an aligner trains: of transformers for `trl`."""
    return worlds["llama" if name == "trl" else "table" if trains(name) or name == "head" else "exact"]


def target_of(*constraints):
    measures = {"windy": lambda prompts, draws: np.array(["wind" in t for t in draws.texts], float)}
    target = Target(constraints, ranges={"windy": (0, 1)}, measures=measures)
    return target.fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS)


WINDY, FREE = target_of(Constraint("windy", "always")), target_of()


@pytest.mark.parametrize("name", list(aligner))
def test_registered_aligners_give_samplers_that_keep_the_laws(name, worlds, arguments):
    target, base = WINDY, listed_base(name, worlds)
    recipe = aligner[name].thing(**arguments(name, base))
    aligned = recipe.align(Setting(base, target, PROMPTS, 4, Seed(0, "train")))
    names = check(aligned, PROMPTS, max_tokens=4)
    assert set(EVERY_LAW[:3]) <= set(names)
    assert aligned.identity() != base.identity()
    _keeps_its_word(name, aligned)


def _keeps_its_word(name, aligned):
    declared = aligner[name].meta
    assert isinstance(declared["target_driven"], bool)
    found = "exact" if isinstance(aligned, Distribution) else "closed form"
    assert declared["density"] == found
    assert found == "exact" or aligned.selection.n >= 1


@pytest.mark.parametrize("name", list(aligner))
def test_registered_aligners_on_a_network(name, worlds, arguments):
    """Rows as asked, draws that depend on their row alone, for several prompts; the sampler says what it is."""
    setting = Setting(worlds["gpt2"], WINDY, PROMPTS[:2], 3, Seed(0, "train"))
    aligned = aligner[name].thing(**arguments(name, worlds["gpt2"])).align(setting)
    for law in testing.LAWS[Sampler]:
        law(Case(aligned, PROMPTS[:2], 3, draws=2))
    _keeps_its_word(name, aligned)


DRIVEN = [name for name in aligner if aligner[name].meta["target_driven"]]


@pytest.mark.parametrize("name", DRIVEN)
def test_a_target_driven_aligner_without_constraints_gives_the_base(name, worlds, arguments):
    """Of what is trained the rate shrinks: its steps have mean 0 there, see tests/aligners/training."""
    base = listed_base(name, worlds)
    recipe = aligner[name].thing(**arguments(name, base) | ({"lr": 1e-6} if trains(name) else {}))
    returns_the_base(recipe, base)


def returns_the_base(recipe, base, length=3):
    """KL 0 where the law is known, else the frequencies of all continuations within 5 standard errors."""
    aligned = recipe.align(Setting(base, FREE, PROMPTS, length, Seed(0, "train")))
    truth = exact_values(base, aligned, FREE, PROMPTS, length)
    if truth is not None:
        for part in ("kl_target", "kl_reverse", "kl_base"):
            assert truth[f"divergence.{part}"] == pytest.approx(0, abs=1e-9), part
        return
    drawn = collect(aligned.sample(PROMPTS, rows_of(len(PROMPTS), 2000), max_tokens=length, seed=Seed(1)))
    assert drawn.accepted is None or drawn.accepted.all()
    law = enumerate_draws(base, PROMPTS, max_tokens=length)
    for number in range(len(PROMPTS)):
        _are_frequencies(drawn.take(drawn.prompt == number), law.take(law.prompt == number))


def _are_frequencies(drawn, law):
    """Continuations that are expected fewer than 10 times are counted as one."""
    truth = {said(row): mass for row, mass in zip(law.tokens, np.exp(law.log_prob), strict=True)}
    rare = {key for key, mass in truth.items() if mass * len(drawn) < 10}
    count = Counter("rare" if (key := said(row)) in rare else key for row in drawn.tokens)
    cells = {key: mass for key, mass in truth.items() if key not in rare} | {"rare": sum(truth[key] for key in rare)}
    assert set(count) <= set(cells)
    for key, mass in cells.items():
        error = np.sqrt(mass * (1 - mass) / len(drawn))
        assert abs(count[key] / len(drawn) - mass) <= 5 * error + 1e-12, key


def said(row):
    return tuple(row[row >= 0])


@dataclass(frozen=True)
class Sharper:
    """Planted: an aligner that gives another law even where nothing is asked, with and without its density."""

    known: bool

    def align(self, setting):
        law = setting.base.warped(temperature=0.8)
        return law if self.known else SimpleNamespace(sample=law.sample)


@pytest.mark.parametrize("known", [True, False])
def test_planted_an_aligner_that_moves_the_base_for_nothing(worlds, known):
    with pytest.raises(AssertionError):
        returns_the_base(Sharper(known), worlds["exact"])
    plain = SimpleNamespace(align=lambda setting: SimpleNamespace(sample=setting.base.sample))
    returns_the_base(plain, worlds["exact"])  # a black box that is the base passes by its frequencies


TASK = """
name: every_aligner
version: 1
summary: The wind is always there.
prompts: [rain, sun wind rain snow, she he]
train: [snow, he sun]
max_tokens: 4
draws: 16
features:
  windy: {feature: contains_any, words: [wind]}
target:
  - {feature: windy, always: true}
metrics: [satisfaction, divergence, cost, length, perplexity, win_rate, distinct]
"""


def test_every_aligner_in_a_run_has_a_number_or_a_note_in_each_cell(worlds, tmp_path, arguments):
    (tmp_path / "every.yaml").write_text(TASK)
    recipes = [{"name": name, **arguments(name, worlds["gpt2"])} for name in aligner]
    out = tmp_path / "out"
    rows = evaluate(worlds["gpt2"], str(tmp_path / "every.yaml"), aligners=recipes, output_path=out)
    cells = rows[rows.aligner != ""]
    assert {parse_spec(label, "").name for label in cells.aligner} == set(aligner)
    silent = cells[cells.value.isna() & (cells.note == "")]
    assert silent.empty, silent[["aligner", "metric", "part"]]
    for path in out.glob("*/results_*.json"):
        found = json.loads(path.read_text())
        assert found["n-shot"]["every_aligner"] == (4 if found["config"]["aligner"].startswith("few_shot") else 0)


ARGUMENTS = {
    "contains_all": {"words": ["wind"]},
    "contains_any": {"words": ["wind"]},
    "contains_at_least": {"words": ["wind", "rain"], "count": 2},
    "count": {"words": ["wind"]},
    "count_matches": {"pattern": "n+"},
    "embedding_similarity": {"to": ["rain"]},
    "first_of": {"groups": {"wet": ["rain", "snow"], "dry": ["sun"]}},
    "follows_instructions": {
        "instructions": {prompt: ["keywords:existence", "language:response_language"] for prompt in PROMPTS},
        "arguments": {prompt: [{"keywords": ["wind"]}, {"language": "en"}] for prompt in PROMPTS},
        "level": "instruction",
    },
    "hf_probability": {"label": "glad"},
    "is_language": {"language": "en"},
    "language": {"languages": ["en", "de"]},
    "matches": {"pattern": "(rain|wind) "},
    "sentiment_is": {"label": "neutral"},
    "word_share": {"words": ["wind"]},
}


LABELS = {"hf_classifier": ("sad", "glad"), "hf_probability": ("sad", "glad"), "hf_reward": ("good",)}


@pytest.mark.parametrize("name", list(feature))
def test_registered_features_look_at_one_draw_at_a_time(name, worlds, tmp_path):
    from alignbench.features import bind

    if name == "follows_instructions":
        pytest.importorskip("if_verifiable", reason="needs the extra ifeval")
    spec = {"feature": name, **ARGUMENTS.get(name, {})}
    if "pretrained" in feature[name].parameters:  # a network's values differ in the last digits beside others
        network = (
            tiny_encoder(tmp_path) if name == "embedding_similarity" else tiny_classifier(tmp_path, labels=LABELS[name])
        )
        spec["pretrained"] = str(network)
    bound = bind(spec)
    draws = Case(worlds["exact"], PROMPTS, 4).sample()
    every = bound(PROMPTS, draws)
    for row in (0, 7, len(draws) - 1):
        assert bound(PROMPTS, draws.take(np.array([row])))[0] == pytest.approx(every[row], abs=1e-5)


def test_the_suite_refuses_what_is_no_sampler():
    with pytest.raises(LawBroken, match="has no method sample"):
        check(object(), PROMPTS)


def test_a_case_is_data():
    case = Case(exact(), ["rain"], 3)
    assert replace(case, draws=2).sample().index.tolist() == [0, 1]
