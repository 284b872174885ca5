"""The command line: words to calls. The only place that prints and chooses exit codes. Floor 7.

`app` is the typer app, `words` what commands share; each other file holds a command or two and is imported below, in
the order of `--help`. A command reads its options, calls the floor that does the work, and shows what came of it.
"""

from __future__ import annotations

import logging
import sys
from typing import NoReturn

# isort: off (the order of --help)
from alignbench.cli import (
    check,  # noqa: F401
    look,  # noqa: F401
    run,  # noqa: F401
)
from alignbench.cli.app import app
from alignbench.cli.words import say
from alignbench.errors import AlignbenchError

# isort: on


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
