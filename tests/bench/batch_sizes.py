"""How many draws depend on the batch size, and by how much their log-probabilities do.

Draws the same rows in batches of several sizes and compares them with those of the largest. In float32 a draw changes
only where a uniform falls within rounding of the edge between two tokens; in bfloat16 far more do.

    python tests/bench/batch_sizes.py
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pairs
from tabulate import tabulate

from alignbench.testing import differing
from alignbench.types import Draws


def drawn(law, prompts, draws: int, tokens: int, size: int) -> Draws:
    """The draws in batches of at most `size` rows."""
    sized = replace(law, model=replace(law.model, batch_size=size))
    return pairs.ours(sized, prompts, draws, tokens, 0)


def row(size: int, one: Draws, other: Draws) -> list:
    """One line: draws that differ, the first token at which one does, and how far equal draws' nats are apart."""
    moved = differing(one, other)
    gap = np.abs(one.log_prob - other.log_prob)[~moved].max(initial=0.0)
    first = [int((a != b).argmax()) for a, b in zip(one.tokens[moved], other.tokens[moved], strict=True)]
    return [size, f"{int(moved.sum())} of {len(one)}", min(first, default="none"), f"{gap:.1e}"]


def main() -> None:
    """Print the table and the last line."""
    parser = pairs.options(__doc__, draws=[256], tokens=[32])
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 64, 16], help="compared with the first")
    args = parser.parse_args()
    pairs.set_up(args)
    law, prompts = pairs.load(args), pairs.PROMPTS[: args.prompts]
    first, *others = (drawn(law, prompts, args.draws[0], args.tokens[0], size) for size in args.sizes)
    rows = [row(size, first, other) for size, other in zip(args.sizes[1:], others, strict=True)]
    print(tabulate(rows, ["rows at once", "draws that differ", "first at token", "max |Δ log-prob| of the others"]))
    moved = max(int(differing(first, other).sum()) for other in others)
    print(f"batch_sizes differ={moved} draws={len(first)}")


if __name__ == "__main__":
    main()
