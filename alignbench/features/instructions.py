"""Whether a continuation does what its prompt tells it to: the checks of IFEval and IFBench, by if-verifiable."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal
from unittest.mock import patch

import numpy as np

from alignbench.errors import RunError, UsageError, brief, plain_failures, unknown
from alignbench.registry import feature
from alignbench.types import Array, Draws

PUNKT, STOPWORDS, TAGGER = "tokenizers/punkt_tab", "corpora/stopwords", "taggers/averaged_perceptron_tagger_eng"
NLTK_DATA = {
    "change_case:capital_word_frequency": (PUNKT,),
    "format:title_case": (PUNKT,),
    "length_constraints:number_sentences": (PUNKT,),
    "ratio:stop_words": (STOPWORDS,),
    "words:keywords_specific_position": (PUNKT,),
    "words:start_verb": (PUNKT, TAGGER),
    "words:words_position": (PUNKT,),
}
"""Instruction → the data of NLTK that its check reads, which no package brings."""


@cache
def _checks() -> dict[str, Any]:
    """Instruction id → class of its check, of IFEval and IFBench; raises UsageError where the extra is missing."""
    try:
        with patch("nltk.download"):  # IFBench's part would fetch data over the network as it is imported
            from if_verifiable.ifbench.instructions_registry import INSTRUCTION_DICT as IFBENCH
            from if_verifiable.ifeval.instructions_registry import INSTRUCTION_DICT as IFEVAL
    except ImportError as error:
        raise UsageError("needs if-verifiable: pip install 'alignbench[ifeval]'") from error
    return {**IFEVAL, **IFBENCH}


def _built(name: str, arguments: Mapping[str, Any], where: str) -> Any:
    """The check of the instruction called `name`; raises UsageError on bad arguments, or on one left to chance."""
    if name not in _checks():
        raise unknown("instruction", name, _checks(), where)
    check, given = _checks()[name](name), {key: value for key, value in arguments.items() if value is not None}
    before = random.getstate()
    try:
        with plain_failures(f"{where}: instruction '{name}'", UsageError):
            check.build_description(**given)
        chance = random.getstate() != before
    finally:
        random.setstate(before)
    if chance:
        keys = ", ".join(check.get_instruction_args_keys())
        raise UsageError(
            f"{where}: instruction '{name}' would draw an argument at random, since one of {keys} is missing in "
            f"{given} or not what it can check: leave the prompt out"
        )
    return check


def _need_data(name: str, where: str) -> None:
    """Raise UsageError unless the NLTK data that an instruction's check reads is on this machine."""
    import nltk

    for path in NLTK_DATA.get(name, ()):
        try:
            nltk.data.find(path)
        except LookupError as error:
            raise UsageError(
                f"{where}: instruction '{name}' is checked with NLTK's data '{path.split('/')[1]}', which is not here: "
                f"run `python -m nltk.downloader {path.split('/')[1]}`, or leave the prompt out"
            ) from error


def _checks_of(prompt: str, instructions: Mapping[str, Sequence[str]], arguments: Mapping[str, Any]) -> list[Any]:
    """The checks of one prompt, in order; raises UsageError on whatever would make one fail or unrepeatable."""
    if prompt not in instructions:
        raise UsageError(f"feature 'follows_instructions' has no instructions for the prompt {brief(prompt)}")
    if prompt not in arguments:
        raise UsageError(f"has no arguments for the prompt {brief(prompt)}")
    where, names, values = f"in the prompt {brief(prompt)}", instructions[prompt], arguments[prompt]
    if not names or len(names) != len(values):
        raise UsageError(f"{where}: {len(names)} instructions and {len(values)} sets of arguments")
    for name in names:
        _need_data(name, where)
    return [_built(name, value, where) for name, value in zip(names, values, strict=True)]


def _check(instructions: Mapping[str, Sequence[str]], arguments: Mapping[str, Any], level: str, strict: bool) -> None:
    if not instructions:
        raise UsageError("has no prompts in 'instructions'")
    for prompt in instructions:
        _checks_of(prompt, instructions, arguments)


@feature(version=1, range=(0, 1), check=_check)
def follows_instructions(
    prompts: Sequence[str],
    draws: Draws,
    *,
    instructions: dict[str, list[str]],
    arguments: dict[str, list[dict[str, Any]]],
    level: Literal["prompt", "instruction"] = "prompt",
    strict: bool = True,
) -> Array:
    """1 where the continuation follows all of its prompt's instructions, else 0 (IFEval and IFBench).

    `level: instruction`: the share that it follows. `strict: false`: an instruction is followed if it is in any of
    IFEval's eight variants (first line, last line, both or none left out; asterisks left out or not). An empty
    continuation follows none. `instructions` and `arguments` map each prompt's text to its `instruction_id_list` and
    `kwargs`; arguments that are null are dropped. Raises UsageError for an unknown instruction, for a prompt that is
    not in both, for an argument that the check would draw at random, and for data of NLTK that is not here. Sources:
    Zhou et al. 2023 (Instruction-Following Evaluation for LLMs), Pyatkin et al. 2025 (IFBench).
    """
    checks = {int(p): _checks_of(prompts[int(p)], instructions, arguments) for p in np.unique(draws.prompt)}
    values = np.zeros(len(draws))
    with _repeatable():
        for i, (prompt, text) in enumerate(zip(draws.prompt, draws.texts, strict=True)):
            followed = [_follows(check, text, strict) for check in checks[int(prompt)]]
            values[i] = all(followed) if level == "prompt" else np.mean(followed)
    return values


def _follows(check: Any, text: str, strict: bool) -> bool:
    """Whether a text follows one instruction; what the check raises becomes one line that names it and the text."""
    with plain_failures(f"instruction '{check.id}', for the text {brief(text)},", RunError):
        return any(bool(check.check_following(v)) for v in ([text] if strict else _variants(text)) if v.strip())


def _variants(text: str) -> list[str]:
    """IFEval's loose variants of a text: what a chat model puts around an answer is left out, or not."""
    lines = text.split("\n")
    cut = ["\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1])]
    return [variant for whole in (text, *cut) for variant in (whole, whole.replace("*", ""))]


@contextmanager
def _repeatable() -> Iterator[None]:
    """A fixed seed for langdetect, which draws at random; and no logging, which would set up the root logger."""
    from if_verifiable.ifeval import instructions as ifeval
    from langdetect import DetectorFactory

    with patch.object(DetectorFactory, "seed", 0), patch.object(ifeval, "logging"):
        yield
