"""`alignbench schema`: what a run file or a task file may say, as a JSON schema for editors."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from alignbench.cli.app import app
from alignbench.errors import unknown

EXAMPLES = """
Examples:

  alignbench schema run > run.schema.json

  alignbench schema task > task.schema.json

An editor with a YAML language server reads a first line such as

  # yaml-language-server: $schema=task.schema.json

and then completes keys and marks what is wrong as it is typed.
"""


@app.command(epilog=EXAMPLES)
def schema(what: Annotated[str, typer.Argument(metavar="run|task", help="Which kind of file.")]) -> None:
    """Print the JSON schema of a run file or of a task file."""
    if what == "run":
        from alignbench.run.settings import schema as schema_of
    elif what == "task":
        from alignbench.task.reader import schema as schema_of
    else:
        raise unknown("kind of file", what, ("run", "task"))
    print(json.dumps(schema_of(), indent=2, ensure_ascii=False))
