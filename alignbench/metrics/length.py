"""Length: how long draws are, and how many of them were cut."""

from __future__ import annotations

from math import inf

import numpy as np

from alignbench.registry import metric
from alignbench.stats.intervals import mean_over_prompts, share, spread_or_none
from alignbench.types import Estimate, Evidence


@metric(needs={"own"}, better="", range={"tokens": (0, inf), "cut": (0, 1)}, parts=("tokens", "cut"), detail=True)
def length(evidence: Evidence) -> dict[str, Estimate]:
    """Tokens of a draw, EOS counted (tokens, mean over prompts), and the share of draws cut at max_tokens (cut).

    Where draws are cut, `tokens` is that of the cut law, not of what the generator would have gone on to say.
    """
    draws = evidence.own.draws
    if draws.tokens is None:
        return dict.fromkeys(("tokens", "cut"), Estimate.missing("the generator's tokens are not known"))
    cut = share(draws.prompt, ~np.asarray(draws.finished, bool), draws.group)
    tokens = spread_or_none(mean_over_prompts(draws.prompt, np.asarray(draws.length, float), draws.group))
    stopped = f"{cut.value:.3g} of draws are cut at {evidence.max_tokens} tokens" if cut.value else ""
    return {"tokens": tokens.noted(stopped), "cut": cut}
