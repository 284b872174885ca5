"""Aligners: recipes that turn a base and a target into a generator. Floor 2; torch may live here.

An aligner is one file with a frozen dataclass of hyper-parameters, registered by `@aligner("name")`, whose
`align(base, target, prompts, *, max_tokens, seed, workdir)` returns a `Sampler`. It may import floors 0 and 1, and
never `features` or `metrics`: the target measures features (`target.log_ratio_of(prompts, draws)`). Give the sampler
an `identity()` of plain data, so that its draws can be found again on disk. If it only picks among draws of a proposal,
say how by `selection` (and what by `proposal`, where that is not the base), and its divergences are computed from their
weights.

`@aligner` declares `target_driven`, whether the recipe reads the target (so that without constraints it gives the base
back), `density`: "exact" (the sampler has `log_prob`), "closed form" (it has a `selection`) or "bounds", and `trains`,
whether it is to have the task's `train` prompts as its `prompts`. One that puts others to work has `within`: see
`Nesting`.
"""

from alignbench.aligners import chain as chain
from alignbench.aligners import decoding as decoding
from alignbench.aligners import guidance as guidance
from alignbench.aligners import null as null
from alignbench.aligners import prompting as prompting
from alignbench.aligners import selection as selection
