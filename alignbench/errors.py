"""What can go wrong, as one tree; each message is one line that says what, where and what to do.

AlignbenchError
├── UsageError            the user's words or files are wrong              exit 2
│   ├── UnknownName       a name nobody registered; carries the closest match
│   ├── TaskError         a task file is wrong (file and line)
│   ├── InfeasibleTarget  moments that no reweighting of the base can reach
│   └── Unsupported       asked of a generator what it cannot do
└── RunError              the words were fine, the world was not            exit 1
    ├── SourceError       a download or a checksum failed
    └── StoreError        results could not be read or written
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from pathlib import Path
from types import FrameType
from typing import Any


class AlignbenchError(Exception):
    """A failure that is told to the user in one line; `exit_code` is the process's exit status."""

    exit_code = 1


class UsageError(AlignbenchError):
    """The user's words or files are wrong; nothing was sampled."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that nobody registered."""


class TaskError(UsageError):
    """A task file is wrong; the message begins with the file and, where known, the line."""


class InfeasibleTarget(UsageError):
    """The wanted moments lie outside what the base can be reweighted to."""


class Unsupported(UsageError):
    """The generator lacks a capability that was asked of it."""


class RunError(AlignbenchError):
    """The request was fine; carrying it out failed."""


class SourceError(RunError):
    """Weights or prompts could not be fetched, or are not what was pinned."""


class StoreError(RunError):
    """Draws or results could not be read or written."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of an error about an unknown `name`: the closest match, then all that is known."""
    names = sorted(known)
    close = get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.6)
    match = next((n for n in names if close and n.lower() == close[0]), None)
    hint = f" Did you mean '{match}'?" if match else ""
    return f"{hint} Known: {', '.join(names) or 'none'}."


def unknown(kind: str, name: str, known: Iterable[str], where: str = "") -> UnknownName:
    """The error for an unknown `kind` called `name`, found at `where`."""
    place = f"{where}: " if where else ""
    return UnknownName(f"{place}unknown {kind} '{name}'.{did_you_mean(name, known)}")


def brief(value: Any) -> str:
    """A value as Python writes it, on one line of at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def let_go(error: BaseException | None) -> None:
    """Free what a kept error holds on to: variables of the functions, all below the caller's, that it came through.

    Its traceback can still be read.
    """
    caller = sys._getframe(1)
    while error is not None:
        for found, _ in traceback.walk_tb(error.__traceback__):
            frame: FrameType | None = found
            while frame is not None and frame is not caller:
                with suppress(RuntimeError):  # it runs
                    frame.clear()
                frame = frame.f_back
        error = error.__cause__ or error.__context__


@contextmanager
def plain_failures(what: str, kind: type[AlignbenchError]) -> Iterator[None]:
    """Whatever a plug-in's code raises inside becomes one line of this `kind` that says what failed and where."""
    try:
        yield
    except AlignbenchError:
        raise
    except (Exception, SystemExit) as error:
        told, frames = " ".join(str(error).split()), traceback.extract_tb(error.__traceback__)
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
        raise kind(f"{what} failed: {type(error).__name__}: {told} ({place})") from error
