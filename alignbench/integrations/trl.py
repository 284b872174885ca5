"""trl and transformers: a callback that measures what any of their trainers trains, every N steps, on tasks.

    base = "hf:pretrained=gpt2"
    trainer.add_callback(AlignbenchCallback(trainer, "lexical_word", base=base, every=100, output_path="out"))

Each time the policy, as it is then, is a row of the results folder, beside the base: `policy @ step-100`. Its numbers
go to the trainer's logs, as `alignbench/lexical_word/divergence.kl_target`. The trainer's own random numbers are left
as they were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from transformers import TrainerCallback, TrainerState

from alignbench.api import Given, evaluate
from alignbench.errors import UsageError
from alignbench.generators.hf.live import live
from alignbench.generators.hf.quiet import global_randomness_kept
from alignbench.spec import at_step

SHOWN = ("divergence", "satisfaction", "target", "perplexity")
"""Metrics of which the trainer's logs have all finite numbers; the results folder has those of all metrics."""


class AlignbenchCallback(TrainerCallback):  # type: ignore[misc]
    """Measures the policy of a trainer on `tasks` every `every` steps, and at the end, beside `base`.

    `base` is what p is made of: a spec or a generator, most often the model that training began with. `options` are the
    words of `alignbench.evaluate`: draws, limit, seed, output_path, metrics, …. With a `chat` template prompts are put
    through the tokenizer's. Only the main process measures. Raises UsageError on options that are none.
    """

    def __init__(
        self, trainer: Any, tasks: str | Sequence[str], *, base: Given, every: int = 100, name: str = "policy",
        chat: bool = False, **options: Any,
    ) -> None:  # fmt: skip
        if not isinstance(every, int) or isinstance(every, bool) or every < 1:
            raise UsageError(f"AlignbenchCallback: every={every!r}: must be a whole number of at least 1")
        if not callable(getattr(trainer, "log", None)):
            raise UsageError(f"AlignbenchCallback: {type(trainer).__name__} is no trainer")
        self.trainer, self.tasks, self.base, self.every, self.name = trainer, tasks, base, every, name
        self.chat, self.options, self.measured = chat, options, -1

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
        """Measure, where it is due."""
        if state.global_step % self.every == 0:
            self._measure(state, more)

    def on_train_end(self, args: Any, state: TrainerState, control: Any, **more: Any) -> None:
        """Measure what training came to, unless that was measured."""
        if state.global_step != self.measured:
            self._measure(state, more)

    def _measure(self, state: TrainerState, given: Mapping[str, Any]) -> None:
        self.measured = state.global_step
        if not state.is_world_process_zero:
            return
        network = self.trainer.accelerator.unwrap_model(given["model"])
        tokenizer = given.get("processing_class") or given.get("tokenizer")
        training = network.training
        with global_randomness_kept():
            try:
                law = live(network, tokenizer, at_step(self.name, state.global_step), chat=self.chat)
                rows = evaluate(law, self.tasks, base=self.base, **self.options)
            finally:
                network.train(training)
        self.trainer.log(numbers(rows, law.name))


def numbers(rows: Any, name: str) -> dict[str, float]:
    """What a trainer's logs have of the rows of one generator: `alignbench/<task>/<metric>.<part>`."""
    mine = rows[(rows.generator == name) & rows.metric.isin(SHOWN)]
    return {
        f"alignbench/{row.task}/{row.metric}.{row.part}": float(row.value)
        for row in mine.itertuples()
        if isfinite(row.value)
    }
