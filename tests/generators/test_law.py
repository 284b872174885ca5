"""The law: its settings against numpy and transformers, its draws against exact masses, its KL against sums by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from models import tiny_gpt2

from alignbench.errors import RunError, UsageError
from alignbench.generators import law as law_module
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf import heads
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import LawState, compare, kl_by_step
from alignbench.generators.sampling import pick
from alignbench.generators.warp import Warp, log_normalised
from alignbench.seeds import Seed
from alignbench.stats import discrete
from alignbench.types import Draws, collect, rows_of

WORDS = ("rain", "sun", "wind", "snow", "she", "he")
PROMPTS = ("rain", "sun wind rain", "she he")
SETTINGS = {
    "nothing": {},
    "cold": {"temperature": 0.5},
    "hot": {"temperature": 1.7},
    "top-k": {"top_k": 7},
    "top-k above V": {"top_k": 10_000},
    "top-p": {"top_p": 0.8},
    "top-p of one token": {"top_p": 1e-6},
    "min-p": {"min_p": 0.05},
    "typical": {"typical_p": 0.6},
    "typical of one token": {"typical_p": 1e-6},
    "all": {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "min_p": 0.02, "typical_p": 0.8},
    "all, hot": {"temperature": 2.0, "top_k": 30, "top_p": 0.95, "min_p": 0.1},
}


def logits(rows=50, size=60, seed=0):
    return torch.as_tensor(np.random.default_rng(seed).normal(0, 2.5, (rows, size)))


def by_numpy(scores, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0):
    """One row at a time, in probabilities: temperature, top-k, top-p, min-p, typical."""
    out = []
    for row in scores.numpy() / temperature:
        p = np.exp(row - row.max())
        p /= p.sum()
        if top_k:
            p[np.argsort(-p)[top_k:]] = 0
            p /= p.sum()
        order = np.argsort(-p)
        keep, mass = [], 0.0
        for i in order:
            if mass >= top_p:
                break
            keep.append(i)
            mass += p[i]
        p = np.where(np.isin(np.arange(p.size), keep), p, 0) / p[keep].sum()
        p = np.where(p < min_p * p.max(), 0, p)
        p /= p.sum()
        out.append(typical(p, typical_p) if typical_p < 1 else p)
    return np.array(out)


def typical(p, mass):
    """Tokens one by one, the nearest to the entropy first, until they hold the mass."""
    said = p[p > 0]
    entropy = -(said * np.log(said)).sum()
    kept = np.zeros_like(p)
    for i in sorted(np.flatnonzero(p), key=lambda i: abs(-np.log(p[i]) - entropy)):
        kept[i] = p[i]
        if kept.sum() >= mass:
            break
    return kept / kept.sum()


def by_transformers(scores, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical_p=1.0):
    from transformers.generation import logits_process as warpers

    chain = [warpers.TemperatureLogitsWarper(float(temperature))] if temperature != 1 else []
    chain += [warpers.TopKLogitsWarper(top_k)] if top_k else []
    chain += [warpers.TopPLogitsWarper(top_p)] if top_p < 1 else []
    chain += [warpers.MinPLogitsWarper(min_p)] if min_p else []
    chain += [warpers.TypicalLogitsWarper(typical_p)] if typical_p < 1 else []
    for warper in chain:
        scores = warper(torch.zeros((len(scores), 1), dtype=torch.long), scores)
    return scores.softmax(-1).numpy()


@pytest.mark.parametrize("independent", [by_numpy, by_transformers])
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_warp_is_what_others_make_of_the_settings(settings, independent):
    scores = logits()
    ours = Warp(**settings)(scores.log_softmax(-1)).exp().numpy()
    np.testing.assert_allclose(ours, independent(scores, **settings), atol=1e-12)
    np.testing.assert_allclose(ours.sum(-1), 1, atol=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"top_k": 50}, {"min_p": 0.01}, {"temperature": 0.99}, {"top_p": 0.999}, {"typical_p": 0.999}]
)
def test_planted_setting_by_default_is_seen(wrong):
    """What the comparison must not pass: a setting that nobody asked for, such as transformers' top-k of 50."""
    ours = Warp()(logits().log_softmax(-1)).exp().numpy()
    assert not np.allclose(ours, by_transformers(logits(), **wrong), atol=1e-12)


def test_planted_other_order_is_seen():
    """Top-p before temperature keeps other tokens."""
    scores = logits().log_softmax(-1)
    right, wrong = Warp(temperature=2.0, top_p=0.8)(scores), Warp(temperature=2.0)(Warp(top_p=0.8)(scores))
    assert not torch.equal(right > -torch.inf, wrong > -torch.inf)


def test_planted_other_side_of_the_typical_threshold_is_seen():
    """The token that fills the mass is kept; without it the set holds less than the mass."""
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]])  # entropy 1.14: 0.3 is nearest, then 0.5, then 0.15, then 0.05
    for mass, kept in ((0.29, [1]), (0.31, [0, 1]), (0.79, [0, 1]), (0.81, [0, 1, 2])):
        assert (Warp(typical_p=mass)(p.log())[0] > -torch.inf).nonzero()[:, 0].tolist() == kept


def test_ties_at_the_edge_are_kept():
    even = torch.full((1, 4), 0.25).log()
    for settings in ({"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.99}, {"typical_p": 0.5}):
        assert (Warp(**settings)(even) > -torch.inf).all()


def test_warp_keeps_what_is_already_impossible_impossible():
    log_probs = torch.tensor([[0.5, 0.5, 0.0]]).log()
    for settings in ({"temperature": 0.5}, {"top_k": 3}, {"top_p": 0.999}, {"min_p": 0.1}, {"typical_p": 0.999}):
        np.testing.assert_allclose(Warp(**settings)(log_probs).exp(), [[0.5, 0.5, 0]], atol=1e-7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature=0: must be above 0 (a law at 0 is greedy: a point mass)"),
        ({"temperature": -1.0}, "temperature=-1.0: must be above 0"),
        ({"temperature": float("nan")}, "temperature=nan: must be above 0"),
        ({"temperature": float("inf")}, "temperature=inf: must be above 0"),
        ({"temperature": "0.7"}, "temperature=0.7: must be a number"),
        ({"temperature": True}, "temperature=True: must be a number"),
        ({"top_k": -1}, "top_k=-1: must be a whole number >= 0 (0 keeps every token)"),
        ({"top_k": 2.5}, "top_k=2.5: must be a whole number"),
        ({"top_k": float("nan")}, "top_k=nan: must be a whole number"),
        ({"top_k": float("inf")}, "top_k=inf: must be a whole number"),
        ({"top_p": 0}, "top_p=0: must be in (0, 1]"),
        ({"top_p": 1.1}, "top_p=1.1: must be in (0, 1]"),
        ({"top_p": None}, "top_p=None: must be a number"),
        ({"min_p": 1}, "min_p=1: must be in [0, 1)"),
        ({"min_p": -0.1}, "min_p=-0.1: must be in [0, 1)"),
        ({"typical_p": 0}, "typical_p=0: must be in (0, 1]"),
        ({"typical_p": 1.5}, "typical_p=1.5: must be in (0, 1]"),
        ({"repetition_penalty": 0}, "repetition_penalty=0: must be above 0 (1 changes nothing)"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty=inf: must be above 0"),
        ({"repetition_penalty": "1.2"}, "repetition_penalty=1.2: must be a number"),
    ],
)
def test_refused_settings(settings, message):
    with pytest.raises(UsageError) as caught:
        Warp(**settings)
    assert str(caught.value).startswith(message)


def test_one_law_however_its_numbers_are_written():
    scores = logits().log_softmax(-1)
    assert torch.equal(Warp(top_k=3.0)(scores), Warp(top_k=3)(scores))
    law = exact()
    assert json.dumps(law.warped(temperature=2, top_k=3.0).identity()) == json.dumps(
        law.warped(temperature=2.0, top_k=3).identity()
    )


def test_truncates_says_whether_tokens_are_cut():
    keeps = ({}, {"temperature": 0.1}, {"repetition_penalty": 1.2})
    cuts = ({"top_k": 1}, {"top_p": 0.9}, {"min_p": 0.1}, {"typical_p": 0.9})
    assert not any(Warp(**s).truncates for s in keeps) and all(Warp(**s).truncates for s in cuts)


def test_settings_that_are_off_leave_identities_as_they_were():
    """Draws that were stored before these settings were there are found."""
    law = exact()
    assert law.identity()["law"] == {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    assert law.warped(typical_p=0.9).identity()["law"]["typical_p"] == 0.9
    assert law.warped(repetition_penalty=1.2).identity() != law.warped(repetition_penalty=1.3).identity()


def test_a_penalty_needs_to_know_what_was_said():
    with pytest.raises(UsageError, match=r"^repetition_penalty=1\.2: needs to know what was said before$"):
        Warp(repetition_penalty=1.2)(logits())


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_p": 0.9, "typical_p": 0.9}], ids=["alone", "more"])
def test_repetition_penalty_is_transformers_own(tmp_path, settings):
    """Its processor on the raw logits of prompt and draw, before its warpers: states, scores and compare agree."""
    from transformers.generation.logits_process import RepetitionPenaltyLogitsProcessor

    law = hf(pretrained=str(tiny_gpt2(tmp_path / "m", WORDS))).warped(repetition_penalty=1.4, **settings)
    truth = enumerate_draws(law, ["she he rain"], max_tokens=3)
    prompt, network = law.model.encode("she he rain", 0), law.model.network
    expected = np.zeros(len(truth))
    for t in range(3):
        rows = np.flatnonzero(truth.length > t)
        ids = torch.tensor([[*prompt, *truth.tokens[i, :t].tolist()] for i in rows])
        with torch.inference_mode():
            raw = network(input_ids=ids).logits[:, -1]
            theirs = by_transformers(RepetitionPenaltyLogitsProcessor(1.4)(ids, raw), **settings)
        expected[rows] += np.log(theirs[np.arange(len(rows)), truth.tokens[rows, t]])
    np.testing.assert_allclose(truth.log_prob, expected, atol=1e-4)
    np.testing.assert_allclose(law.log_prob(["she he rain"], truth), expected, atol=1e-4)
    plain = replace(law, warp=Warp())
    log_gen, log_base, kl = compare(law, plain, ["she he rain"], truth)
    np.testing.assert_allclose(log_gen, expected, atol=1e-4)
    np.testing.assert_allclose(log_base, plain.log_prob(["she he rain"], truth), atol=1e-4)
    mass = np.exp(expected)
    assert mass @ kl == pytest.approx(float(mass @ (log_gen - log_base)), abs=1e-4)
    assert float(np.abs(log_gen - log_base).max()) > 0.1


# --- pick


def masses(size=300):
    """Random masses over three blocks, a third of them 0, among them the first, the last and the edges of blocks."""
    p = np.random.default_rng(1).exponential(1, size)
    p[::3] = 0
    p[[0, 127, 128, 255, 256, size - 1]] = 0
    return p / p.sum()


def worst(p, ids, draws):
    """The largest deviation of the frequencies of `ids`, in standard errors (of at least one draw)."""
    off = np.abs(np.bincount(ids, minlength=p.size) - draws * p)
    return float((off / np.maximum(np.sqrt(draws * p * (1 - p)), 1)).max())


def picked(p, uniforms):
    with np.errstate(divide="ignore"):
        nats = torch.as_tensor(np.log(p))
    return torch.cat([pick(nats.expand(len(u), -1), u) for u in torch.as_tensor(uniforms).split(5000)]).numpy()


def test_pick_has_the_masses_over_several_blocks():
    p, draws = masses(), 60_000
    ids = picked(p, np.random.default_rng(2).random((draws, 2)))
    assert (p[ids] > 0).all()
    assert worst(p, ids, draws) < 5


def test_planted_one_uniform_for_block_and_id_is_seen():
    p, draws = masses(), 60_000
    u = np.random.default_rng(2).random((draws, 1))
    assert worst(p, picked(p, np.repeat(u, 2, axis=1)), draws) > 20


def test_pick_inverts_exactly():
    """Against a cumulative sum block by block, at uniforms on a grid: the same id at every point."""
    p = masses()
    grid = (np.arange(40) + 0.5) / 40
    uniforms = np.stack(np.meshgrid(grid, grid), -1).reshape(-1, 2)
    blocks = [p[i : i + 128] for i in range(0, len(p), 128)]
    edges = np.cumsum([b.sum() for b in blocks])
    expected = []
    for u, v in uniforms:
        block = int((edges <= u * edges[-1]).sum())
        inside = np.cumsum(blocks[block])
        expected.append(128 * block + int((inside <= v * inside[-1]).sum()))
    assert picked(p, uniforms).tolist() == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pick_at_the_edges_never_takes_an_impossible_id(dtype):
    p = masses()
    first, last = np.flatnonzero(p)[[0, -1]]
    top = float(np.nextafter(np.float32(1), np.float32(0))) if dtype == torch.float32 else 1 - 2.0**-53
    u = torch.tensor([[0, 0], [top, top], [0, top], [top, 0]], dtype=dtype)
    with np.errstate(divide="ignore"):
        ids = pick(torch.as_tensor(np.log(p), dtype=torch.float32).expand(4, -1), u).numpy()
    assert (p[ids] > 0).all()
    assert ids[0] == first
    assert ids[1] == last


@pytest.mark.parametrize("where", [0, 127, 128, 200, 299])
def test_pick_of_a_point_mass(where):
    """All other blocks are empty: at u = 0 and just below 1 the only possible id is taken."""
    p = np.zeros(300)
    p[where] = 1
    assert (picked(p, np.array([[0, 0], [1 - 2.0**-53] * 2, [0.5, 0.5]])) == where).all()


# --- compare


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return hf(pretrained=str(tiny_gpt2(tmp_path_factory.mktemp("law") / "gpt2", WORDS)))


@pytest.fixture(scope="module")
def worlds(gpt2):
    return {"exact": exact(words=WORDS, order=3, seed=4), "gpt2": gpt2}


def drawn(law, draws=8, max_tokens=5):
    return collect(law.sample(PROMPTS, rows_of(len(PROMPTS), draws), max_tokens=max_tokens, seed=Seed(3)))


def by_hand(gen, base, draws, more=0):
    """Σ_t KL(π ‖ a) of each draw by walking the states one draw at a time, over length + `more` steps."""
    sums = []
    for row in range(len(draws)):
        states = [m.start([PROMPTS[draws.prompt[row]]], max_tokens=9) for m in (gen, base)]
        total = 0.0
        for t in range(int(draws.length[row]) + more):
            log_p, log_q = (s.log_probs[0].double().numpy() for s in states)
            p = np.exp(log_p)
            total += float((p[p > 0] * (log_p - log_q)[p > 0]).sum())
            token = draws.tokens[row, t] if t < draws.length[row] else 0
            states = [s.extend(torch.tensor([token])) for s in states]
        sums.append(total)
    return np.array(sums)


@pytest.mark.parametrize("world", ["exact", "gpt2"])
@pytest.mark.parametrize("settings", [{"temperature": 0.6}, {"top_p": 0.8}, {"top_k": 3, "temperature": 1.3}])
def test_kl_base_is_the_sum_over_states_to_the_eos_step(worlds, world, settings):
    base, gen = worlds[world], worlds[world].warped(**settings)
    draws = drawn(gen)
    assert draws.finished.any()
    assert not draws.finished.all()
    log_gen, log_base, kl = compare(gen, base, PROMPTS, draws)
    np.testing.assert_allclose(kl, by_hand(gen, base, draws), atol=1e-4)
    np.testing.assert_allclose(log_gen, draws.log_prob, atol=1e-4)
    np.testing.assert_allclose(log_base, draws.model_log_prob, atol=1e-4)
    np.testing.assert_allclose(log_base, base.log_prob(PROMPTS, draws), atol=1e-4)
    for planted in (-1, +1):  # the EOS step forgotten; a step after the end of a cut or finished draw
        assert (np.abs(kl - by_hand(gen, base, draws, planted)) > 1e-3).mean() > 0.8


def test_kl_base_of_another_model_or_prompt(worlds):
    """The two laws share nothing: each is run on its own rendering."""
    base, other = worlds["exact"], exact(words=WORDS, order=2, seed=9, batch_size=3)
    prompted = replace(base, template="snow {prompt}")
    for gen in (other, prompted):
        draws = drawn(gen)
        log_gen, log_base, kl = compare(gen, base, PROMPTS, draws)
        np.testing.assert_allclose(kl, by_hand(gen, base, draws), atol=1e-9)
        np.testing.assert_allclose(log_gen, draws.log_prob, atol=1e-9)
        np.testing.assert_allclose(log_base, base.log_prob(PROMPTS, draws), atol=1e-9)


def test_kl_base_where_the_base_alone_remembers(worlds):
    """A base with a repetition penalty forgets nothing beside a law that has none."""
    base, gen = worlds["exact"].warped(repetition_penalty=1.7), worlds["exact"].warped(temperature=0.8)
    draws = drawn(gen)
    log_gen, log_base, kl = compare(gen, base, PROMPTS, draws)
    np.testing.assert_allclose(kl, by_hand(gen, base, draws), atol=1e-9)
    np.testing.assert_allclose(log_base, base.log_prob(PROMPTS, draws), atol=1e-9)
    np.testing.assert_allclose(log_gen, draws.log_prob, atol=1e-9)


def test_kl_base_averages_to_the_divergence_of_the_sequences(worlds):
    """Over all continuations Σ π(x) Σ_t KL_t = KL(π‖a): the chain rule, exactly."""
    base, gen = worlds["exact"], worlds["exact"].warped(top_p=0.8)
    every = enumerate_draws(gen, PROMPTS[:1], max_tokens=4)
    log_gen, log_base, kl = compare(gen, base, PROMPTS, every)
    pi = np.exp(log_gen)
    assert pi @ kl == pytest.approx(pi @ (log_gen - log_base), abs=1e-9)


def test_kl_by_step_is_infinite_where_p_is_too_small_for_float32():
    """0 in float32 is not 0: what the base cuts and the generator may say, however rarely, is ∞ and never NaN."""
    p, q = torch.tensor([0.0, -110.0]), torch.tensor([0.0, -torch.inf])
    assert float(kl_by_step(p, q)) == np.inf
    assert float(kl_by_step(q, p)) == pytest.approx(0)


def test_kl_by_step_of_what_is_cut():
    p, q = (torch.tensor(x, dtype=torch.float64).log() for x in ([0.5, 0.5, 0.0], [0.25, 0.25, 0.5]))
    assert float(kl_by_step(p, q)) == pytest.approx(np.log(2))
    assert float(kl_by_step(q, p)) == np.inf
    assert float(kl_by_step(p, p)) == 0
    assert torch.isnan((p.exp() * (p - p)).sum())  # planted: 0 · (−∞ − −∞) where both are cut


@pytest.mark.parametrize("world", ["exact", "gpt2"])
@pytest.mark.parametrize("settings", [{"temperature": 1.0001}, {"temperature": 1 + 1e-9}, {"top_p": 0.999}])
def test_kl_base_is_never_negative_however_near_the_laws(worlds, world, settings):
    base, gen = worlds[world], worlds[world].warped(**settings)
    assert (compare(gen, base, PROMPTS, drawn(gen, draws=40))[2] >= 0).all()


def test_planted_plain_sum_of_a_divergence_is_negative_in_single_precision():
    x = logits(1000, 4096).float()
    near, base = (x / 1.00001).log_softmax(-1), x.log_softmax(-1)
    found, wide = kl_by_step(near, base), kl_by_step(near.double().log_softmax(-1), base.double().log_softmax(-1))
    assert (found >= 0).all()
    np.testing.assert_allclose(found, wide, atol=1e-7)
    assert ((near.exp() * (near - base)).sum(-1) < -1e-7).any()  # planted: Σ p log(p/q)


def test_impossible_tokens_give_no_nan_in_either_law():
    """Every sequence of a loose world under two laws that lack some of it, each its own or both."""
    loose = exact(words=WORDS[:3], seed=1)
    base, gen = loose.warped(top_k=3), exact(words=WORDS[:3], seed=5).warped(top_k=2)
    every = enumerate_draws(loose, PROMPTS[:1], max_tokens=4)
    for one, other in ((gen, base), (base, gen), (base, loose), (loose, gen), (base.warped(top_k=1), base)):
        log_one, log_other, kl = compare(one, other, PROMPTS[:1], every)
        assert not np.isnan([log_one, log_other, kl]).any()
        assert (kl >= 0).all()
        said = np.exp(log_one)
        assert said.sum() == pytest.approx(1, abs=1e-9)
        inside = said > 0
        by_steps, whole = said[inside] @ kl[inside], discrete.kl(said, np.exp(log_other))
        assert by_steps == whole == np.inf or by_steps == pytest.approx(float(whole), abs=1e-9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sun rain", "'sun rain' takes 2 tokens ('sun', 'rain'): give a text of one token"),
        ("", "'' takes 0 tokens (none): give a text of one token"),
        ("hail", "'hail' is read as '</s>', which says '': give another text"),  # the unknown word's token is the EOS
    ],
)
def test_the_token_of_a_text(tmp_path, text, message):
    law = hf(pretrained=str(tiny_gpt2(tmp_path / "gpt2")))
    assert [law.vocab.tokens[law.token(given)] for given in ("sun", " rain")] == ["sun", "rain"]
    with pytest.raises(UsageError) as refused:
        law.token(text)
    assert str(refused.value) == f"{law.name}: {message}"


def test_other_tokenizers_are_refused(worlds):
    base, other = worlds["exact"], exact(words="rain sun")
    draws = collect(other.sample(["rain"], rows_of(1, 2), max_tokens=3, seed=Seed()))
    for call in (lambda: compare(other, base, ["rain"], draws), lambda: base.log_prob(["rain"], draws)):
        with pytest.raises(UsageError, match=r"ids of another tokenizer .*across two tokenizers is not defined"):
            call()
    texts = Draws.from_texts(rows_of(1, 2), ["rain", "sun"])
    with pytest.raises(UsageError, match=r"another tokenizer \(none, here"):
        base.log_prob(["rain"], texts)


def test_the_same_words_with_another_end_are_another_event_space(worlds):
    vocab = worlds["exact"].vocab
    assert replace(vocab, eos=frozenset({0})).fingerprint != vocab.fingerprint
    assert replace(vocab).fingerprint == vocab.fingerprint


def test_parts_cover_every_draw_once_and_hold_what_there_is_room_for(worlds):
    draws = drawn(worlds["gpt2"], draws=40)
    parts = list(law_module._parts(draws, lambda width: max(1, 12 // width)))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(draws)))
    assert all(len(part) * draws.length[part].max() <= 12 for part in parts)
    assert max(map(len, parts)) > 2, "short draws share a part"


def test_parts_keep_draws_of_one_prompt_side_by_side(worlds):
    draws = drawn(worlds["exact"], draws=40)
    [part] = law_module._parts(draws, lambda width: 10**6)
    assert (np.diff(draws.prompt[part]) >= 0).all()


def test_scores_do_not_depend_on_how_many_are_scored_together(worlds, monkeypatch):
    law, draws = worlds["gpt2"], drawn(worlds["gpt2"])
    whole = law.token_log_prob(PROMPTS, draws)
    monkeypatch.setattr(type(law.model), "together", lambda self, prompt, width: 3)
    np.testing.assert_allclose(law.token_log_prob(PROMPTS, draws), whole, atol=1e-5)


def test_no_distribution_is_made_beyond_the_chunk(worlds, monkeypatch):
    """Next-token distributions are asked for a chunk of positions at a time, and never for pads."""
    law, asked = worlds["gpt2"], []
    draws = drawn(law)
    monkeypatch.setattr(law_module, "CHUNK_BYTES", {"cpu": 4 * 7 * 5})  # five positions of 7 ids
    right = heads.head

    def watched(network, hidden):
        asked.append(len(hidden))
        return right(network, hidden)

    monkeypatch.setattr(heads, "head", watched)
    assert law.model.trial.works
    asked.clear()
    law.log_prob(PROMPTS, draws)
    assert max(asked) == 5
    assert sum(asked) == draws.length.sum()


@pytest.mark.parametrize("fits", [1, 3])
def test_scoring_goes_on_in_halves_when_memory_runs_out(worlds, fits, monkeypatch):
    law, draws = worlds["gpt2"], drawn(worlds["gpt2"])
    whole, right, asked = law.log_prob(PROMPTS, draws), law_module.Law._scores, []

    def tight(self, prompts, part):
        asked.append(len(part))
        if len(part) > fits:
            raise torch.OutOfMemoryError("out of memory")
        return right(self, prompts, part)

    monkeypatch.setattr(law_module.Law, "_scores", tight)
    np.testing.assert_allclose(law.log_prob(PROMPTS, draws), whole, atol=1e-5)
    assert asked.count(len(draws)) == 1, "later parts are no larger than what fitted"
    fits = 0
    with pytest.raises(RunError, match="memory ran out scoring one draw"):
        law.log_prob(PROMPTS, draws)


def test_an_error_that_is_not_of_memory_is_not_hidden(worlds, monkeypatch):
    monkeypatch.setattr(law_module, "gather", lambda x, ids: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worlds["exact"].log_prob(PROMPTS, drawn(worlds["exact"]))


# --- the rest of a law


def test_rescoring_gives_nothing_after_the_end(worlds):
    for law in worlds.values():
        draws = drawn(law)
        by_token = law.token_log_prob(PROMPTS, draws)
        past = np.arange(by_token.shape[1]) >= draws.length[:, None]
        assert (by_token[past] == 0).all()
        assert (draws.tokens[past] == -1).all()
        assert (by_token[~past] < 0).all()


def test_off_the_support_the_log_probability_is_minus_infinity(worlds):
    law = worlds["exact"]
    every = enumerate_draws(law, PROMPTS[:1], max_tokens=2)
    cut = law.warped(top_k=2).log_prob(PROMPTS, every)
    assert np.isneginf(cut).any()
    assert np.exp(cut).sum() == pytest.approx(1)


def test_max_tokens_must_be_at_least_one(worlds):
    with pytest.raises(UsageError, match="max_tokens=0: must be at least 1"):
        list(worlds["exact"].sample(PROMPTS, rows_of(1, 1), max_tokens=0, seed=Seed()))
    with pytest.raises(UsageError, match="max_tokens=0"):
        worlds["exact"].check(PROMPTS, 0)


def test_a_template_is_part_of_the_law(worlds):
    law = replace(worlds["exact"], template="snow {prompt}")
    assert law.render("rain") == "snow rain"
    assert law.identity() != worlds["exact"].identity()
    assert law.warped(top_k=2).template == law.template
    np.testing.assert_array_equal(
        law.start(["rain"], max_tokens=1).log_probs, worlds["exact"].start(["snow rain"], max_tokens=1).log_probs
    )


def test_a_state_under_a_law_keeps_the_model_s_own_numbers(worlds):
    state = worlds["exact"].warped(top_k=2).start(["rain"], max_tokens=3)
    assert isinstance(state, LawState)
    assert (state.log_probs > -torch.inf).sum() == 2
    assert (state.state.log_probs > -torch.inf).all()
    assert state.select(torch.tensor([0, 0])).extend(torch.tensor([1, 2])).log_probs.shape == (2, 7)


def test_uniforms_come_from_the_rendered_prompt(worlds):
    """Two templates that render alike draw alike; the stream and the seed change every draw."""
    law = worlds["exact"]
    same = replace(law, template="rain {prompt}")
    rows = rows_of(1, 30)
    one = collect(law.sample(["rain sun"], rows, max_tokens=4, seed=Seed(3)))
    two = collect(same.sample(["sun"], rows, max_tokens=4, seed=Seed(3)))
    assert one.texts == two.texts
    for other in (Seed(4), Seed(3, "ref"), Seed(3, salt=1)):
        assert collect(law.sample(["rain sun"], rows, max_tokens=4, seed=other)).texts != one.texts


@pytest.mark.parametrize(("given", "rows"), [("auto", 9), (5, 5), ("5", 5)])
def test_batch_sizes(given, rows):
    assert law_module.whole_rows(given, 9) == rows


@pytest.mark.parametrize("given", [0, -1, "0", "ten", 2.5, "2.5", "", None, True])
def test_batch_sizes_that_are_none(given):
    with pytest.raises(UsageError, match="must be 'auto' or a whole number >= 1"):
        law_module.whole_rows(given, 9)


# --- nats of logits


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5), (40, 7000), (0, 5)])
def test_nats_of_logits_are_those_of_log_softmax(shape, dtype):
    x = torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 4
    x[..., 1] = -torch.inf
    for one in (x, x.transpose(0, -1) if x.dim() > 1 and x.numel() else x):
        torch.testing.assert_close(log_normalised(one), one.log_softmax(-1), atol=2e-5, rtol=0, equal_nan=True)
    leaf = x.clone().requires_grad_()
    log_normalised(leaf)[..., :1].sum().backward()
    other = x.clone().requires_grad_()
    other.log_softmax(-1)[..., :1].sum().backward()
    torch.testing.assert_close(leaf.grad, other.grad)


@pytest.mark.parametrize("gradient", [False, True])
def test_logits_that_overflowed_or_are_nowhere_give_no_numbers(gradient):
    """And not −inf, which would say that a token is off the support."""
    rows = torch.tensor([[0, torch.inf, 1], [-torch.inf] * 3, [0, torch.nan, 1]], requires_grad=gradient)
    assert log_normalised(rows).isnan().all()


def test_nats_over_a_large_vocabulary_are_not_off_to_one_side():
    """By torch's log_softmax they are 5e-6 off on a CPU, all alike."""
    x = torch.randn(64, 49_152, generator=torch.Generator().manual_seed(0)) * 3
    x[:, 5] += 14
    assert abs(float((log_normalised(x) - x.double().log_softmax(-1)).mean())) < 3e-7
