"""How far a run is: which row it is at, how many tokens were drawn, and how long what is left may take.

Every row is taken to need as many tokens as its prompts, draws and length allow, until rows that are done say how many
of these are drawn: a draw ends early, and best-of-n draws n.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Clock = Callable[[], float]


@dataclass(frozen=True)
class Step:
    """A row that is to be made: of which task and seed, whose, and at most how many tokens of the base it may take."""

    task: str
    seed: int
    label: str
    tokens: int
    world: bool = False  # whether the task brings its own base: most are worlds whose tokens cost next to nothing


@dataclass
class Pace:
    """Where a run is among its steps. `changed` is called whenever that is something else."""

    changed: Callable[[], None] = lambda: None
    clock: Clock = time.monotonic
    steps: Sequence[Step] = ()
    at: int = -1  # the step under way; −1: none yet
    drawn: dict[int, int] = field(default_factory=dict)  # step → tokens that were drawn for it in this run
    began: float = 0.0  # when the step under way did
    spent: dict[int, float] = field(default_factory=dict)  # step → seconds of it until its last token so far
    done: set[int] = field(default_factory=set)

    @property
    def tokens(self) -> int:
        """Tokens drawn so far."""
        return sum(self.drawn.values())

    @property
    def title(self) -> str:
        """`[5/18] lexical_word · best_of_n`; "" before the first step."""
        if self.at < 0:
            return ""
        step, seeds = self.steps[self.at], {s.seed for s in self.steps}
        seed = f" · seed {step.seed}" if len(seeds) > 1 else ""
        return f"[{self.at + 1}/{len(self.steps)}] {step.task}{seed} · {step.label}"

    def begin(self, task: str, seed: int, label: str) -> None:
        """The step of this row is under way; one that is not planned (draws of p) belongs to the one before."""
        here = next((i for i, s in enumerate(self.steps) if (s.task, s.seed, s.label) == (task, seed, label)), self.at)
        if here != self.at:
            self.at, self.began = here, self.clock()
            self.changed()

    def end(self) -> None:
        """The step under way is done."""
        self.done.add(self.at)
        self.spent[self.at] = self.clock() - self.began

    def skip(self, task: str, seed: int) -> None:
        """No row of a task with a seed can be made."""
        self.done |= {i for i, s in enumerate(self.steps) if (s.task, s.seed) == (task, seed)}

    def drew(self, tokens: int) -> None:
        """So many tokens more were drawn."""
        self.drawn[self.at] = self.drawn.get(self.at, 0) + tokens
        self.spent[self.at] = self.clock() - self.began
        self.changed()

    @property
    def left(self) -> float | None:
        """Seconds that the rest may take at the rate so far; None where that is not known yet, or nothing is left."""
        rates = {world: self._seconds_a_token(world) for world in (False, True)}
        rest = [(self.steps[i].world, self._rest(i)) for i in range(len(self.steps)) if i not in self.done]
        if any(rates[world] is None and not world for world, _ in rest) or not any(tokens for _, tokens in rest):
            return None
        known = [rate * tokens for world, tokens in rest if (rate := rates[world]) is not None]
        return sum(known) if known else None

    def _seconds_a_token(self, world: bool) -> float | None:
        """Of the steps for which something was drawn; None before there is one."""
        mine = [i for i, tokens in self.drawn.items() if tokens and i >= 0 and self.steps[i].world == world]
        tokens = sum(self.drawn[i] for i in mine)
        return sum(self.spent.get(i, 0.0) for i in mine) / tokens if tokens else None

    def _rest(self, i: int) -> float:
        """Tokens that a step still takes."""
        step = self.steps[i]
        alike = [j for j in self._measured() if self.steps[j].label == step.label] or self._measured()
        share = sum(self.drawn[j] for j in alike) / sum(self.steps[j].tokens for j in alike) if alike else 1.0
        return max(step.tokens * share - self.drawn.get(i, 0), 0.0)

    def _measured(self) -> list[int]:
        """The steps that are done and for which something was drawn: what is found on disk says nothing."""
        return [j for j in self.done if self.drawn.get(j)]


def spelled(seconds: float) -> str:
    """`1:40`, or `2:01:40` from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
