"""What commands share: their options, and how they speak."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignbench.run.settings import OPTIONS, Option, help_of

if TYPE_CHECKING:
    from alignbench.integrations.trackers import Report
    from alignbench.run.settings import Settings

IncludePath = Annotated[
    list[Path] | None,
    typer.Option("--include_path", metavar="DIR", help="More tasks (.yaml) and plug-ins (.py); repeatable."),
]


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option for each field of the settings, which it gets as `**options`."""
    own = [p for p in signature(command, eval_str=True).parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    options = [_parameter(name, option) for name, option in OPTIONS.items()]
    first, rest = options[:1], options[1:]  # --model_args stands beside --model
    command.__signature__ = Signature([*first, *own[:1], *rest, *own[1:]])  # type: ignore[attr-defined]
    return command


def _parameter(name: str, option: Option) -> Parameter:
    """A field of the settings as a typer option; its text is checked with all others, not by typer."""
    kind: Any = bool if option.flag else list[str] | None if option.many else str | None
    said = typer.Option(f"--{name}", metavar=option.metavar or None, help=help_of(name))
    return Parameter(
        name, Parameter.POSITIONAL_OR_KEYWORD, default=False if option.flag else None, annotation=Annotated[kind, said]
    )


def trackers_of(settings: Settings) -> Report | None:
    """What tells trackers of rows as they finish, and of training; None where there are none."""
    if not settings.tracker:
        return None
    from alignbench.integrations.trackers import report

    return report(settings.tracker, say)


def say(line: str) -> None:
    """One line on standard error; what commands a terminal, in the name of a file or in its text, is escaped."""
    print(f"alignbench: {''.join(map(_harmless, line))}", file=sys.stderr)


def _harmless(character: str) -> str:
    """A character as it is, or the escape of one that is not seen."""
    return character if character.isprintable() else character.encode("unicode_escape").decode()
