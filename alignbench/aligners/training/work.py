"""A training under way: policy and base, draws made and scored for it, log Z of each prompt, and what all that took."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from alignbench.aligners.base import Setting
from alignbench.aligners.training.batch import Batch
from alignbench.aligners.training.processes import Processes
from alignbench.errors import Unsupported, UsageError, brief
from alignbench.generators.described import called, described, log_prob_of
from alignbench.generators.hidden import read
from alignbench.generators.law import law_of
from alignbench.generators.policy import TrainedLaw
from alignbench.generators.pool import NoPool
from alignbench.seeds import POLICY
from alignbench.target import Target
from alignbench.types import Array, Distribution, Draws, Sampler, Training

SPARED = 8
"""Draws of a step whose base score is wanted for KL(π‖a) alone, where no weight depends on it."""


@dataclass
class Work:
    """What methods draw and score with; tokens that it takes are noted in `spent`."""

    setting: Setting
    policy: TrainedLaw
    processes: Processes
    spent: Training = field(default_factory=Training)
    seen: dict[str, float] = field(default_factory=dict)  # what the last own draws reach
    counted: set[int] = field(default_factory=set)  # numbers of the base draws that are in `spent`

    def __post_init__(self) -> None:
        if self.target.per_prompt and self.setting.train:
            raise UsageError("the target has a λ for each of the task's prompts, and none for those to train on: "
                             "leave out the task's 'train', or ask for moments per task")  # fmt: skip

    @property
    def target(self) -> Target:
        """What is wanted."""
        return self.setting.target

    @property
    def prompts(self) -> tuple[str, ...]:
        """Those to train on."""
        return tuple(self.setting.train_prompts)

    def rows(self, step: int, count: int, each: int = 1) -> Array:
        """(count, 2) rows (prompt, index) of a step: `each` of a prompt, prompts in turn, no row twice in training."""
        n = np.arange(step * count, (step + 1) * count)
        group, place = n // each, n % each
        return np.stack([group % len(self.prompts), group // len(self.prompts) * each + place], axis=1)

    def mine(self, rows: Array) -> Array:
        """Those of the rows that are this process's."""
        return rows[self.processes.rank :: self.processes.count]

    def base_draws(self, rows: Array) -> Draws:
        """The base's draws at rows of the stream `train`, in this order; of many processes each makes a share.

        Rows are of all prompts alike. Those that a training asks for again cost nothing again.
        """
        if self.processes.count == 1:
            draws = self.setting.base_draws(rows, prompts=self.prompts)
        else:
            order = np.lexsort((rows[:, 1], rows[:, 0]))
            mine = self.mine(rows[order])
            setting = self.setting
            share = None if not len(mine) else NoPool().draws(
                setting.base, self.prompts, mine, max_tokens=setting.max_tokens, seed=setting.seed
            )  # fmt: skip
            found = Draws.concat([part for part in self.processes.gathered(share) if part is not None]).sorted()
            draws = found.take(np.argsort(order))
        new = ~np.isin(rows[:, 1], list(self.counted))
        self.counted |= set(rows[:, 1].tolist())
        if self.processes.first:  # all have them all, and the first books them
            self.book(drawn=int(draws.length[new].sum()))
        return draws

    def own_draws(self, law: Sampler, rows: Array, salt: int | None = None) -> Draws:
        """A policy's draws at rows of the stream `train`, in this order: their uniforms are their own, none is kept."""
        salt = POLICY if salt is None else salt
        seed = self.setting.seed.salted(salt)
        draws = NoPool().draws(law, self.prompts, rows, max_tokens=self.setting.max_tokens, seed=seed)
        calls = draws.length if draws.calls is None else draws.calls
        self.book(drawn=int(draws.length.sum()), scored=int((calls - draws.length).sum()))
        return draws

    def rescored(self, law: TrainedLaw, draws: Draws) -> Draws:
        """A policy's own draws with the density that each of their tokens has; see `log_q`."""
        if draws.log_prob is not None and not described(law).half:
            return draws
        self.book(scored=int(draws.length.sum()))
        by_token = law.token_log_prob(self.prompts, draws)
        return replace(draws, token_log_prob=by_token, log_prob=by_token.sum(1))

    def log_q(self, law: Distribution, draws: Draws) -> Array:
        """(B,) log of the density that a law's own draws have, nats.

        In half precision what sampling said may be a nat off what a pass says: there they are scored again.
        """
        if draws.log_prob is not None and not described(law).half:
            return np.asarray(draws.log_prob)
        self.book(scored=int(draws.length.sum()))
        return np.asarray(log_prob_of(law, self.prompts, draws))

    def of_base(self, draws: Draws, floor: float = -np.inf) -> Batch:
        """A batch of base draws: log a is what sampling said."""
        ratio = self._ratio(draws, floor)
        log_base = draws.log_prob if draws.log_prob is not None else log_prob_of(self.setting.base, self.prompts, draws)
        said = np.asarray(log_base)
        return Batch(draws, self.prompts, ratio, said, log_proposal=said, own=np.zeros(len(draws), bool))

    def of_policy(
        self,
        draws: Draws,
        floor: float = -np.inf,
        spared: int = SPARED,
        *,
        own: bool = True,
        by_token: bool = False,
        hidden: bool = False,
    ) -> Batch:
        """A batch of a policy's draws, scored under the base where P is not 0, and `spared` others.

        `own`: whether they are of the policy that is trained, so that they tell what it reaches. `by_token`: with log a
        of each token; `hidden`: and with the base's hidden states, all draws scored.
        """
        features = self.target.measure(self.prompts, draws)
        ratio = self.target.log_ratio(features, draws.prompt, floor)
        if own:
            hands = self.processes.gathered(features)
            joined = {name: np.concatenate([hand[name] for hand in hands]) for name in features}
            self.seen = reached(self.target, joined)
        others = np.flatnonzero(ratio == -np.inf)
        rows = np.concatenate([np.flatnonzero(ratio > -np.inf), others[:: max(1, len(others) // spared)]])
        log_base, tokens, states = np.full(len(draws), np.nan), None, None
        if by_token or hidden:
            assert draws.tokens is not None
            tokens = np.full(draws.tokens.shape, np.nan)
            base = law_of(self.setting.base, "training")
            if hidden:
                tokens, states = read(base, self.prompts, draws)
            else:
                tokens[rows] = base.token_log_prob(self.prompts, draws.take(rows))
            log_base = tokens.sum(1)
        else:
            log_base[rows] = log_prob_of(self.setting.base, self.prompts, draws.take(rows))
        self.book(scored=int(draws.length[rows].sum()))
        return Batch(
            draws, self.prompts, ratio, log_base, base_by_token=tokens, hidden=states, own=np.full(len(draws), own)
        )

    def _ratio(self, draws: Draws, floor: float) -> Array:
        return self.target.log_ratio(self.target.measure(self.prompts, draws), draws.prompt, floor)

    def book(self, **spent: int) -> None:
        """Note tokens."""
        self.spent = self.spent + Training(**spent)

    def log_z(self, batch: Batch) -> Array:
        """(C,) log Ẑ of each prompt from base draws, nats: log of the mean of P/a. Raises Unsupported where it is 0."""
        count = np.bincount(batch.draws.prompt, minlength=len(self.prompts))
        total = log_totals(batch.log_ratio, batch.draws.prompt, len(self.prompts))
        if (total == -np.inf).any():
            worst = int(np.flatnonzero(total == -np.inf)[0])
            raise Unsupported(
                f"no draw of p to learn from: none of {count[worst]} draws of {called(self.setting.base)} for prompt "
                f"{brief(self.prompts[worst])} has P > 0; raise pool={count[worst]}, or ask for less"
            )
        return np.asarray(total - np.log(count))

    def pool(self, each: int, floor: float = -np.inf) -> Batch:
        """The first `each` base draws of every prompt; `floor`: see `Target.log_ratio`."""
        count = len(self.prompts)
        rows = np.stack([np.repeat(np.arange(count), each), np.tile(np.arange(each), count)], axis=1)
        return self.of_base(self.base_draws(rows), floor)


def log_totals(log_values: Array, prompt: Array, count: int) -> Array:
    """(count,) log of the sum of each prompt's values, given as logarithms (B,); −inf where it has none.

    In logarithms throughout: e^{r/β} is soon beyond what a float holds.
    """
    total = np.full(count, -np.inf)
    np.logaddexp.at(total, prompt, log_values)
    return total


def reached(target: Target, features: dict[str, Array]) -> dict[str, float]:
    """What draws reach of what is asked: `always`, `share.<feature>.<category>`, `moment.<feature>`, `reward.…`."""
    found: dict[str, float] = {}
    kept = [c.holds(features[c.feature]) for c in target.constraints if c.kind == "always"]
    if kept:
        found["always"] = float(np.mean(np.all(kept, axis=0)))
    for c in target.constraints:
        values = features[c.feature]
        if c.kind in ("moment", "reward"):
            found[f"{c.kind}.{c.feature}"] = float(np.mean(values))
        elif c.kind == "distribution":
            codes = {name: target.categories[c.feature].index(name) for name in c.shares}
            listed = np.isin(values, list(codes.values()))
            for name, code in codes.items():
                found[f"share.{c.feature}.{name}"] = float((values == code).sum() / max(1, listed.sum()))
    return found
