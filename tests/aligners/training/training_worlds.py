"""Our world: two prompts, three words and EOS, four tokens; a table of logits in float64, its 242 draws listed.

Its logits are those of `table_world(seed=0)`: each of 2 · 40 rows is the logarithm of a Dirichlet(1) vector of the
generator of seed 0. log π is computed here a second time, from the logits alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from alignbench.aligners.base import Setting
from alignbench.aligners.training.batch import Batch
from alignbench.aligners.training.passes import Passes
from alignbench.aligners.training.processes import Processes
from alignbench.aligners.training.work import Work
from alignbench.generators.exact.world import enumerate_draws
from alignbench.generators.policy import policy_of
from alignbench.seeds import Seed
from alignbench.target import Constraint, Target
from alignbench.testing.worlds import table_world
from alignbench.types import collect, rows_of

WORDS, PROMPTS, LENGTH = ("rain", "sun", "wind"), ("sun", "wind"), 4
ROWS = sum(len(WORDS) ** t for t in range(LENGTH))  # prefixes of a prompt


def has(word: str) -> Callable:
    return lambda prompts, draws: np.array([float(word in text.split()) for text in draws.texts])


def count(word: str) -> Callable:
    return lambda prompts, draws: np.array([float(text.split().count(word)) for text in draws.texts])


def target_of(*constraints: Constraint) -> Target:
    ranges = {"sun": (0.0, 1.0), "winds": (0.0, 4.0)}
    target = Target(constraints, {}, ranges, measures={"sun": has("sun"), "winds": count("wind")})
    return target.fitted({}, np.zeros(0, int), {}, np.zeros(0, int), PROMPTS)


def mixed_logits() -> np.ndarray:
    """Our world's, but that after "wind" the sun is seldom: Z_c of the hard target are ten times apart."""
    logits = table_world(WORDS, PROMPTS, LENGTH).model.network.logits.numpy().reshape(2, ROWS, -1).copy()
    logits[1, :, WORDS.index("sun")] -= 3.2
    return logits


BASE, UNEVEN = table_world(WORDS, PROMPTS, LENGTH, seed=0), table_world(WORDS, PROMPTS, LENGTH, logits=mixed_logits())
FREE, HARD = target_of(), target_of(Constraint("sun", "always"))
REWARD, STRONG = (target_of(Constraint("winds", "reward", beta=beta)) for beta in (1.2, 0.55))
BOTH = target_of(Constraint("sun", "always"), Constraint("winds", "reward", beta=1.2))


def tilted() -> Target:
    """0.9 winds a draw on average, where the base has less: λ is fitted on draws of the base."""
    target = Target([Constraint("winds", "moment", 0.9)], {}, {"winds": (0.0, 4.0)}, measures={"winds": count("wind")})
    seed = Seed(0, "fit")
    draws = collect(BASE.sample(PROMPTS, rows_of(2, 4000), max_tokens=LENGTH, seed=seed))
    found = target.measure(PROMPTS, draws)
    return target.fitted(found, draws.prompt, found, draws.prompt, PROMPTS)


TILT = tilted()
TARGETS = {"hard": HARD, "reward": REWARD, "both": BOTH}


def log_law(logits: torch.Tensor, draws, temperature: float = 1.0) -> torch.Tensor:
    """(B,) log π from the logits of a table, by hand."""
    table = torch.log_softmax(logits / temperature, -1)
    first, number = torch.as_tensor(draws.prompt) * ROWS, torch.zeros(len(draws), dtype=torch.long)
    total = torch.zeros(len(draws), dtype=logits.dtype)
    for t, ids in enumerate(torch.as_tensor(draws.tokens).clamp(min=0).T):
        inside = torch.as_tensor(draws.length > t)
        total = total + torch.where(inside, table[first + torch.where(inside, number, 0), ids], 0)
        number = len(WORDS) * number + 1 + ids
    return total


@dataclass(frozen=True, eq=False)
class Listed:
    """All draws of a world, and what its target says of them; `floor`: log ε of p_ε."""

    base: object = BASE
    target: Target = HARD
    floor: float = -np.inf

    @cached_property
    def draws(self):
        return enumerate_draws(self.base, PROMPTS, max_tokens=LENGTH)

    @cached_property
    def prompt(self) -> torch.Tensor:
        return torch.as_tensor(self.draws.prompt)

    @cached_property
    def log_a(self) -> torch.Tensor:
        temperature = self.base.warp.temperature
        return log_law(self.base.model.network.logits, self.draws, temperature)

    @cached_property
    def log_ratio(self) -> torch.Tensor:
        features = self.target.measure(PROMPTS, self.draws)
        return torch.as_tensor(self.target.log_ratio(features, self.draws.prompt, self.floor))

    @cached_property
    def log_z(self) -> torch.Tensor:
        """(C,) nats."""
        return torch.stack([(self.log_a + self.log_ratio)[self.prompt == c].logsumexp(0) for c in range(len(PROMPTS))])

    @cached_property
    def log_p(self) -> torch.Tensor:
        return self.log_a + self.log_ratio - self.log_z[self.prompt]

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        """Mean over prompts of a sum over draws."""
        return values.sum() / len(PROMPTS)

    def kl(self, log_pi: torch.Tensor, log_p: torch.Tensor | None = None) -> float:
        """KL(p‖π), mean over prompts; p is that of the target unless another is given."""
        log_p = self.log_p if log_p is None else log_p
        return float(self.mean(torch.where(log_p > -np.inf, log_p.exp() * (log_p - log_pi.detach()), 0)))

    def kl_of(self, law) -> float:
        """KL(p‖π) of a law."""
        return self.kl(torch.as_tensor(law.log_prob(PROMPTS, self.draws)))

    def divergence(self, name: str, log_pi: torch.Tensor) -> torch.Tensor:
        """One of five, with its gradient by log π, mean over prompts."""
        p, pi = self.log_p.exp(), log_pi.exp()
        log_p = torch.where(p > 0, self.log_p, 0)  # where p is 0 it is multiplied by 0 below
        middle = (pi + p).log() - np.log(2)
        terms = {
            "kl": p * (log_p - log_pi),
            "reverse_kl": pi * (log_pi - self.log_p),
            "tv": (p - pi).abs() / 2,
            "js": (p * (log_p - middle) + pi * (log_pi - middle)) / 2,
            "chi2": p**2 / pi,
        }
        return self.mean(terms[name])


def world(target: Target = HARD, base=BASE, seed: int = 0, **more) -> Setting:
    return Setting(base, target, PROMPTS, LENGTH, Seed(seed, "train"), **more)


def moved(base=BASE, by: float = 0.4, seed: int = 1):
    """A policy that is neither base nor target."""
    policy = policy_of(base)
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in policy.parameters:
            p += by * torch.randn(p.shape, generator=source, dtype=p.dtype)
    return policy


def work_on(setting: Setting, policy) -> Work:
    return Work(setting, policy, Processes())


def gradient_of(work: Work, method, recipe, step: int = 0) -> torch.Tensor:
    """The gradient of a step's loss, of all its terms, as the loop takes it."""
    parts = method.batches(step)
    return sum(
        backward(work, recipe, batch, lambda *a, term=term: method.loss(term, *a)) for term, batch in parts.items()
    )


def backward(work: Work, recipe, batch: Batch, loss) -> torch.Tensor:
    (logits,) = work.policy.parameters
    logits.grad = None
    Passes(work, recipe).back(batch, loss)
    return logits.grad.detach().clone()


def exact_gradient(value: Callable[[torch.Tensor], torch.Tensor], policy, listed: Listed) -> torch.Tensor:
    """That of a scalar of log π (B,) of the listed draws, by the logits."""
    logits = policy.parameters[0].detach().clone().requires_grad_(True)
    found = value(log_law(logits, listed.draws, policy.warp.temperature))
    return torch.autograd.grad(found, logits)[0]


def table_of(law: torch.Tensor, draws) -> torch.Tensor:
    """The logits of the table whose draws have the masses `law` (B,)."""
    mass = torch.full((len(PROMPTS) * ROWS, len(WORDS) + 1), 1e-300, dtype=law.dtype)
    first, number = torch.as_tensor(draws.prompt) * ROWS, torch.zeros(len(draws), dtype=torch.long)
    for t, ids in enumerate(torch.as_tensor(draws.tokens).clamp(min=0).T):
        inside = torch.as_tensor(draws.length > t)
        mass.index_put_((first[inside] + number[inside], ids[inside]), law[inside], accumulate=True)
        number = len(WORDS) * number + 1 + ids
    return mass.log()


def set_to(policy, law: torch.Tensor, draws):
    """The policy, its law set to the masses `law` (B,) of the draws."""
    with torch.no_grad():
        policy.parameters[0].copy_(table_of(law, draws))
    return policy
