"""Zero-shot prompting: tell the model what is wanted, and score against the base on the original prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from typing import Any

from alignbench.aligners.base import Immediate, Setting
from alignbench.errors import UsageError
from alignbench.generators.base import Turns
from alignbench.generators.law import Law, law_of
from alignbench.registry import aligner


@aligner("prompt", target_driven=False, density="exact")
@dataclass(frozen=True)
class Prompt(Immediate):
    """π(·|prompt) = a(·|text with the prompt in it); `text` without "{prompt}" is put before the prompt.

    With `chat`, `text` is the user's turn, after that of `system` if any, and the prompt begins the assistant's, so
    that a draw still goes on from the prompt. The model needs a chat template, and must not render its own prompts in
    it: such a base is asked by a plain `prompt`.
    """

    text: str
    chat: bool = False
    system: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise UsageError("prompt: needs text=…, the instruction to put before each prompt")
        for name in re.findall(r"{(\w+)}", self.text):
            if name != "prompt" and get_close_matches(name.lower(), ["prompt"], cutoff=0.75):
                raise UsageError(f"prompt: text has '{{{name}}}'. Did you mean '{{prompt}}', where the prompt goes?")
        if self.system is not None and not self.chat:
            raise UsageError("prompt: system=… needs chat=true, else nothing would say it")

    def align(self, setting: Setting) -> Law:
        """See `Aligner.align`."""
        law = law_of(setting.base, "prompt")
        if not self.chat:
            return replace(law, template=law.template.replace("{prompt}", with_prompt(self.text)))
        if law.frame is None and law.chats:
            raise UsageError(
                f"aligner 'prompt': {law.name} puts each prompt in the user's turn already: leave out chat=true"
            )
        return law.framed(Chat(self.text, self.system), chat=True)


def with_prompt(text: str) -> str:
    """`text` with a place for the prompt, at its end where it has none."""
    return text if "{prompt}" in text else f"{text.rstrip()} {{prompt}}"


@dataclass(frozen=True)
class Chat:
    """A frame: an instruction in the user's turn, and the prompt as the beginning of the assistant's."""

    text: str
    system: str | None
    remark = ""
    uncounted = ""

    def identity(self) -> Mapping[str, Any]:
        """See `Frame.identity`."""
        return {"chat": asdict(self)}

    def fill(self, template: str, prompt: str) -> Turns:
        """See `Frame.fill`."""
        system = [] if self.system is None else [("system", self.system)]
        asked, begun = (text.replace("{prompt}", prompt) for text in (self.text, template))
        return [*system, ("user", asked), ("assistant", begun)]
