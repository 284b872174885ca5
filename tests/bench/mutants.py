"""Do the tests catch bugs? Plants each bug of `mutants.toml` in a copy of the project and runs the tests that know it.

    python tests/bench/mutants.py [WORDS …] [--jobs N] [--near] [--list]

WORDS choose bugs whose file or description has one of them. For each bug the tests of its file run (that of the
mirrored path, those known to cover it, those of its room that import it), then, where it lives, those of the whole room
and of rooms that see it at work, unless `--near`.
Prints which test killed it, and at the end which bugs live; exits with 1 if one does that is not said to be an
equivalent. The tests that killed are run once more on the code without bugs: one that fails there kills nothing.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / "alignbench", ROOT / "tests"
TABLE = Path(__file__).with_suffix(".toml")
COPIED = ("alignbench", "tests", "tasks", "leaderboards", "docs", ".github", "pyproject.toml", "README.md",
          "CHANGELOG.md", "constraints.txt")  # fmt: skip
PRELOADED = ("torch", "transformers", "pandas", "scipy.stats", "sklearn.cluster", "arviz_stats.base", "jinja2",
             "jsonschema", "pydantic", "rich.console", "typer")  # fmt: skip
"""Loaded once: each test process is a fork of one that has them, which saves half of the time."""
KNOWN = {
    "aligners/base.py": ("test_plug_ins.py", "test_golden_identities.py"),
    "aligners/bill.py": ("test_plug_ins.py",),
    "aligners/identities.py": ("test_golden_identities.py",),
    "aligners/prompting/few_shot.py": ("test_streams.py",),
    "aligners/selection/best_of_n.py": ("test_streams.py",),
    "aligners/selection/quasi_rejection.py": ("aligners/selection/test_proposals.py",),
    "aligners/training/of_target.py": ("aligners/training/test_convergence.py",),
    "aligners/training/stopping.py": ("aligners/training/test_convergence.py",),
    "generators/base.py": ("test_golden_identities.py",),
    "generators/described.py": ("scoring/test_evidence.py",),
    "generators/exact/world.py": ("aligners/decoding/test_attention_window.py",),
    "generators/hf/causal.py": (
        "generators/hf/test_soft_prompt.py",
        "generators/hf/test_factory.py",
        "test_laws.py",
    ),
    "generators/hf/encoder_decoder.py": ("generators/hf/test_soft_prompt.py",),
    "generators/hf/virtual.py": ("generators/hf/test_soft_prompt.py",),
    "generators/head.py": ("aligners/training/test_soft_q.py", "aligners/guidance/test_head_guide.py"),
    "generators/history.py": ("generators/test_sampling.py",),
    "generators/law.py": (
        "aligners/prompting/test_few_shot.py",
        "test_golden_identities.py",
        "generators/exact/test_worlds.py",
    ),
    "generators/masked/steered.py": ("aligners/guidance",),
    "generators/point_mass.py": ("aligners/decoding/test_search.py",),
    "generators/pool.py": ("aligners/selection/test_pool.py",),
    "generators/warp.py": ("generators/test_law.py",),
    "metrics/cost.py": ("metrics/test_metrics.py",),
    "metrics/distance.py": ("metrics/test_metrics.py",),
    "metrics/diversity.py": ("metrics/test_variety.py",),
    "metrics/entropy.py": ("metrics/test_metrics.py",),
    "metrics/fluency.py": ("metrics/test_metrics.py",),
    "metrics/length.py": ("metrics/test_metrics.py",),
    "metrics/satisfaction.py": ("metrics/test_metrics.py", "metrics/test_calibration.py"),
    "metrics/winning.py": ("metrics/test_metrics.py",),
    "reports/compare/common_draws.py": ("reports/compare",),
    "reports/compare/shifts.py": ("reports/compare",),
    "reports/faults.py": ("reports/test_gather.py",),
    "reports/folders.py": ("reports/test_gather.py",),
    "reports/charts/drawing/frame.py": ("reports/charts/test_plots.py",),
    "reports/charts/drawing/places.py": ("reports/charts/test_two_parts.py",),
    "reports/charts/drawing/two_parts.py": ("reports/charts/test_two_parts.py",),
    "reports/formats/latex.py": ("reports/formats/test_render.py",),
    "reports/formats/markdown.py": ("reports/formats/test_render.py", "reports/test_hostile.py"),
    "reports/formats/page/cards.py": ("reports/formats/test_page.py",),
    "reports/formats/page/drawn.py": (
        "reports/formats/test_page.py",
        "reports/formats/test_sections.py",
        "reports/test_hostile.py",
    ),
    "reports/formats/page/sections.py": ("reports/formats/test_sections.py", "reports/formats/test_page.py"),
    "reports/formats/strict_json.py": ("reports/formats/test_render.py",),
    "reports/formats/terminal.py": ("reports/formats/test_render.py",),
    "reports/publish.py": ("integrations/test_publish.py",),
    "reports/table/brief_columns.py": ("reports/table/test_brief.py",),
    "reports/table/brief_notes.py": ("reports/table/test_brief.py",),
    "reports/table/cells.py": ("reports/table",),
    "reports/table/conclusion.py": ("reports/table/test_brief.py",),
    "reports/table/groups.py": ("reports/table",),
    "reports/table/lines.py": ("reports/table",),
    "scoring/bench.py": ("scoring/test_evidence.py",),
    "scoring/cost.py": ("scoring/test_evidence.py",),
    "scoring/fits.py": ("run/test_known.py",),
    "scoring/references.py": ("scoring/test_evidence.py", "test_streams.py"),
    "seeds.py": ("test_streams.py",),
    "metrics/asked.py": ("metrics/test_weighed.py",),
    "stats/asked.py": ("stats/test_asked_gap.py",),
    "stats/bins.py": ("stats/test_asked_gap.py", "metrics/test_asked.py"),
    "stats/discrete.py": ("stats/test_divergences.py",),
    "stats/filtered.py": ("stats/test_filtered_law.py",),
    "stats/intervals.py": ("stats/test_divergences.py",),
    "stats/partition.py": ("stats/test_asked_gap.py", "metrics/test_asked.py"),
    "store/draws.py": ("store", "aligners/selection/test_pool.py"),
    "store/shelf.py": ("store", "aligners/selection/test_pool.py"),
    "target/constraint.py": ("target/test_target.py",),
}
"""File → tests that cover it and neither mirror nor import it."""
MANY = 8
"""Of a file that more tests of its room import, these are not near."""
LONGEST = 900
"""Seconds after which the tests are stopped: a bug that never ends is seen."""
WIDER = {
    "aligners": ("test_streams.py", "test_golden_identities.py", "scoring"), "checks": ("cli",),
    "generators": ("test_laws.py", "aligners", "checks", "scoring"), "metrics": ("run", "reports/compare", "checks"),
    "reports": ("cli", "integrations"), "scoring": ("run", "metrics", "checks", "test_streams.py"),
    "seeds.py": ("test_golden_identities.py", "aligners", "scoring"), "stats": ("metrics", "checks", "reports/compare"),
    "store": ("scoring", "run", "reports/test_examples.py"), "target": ("aligners", "scoring"),
}  # fmt: skip
"""Room → the tests beside those of its own folder that see it at work."""


@dataclass(frozen=True)
class Mutant:
    """A bug: in which file, what it is, the code before and after; `equivalent`: why no test can see it."""

    file: str
    bug: str
    before: str
    after: str
    equivalent: str = ""

    @property
    def room(self) -> str:
        """The part of the package."""
        return self.file.partition("/")[0]

    def __str__(self) -> str:
        return f"{self.file}: {self.bug}"


@dataclass(frozen=True)
class Verdict:
    """How a bug fared: the test that killed it, "" where it lives, and the seconds that took."""

    mutant: Mutant
    killer: str
    seconds: float

    @property
    def fault(self) -> str:
        """What is wrong with it; "" where nothing is."""
        if self.mutant.equivalent:
            return "is no equivalent" if self.killer else ""
        return "" if self.killer else "LIVES"


def table(words: Sequence[str] = ()) -> list[Mutant]:
    """The bugs of the table, those that one of the words names."""
    files = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    every = [Mutant(file, bug, *code) for file, bugs in files.items() for bug, code in bugs.items()]
    return [m for m in every if not words or any(word in str(m) for word in words)]


def occurrences(mutant: Mutant) -> int:
    """How often the code stands in its file."""
    return (PACKAGE / mutant.file).read_text(encoding="utf-8").count(mutant.before)


def planted(mutant: Mutant, package: Path = PACKAGE) -> str:
    """The text of the file with the bug."""
    return (package / mutant.file).read_text(encoding="utf-8").replace(mutant.before, mutant.after)


@cache
def imported(test: Path) -> frozenset[str]:
    """The modules of the package that a test imports itself, as files below it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(test.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(f"{name.removeprefix('alignbench.').replace('.', '/')}.py" for name in found)


def stages(mutant: Mutant) -> Iterator[list[str]]:
    """The tests of a file, those first that are likeliest to know it."""
    path = Path(mutant.file)
    mirrored = TESTS / path.parent / f"test_{path.stem}.py"
    importers = [test for test in (TESTS / path.parent).rglob("test_*.py") if mutant.file in imported(test)]
    own = [*[mirrored] * mirrored.is_file(), *_tests_in(KNOWN.get(mutant.file, ()))]
    yield _named(own)
    short_first = sorted(importers, key=lambda test: (test.stat().st_size, test))
    yield _named([test for test in short_first if test not in own] if len(importers) <= MANY else [])


def near(mutant: Mutant) -> list[str]:
    """All tests of a file."""
    return [test for some in stages(mutant) for test in some]


def wider(mutant: Mutant) -> list[str]:
    """The other tests of its room, and those that see the room at work."""
    found = _named(_tests_in([mutant.room, *WIDER.get(mutant.room, ())]))
    return [test for test in found if test not in near(mutant)]


def _tests_in(places: Sequence[str]) -> list[Path]:
    """The test files of these names and in these folders, each once."""
    found = (TESTS / place for place in places)
    return list(dict.fromkeys(t for p in found for t in ([p] if p.is_file() else sorted(p.rglob("test_*.py")))))


def _named(tests: Sequence[Path]) -> list[str]:
    return [test.relative_to(ROOT).as_posix() for test in tests]


class Copy:
    """A copy of the project in which bugs are planted, one at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (ROOT / name).exists():
                shutil.copy2(ROOT / name, folder / name)
        # compiled once: a file with a bug is then read as it stands, whatever the second in which it was written
        subprocess.run([sys.executable, "-m", "compileall", "-q", "alignbench", "tests"], cwd=folder, check=False)
        if broken := self.failing(["tests/test_types.py"]):
            raise SystemExit(f"the tests do not run where there is no bug: {broken}")

    def tried(self, mutant: Mutant, only_near: bool) -> Verdict:
        """The bug planted, tested and taken out again."""
        path, began = self.folder / "alignbench" / mutant.file, time.monotonic()
        text, state = path.read_bytes(), path.stat()
        try:
            path.write_text(planted(mutant, self.folder / "alignbench"), encoding="utf-8")
            tests = [*stages(mutant), *([] if only_near else [wider(mutant)])]
            killer = next(filter(None, map(self.failing, tests)), "")
        finally:
            path.write_bytes(text)
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        return Verdict(mutant, killer, time.monotonic() - began)

    def failing(self, tests: Sequence[str]) -> str:
        """The first of these tests that fails, "" where none does."""
        if not tests:
            return ""
        said = self.folder / "said.txt"
        process = get_context("forkserver").Process(target=_tested, args=(self.folder, said, tests))
        process.start()
        process.join(LONGEST)
        if process.is_alive():
            process.kill()
            process.join()
            return f"nothing: it ran on for {LONGEST} s"
        if process.exitcode == 0:
            return ""
        if process.exitcode is None or process.exitcode < 0:
            raise ChildProcessError(f"the tests were stopped from outside (exit code {process.exitcode})")
        text = said.read_text(encoding="utf-8")
        told = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", text, re.MULTILINE)
        return told[1] if told else f"nothing: pytest itself failed: {' '.join(text.split())[-200:]}"


def _tested(folder: Path, said: Path, tests: Sequence[str]) -> None:
    """Run tests of a copy up to the first that fails, in a process of its own; what pytest says goes into a file."""
    import pytest

    os.chdir(folder)
    sys.path[:] = [str(folder), *(place for place in sys.path if Path(place).resolve() != ROOT)]
    sys.dont_write_bytecode = True
    os.environ |= {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    loaded = "ignore::pytest.PytestAssertRewriteWarning"  # plug-ins that something preloaded has loaded
    with said.open("w", encoding="utf-8") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        code = pytest.main(["-x", "-q", "--tb=no", "-n", "0", "-p", "no:cacheprovider", "-W", loaded, *tests])
    os._exit(code)  # without what torch and its threads do at an end


def run(mutants: Sequence[Mutant], jobs: int, only_near: bool) -> list[Verdict]:
    """All verdicts, each printed as it is there; raises SystemExit where what killed fails without a bug too."""
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}  # before torch and transformers are loaded
    get_context("forkserver").set_forkserver_preload(list(PRELOADED))
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch, ThreadPoolExecutor(jobs) as pool:
        copies: Queue[Copy] = Queue()
        for job in range(jobs):
            copies.put(Copy(Path(scratch, str(job))))

        def one(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                verdict = copy.tried(mutant, only_near)
            finally:
                copies.put(copy)
            how = f"killed {verdict.seconds:4.0f} s" if verdict.killer else f"lives  {verdict.seconds:4.0f} s"
            print(f"{how}  {mutant}  {verdict.killer}".rstrip(), flush=True)
            return verdict

        verdicts = list(pool.map(one, mutants))
        killers = sorted({v.killer for v in verdicts if "::" in v.killer})
        if broken := copies.get().failing(killers):
            raise SystemExit(f"{broken} fails without a bug too: what it killed is not known")
        return verdicts


def report(verdicts: Sequence[Verdict]) -> int:
    """Print how many were killed by room, and what lives; the exit code."""
    every, killed = Counter(v.mutant.room for v in verdicts), Counter(v.mutant.room for v in verdicts if v.killer)
    print("\nroom            bugs  killed")
    for room, count in sorted(every.items()):
        print(f"{room:15} {count:4}  {killed[room]:6}")
    for verdict in verdicts:
        if verdict.fault:
            print(f"{verdict.fault}: {verdict.mutant}  {verdict.killer}".rstrip())
        elif verdict.mutant.equivalent:
            print(f"equivalent: {verdict.mutant}: {verdict.mutant.equivalent}")
    faults = sum(bool(v.fault) for v in verdicts)
    print(f"mutants killed={sum(killed.values())} of={len(verdicts)} faults={faults} target=0")
    return int(faults > 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="WORDS", help="bugs whose file or description has one of these")
    parser.add_argument("--jobs", type=int, default=1, help="copies that are tested at once")
    parser.add_argument("--near", action="store_true", help="the tests of each file alone")
    parser.add_argument("--list", action="store_true", help="print the bugs and their tests, and plant none")
    given = parser.parse_args()
    chosen = table(given.words)
    if given.list:
        for mutant in chosen:
            print(f"{mutant}\n    {' '.join(near(mutant)) or 'no test of its own'}")
        return 0
    if stale := [str(m) for m in chosen if occurrences(m) != 1]:
        raise SystemExit(f"the code is not there once: {'; '.join(stale)}")
    return report(run(chosen, given.jobs, given.near))


if __name__ == "__main__":
    sys.exit(main())
