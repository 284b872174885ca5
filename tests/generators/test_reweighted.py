"""Rules that guide: their laws on listed worlds and tiny networks, the numbers by hand, and planted bugs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from models import tiny_gpt2, tiny_llama, tiny_t5
from torch.utils._python_dispatch import TorchDispatchMode

from alignbench.errors import UsageError
from alignbench.generators import reweighted as reweighted_module
from alignbench.generators.base import Filling, Forced
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf import slots
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import Law
from alignbench.generators.point_mass import Beams, PointMass
from alignbench.generators.reweighted import (
    AtOnce,
    Reweighted,
    ReweightedDecoder,
    ReweightedState,
    SlottedReweighted,
    Steps,
    reweighted,
)
from alignbench.seeds import Seed
from alignbench.testing import LAWS, LawBroken, check, differing, gap
from alignbench.types import collect, rows_of

pytestmark = pytest.mark.usefixtures("uniforms_once")

WORDS = ("sun", "rain", "wind")
PROMPTS = ("rain", "sun wind rain", "wind")
EVERY_LAW = [law.__name__ for laws in LAWS.values() for law in laws]
LENGTH = 4
SUN = WORDS.index("sun")


# --- three rules


class Empty:
    """Changes nothing, and remembers nothing."""

    name, truncates = "empty", False

    def identity(self):
        return {"kind": "empty"}

    def start(self, prompts, max_tokens):
        return None

    def extend(self, memory, tokens):
        return memory

    def select(self, memory, rows):
        return memory

    def weigh(self, log_probs, memory):
        return log_probs


@dataclass(frozen=True)
class Doubled:
    """Doubles the odds of a word until prompt or draw say it: (R,) whether they have."""

    word: int = SUN
    name = "doubled"
    truncates = False

    def identity(self):
        return {"kind": "doubled", "word": self.word}

    def start(self, prompts, max_tokens):
        return torch.tensor([WORDS[self.word] in prompt.split() for prompt in prompts])

    def extend(self, memory, tokens):
        return memory | (tokens == self.word)

    def select(self, memory, rows):
        return memory[rows]

    def weigh(self, log_probs, memory):
        weighed = log_probs.clone()
        weighed[~memory, self.word] += np.log(2)
        return weighed


class Filled(Doubled):
    """Its rows can be begun anew."""

    def fill(self, memory, rows, prompts, max_tokens):
        memory[rows] = self.start(prompts, max_tokens)
        return memory


class Scored(Doubled):
    """It has its memory of given draws at once."""

    def forced(self, prompts, draws, max_tokens):
        before = np.cumsum(draws.tokens == self.word, axis=1) - (draws.tokens == self.word) > 0
        said = torch.as_tensor(before) | self.start(prompts, max_tokens)[:, None]
        return said[torch.as_tensor(draws.tokens >= 0)]


class FilledAndScored(Filled, Scored):
    """Both."""


class Once:
    """Each word once and no EOS before: (R, V) what the draw said. After the last word nothing is left."""

    name, truncates = "once", True

    def identity(self):
        return {"kind": "once"}

    def start(self, prompts, max_tokens):
        return torch.tensor([[False] * len(WORDS) + [True]] * len(prompts))

    def extend(self, memory, tokens):
        return memory.scatter(1, tokens[:, None], True)

    def select(self, memory, rows):
        return memory[rows]

    def fill(self, memory, rows, prompts, max_tokens):
        memory[rows] = self.start(prompts, max_tokens)
        return memory

    def weigh(self, log_probs, memory):
        return log_probs.masked_fill(memory, -torch.inf)


RULES = {"empty": Empty(), "in waves": Doubled(), "filled": Filled(), "scored": Scored(),
         "filled and scored": FilledAndScored(), "once": Once()}  # fmt: skip
DOUBLED = [name for name, rule in RULES.items() if isinstance(rule, Doubled)]


def weights_by_hand(name, prompt, said):
    """(V,) factors of the base's probabilities after the words `said`, from nothing but these."""
    if name == "empty":
        return [1, 1, 1, 1]
    if name == "once":
        return [word not in said for word in WORDS] + [0]
    return [1 if "sun" in [*prompt.split(), *said] else 2, 1, 1, 1]


def by_hand(base, name, prompt):
    """{tokens: probability} of every draw that ends or is cut."""
    found, todo = {}, [((), 1.0, base.start([prompt], max_tokens=LENGTH))]
    while todo:
        said, mass, state = todo.pop()
        row = state.log_probs[0].exp().numpy()
        weighed = row * weights_by_hand(name, prompt, [WORDS[i] for i in said])
        weighed = weighed if weighed.any() else row
        for token in np.flatnonzero(weighed):
            share = mass * weighed[token] / weighed.sum()
            if token == len(WORDS) or len(said) == LENGTH - 1:
                found[(*said, token)] = share
            else:
                todo.append(((*said, token), share, state.extend(torch.tensor([token]))))
    return found


# --- worlds: two that are listed in float64, and networks by slots and by states


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reweighted")
    llama = str(tiny_llama(folder / "llama", WORDS))
    made = {
        "ngram": exact(words=WORDS, order=2, seed=1),
        "top-p": exact(words=WORDS, hidden=3, seed=2).warped(top_p=0.8, temperature=1.3),
        "gpt2": hf(pretrained=str(tiny_gpt2(folder / "gpt2", WORDS))),
        "llama": hf(pretrained=llama),
        "by states": hf(pretrained=llama),
        "t5": hf(pretrained=str(tiny_t5(folder / "t5", WORDS))),
        "penalty": hf(pretrained=llama).warped(repetition_penalty=1.6, temperature=1.2),
    }
    made["by states"].model.trial = slots.Trial(False)
    return made


def drawn(law, each=60, seed=3):
    return collect(law.sample(PROMPTS, rows_of(len(PROMPTS), each), max_tokens=LENGTH, seed=Seed(seed)))


def kept(law):
    """The names of the laws that hold, for a prompt without the word and a longer one with it."""
    return check(law, PROMPTS[:2], max_tokens=LENGTH, draws=12)


def same(left, right):
    return left.texts == right.texts and not differing(left, right).any() and gap(left.log_prob, right.log_prob) < 1e-4


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("world", ["ngram", "top-p", "gpt2"])
def test_probabilities_are_those_of_a_walk_by_hand(worlds, world, name):
    """Draw by draw, cut ones too; in all they are 1."""
    law = reweighted(worlds[world], RULES[name])
    off = 1e-12 if world != "gpt2" else 1e-5
    for prompt in PROMPTS:
        every = enumerate_draws(law, [prompt], max_tokens=LENGTH)
        assert np.exp(every.log_prob).sum() == pytest.approx(1, abs=off)
        assert not every.finished.all() and (every.finished.any() or name == "once")
        found = {tuple(t[:n]): np.exp(m) for t, n, m in zip(every.tokens, every.length, every.log_prob, strict=True)}
        expected = by_hand(worlds[world], name, prompt)
        assert found.keys() == expected.keys()
        assert found == pytest.approx(expected, abs=off)
        np.testing.assert_allclose(np.exp(law.log_prob([prompt], every)), np.exp(every.log_prob), atol=off)


WORLDS = ("ngram", "top-p", "gpt2", "llama", "by states", "t5", "penalty")
EVERY_RULE = ("in waves", "filled and scored", "once")
LAWFUL = [(world, name) for world in ("ngram", "llama") for name in ("empty", *EVERY_RULE)] + [
    (world, EVERY_RULE[i % 3]) for i, world in enumerate(("top-p", "gpt2", "by states", "t5", "penalty"))
]
"""Every rule on a world that is listed and on one with slots, every other world with one rule."""


@pytest.mark.parametrize(("world", "name"), LAWFUL)
def test_every_law_holds(worlds, world, name):
    assert kept(reweighted(worlds[world], RULES[name])) == EVERY_LAW


@pytest.mark.parametrize("world", WORLDS)
def test_an_empty_rule_is_the_base(worlds, world):
    base, law = worlds[world], reweighted(worlds[world], Empty())
    draws = drawn(base)
    assert same(draws, drawn(law))
    assert gap(law.token_log_prob(PROMPTS, draws), base.token_log_prob(PROMPTS, draws)) < 1e-4


@pytest.mark.parametrize("world", ["ngram", "gpt2", "llama", "by states", "t5", "penalty"])
def test_optional_methods_change_nothing(worlds, world):
    """The same draws and scores with `fill`, with `forced`, with both and with none; and other ones than the base's."""
    base = worlds[world]
    laws = [reweighted(base, RULES[name]) for name in DOUBLED]
    assert [isinstance(law.model.rule, Filling) for law in laws] == [False, True, False, True]
    assert [isinstance(law.model.rule, Forced) for law in laws] == [False, False, True, True]
    first, *others = [drawn(law) for law in laws]
    assert all(same(first, other) for other in others) and not same(first, drawn(base))
    scores = [law.token_log_prob(PROMPTS, first) for law in laws]
    assert max(gap(scores[0], other) for other in scores[1:]) == 0
    assert gap(scores[0].sum(1), first.log_prob) < 1e-4


@pytest.mark.parametrize("name", ["in waves", "filled", "once"])
@pytest.mark.parametrize("world", ["gpt2", "llama"])
def test_slots_are_states(worlds, world, name):
    """A model without decoders is sampled by its states: the same draws."""
    law = reweighted(worlds[world], RULES[name])
    assert type(law.model) is SlottedReweighted
    assert same(drawn(law), drawn(Law(Reweighted(worlds[world], RULES[name]))))


@pytest.mark.parametrize(("name", "refilled"), [("in waves", False), ("filled", True), ("once", True)])
def test_slots_are_filled_anew_by_rules_that_can(worlds, monkeypatch, name, refilled):
    """Seven slots for 180 draws: one decoder and many fills, or a decoder for each seven and one fill of it."""
    law, fills, right = reweighted(worlds["llama"], RULES[name]), Counter(), ReweightedDecoder.fill
    whole = drawn(law)

    def counted(self, *given):
        fills[self] += 1
        right(self, *given)

    monkeypatch.setattr(ReweightedDecoder, "fill", counted)
    object.__setattr__(law.model, "batch_size", 7)
    assert same(whole, drawn(law))
    if refilled:
        assert len(fills) == 1 and max(fills.values()) > 180 / 7
    else:
        assert len(fills) == -(-180 // 7) and set(fills.values()) == {1}


def test_a_memory_that_is_all_wanted_is_not_copied(worlds, monkeypatch):
    """A rule with networks of its own would pay for it at each step."""
    law, copied, right = reweighted(worlds["llama"], Filled()), [], Doubled.select
    walked = AtOnce(law.model.rule, torch.tensor([True, False, False]), 3)
    rows = torch.full((3, 4), 0.25).log()
    monkeypatch.setattr(Doubled, "select", lambda self, *given: copied.append(given) or right(self, *given))
    whole, _ = walked.weigh(law.model, rows, slice(0, 16))
    assert not copied
    for part in (slice(0, 2), slice(2, 16), slice(1, None)):
        assert torch.equal(walked.weigh(law.model, rows[part], part)[0], whole[part])
    assert len(copied) == 3


# --- planted bugs


def broken(law):
    with pytest.raises(LawBroken) as caught:
        kept(law)
    assert str(caught.value).split(":")[0] in EVERY_LAW
    return str(caught.value)


@pytest.mark.parametrize("name", ["in waves", "filled and scored"])
def test_planted_memory_that_stays_when_slots_move(worlds, monkeypatch, name):
    law, right = reweighted(worlds["llama"], RULES[name]), ReweightedDecoder.keep

    def stay(self, rows):
        memory = self.memory
        right(self, rows)
        self.memory = memory[: len(rows)]

    monkeypatch.setattr(ReweightedDecoder, "keep", stay)
    broken(law)


@pytest.mark.parametrize("world", ["ngram", "llama"])
@pytest.mark.parametrize("name", ["in waves", "filled and scored", "once"])
def test_planted_weights_after_normalisation(worlds, monkeypatch, world, name):
    law = reweighted(worlds[world], RULES[name])

    def nats(self, log_probs, memory, hidden=None):
        weighed = self.rule.weigh(log_probs.log_softmax(-1), memory)
        none_left = (weighed == -torch.inf).all(-1)
        return torch.where(none_left[:, None], log_probs, weighed), none_left

    monkeypatch.setattr(Reweighted, "nats", nats)
    broken(law)


def late_step(right):
    def step(self, ids):
        before = self.memory
        return replace(right(self, ids), walked=AtOnce(self.model.rule, before, self.slots))

    return step


def late_state(right):
    """The last token is not in memory yet, those before are."""

    def extend(self, tokens):
        after = right(self, tokens)
        waiting = self.__dict__.get("waiting")
        memory = self.memory if waiting is None else self.model.rule.extend(self.memory, waiting)
        object.__setattr__(after, "memory", memory)
        after.__dict__["waiting"] = tokens
        return after

    return extend


@pytest.mark.parametrize("name", ["in waves", "filled", "once"])
@pytest.mark.parametrize("place", ["slots", "states", "scores"])
def test_planted_memory_one_token_behind(worlds, monkeypatch, place, name):
    law = reweighted(worlds["llama"], RULES[name])
    if place == "slots":
        monkeypatch.setattr(ReweightedDecoder, "step", late_step(ReweightedDecoder.step))
    elif place == "states":
        monkeypatch.setattr(ReweightedState, "extend", late_state(ReweightedState.extend))
    else:
        of = Steps.of

        def late(rule, memory, draws, device):
            right = of(rule, memory, draws, device)
            return Steps(rule, [memory, *right.memories[:-1]], right.row, right.step)

        monkeypatch.setattr(Steps, "of", staticmethod(late))
    broken(law)


@pytest.mark.parametrize("place", ["scores", "everywhere"])
def test_planted_rule_one_token_behind(worlds, monkeypatch, place):
    """Late in `forced` alone it breaks a law; late everywhere it is a law, but not the one by hand."""
    law = reweighted(worlds["ngram"], Scored())
    if place == "scores":
        right = Scored.forced
        monkeypatch.setattr(Scored, "forced", lambda self, *given: right(self, *given).roll(1))
        broken(law)
    else:
        monkeypatch.setattr(Doubled, "extend", lambda self, memory, tokens: memory)
        every = enumerate_draws(law, PROMPTS[:1], max_tokens=LENGTH)
        found = {tuple(t[:n]): np.exp(m) for t, n, m in zip(every.tokens, every.length, every.log_prob, strict=True)}
        assert found != pytest.approx(by_hand(worlds["ngram"], "in waves", PROMPTS[0]), abs=1e-3)


@pytest.mark.parametrize("name", ["filled", "once"])
def test_planted_memory_of_the_draw_before(worlds, monkeypatch, name):
    """A slot filled anew begins with the memory that its last draw ended with."""
    law = reweighted(worlds["llama"], RULES[name])
    monkeypatch.setattr(ReweightedDecoder, "fill", lambda self, slots, which: self.inner.fill(slots, which))
    broken(law)


def test_planted_row_that_is_left_empty(worlds, monkeypatch):
    """Where a rule leaves nothing, the base's row stands; without it nothing has a probability."""
    law = reweighted(worlds["ngram"], Once())
    monkeypatch.setattr(Once, "truncates", False)
    assert np.isnan(law.log_prob(PROMPTS, drawn(worlds["ngram"]))).any()


# --- that a rule left nothing


class Dead:
    """Never says one word. After it and after an EOS it leaves nothing, so that what it can say never comes to that."""

    name, truncates = "dead", True

    def identity(self):
        return {"kind": "dead"}

    def start(self, prompts, max_tokens):
        return torch.zeros(len(prompts), dtype=torch.bool)

    def extend(self, memory, tokens):
        return memory | (tokens == SUN) | (tokens == len(WORDS))

    def select(self, memory, rows):
        return memory[rows]

    def weigh(self, log_probs, memory):
        return log_probs.masked_fill(memory[:, None] | (torch.arange(log_probs.shape[1]) == SUN), -torch.inf)


class DeadFilled(Dead):
    """Its rows can be begun anew."""

    fill = Filled.fill


class Mute(Dead):
    """Leaves nothing at all."""

    def start(self, prompts, max_tokens):
        return torch.ones(len(prompts), dtype=torch.bool)


class Three(Dead):
    """Leaves nothing after three tokens: (R,) how many were said."""

    def start(self, prompts, max_tokens):
        return torch.zeros(len(prompts), dtype=torch.long)

    def extend(self, memory, tokens):
        return memory + 1

    def weigh(self, log_probs, memory):
        return log_probs.masked_fill(memory[:, None] == 3, -torch.inf)


def sampled(law, base, length):
    list(law.sample(PROMPTS, rows_of(len(PROMPTS), 60), max_tokens=length, seed=Seed(3)))


def listed(law, base, length):
    enumerate_draws(law, PROMPTS, max_tokens=length)


def searched(law, base, length):
    """Beams that have ended, or can say nothing, go on with the others."""
    sampled(PointMass(law, length, Beams(4)), base, length)


USES = [sampled, listed, searched]


@pytest.fixture(autouse=True)
def _nothing_told_yet():
    reweighted_module._warn_once.cache_clear()


def told(law, caplog):
    line = f"{law.name}: at some step its rule left no token to say; the base's probabilities stood there"
    found = [record for record in caplog.records if record.name == Reweighted.__module__]
    assert all(record.levelname == "WARNING" and record.getMessage() == line for record in found)
    return len(found)


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("world", ["ngram", "gpt2", "llama", "by states", "t5"])
def test_that_a_rule_left_nothing_is_told_once(worlds, caplog, world, use):
    """After three words no fourth is left; whatever is done later, it was told."""
    law = reweighted(worlds[world], Once())
    use(law, worlds[world], 4)
    assert told(law, caplog) == 1
    for again in USES:
        again(law, worlds[world], 4)
        again(reweighted(worlds[world], Once()), worlds[world], 4)  # the same law, as for another seed
    assert told(law, caplog) == 1
    sampled(reweighted(worlds[world], Once(), 4), worlds[world], 4)
    assert told(law, caplog) == 2


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("world", ["ngram", "llama", "by states"])
def test_that_a_rule_left_nothing_is_told_of_first_tokens(worlds, caplog, world, use):
    law = reweighted(worlds[world], Mute())
    use(law, worlds[world], 1)
    assert told(law, caplog) == 1


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("world", ["ngram", "gpt2", "llama", "by states", "t5", "penalty"])
def test_nothing_is_told_of_rows_that_ended_nor_of_what_a_law_cannot_say(worlds, caplog, world, use):
    """Rules leave nothing after three words, which are all of a draw; after an EOS; and after a word never said."""
    for rule, length in [(Once(), 3), (Dead(), 4), (DeadFilled(), 4), (Empty(), 4), (Filled(), 4)]:
        law = reweighted(worlds[world], rule)
        use(law, worlds[world], length)
        assert told(law, caplog) == 0


@pytest.mark.parametrize(("batch_size", "unwatched"), [(7, 1), (7, 8), (64, 1), (180, 8)])
def test_nothing_is_told_of_slots_that_hold_nothing(worlds, caplog, monkeypatch, batch_size, unwatched):
    """Few slots and many, filled anew and in waves; looked at each step, as on a CPU, or seldom, as on a GPU."""
    right = ReweightedDecoder.__init__

    def seldom(self, *given):
        right(self, *given)
        self.unwatched = unwatched

    monkeypatch.setattr(ReweightedDecoder, "__init__", seldom)
    for rule, length in [(Once(), 3), (Dead(), 4), (DeadFilled(), 4), (Once(), 4)]:
        law = reweighted(worlds["llama"], rule)
        object.__setattr__(law.model, "batch_size", batch_size)
        sampled(law, None, length)
        assert told(law, caplog) == (isinstance(rule, Once) and length == 4)


def test_that_a_rule_left_nothing_is_told_of_a_row_that_moved(worlds, caplog):
    """The first row ends, and later all but the last, which takes its slot and then comes to where nothing is left."""
    draws, lengths = drawn(reweighted(worlds["llama"], Three()), each=300), [1, 2, 2, 2, 4]
    rows, begin = [], 0
    for length in lengths:
        rows.append([0, next(i for i in range(begin, 300) if draws.length[i] == length)])
        begin = rows[-1][1] + 1
    caplog.clear()
    reweighted_module._warn_once.cache_clear()
    law = reweighted(worlds["llama"], Three())
    found = collect(law.sample(PROMPTS, np.array(rows), max_tokens=LENGTH, seed=Seed(3)))
    assert found.length.tolist() == lengths and told(law, caplog) == 1


class Ops(TorchDispatchMode):
    """Notes the operations inside."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
def test_a_step_of_slots_reads_no_number_from_the_device(worlds):
    """A GPU would wait for it. What is noted is read once, from a decoder that is given back."""
    model = reweighted(worlds["llama"], Once()).model
    text = model.render(PROMPTS[0])
    decoder = model.decoder(2, len(model.encode(text, LENGTH)) + LENGTH)
    decoder.prefill([text])
    decoder.fill(torch.arange(2), torch.zeros(2, dtype=torch.long))
    decoder.inner.step = lambda ids: torch.zeros(2, len(WORDS) + 1)
    with Ops() as ops:
        for i in range(len(WORDS)):
            decoder.step(torch.tensor([i, i]))[:]
    assert "where" in ops.names and not ops.names & {"item", "is_nonzero", "_local_scalar_dense", "nonzero"}
    assert decoder.none_left


# --- what it says of itself


def test_a_reweighted_law_says_what_it_is(worlds):
    base = worlds["ngram"]
    laws = [reweighted(base, Doubled()), reweighted(base, Doubled(word=1)), reweighted(base, Doubled(), 4), base]
    assert len({str(law.identity()) for law in laws}) == 4
    assert laws[0].name == "exact doubled" and not laws[0].truncates and reweighted(base, Once()).truncates
    with pytest.raises(UsageError, match="exact doubled: made for max_tokens=4, asked for 5"):
        laws[2].check(PROMPTS, 5)
    with pytest.raises(UsageError, match="exact doubled: max_tokens=0: must be at least 1"):
        reweighted(base, Doubled(), 0)


def test_prompts_that_become_one_text_are_refused_where_a_rule_begins_them_otherwise(worlds):
    base = Law(worlds["ngram"].model, template="wind")
    with pytest.raises(UsageError, match="two prompts become the same text 'wind', which its rule begins otherwise"):
        reweighted(base, Doubled()).check(PROMPTS, LENGTH)

    class Alike(Doubled):
        def key(self, prompt, max_tokens):
            return "sun" in prompt.split()

    law = reweighted(base, Alike())
    law.check(["rain", "wind"], LENGTH)
    with pytest.raises(UsageError, match="which its rule begins otherwise"):
        law.check(PROMPTS, LENGTH)
