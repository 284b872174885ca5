"""Do the tests catch bugs? Plants each bug of `mutants.toml` in a copy of the project and runs the tests that know it.

    python tests/bench/mutants.py [WORDS …] [--jobs N] [--list]

WORDS choose bugs whose file or description has one of them. For each bug first the tests of its file run (those of the
mirrored path, and those that import it), then, where it lives, those of its room. Prints which test killed it, and at
the end which bugs live; exits with 1 if one does that is not said to be an equivalent. The tests that killed are run
once more on the code without bugs: a test that fails there kills nothing.
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
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).parents[2]
PACKAGE, TESTS = ROOT / "alignbench", ROOT / "tests"
TABLE = Path(__file__).with_suffix(".toml")
COPIED = ("alignbench", "tests", "tasks", "leaderboards", "docs", ".github", "pyproject.toml", "README.md",
          "CHANGELOG.md", "constraints.txt")  # fmt: skip
MANY = 8
"""Of a file that more tests import, those in the folder of its room alone are near."""
LONGEST = 900
"""Seconds after which the tests are stopped: a bug that never ends is seen."""
WIDER = {
    "stats": ("metrics", "checks", "reports/compare"), "seeds.py": ("test_golden_identities.py", "aligners", "scoring"),
    "generators": ("test_laws.py", "checks", "scoring"), "aligners": ("test_streams.py", "test_laws.py", "scoring"),
    "metrics": ("run", "reports/compare", "checks"), "store": ("scoring", "run", "reports/test_examples.py"),
    "scoring": ("run", "metrics", "checks", "test_streams.py"), "target": ("aligners", "scoring"),
    "reports": ("cli", "integrations"), "checks": ("cli",),
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


def planted(mutant: Mutant) -> str:
    """The text of the file with the bug."""
    return (PACKAGE / mutant.file).read_text(encoding="utf-8").replace(mutant.before, mutant.after)


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


def near(mutant: Mutant) -> list[str]:
    """The tests of a file: that of the mirrored path, then those that import it."""
    path = Path(mutant.file)
    mirrored = TESTS / path.parent / f"test_{path.stem}.py"
    importers = [test for test in sorted(TESTS.rglob("test_*.py")) if mutant.file in imported(test)]
    if len(importers) > MANY:
        importers = [test for test in importers if test.is_relative_to(TESTS / path.parent)]
    return _named([mirrored] * mirrored.is_file() + [test for test in importers if test != mirrored])


def wider(mutant: Mutant) -> list[str]:
    """The other tests of its room, and those that see the room at work."""
    places = [TESTS / mutant.room, *(TESTS / place for place in WIDER.get(mutant.room, ()))]
    found = (test for place in places for test in ([place] if place.is_file() else sorted(place.rglob("test_*.py"))))
    return [test for test in dict.fromkeys(_named(found)) if test not in near(mutant)]


def _named(tests: Iterator[Path] | Sequence[Path]) -> list[str]:
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

    def tried(self, mutant: Mutant) -> Verdict:
        """The bug planted, tested and taken out again."""
        path, began = self.folder / "alignbench" / mutant.file, time.monotonic()
        text, state = path.read_bytes(), path.stat()
        try:
            path.write_text(planted(mutant), encoding="utf-8")
            killer = self.failing(near(mutant)) or self.failing(wider(mutant))
        finally:
            path.write_bytes(text)
            os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
        return Verdict(mutant, killer, time.monotonic() - began)

    def failing(self, tests: Sequence[str]) -> str:
        """The first of these tests that fails, "" where none does."""
        if not tests:
            return ""
        command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=no", "-n", "0", "-p", "no:cacheprovider", *tests]
        environment = os.environ | {
            "PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        try:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=LONGEST, check=False
            )
        except subprocess.TimeoutExpired:
            return f"nothing: it ran on for {LONGEST} s"
        if done.returncode == 0:
            return ""
        told = re.search(r"^(?:FAILED|ERROR) (.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
        return told[1] if told else f"exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-200:]}"


def run(mutants: Sequence[Mutant], jobs: int) -> list[Verdict]:
    """All verdicts, each printed as it is there; then what fails on the code without bugs."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch, ThreadPoolExecutor(jobs) as pool:
        copies: Queue[Copy] = Queue()
        for job in range(jobs):
            copies.put(Copy(Path(scratch, str(job))))

        def one(mutant: Mutant) -> Verdict:
            copy = copies.get()
            try:
                verdict = copy.tried(mutant)
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
    parser.add_argument("--list", action="store_true", help="print the bugs and their tests, and plant none")
    given = parser.parse_args()
    chosen = table(given.words)
    if given.list:
        for mutant in chosen:
            print(f"{mutant}\n    {' '.join(near(mutant)) or 'no test of its own'}")
        return 0
    if stale := [str(m) for m in chosen if occurrences(m) != 1]:
        raise SystemExit(f"the code is not there once: {'; '.join(stale)}")
    return report(run(chosen, given.jobs))


if __name__ == "__main__":
    sys.exit(main())
