"""Policies on small worlds: how tests draw from them, train them and walk through them."""

from __future__ import annotations

import numpy as np
import torch

from alignbench.seeds import Seed
from alignbench.types import collect, rows_of

WORDS = ("rain", "sun", "wind")
SUN = WORDS.index("sun")
PROMPTS = ("rain", "sun wind rain", "")
LENGTH = 4


def drawn(law, each=30, seed=3):
    return collect(law.sample(PROMPTS, rows_of(len(PROMPTS), each), max_tokens=LENGTH, seed=Seed(seed)))


def same(left, right):
    """Equal bit for bit."""
    return np.array_equal(left.tokens, right.tokens) and np.array_equal(left.log_prob, right.log_prob)


def within(draws):
    """(B, T) whether a token is drawn there."""
    return np.arange(draws.tokens.shape[1]) < draws.length[:, None]


def trained_of(policy):
    """The parameters that are trained."""
    return [p for p in policy.module.parameters() if p.requires_grad]


@torch.no_grad()
def stirred(policy, by=0.3, seed=0):
    """The policy, its trained numbers moved at random: LoRA's B begins as 0."""
    source = torch.Generator().manual_seed(seed)
    for p in trained_of(policy):
        p += by * torch.randn(p.shape, generator=source, dtype=torch.float64).to(p.dtype)
    return policy


def trained(policy, steps=3):
    """The policy, taught to say "sun" in as many steps of Adam, on draws of its own; it says other things still."""
    optimiser = torch.optim.Adam(trained_of(policy), lr=0.05 if policy.name == "table" else 0.002)
    for step in range(steps):
        draws = drawn(policy, 10, seed=step)
        said = torch.as_tensor((draws.tokens == SUN).sum(1) - (draws.tokens == SUN).sum(1).mean())
        optimiser.zero_grad()
        (-(said * policy.module(PROMPTS, draws).sum(1)).mean()).backward()
        optimiser.step()
    return policy


def scored(policy, draws):
    """(B, T) what its module says, as numpy."""
    return policy.module(PROMPTS, draws).detach().numpy()


def walked(policy, draws):
    """(B, T) nats by token, token by token through its states."""
    state = policy.start([PROMPTS[i] for i in draws.prompt], max_tokens=LENGTH)
    tokens, found = torch.as_tensor(draws.tokens).clamp(min=0), np.zeros(draws.tokens.shape)
    for t, ids in enumerate(tokens.T):
        found[:, t] = state.log_probs.gather(1, ids[:, None])[:, 0].numpy()
        state = state.extend(ids) if t + 1 < len(tokens.T) else state
    return np.where(within(draws), found, 0)
