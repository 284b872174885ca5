"""Tokens per second of guided decoding over the base's own: an empty rule, and `constrained` to words.

    python tests/bench/guided.py

All draw from the same law's network, with their log-probabilities, in alternating turns. An empty rule changes nothing,
so that it shows what `reweighted` itself costs: one more normalisation a step, and the rule's memory. A token counts up
to and including EOS.
"""

from functools import partial

import pairs
import torch

from alignbench.generators.reweighted import reweighted

TARGET = 0.9


class Empty:
    """The rule that changes nothing, with all that a rule may have for speed."""

    name, truncates = "empty", False

    def identity(self):
        return {"kind": "empty"}

    def start(self, prompts, max_tokens):
        return torch.zeros(len(prompts), 0)

    def extend(self, memory, tokens):
        return memory

    def select(self, memory, rows):
        return memory

    def fill(self, memory, rows, prompts, max_tokens):
        return memory

    def weigh(self, log_probs, memory):
        return log_probs


def worded(base, prompts, tokens: int, words: list[str]):
    """`constrained` to one of these words, found while they still fit."""
    from alignbench.aligners.base import Setting
    from alignbench.aligners.guidance.constrained import Constrained
    from alignbench.seeds import Seed
    from alignbench.target import Target

    aligner = Constrained(any_of=tuple(words), lookahead=True)
    return aligner.align(Setting(base, Target(()), prompts, tokens, Seed(0, "train")))


def rate(law, prompts, draws: int, tokens: int, turn: int) -> float:
    """Tokens per second."""
    seconds, drawn = pairs.clock(lambda: pairs.ours(law, prompts, draws, tokens, turn))
    return drawn.length.sum() / seconds


def main() -> None:
    """Print the table and the last line."""
    parser = pairs.options(__doc__, draws=[64], tokens=[48])
    parser.add_argument("--words", nargs="+", default=["sea", "storm"], help="one of which is kept")
    args = parser.parse_args()
    pairs.set_up(args)
    base, prompts = pairs.load(args), pairs.PROMPTS[: args.prompts]
    rows, ratios = [], []
    for draws in args.draws:
        for tokens in args.tokens:
            laws = {
                "base": base,
                "empty": reweighted(base, Empty()),
                "words": worded(base, prompts, tokens, args.words),
            }
            ways = {name: partial(rate, law, prompts, draws, tokens) for name, law in laws.items()}
            found = pairs.in_turn(ways, args.pairs)
            for name in ("empty", "words"):
                ratio = pairs.Ratio.of(found[name], found["base"])
                rates = [f"{pairs.median(found[one]):.0f}" for one in (name, "base")]
                rows.append([f"{len(prompts) * draws} × {tokens}", name, *rates, *ratio.cells()])
                ratios += [ratio.value] if name == "empty" else []
    pairs.show(("draws × tokens", "rule", "tokens/s", "base", "ratio", "range"), rows)
    pairs.last_line("guided", ratios[0], TARGET)


if __name__ == "__main__":
    main()
