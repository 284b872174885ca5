"""Bytes of a page and how soon it is open: generators × tasks, with charts and example draws.

    python tests/bench/page_size.py [--tasks 20] [--generators 50]

Rows and draws are made up. Seconds are those of Chromium's own clock from asking for the file to its load event, in a
new page each time; the machine's load is printed with them. It exits 1 above 5 MB or a median of 2 seconds.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))

from many_rows import many_draws, many_rows

from alignbench.reports.formats.html import to_html
from alignbench.reports.table.leaderboards import leaderboard

MEGABYTE = 1_000_000
CLOCK = "() => { const [n] = performance.getEntriesByType('navigation'); return [n.domInteractive, n.loadEventEnd]; }"


def page(tasks: int, generators: int) -> bytes:
    """The page, and what making it took."""
    rows = many_rows(tasks, generators)
    board = leaderboard(rows)
    draws = many_draws(rows, 1)  # what the budget of a page leaves at this size
    start = time.perf_counter()
    made = to_html(board, draws).encode()
    print(f"{tasks} tasks x {generators} generators: {len(made) / MEGABYTE:.2f} MB, made in "
          f"{time.perf_counter() - start:.1f} s, {sum(len(shown.draws) for shown in draws)} draws")  # fmt: skip
    return made


def seconds(file: Path, times: int) -> list[float]:
    """Seconds until each of some new pages was loaded."""
    from playwright.sync_api import sync_playwright

    found = []
    with sync_playwright() as driver:
        own = shutil.which("chromium") or shutil.which("google-chrome") or driver.chromium.executable_path
        browser = driver.chromium.launch(executable_path=own, args=["--no-sandbox"])
        for _ in range(times):
            tab = browser.new_page()
            tab.goto(file.as_uri())
            ready, loaded = tab.evaluate(CLOCK)
            elements = tab.evaluate("document.querySelectorAll('*').length")
            print(f"read after {ready / 1e3:.2f} s, loaded after {loaded / 1e3:.2f} s, {elements} elements")
            found.append(loaded / 1e3)
            tab.close()
        browser.close()
    return found


def main() -> None:
    """Print both; exit 1 where one is too much."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--generators", type=int, default=50)
    parser.add_argument("--times", type=int, default=5)
    args = parser.parse_args()
    made = page(args.tasks, args.generators)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "page.html"
        file.write_bytes(made)
        taken = statistics.median(seconds(file, args.times))
    print(f"median {taken:.2f} s; load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    sys.exit(len(made) > 5 * MEGABYTE or taken > 2)


if __name__ == "__main__":
    main()
