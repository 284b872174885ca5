"""Self-BLEU, each text against all others: alignbench against sacrebleu and nltk, from 100 to 10,000 texts.

By hand, on one core, about five minutes:

    python tests/bench/self_bleu.py

Texts are random words of Zipf's law (exponent 1.3, as natural text has it nearly), 40 a text. alignbench scores all
texts, splitting them included. The peers take as long for a text as there are others, so that they are timed on a
random sample of texts, each against all others, and what the table has is the time per text × the number of texts.
A peer is not run where the sample alone would take longer than --limit seconds. The ratio at --at texts is the median
of pairs that alternate within one run; the growth exponent is the slope of log seconds against log texts.
"""

import argparse
import sys
from statistics import median

import numpy as np
from pairs import Ratio, clock, last_line
from sacrebleu.metrics.bleu import BLEU

from alignbench.metrics.ngrams import ngrams
from alignbench.metrics.self_bleu import leave_one_out

WORDS, VOCABULARY, ZIPF = 40, 20_000, 1.3
TARGET, STEEPEST, MOST_SECONDS = 500, 1.15, 5.0
PEER = BLEU(tokenize="none", smooth_method="exp", effective_order=True, force=True)


def corpus(count, seed):
    """`count` texts of `WORDS` words."""
    ranks = np.random.default_rng(seed).zipf(ZIPF, (count, WORDS)) % VOCABULARY
    return [" ".join(f"w{rank}" for rank in row) for row in ranks]


def ours(texts):
    """(N,) scores of all texts."""
    return leave_one_out(ngrams([text.split() for text in texts]))


def sacrebleu(texts, i):
    """The score of one text against all others."""
    return PEER.sentence_score(texts[i], texts[:i] + texts[i + 1 :]).score


def nltk_or_none():
    """The same by nltk, a function of texts and the number of one; None without nltk."""
    try:
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
    except ImportError:
        print("nltk is not installed and left out: pip install nltk", file=sys.stderr)
        return None
    smooth = SmoothingFunction().method3
    return lambda texts, i: sentence_bleu(
        [text.split() for text in texts[:i] + texts[i + 1 :]], texts[i].split(), smoothing_function=smooth
    )


def peer_seconds(score, texts, sample, limit):
    """Seconds per text × number of texts, by a sample of texts; None where the sample would take too long."""
    one, _ = clock(lambda: score(texts, 0))
    if one * len(sample) > limit:
        return None
    took, _ = clock(lambda: [score(texts, i) for i in sample])
    return took / len(sample) * len(texts)


def picked(texts, args):
    """The numbers of the texts that peers are timed on."""
    return np.random.default_rng(args.seed).permutation(len(texts))[: args.sample].tolist()


def shown(value):
    return "not run" if value is None else f"{value:.4g}"


def table(args, peers):
    """Prints a line per size; (size, seconds) of ours."""
    print(f"{'texts':>7}  {'alignbench s':>12}", *(f"{f'{name} s *':>14}" for name in peers))
    found = []
    for size in args.sizes:
        texts = corpus(size, args.seed)
        mine = median(clock(lambda texts=texts: ours(texts))[0] for _ in range(args.pairs))
        theirs = [peer_seconds(score, texts, picked(texts, args), args.limit) for score in peers.values()]
        print(f"{size:>7,}  {mine:>12.4g}", *(f"{shown(x):>14}" for x in theirs), flush=True)
        found.append((size, mine))
    print(
        f"* per text, by {args.sample} texts each against all others, × texts; not run: over {args.limit:g} s for these"
    )
    return found


def in_pairs(args):
    """The ratio of medians at `args.at` texts, theirs over ours, from pairs that alternate, each of its own texts."""
    mine, theirs, off = [], [], 0.0
    for number in range(args.pairs):
        texts = corpus(args.at, args.seed + 1 + number)
        sample = picked(texts, args)
        took, scores = clock(lambda texts=texts: ours(texts))
        spent, other = clock(lambda texts=texts, sample=sample: [sacrebleu(texts, i) for i in sample])
        mine.append(took)
        theirs.append(spent / len(sample) * len(texts))
        off = max(off, float(np.abs(scores[sample] - other).max()))
        print(f"pair {number + 1}: alignbench {took:.4g} s, sacrebleu {theirs[-1]:.4g} s *", flush=True)
    print(f"largest difference from sacrebleu's score (0 to 100): {off:.2g}")
    return Ratio.of(theirs, mine)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[100, 300, 1_000, 2_000, 5_000, 10_000], help="numbers of texts")
    add("--at", type=int, default=2_000, help="number of texts of the alternating pairs")
    add("--pairs", type=int, default=5, help="alternating pairs, and repeats of ours at each size")
    add("--sample", type=int, default=20, help="texts that a peer is timed on")
    add("--limit", type=float, default=60.0, help="seconds that a peer's sample may take")
    add("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    args = arguments()
    nltk = nltk_or_none()
    ours(corpus(100, args.seed))  # the first call pays for imports
    found = np.array(table(args, {"sacrebleu": sacrebleu, **({"nltk": nltk} if nltk else {})}))
    slope = np.polyfit(*np.log(found.T), 1)[0]
    print(f"growth exponent {slope:.3f} (target at most {STEEPEST}), {found[0, 0]:,.0f} to {found[-1, 0]:,.0f} texts")
    print(f"{found[-1, 0]:,.0f} texts: {found[-1, 1]:.3g} s (target for 10,000: less than {MOST_SECONDS:g} s)")
    ratio = in_pairs(args)
    print(f"ratio of medians {ratio.value:.0f}, least to greatest of a pair {ratio.low:.0f} to {ratio.high:.0f}")
    last_line("self_bleu", ratio.value, TARGET)


if __name__ == "__main__":
    main()
