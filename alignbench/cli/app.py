"""The app that the commands register with, and `--version`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="alignbench",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": lambda s: s.replace("-", "_")},
    help="Did aligning this language model reach the distribution it was meant to reach, and what did that cost?",
)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import PackageNotFoundError, version  # not `results`, which loads torch

        try:
            print(f"alignbench {version('alignbench')}")
        except PackageNotFoundError:
            print("alignbench, not installed")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    pass
