"""Attention restricted to a window: what a model says when it does not see what was said long ago."""

from __future__ import annotations

from dataclasses import dataclass, replace

from alignbench.aligners.base import Immediate, Setting, whole
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.law import Law, law_of
from alignbench.generators.window import Window, Windowable
from alignbench.registry import aligner


@aligner("attention_window", target_driven=False, density="exact")
@dataclass(frozen=True)
class AttentionWindow(Immediate):
    """Each token attends to the last k positions, its own among them, in every layer (Beltagy et al. 2020, §3.1).

    Prompt and draw alike; positions stay as they are, and nothing is trained. The decoder's self-attention where there
    is an encoder; `source_begin` and `source_end`, a slice of the encoder's tokens, also cut what the decoder reads.
    A window that hides the first token costs more than that token told: attention rests on it (Xiao et al. 2023).
    """

    k: int = 64
    source_begin: int | None = None
    source_end: int | None = None

    def __post_init__(self) -> None:
        whole("attention_window:k", self.k)
        for name in ("source_begin", "source_end"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise UsageError(f"attention_window:{name}={value}: must be a whole number; one below 0 counts back")
        begin, end = self.source_begin or 0, self.source_end
        if end is not None and (end == 0 or ((begin < 0) == (end < 0) and begin >= end)):
            raise UsageError(f"attention_window:source_begin={begin},source_end={end}: an empty span of the source")

    def align(self, setting: Setting) -> Law:
        """See `Aligner.align`; raises Unsupported where the base has no attention that masks rule."""
        law = law_of(setting.base, "attention_window")
        if not isinstance(law.model, Windowable):
            raise Unsupported(
                f"aligner 'attention_window' hides positions of a network or an n-gram model, not of a "
                f"{type(law.model).__name__}"
            )
        if law.model.window is not None:
            raise Unsupported(
                f"aligner 'attention_window': {law.name} is under a window of {law.model.window.k} already"
            )
        windowed = replace(law, model=law.model.windowed(Window(self.k, self.source_begin, self.source_end)))
        windowed.check(setting.prompts, setting.max_tokens)
        return windowed
