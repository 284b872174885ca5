"""What headings and verdicts mean, one or two plain sentences each: the legend of a page."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from alignbench.reports.table.verdict import WORDS

COLUMNS: Mapping[str, str] = {
    "verdict": "Is the row nearer to the target p than the base is? One word, for all rows at once with 95 %.",
    "divergence.kl_asked": "The asked gap: how far the row is from what the task asks, in nats a draw. 0 is p's.",
    "divergence.kl_collateral": "What the row changed besides what was asked, in nats a draw. 0 is nothing besides.",
    "divergence.kl_target": "KL(p‖π): how much less likely the row finds draws of the target p than p does, in nats a "
    "draw. 0 is p itself; ∞ is a row that cannot say all that p says.",
    "length.tokens": "Tokens of a draw, the mean. Nats add up over tokens, so long draws are further apart.",
    "satisfaction.always": "Share of draws that keep all hard constraints, in percent.",
    "satisfaction.share.*": "Share of draws in a category, among the draws in any listed category.",
    "satisfaction.moment.*": "Mean of a feature over draws.",
    "satisfaction.reward.*": "Mean reward of a draw. p is the goal, not the most: p keeps close to the base.",
    "moment_error*": "Mean distance between what was reached and what was asked.",
    "perplexity": "Perplexity under the judge, by default the base. Nearest to p's is best; the lowest is not.",
    "cost.calls_per_draw": "Model calls for one draw that is kept. Decoding one token is one call.",
    "cost.training_seconds": "Seconds of training, once for all draws. They are in no other number.",
    "cost.tokens_per_second": "Tokens computed in a second of wall time on the machine that the signature names.",
    "cost.proposals_per_draw": "Proposals for one draw that is kept.",
    "cost.*": "What the draws took.",
    "acceptance.rate": "Draws kept per proposal.",
    "divergence.kl_reverse*": "KL(π‖p): how much less likely p finds the row's own draws than the row does. ∞ where a "
    "draw breaks a hard constraint.",
    "divergence.kl_base*": "KL(π‖a): how far the row moved from the base. p itself is some way off, so 0 is no goal.",
    "divergence.tv": "Total variation: the largest difference in the probability of any event, 0 to 1.",
    "divergence.js": "Jensen–Shannon divergence: both directions at once, at most 0.69 nats.",
    "divergence.log_z": "log Z: how much of the base the target keeps. Of the task, not of the row.",
    "divergence.*": "A divergence in nats a draw.",
    "distinct*": "Share of n-grams that are different, in blocks of equally many words. Nearest to p's is best.",
    "self_bleu": "How much draws of one prompt repeat each other, 0 to 100. Nearest to p's is best.",
    "features.*": "Mean of a feature that the task measures and does not ask for. Nearest to p's is best.",
    "rank": "1 + the rows with a better number, with limits that hold for all rows at once with 95 %.",
}
"""Key or pattern of a column → what its numbers are; the first that fits counts."""


def definition(key: str) -> tuple[str, str] | None:
    """The pattern that fits a column's key, and what the column says; None of one that nothing fits."""
    return next(((pattern, text) for pattern, text in COLUMNS.items() if fnmatchcase(key, pattern)), None)


VERDICTS: Mapping[str, str] = {word: meaning for word, meaning in WORDS.items() if word}
"""Verdict → what it says."""
