"""The command line: words to calls. The only place that prints and chooses exit codes. Floor 7.

`app` is the typer app, `words` what commands share; each other file holds a command or two. A command reads its
options, calls the floor that does the work, and shows what came of it. May import: every floor; what is heavy (torch,
transformers, pandas) only inside a command. To add a command, write a file, import it below and name it in `ORDER`.
"""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

from alignbench.cli import align, check, compare, export, leaderboard, look, plot, run, schema  # noqa: F401 (they register their commands)
from alignbench.cli.app import app
from alignbench.cli.words import say
from alignbench.errors import AlignbenchError

ORDER = (
    "run",
    "align",
    "score",
    "leaderboard",
    "compare",
    "plot",
    "export",
    "ls",
    "show",
    "validate",
    "schema",
    "selfcheck",
)
"""Of the commands in `--help`."""

app.registered_commands.sort(key=lambda command: ORDER.index(command.name or command.callback.__name__))  # type: ignore[union-attr]


def main() -> NoReturn:
    """Run the command line; a failure that is the user's to mend is one line, never a traceback."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("alignbench").setLevel(logging.INFO)
    try:
        app()
    except AlignbenchError as error:
        say(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
    sys.exit(0)
