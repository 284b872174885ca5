"""Few-shot prompting: examples of what is wanted before each prompt, their continuations draws of the target itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from alignbench.aligners.base import Immediate, Setting, whole
from alignbench.aligners.identities import recipe_identity
from alignbench.aligners.prompting.prompt import with_prompt
from alignbench.aligners.selection.best_of_n import BestOfN
from alignbench.aligners.selection.rejection import Rejection
from alignbench.errors import RunError, UsageError, brief
from alignbench.generators.base import Turns
from alignbench.generators.law import Law, law_of
from alignbench.registry import aligner
from alignbench.seeds import EXAMPLES, PICK
from alignbench.types import Array, Draws, collect

BLANK = "\n\n"
"""Between examples; within one it becomes a space, so that each is seen to end where it does."""


@aligner("few_shot", target_driven=False, density="exact")
@dataclass(frozen=True)
class FewShot(Immediate):
    """π(·|prompt) = a(·|k examples, then the prompt), each example a prompt with a draw of p (Brown et al. 2020).

    The examples are of the task's `train` prompts where it has them, else of its own (the prompt itself may then be
    among them), and the same for every prompt. They are drawn by rejection, at most `cap` proposals each; where log P −
    log a has no known bound, each is the best of 16 draws by log P − log a, which the divergences say. A draw that was
    cut at max_tokens is shown as far as it goes. Drawing examples is no part of the cost of a draw. `text` is an
    instruction: before the examples, or, with `chat`, in the user's turn of each one ("{prompt}" where there is none),
    which the assistant answers by the prompt and its continuation. Where the base renders its prompts in a chat
    template, `chat` shows them as it does.
    """

    format: ClassVar[int] = 2  # examples of version 0.1 shared their draws with the pilot of quasi-rejection
    k: int = 4
    text: str | None = None
    chat: bool = False
    cap: int = 1024

    def __post_init__(self) -> None:
        whole("few_shot:k", self.k)
        whole("few_shot:cap", self.cap)
        if "{prompt}" in (self.text or "") and not self.chat:
            raise UsageError(
                "few_shot: text stands before all examples; it has a place for {prompt} only with chat=true"
            )

    @property
    def shots(self) -> int:
        """How many examples a prompt comes after."""
        return self.k

    def align(self, setting: Setting) -> Law:
        """See `Aligner.align`; the examples are drawn when they are first needed."""
        law = law_of(setting.base, "few_shot")
        on = replace(setting.on(law), prompts=tuple(setting.train_prompts), train=())
        return law.framed(Examples(self, on), chat=self.chat)


@dataclass(frozen=True, eq=False)
class Examples:
    """A frame: what stands before each prompt is a function of recipe, base, target, prompts, length and seed."""

    aligner: FewShot
    setting: Setting

    def identity(self) -> Mapping[str, Any]:
        """See `Frame.identity`."""
        here = self.setting
        return {**(recipe_identity(self.aligner, here.base, here.target) or {}), "prompts": list(here.prompts),
                "max_tokens": here.max_tokens, "seed": [here.seed.entropy, here.seed.stream],
                "format": self.aligner.format}  # fmt: skip

    @property
    def bounded(self) -> bool:
        """Whether the examples are exact draws of p."""
        return self.setting.target.log_bound(len(self.setting.prompts)) is not None

    @property
    def remark(self) -> str:
        """See `Evidence.remark`."""
        return "" if self.bounded else (
            "its examples are each the best of 16 draws, not draws of p: log P − log a has no known bound"
        )  # fmt: skip

    @property
    def uncounted(self) -> str:
        """See `Cost.uncounted`."""
        return f"the draws of which its {self.aligner.k} examples are"

    def fill(self, template: str, prompt: str) -> str | Turns:
        """See `Frame.fill`."""
        shown = [(template.replace("{prompt}", one), said) for one, said in self.drawn]
        asked = template.replace("{prompt}", prompt)
        if not self.aligner.chat:
            examples = ((one + said).replace(BLANK, " ") for one, said in shown)
            return BLANK.join([*filter(None, [self.aligner.text]), *examples, asked])
        if law_of(self.setting.base, "few_shot").chats:
            pairs = ((("user", self._as_base(one)), ("assistant", said.strip())) for one, said in shown)
            return [*(turn for pair in pairs for turn in pair), ("user", self._as_base(asked))]
        text = self.aligner.text or "{prompt}"
        whole = [*((one, one + said) for one, said in shown), (asked, asked)]
        turns = ((("user", text.replace("{prompt}", one)), ("assistant", answer)) for one, answer in whole)
        return [turn for pair in turns for turn in pair]

    def _as_base(self, prompt: str) -> str:
        """The user's turn under a base whose answers do not repeat the prompt."""
        return with_prompt(self.aligner.text or "").strip().replace("{prompt}", prompt)

    @cached_property
    def drawn(self) -> list[tuple[str, str]]:
        """(prompt, continuation) of each example; raises RunError where no draw of p is found."""
        here, k = self.setting, self.aligner.k
        order = here.seed.salted(PICK).rng("", 0).permutation(len(here.prompts))
        rows = np.array([[order[i % len(order)], i // len(order)] for i in range(k)])
        draws = self._draws(rows)
        place = {row: i for i, row in enumerate(zip(draws.prompt.tolist(), draws.index.tolist(), strict=True))}
        return [(here.prompts[row[0]], draws.texts[place[row]].rstrip()) for row in map(tuple, rows.tolist())]

    def _draws(self, rows: Array) -> Draws:
        """The draws at these rows, all of them with P > 0."""
        here = self.setting
        recipe = Rejection(self.aligner.cap) if self.bounded else BestOfN()
        sampler = here.aligned(recipe)
        seed = here.seed.salted(EXAMPLES)
        draws = collect(sampler.sample(here.prompts, rows, max_tokens=here.max_tokens, seed=seed))
        found = np.isfinite(here.target.log_ratio_of(here.prompts, draws))
        if draws.accepted is not None:
            found &= draws.accepted
        if not found.all():
            prompt = here.prompts[draws.prompt[~found][0]]
            tried = recipe.n if isinstance(recipe, BestOfN) else recipe.cap
            raise RunError(
                f"few_shot: none of {tried} draws of the base after {brief(prompt)} is one of p, to be an example"
                + ("; raise cap" if self.bounded else "")
            )
        return draws
