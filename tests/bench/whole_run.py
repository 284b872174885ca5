"""Seconds of a whole `alignbench run` over the seconds of its parts, and the share that metrics and bookkeeping take.

    python tests/bench/whole_run.py

The run is the quickstart's first task: lexical_word with the base, temperature, best-of-n and rejection, in process,
from the parsing of its options to the leaderboard on disk. Every turn runs it into a fresh folder on a seed of its own
with the model's calls recorded (`Law.sample`, `Law.log_prob`, `compare`); the sum of parts then loads the model and
makes the same calls directly, on the same rows, with no store, features, metrics, tables or files between them. What
the run's wall time went to is read from the same turns: a stopwatch that counts each second once, for the innermost
part that was running.
"""

import contextlib
import functools
import io
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pkgutil import resolve_name
from unittest.mock import patch

import numpy as np
import pairs

TARGET, SHARE = 1.10, 0.10
ALIGNERS = ("temperature:t=0.7", "best_of_n:n=4", "rejection")
MODEL_PARTS = ("loading", "drawing", "scoring")
FUNCTIONS = {
    "features": ("alignbench.target.Target.measure", "alignbench.target.Target.log_ratio_of"),
    "metrics": ("alignbench.run.measured.measure",),
    "files": (
        "alignbench.store.shelf.pack", "alignbench.store.shelf.write_atomic", "alignbench.run.writer.pack",
        "alignbench.run.writer.write_atomic", "alignbench.reports.formats.render.write_leaderboard",
    ),
    "tables": ("alignbench.cli.run.show",),
    "scoring": ("alignbench.generators.law.Law.log_prob",),
}  # fmt: skip
"""Part of a run → what is timed as that part."""


class Stopwatch:
    """Seconds by part; time inside a part that another one started belongs to the inner one."""

    def __init__(self):
        self.seconds, self.running, self.since = Counter(), ["everything else"], time.perf_counter()

    @contextlib.contextmanager
    def on(self, part: str) -> Iterator[None]:
        self._book()
        self.running.append(part)
        try:
            yield
        finally:
            self._book()
            self.running.pop()

    def _book(self):
        pairs.synchronise()
        now = time.perf_counter()
        self.seconds[self.running[-1]] += now - self.since
        self.since = now

    def stop(self) -> Counter:
        self._book()
        return self.seconds


@dataclass
class Recorder:
    """The model's calls of one run, to be made again, and its stopwatch."""

    watch: Stopwatch = field(default_factory=Stopwatch)
    calls: list[Callable[[], object]] = field(default_factory=list)
    drawn: list[np.ndarray] = field(default_factory=list)

    def timed(self, part: str, function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*given, **more):
            if part == "scoring":
                self.calls.append(functools.partial(function, *given, **more))
            with self.watch.on(part):
                return function(*given, **more)

        return call

    def sampling(self, function: Callable) -> Callable:
        """`Law.sample`, recorded with the number of batches that its caller took."""

        @functools.wraps(function)
        def sample(law, prompts, rows, **how):
            batches, taken = function(law, prompts, rows, **how), []
            self.calls.append(lambda: _taken(function(law, prompts, rows, **how), len(taken)))
            while True:
                with self.watch.on("drawing"):
                    batch = next(batches, None)
                if batch is None:
                    return
                taken.append(batch)
                self.drawn.append(batch.tokens)
                yield batch

        return sample

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Every timed function replaced by its timed twin."""
        from alignbench.generators import law as law_module
        from alignbench.generators.law import Law
        from alignbench.registry import generator

        with contextlib.ExitStack() as stack:
            for part, names in FUNCTIONS.items():
                for name in names:
                    twin = self.timed(part, resolve_name(name))
                    stack.enter_context(patch(name, twin))
            stack.enter_context(patch.object(law_module, "compare", self.timed("scoring", law_module.compare)))
            stack.enter_context(patch.object(Law, "sample", self.sampling(Law.sample)))
            hf = generator.entries["hf"]
            loading = replace(hf, thing=self.timed("loading", hf.thing))
            stack.enter_context(patch.dict(generator.entries, hf=loading))
            yield


def _taken(batches: Iterator, count: int) -> list[np.ndarray]:
    """The ids of the first `count` batches; no more are drawn."""
    return [next(batches).tokens for _ in range(count)]


@dataclass
class Bench:
    """Both ways of a turn; the second needs the calls that the first recorded."""

    args: object
    recorder: Recorder | None = None
    shares: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    differ: int = 0

    def run(self, turn: int) -> float:
        """Seconds of the whole run."""
        from alignbench import cli

        quiet = io.StringIO()
        self.recorder = Recorder()
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.redirect_stdout(quiet),
            contextlib.redirect_stderr(quiet),
        ):
            with self.recorder.installed():
                self.recorder.watch = Stopwatch()
                seconds, code = pairs.clock(lambda: cli.app(self._words(turn, folder), standalone_mode=False))
            taken = self.recorder.watch.stop()
        if code:
            raise SystemExit(f"whole_run: the run failed:\n{quiet.getvalue()}")
        for part in taken:
            self.shares[part].append(taken[part] / seconds)
        self.shares["not the model"].append(1 - sum(taken[part] for part in MODEL_PARTS) / seconds)
        return seconds

    def _words(self, turn: int, folder: str) -> list[str]:
        args = self.args
        recipes = [word for aligner in ALIGNERS for word in ("--aligner", aligner)]
        return ["run", "--model", "hf", "--model_args", f"pretrained={args.model},dtype={args.dtype}", *recipes,
                "--tasks", "lexical_word", "--draws", str(args.draws[0]), "--limit", str(args.prompts),
                "--batch_size", args.batch_size, "--device", args.device, "--seed", str(turn),
                "--output_path", folder]  # fmt: skip

    def parts(self, turn: int) -> float:
        """Seconds of loading the model and of the recorded calls, made directly."""
        from alignbench.registry import generator
        from alignbench.spec import Spec

        spec = Spec("hf", {"pretrained": self.args.model, "dtype": self.args.dtype})
        loading, _ = pairs.clock(lambda: spec.build(generator, "bench", device=self.args.device))
        calling, again = pairs.clock(lambda: [call() for call in self.recorder.calls])
        drawn = [ids for answer in again if isinstance(answer, list) for ids in answer]
        same = [np.array_equal(a, b) for a, b in zip(drawn, self.recorder.drawn, strict=True)]
        self.differ += len(same) - sum(same)
        return loading + calling

    def breakdown(self) -> list[tuple[str, str]]:
        """Median share of a run's wall time by part, the largest first."""
        typical = {part: pairs.median(share) for part, share in self.shares.items()}
        return [(part, f"{share:.1%}") for part, share in sorted(typical.items(), key=lambda item: -item[1])]


def main():
    parser = pairs.options(__doc__, draws=[40])
    args = parser.parse_args()
    if args.tokens != parser.get_default("tokens"):
        parser.error("--tokens: the task says how many")
    pairs.set_up(args)
    pairs.load(args)  # and with it the plug-ins, whose entries are timed
    bench = Bench(args)
    found = pairs.in_turn({"run": bench.run, "parts": bench.parts}, args.pairs)
    ratio = pairs.Ratio.of(found["run"], found["parts"])
    seconds = [f"{pairs.median(found[way]):.1f}" for way in ("run", "parts")]
    pairs.show(("prompts × draws", "run, s", "sum of parts, s", "ratio", "range", "batches that differ"),
               [[f"{args.prompts} × {args.draws[0]}", *seconds, *ratio.cells(), bench.differ]])  # fmt: skip
    print()
    pairs.show(("share of the run's wall time", "median"), bench.breakdown())
    share = pairs.median(bench.shares["not the model"])
    print(f"metrics and bookkeeping: {share:.1%} of the run, target {SHARE:.0%}")
    pairs.last_line("whole_run", ratio.value, TARGET)


if __name__ == "__main__":
    main()
