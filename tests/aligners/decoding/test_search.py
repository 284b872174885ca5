"""Greedy and beam search: what they find against transformers and against lists, and that their law is a point mass."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from aligner_worlds import LENGTH, PROMPTS
from models import tiny_gpt2, tiny_t5

from alignbench.aligners.base import Setting
from alignbench.aligners.decoding.search import Beam, Greedy
from alignbench.aligners.decoding.settings import RepetitionPenalty, TopP
from alignbench.aligners.guidance.constrained import Constrained
from alignbench.errors import RunError, Unsupported, UsageError
from alignbench.generators import point_mass
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf.factory import hf
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of

WORDS = ("rain", "sun", "wind", "snow", "she", "he", "fog")
TEXTS = ("rain", "sun wind rain snow", "she he")


def align(aligner, base, tokens=LENGTH):
    return aligner.align(Setting(base, None, PROMPTS, tokens, Seed()))


def drawn(generator, prompts, tokens, each=1):
    return collect(generator.sample(prompts, rows_of(len(prompts), each), max_tokens=tokens, seed=Seed()))


def found(generator, prompts, tokens):
    draws = drawn(generator, prompts, tokens)
    return [ids[:n].tolist() for ids, n in zip(draws.tokens, draws.length, strict=True)]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("point")
    return {
        **{f"gpt2 {seed}": hf(pretrained=str(tiny_gpt2(folder / f"{seed}", WORDS, seed=seed))) for seed in range(4)},
        "t5": hf(pretrained=str(tiny_t5(folder / "t5", WORDS))),
    }


def generated(law, prompt, tokens, **how):
    """What `generate` says after one prompt."""
    ids = torch.tensor([law.model.encode(prompt, tokens)])
    with torch.inference_mode():
        said = law.model.network.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens, **how
        )[0].tolist()
    said = said[1:] if law.model.network.config.is_encoder_decoder else said[ids.shape[1] :]
    ends = [i for i, token in enumerate(said) if token in law.vocab.eos]
    return said[: ends[0] + 1] if ends else said


@pytest.mark.parametrize("name", ["gpt2 0", "gpt2 1", "gpt2 2", "gpt2 3", "t5"])
def test_greedy_is_generate(networks, name):
    law = networks[name]
    assert found(align(Greedy(), law, 8), TEXTS, 8) == [generated(law, text, 8) for text in TEXTS]
    penalised = align(RepetitionPenalty(1.5), law)
    expected = [generated(law, text, 8, repetition_penalty=1.5) for text in TEXTS]
    assert found(align(Greedy(), penalised, 8), TEXTS, 8) == expected


HOW = [(2, 1.0), (4, 1.0), (3, 0.0), (4, 2.0), (5, -1.0)]


@pytest.mark.parametrize("name", ["gpt2 0", "gpt2 1", "gpt2 2", "gpt2 3", "t5"])
def test_beam_is_generate(networks, name):
    law = networks[name]
    for beams, penalty in HOW:
        expected = [generated(law, text, 8, num_beams=beams, length_penalty=penalty) for text in TEXTS]
        assert found(align(Beam(beams, penalty), law, 8), TEXTS, 8) == expected


def test_planted_length_penalty_forgotten_is_seen(networks):
    other = [found(align(Beam(4, penalty), networks["gpt2 0"], 8), TEXTS, 8) for penalty in (-1.0, 0.0, 1.0, 2.0)]
    assert any(one != other[0] for one in other)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_a_beam_as_wide_as_the_world_finds_its_best(penalty):
    for seed in range(6):
        base = exact(words="sun rain wind", seed=seed, order=3)
        listed = enumerate_draws(base, PROMPTS, max_tokens=LENGTH)
        score = listed.log_prob / listed.length**penalty
        best = [np.flatnonzero(listed.prompt == c)[score[listed.prompt == c].argmax()] for c in (0, 1)]
        expected = [listed.tokens[i, : listed.length[i]].tolist() for i in best]
        assert found(align(Beam(64, penalty), base), PROMPTS, LENGTH) == expected
    narrow = [exact(words="sun rain wind", seed=seed, order=3) for seed in range(20)]
    pairs = [[found(align(Beam(n, penalty), base), PROMPTS, LENGTH) for n in (1, 64)] for base in narrow]
    assert any(one != other for one, other in pairs)  # planted: a beam of one


def test_one_beam_is_greedy(networks):
    for law in networks.values():
        assert found(align(Beam(1), law, 6), TEXTS, 6) == found(align(Greedy(), law, 6), TEXTS, 6)


def test_greedy_of_a_changed_law_is_greedy_of_that_law(hard):
    cut = align(TopP(0.5), hard.base)
    assert found(align(Greedy(), cut), PROMPTS, LENGTH) == found(align(Greedy(), hard.base), PROMPTS, LENGTH)
    forbidden = align(RepetitionPenalty(50.0), hard.base)  # by hand: the likeliest of what the penalised law says
    state, ids = forbidden.start(PROMPTS[:1], max_tokens=LENGTH), []
    while len(ids) < LENGTH and not set(ids) & forbidden.vocab.eos:
        ids.append(int(state.log_probs[0].argmax()))
        state = state.extend(torch.tensor(ids[-1:]))
    assert found(align(Greedy(), forbidden), PROMPTS[:1], LENGTH) == [ids]


def test_the_law_is_a_point_mass(hard):
    point = align(Beam(), hard.base)
    every = enumerate_draws(hard.base, PROMPTS, max_tokens=LENGTH)
    said = found(point, PROMPTS, LENGTH)
    for fresh in (point, align(Beam(), hard.base)):  # searched while sampling, and for the sake of scoring
        log_prob = fresh.log_prob(PROMPTS, every)
        assert set(log_prob) == {0.0, -np.inf}
        for row in np.flatnonzero(log_prob == 0):
            assert every.tokens[row, : every.length[row]].tolist() == said[every.prompt[row]]
        assert np.bincount(every.prompt[log_prob == 0]).tolist() == [1, 1]
    assert point.truncates and point.remark.startswith("a point mass")


def test_planted_prefix_of_the_point_is_not_the_point(hard):
    """Ids beyond a draw's length do not count, and a longer draw is another one."""
    point = align(Greedy(), hard.base)
    draws = drawn(point, PROMPTS, LENGTH)
    other = draws.tokens.copy()
    other[:, 0] = (other[:, 0] + 1) % 3
    assert (point.log_prob(PROMPTS, replace(draws, tokens=other)) == -np.inf).all()
    longer = np.pad(draws.tokens, ((0, 0), (0, 2)), constant_values=-1)
    assert (point.log_prob(PROMPTS, replace(draws, tokens=longer)) == 0).all()
    cut = replace(draws, length=draws.length - 1, finished=draws.finished & False)
    assert (point.log_prob(PROMPTS, cut) == -np.inf).all()


def test_what_its_base_says_of_itself_is_kept(hard):
    """Examples that are not draws of p, say: under masks and searches too."""

    @dataclass(frozen=True)
    class Frame:
        remark = "its examples are not draws of p"

        def identity(self):
            return {}

        def fill(self, template, prompt):
            return prompt

    law = replace(hard.base, frame=Frame())
    masked = align(Constrained(any_of=["sun"]), law)
    assert masked.remark == law.remark == "its examples are not draws of p"
    assert align(Greedy(), masked).remark == f"{point_mass.POINT}; its examples are not draws of p"
    assert align(Greedy(), hard.base).remark == point_mass.POINT


def test_a_search_is_counted_once_and_searched_once(hard, monkeypatch):
    calls = []
    right = point_mass.beam_search
    monkeypatch.setattr(point_mass, "beam_search", lambda *args: calls.append(args[1]) or right(*args))
    point = align(Beam(3), hard.base)
    draws = drawn(point, PROMPTS, LENGTH, each=20)
    point.log_prob(PROMPTS, draws)
    assert calls == [list(PROMPTS)]
    align(Beam(3), hard.base).log_prob(PROMPTS, draws)  # draws from disk: searched side by side, as they were then
    assert calls == [list(PROMPTS)] * 2
    assert (draws.spent[draws.index > 0] == 0).all()
    steps = (draws.spent[draws.index == 0] - 1) / 3  # the prompt's own, then three rows a step
    assert ((steps >= 0) & (steps < LENGTH) & (steps == steps.astype(int))).all()
    greedy = drawn(align(Greedy(), hard.base), PROMPTS, LENGTH, each=2)
    assert greedy.spent.tolist() == [greedy.length[0], 0, greedy.length[2], 0]
    assert (greedy.group == 0).all()


def test_a_search_that_runs_out_of_memory_goes_on_in_halves(networks, monkeypatch):
    point, right, tried = align(Beam(2), networks["gpt2 2"], 5), point_mass.beam_search, []

    def narrow(law, prompts, *rest):
        tried.append(len(prompts))
        if len(prompts) > 1:
            raise torch.OutOfMemoryError("no memory")
        return right(law, prompts, *rest)

    expected = found(align(Beam(2), networks["gpt2 2"], 5), TEXTS, 5)
    monkeypatch.setattr(point_mass, "beam_search", narrow)
    assert found(point, TEXTS, 5) == expected and tried == [3, 1, 2, 1, 1]


@pytest.mark.parametrize("aligner", [Greedy(), Beam(2)])
def test_a_network_whose_output_is_no_number_is_told(tmp_path, aligner):
    law = hf(pretrained=str(tiny_gpt2(tmp_path / "nan", WORDS)))
    law.model.network.transformer.ln_f.weight.data.fill_(torch.nan)
    with pytest.raises(RunError, match=r"^nan: the network's output is no number \(NaN\); try dtype=float32$"):
        found(align(aligner, law, 3), TEXTS, 3)


def test_prompts_side_by_side_are_as_alone(networks):
    law = networks["gpt2 1"]
    for aligner in (Greedy(), Beam(3)):
        together = found(align(aligner, law, 6), TEXTS, 6)
        assert together == [found(align(aligner, law, 6), [text], 6)[0] for text in TEXTS]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Beam(0), "beam:num_beams=0: must be a whole number >= 1"),
        (lambda: Beam(2.5), "beam:num_beams=2.5: must be a whole number"),
        (lambda: Beam(length_penalty="long"), "beam:length_penalty=long: must be a number"),
        (lambda: Beam(length_penalty=float("nan")), "beam:length_penalty=nan: must be a number"),
        (lambda: Beam(length_penalty=1000), "beam:length_penalty=1000: must be a number from -10 to 10"),  # overflows
        (lambda: Beam(length_penalty=-1000.0), "beam:length_penalty=-1000.0: must be a number from -10 to 10"),
        (lambda: align(Greedy(), exact(), 0), "max_tokens=0: must be at least 1"),
    ],
)
def test_a_value_out_of_range_is_refused_at_once(make, message):
    with pytest.raises(UsageError) as error:
        make()
    assert str(error.value).startswith(message)


def test_what_cannot_be_walked_is_refused(hard):
    with pytest.raises(Unsupported, match=r"^aligner 'greedy' goes token by token; a str gives no next-token prob"):
        align(Greedy(), "a black box")
    with pytest.raises(UsageError, match=r"made for max_tokens=3, asked for 4$"):
        drawn(align(Greedy(), hard.base), PROMPTS, 4)
    with pytest.raises(UsageError, match="another tokenizer"):
        align(Greedy(), hard.base).log_prob(PROMPTS, drawn(align(Greedy(), exact(seed=1)), PROMPTS[:1], LENGTH))
