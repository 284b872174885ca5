"""`draw`: one token from masses or logits by two uniforms, with the frequencies of the law; and planted bugs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from test_laws import SETTINGS

from alignbench.generators import sampling
from alignbench.generators.sampling import draw
from alignbench.generators.warp import Warp


def truth(size):
    """Masses of which none is below 1/(4 size), over one block or several."""
    p = np.random.default_rng(3).uniform(0.25, 2, size)
    return p / p.sum()


def coins(count, seed=5):
    return torch.as_tensor(np.random.default_rng(seed).random((count, 2)))


def p_value(ids, p, **settings):
    """Of Pearson's chi-square test of the ids against masses."""
    seen = np.bincount(ids.numpy(), minlength=p.size)
    return stats.chisquare(seen, len(ids) * p).pvalue


@pytest.mark.parametrize("size", [2, 7, 128, 129, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_draw_has_the_frequencies_of_its_masses(size, dtype):
    p = truth(size)
    logits = torch.as_tensor(np.log(p), dtype=dtype) + 3.5  # not normalised
    ids, law, model = draw(logits.expand(40_000, -1), coins(40_000), Warp())
    assert p_value(ids, p) > 1e-3
    np.testing.assert_allclose(law, np.log(p)[ids], atol=1e-5)
    np.testing.assert_allclose(model, np.log(p)[ids], atol=1e-5)


@pytest.mark.parametrize("size", [7, 300])
def test_draw_under_settings_has_the_frequencies_of_the_settings(size):
    p, warp = truth(size), Warp(temperature=0.6)
    warped = p ** (1 / 0.6) / (p ** (1 / 0.6)).sum()
    ids, law, model = draw(torch.as_tensor(np.log(p)).expand(40_000, -1) - 2, coins(40_000), warp)
    assert p_value(ids, warped) > 1e-3
    np.testing.assert_allclose(law, np.log(warped)[ids], atol=1e-9)
    np.testing.assert_allclose(model, np.log(p)[ids], atol=1e-9)


@pytest.mark.parametrize("size", [7, 300])
def test_planted_wrong_masses_fail_the_same_test(size):
    p = truth(size)
    logits = torch.as_tensor(np.log(p)).expand(40_000, -1)
    assert p_value(draw(logits, coins(40_000), Warp(temperature=0.8))[0], p) < 1e-6
    one_coin = coins(40_000)[:, :1].expand(-1, 2)
    if size > 128:
        assert p_value(draw(logits, one_coin, Warp())[0], p) < 1e-6


@pytest.mark.parametrize("size", [7, 129, 300])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_p": 0.9}])
def test_logits_need_not_be_normalised(size, settings):
    logits = torch.as_tensor(np.random.default_rng(0).normal(0, 3, (500, size)))
    plain = draw(logits.log_softmax(-1), coins(500), Warp(**settings))
    for shift in (-1000.0, 0.25, 88.0, 1e4):
        moved = draw(logits + shift, coins(500), Warp(**settings))
        assert torch.equal(moved[0], plain[0])
        np.testing.assert_allclose(moved[1], plain[1], atol=1e-9)
    single = draw((logits + 30).float(), coins(500), Warp(**settings))
    assert torch.equal(single[0], plain[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("settings", [{}, {"temperature": 1.5}, {"top_k": 250}])
def test_what_is_impossible_is_never_drawn(dtype, settings):
    logits = torch.as_tensor(np.random.default_rng(1).normal(0, 2, (4000, 300))).to(dtype)
    cut = torch.as_tensor(np.random.default_rng(2).random((4000, 300)) < 0.7)
    cut[:, [0, 127, 128, 255, 299]] = True
    cut[:, 130] = False
    logits[cut] = -torch.inf
    edges = coins(4000)
    edges[::3], edges[1::3, 0], edges[2::3, 1] = 0, 1 - 2.0**-53, 1 - 2.0**-53
    ids, law, model = draw(logits, edges, Warp(**settings))
    assert not cut.gather(1, ids[:, None]).any()
    assert torch.isfinite(law).all()
    assert torch.isfinite(model).all()


@pytest.mark.parametrize("where", [[3], [299], [3, 131], [0, 127, 128, 299]])
def test_extreme_peaks_share_the_mass(where):
    """A peak of +50 leaves the rest 300 e−50: float32 sums of blocks must neither lose a peak nor invent one."""
    logits = torch.zeros(300, dtype=torch.float32)
    logits[where] = 50
    ids, law, _ = draw(logits.expand(20_000, -1), coins(20_000), Warp())
    assert set(ids.tolist()) == set(where)
    if len(where) > 1:
        assert stats.chisquare(np.bincount(ids.numpy())[where]).pvalue > 1e-3
    np.testing.assert_allclose(law, -np.log(len(where)), atol=1e-6)


class Counted:
    """Logits that are made as they are cut."""

    def __init__(self, logits):
        self.logits, self.cuts = logits, []

    def __getitem__(self, part):
        self.cuts.append(part)
        return self.logits[part]


@pytest.mark.parametrize("rows", [1, 16, 127, 129, 300])
def test_logits_are_made_in_pieces_and_each_once(rows):
    logits = torch.as_tensor(np.random.default_rng(0).normal(0, 2, (rows, 200)))
    counted = Counted(logits)
    pieces = draw(counted, coins(rows), Warp())
    made = [len(range(*cut.indices(rows))) for cut in counted.cuts]
    assert sum(made) == rows
    assert max(made) <= sampling.AT_ONCE
    alone = [draw(logits[i : i + 1], coins(rows)[i : i + 1], Warp()) for i in range(rows)]
    for k, piece in enumerate(pieces):
        np.testing.assert_allclose(piece, torch.cat([a[k] for a in alone]), atol=1e-12)


def test_logits_are_left_as_they_were():
    """A network's own output, perhaps what a CUDA graph writes into: not ours to change."""
    for dtype in (torch.float32, torch.float64):
        logits = torch.randn(40, 200, generator=torch.Generator().manual_seed(0)).to(dtype)
        before, said = logits.clone(), logits > 1
        for warp in (Warp(**settings) for settings in SETTINGS.values()):
            draw(logits, coins(40), warp, said if warp.remembers else None)
        assert torch.equal(logits, before)
