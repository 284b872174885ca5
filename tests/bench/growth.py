"""How seconds and peak memory grow with draws, prompts and length.

    python tests/bench/growth.py

One of the three changes at a time, around 4 prompts × 64 draws × 48 tokens; each cell is a process of its own, which
loads the model, draws a little to warm up and then is timed. Its exponent is the slope of log seconds (median of
`--pairs` timings) over log size: 1 is proportional. Peak memory is the process's (on a GPU, the allocator's), and
`above the model` what it has beyond the loaded model.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from math import log
from pathlib import Path

import pairs  # and no torch here: a child's peak begins at its parent's size

AXES = ("prompts", "draws", "tokens")
CENTRE = {"prompts": 4, "draws": 64, "tokens": 48}
SIZES = {"prompts": (1, 4, 16), "draws": (16, 64, 256), "tokens": (16, 48, 128)}
MIB = 2**20


def child(args: argparse.Namespace) -> dict[str, object]:
    """What one cell took: seconds of each timing, tokens, and memory in bytes."""
    import torch

    torch.set_num_threads(args.threads)
    law = pairs.load(args)
    prompts, draws, tokens = pairs.PROMPTS[: args.prompts], args.draws[0], args.tokens[0]
    pairs.ours(law, prompts[:1], 2, 2, 0)  # before the memory is read: weights are mapped, and in it once they are used
    loaded = _loaded(law.model.network.device)
    timed = [pairs.clock(lambda turn=turn: pairs.ours(law, prompts, draws, tokens, turn)) for turn in range(args.pairs)]
    return {
        "seconds": [seconds for seconds, _ in timed],
        "tokens": [int(drawn.length.sum()) for _, drawn in timed],
        "loaded": loaded,
        "peak": _peak(law.model.network.device),
    }


def _loaded(device) -> int:
    """Bytes in use now; on a GPU its high-water mark begins anew."""
    import psutil
    import torch

    if device.type != "cuda":
        return psutil.Process().memory_info().rss
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device) -> int:
    """The high-water mark in bytes; macOS counts a process's in bytes, Linux in KiB."""
    import resource

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def cell(args: argparse.Namespace, **size: int) -> dict[str, object]:
    """One cell in a fresh process."""
    words = [f"--{name}={value}" for name, value in size.items()]
    same = [
        f"--{name}={getattr(args, name)}" for name in ("pairs", "dtype", "threads", "device", "batch_size", "model")
    ]
    done = subprocess.run(
        [sys.executable, str(Path(__file__)), "--child", *words, *same], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """Least-squares slope of log seconds over log size."""
    x, y = [log(s) for s in sizes], [log(s) for s in seconds]
    mean = sum(x) / len(x)
    square = sum((a - mean) ** 2 for a in x)
    return sum((a - mean) * b for a, b in zip(x, y, strict=True)) / square if square else float("nan")


def line(axis: str, size: dict[str, int], found: dict) -> list[object]:
    """A line of the table."""
    rates = [tokens / seconds for tokens, seconds in zip(found["tokens"], found["seconds"], strict=True)]
    tokens, seconds = pairs.median(found["tokens"]), pairs.median(found["seconds"])
    above = max(found["peak"] - found["loaded"], 0)
    return [axis, *(size[name] for name in AXES), f"{tokens:.0f}", f"{seconds:.2f}", f"{pairs.median(rates):.0f}",
            f"{found['peak'] / MIB:.0f}", f"{above / MIB:.0f}"]  # fmt: skip


def grow(args: argparse.Namespace, sizes: dict[str, Sequence[int]], centre: dict[str, int]) -> dict[str, float]:
    """Print the table; the exponent of each axis."""
    known, rows, exponents = {}, [], {}
    for axis in AXES:
        seconds = []
        for value in sizes[axis]:
            size = {**centre, axis: value}
            key = tuple(size.values())
            if key not in known:
                known[key] = cell(args, **size)
            seconds.append(pairs.median(known[key]["seconds"]))
            rows.append(line(axis, size, known[key]))
        exponents[axis] = exponent(sizes[axis], seconds)
    columns = ("grows", *AXES, "tokens drawn", "seconds", "tokens/s", "peak MiB", "above the model, MiB")
    pairs.show(columns, rows)
    return exponents


def arguments() -> argparse.Namespace:
    parser = pairs.options(__doc__, draws=None, tokens=None, prompts=None, pairs=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    for name in ("draws", "tokens"):
        parser.set_defaults(**{name: list(SIZES[name])})
    return parser.parse_args()


def main():
    args = arguments()
    if args.child:
        print(json.dumps(child(args)))
        return
    print(pairs.header(args), flush=True)
    sizes = {"prompts": SIZES["prompts"], "draws": args.draws, "tokens": args.tokens}
    if args.prompts:
        sizes["prompts"] = [n for n in SIZES["prompts"] if n <= args.prompts]
    centre = {axis: min(CENTRE[axis], max(sizes[axis])) for axis in AXES}
    found = grow(args, sizes, centre)
    print("growth " + " ".join(f"exponent_{axis}={slope:.2f}" for axis, slope in found.items()))


if __name__ == "__main__":
    main()
