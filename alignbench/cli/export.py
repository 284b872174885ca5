"""`alignbench export`: rows for others: CSV to publish, Every Eval Ever, the hub's results; and their upload."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alignbench.cli.app import app
from alignbench.cli.words import say
from alignbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from alignbench.reports.gather import Gathered

EXAMPLES = """
Examples (the first publishes rows of this repository's leaderboards):

  alignbench export results --out leaderboards/reference

  alignbench export results --format eee --organization "My Lab" --out exported

  alignbench export results --format eval_results --dataset my-name/stories --out exported

  alignbench export results --out exported --push_to_hub my-name/results --dry_run

Rows whose texts hold a path of this machine, and rows without a whole signature, are not exported.

Three draws of each row are written beside rows as CSV, where there is evidence of them: <task>.draws.jsonl, which pages
show. A draw whose texts hold a path of this machine or an e-mail address is left out; --no_draws leaves all out.

Draws are not uploaded unless --with_samples is given: what a model was asked and said may be private.
"""


@app.command(epilog=EXAMPLES)
def export(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR…", help="Output folders of runs, or CSV files.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the files go.")],
    form: Annotated[
        str, typer.Option("--format", metavar="csv|eee|eval_results", help="What is written, see below.")
    ] = "csv",
    organization: Annotated[str | None, typer.Option(metavar="NAME", help="eee: who provides the data.")] = None,
    dataset: Annotated[
        str | None, typer.Option(metavar="ORG/NAME", help="eval_results: the hub's benchmark that has these tasks.")
    ] = None,
    push_to_hub: Annotated[
        str | None, typer.Option("--push_to_hub", metavar="ORG/NAME", help="Upload the files to this hub data set.")
    ] = None,
    with_samples: Annotated[
        bool, typer.Option("--with_samples", help="Copy every draw that --log_samples wrote beside them.")
    ] = False,
    no_draws: Annotated[bool, typer.Option("--no_draws", help="csv: write no example draws beside the rows.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry_run", help="Say what would be uploaded, and upload nothing.")] = False,
) -> None:
    """Write rows for others to use, and upload them if asked.

    csv: <task>.csv, tidy rows beside those that are there; a newer measurement replaces an older one. A generator with
    fewer than 64 draws on a task has a note in place of numbers. And <task>.draws.jsonl, three draws of each row.

    eee: JSON records of Every Eval Ever 0.3.

    eval_results: YAML for the model repositories of the hub.

    Exit code 1 where some rows could not be exported.
    """
    _check(form, organization, dataset, push_to_hub)
    if no_draws and form != "csv":
        raise UsageError("--no_draws goes with --format csv: only there are draws beside the rows")
    if dry_run and not push_to_hub:
        raise UsageError("--dry_run is about the upload: give --push_to_hub ORG/NAME with it")
    if push_to_hub and not dry_run:
        from alignbench.integrations.hub import check_token

        check_token()  # before anything is written
    from alignbench.reports.gather import gather
    from alignbench.reports.publish import accepted

    found = gather(folders)
    rows, refused = accepted(found.rows)
    failures = [*found.failures, *refused]
    written = FORMATS[form](rows, found, out, organization or dataset or "", failures) if len(rows) else []
    drawn = _draws([] if no_draws else folders, rows, out) if form == "csv" and len(rows) else []
    if with_samples:
        written += _samples(folders, out, failures)
    for line in (*found.remarks, *failures):
        say(line)
    for path in (*written, *drawn):
        print(f"wrote {path}")
    if push_to_hub and written:
        _push(push_to_hub, out, [*written, *(drawn if with_samples else [])], dry_run)
    if failures:
        raise typer.Exit(1)


def _check(form: str, organization: str | None, dataset: str | None, push_to_hub: str | None) -> None:
    """Raise UsageError on options that do not go together."""
    from alignbench.integrations.hub import check_name

    if form not in FORMATS:
        raise unknown("format", form, FORMATS, "--format")
    for option, value, needed_by in (("organization", organization, "eee"), ("dataset", dataset, "eval_results")):
        if form == needed_by and not value:
            raise UsageError(f"--format {form} needs --{option}")
        if form != needed_by and value:
            raise UsageError(f"--{option} goes with --format {needed_by}")
    if dataset:
        check_name(dataset, "--dataset")
    if push_to_hub:
        check_name(push_to_hub, "--push_to_hub")
        if form == "eval_results":
            raise UsageError("--push_to_hub uploads to a data set; evaluation results go to the models' repositories")


def _csv(rows: Any, found: Gathered, out: Path, who: str, failures: list[str]) -> list[Path]:
    from alignbench.reports.publish import of_enough_draws, publish

    table, few = of_enough_draws(rows)
    for line in few:
        say(line)
    return publish(table, out)


def _draws(folders: Sequence[Path], rows: Any, out: Path) -> list[Path]:
    """Example draws beside the rows; what is left out is told, and no row is missing for it."""
    from alignbench.reports.draws import MOST
    from alignbench.reports.examples import examples
    from alignbench.reports.publish import publish_draws

    shown, unread = examples(folders, budget=sys.maxsize, most=MOST)
    written, told = publish_draws(shown, rows, out)
    for line in (*unread, *told):
        say(line)
    return written


def _eee(rows: Any, found: Gathered, out: Path, who: str, failures: list[str]) -> list[Path]:
    import time

    from alignbench.files import dump
    from alignbench.integrations.every_eval_ever import records

    made, absent = records(rows, who, time.time())
    failures += absent
    return _written(out, {path: dump(record) for path, record in made.items()})


def _eval_results(rows: Any, found: Gathered, out: Path, who: str, failures: list[str]) -> list[Path]:
    from alignbench.integrations.eval_results import pages

    for line in found.assumption:
        say(line)
    texts, absent = pages(rows, who, found.primary)
    failures += absent
    return _written(out, texts)


FORMATS: dict[str, Callable[[Any, Gathered, Path, str, list[str]], list[Path]]] = {
    "csv": _csv, "eee": _eee, "eval_results": _eval_results,
}  # fmt: skip


def _written(out: Path, texts: dict[str, str]) -> list[Path]:
    from alignbench.files import write_atomic

    for name, text in texts.items():
        write_atomic(out / name, text.encode("utf-8", "backslashreplace"))
    return [out / name for name in texts]


def _samples(folders: Sequence[Path], out: Path, failures: list[str]) -> list[Path]:
    """Copies of samples_*.jsonl; a folder without any is told."""
    from alignbench.files import write_atomic

    written = []
    for folder in folders:
        files = sorted(folder.glob("*/samples_*.jsonl"))
        if not files:
            failures.append(f"{folder}: has no samples_*.jsonl: run with --log_samples")
        for path in files:
            written.append(out / "samples" / path.parent.name / path.name)
            write_atomic(written[-1], path.read_bytes())
    return written


def _push(repository: str, out: Path, files: Sequence[Path], dry_run: bool) -> None:
    """Upload, or only say what would be."""
    from alignbench.integrations.hub import upload

    print(f"{'would upload' if dry_run else 'uploading'} to the data set {repository}:")
    for path in files:
        print(f"  {path.relative_to(out).as_posix()} ({path.stat().st_size:,} bytes)")
    if not dry_run:
        print(upload(repository, out, files))
