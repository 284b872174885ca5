"""Aligners: recipes that turn a base and a target into a generator. Floor 2; torch may live here.

    prompting/   what the model reads: `prompt`, `few_shot`
    decoding/    how the next token is chosen, whatever the target: `settings`, `search`, `attention_window`
    guidance/    next-token probabilities under a rule: `constrained`
    selection/   draws of a proposal, of which some are kept: `best_of_n`, `filtered`, `rejection`, `quasi_rejection`,
                 `sir`
    chain.py     several, one after another;  null.py  those that say the same whatever they are asked
    base.py      what an aligner is and is given;  bill.py  what its work cost
    identities.py  what it depends on, as plain data

To add one, write a file in the folder whose line says what it does, and import it in that folder's `__init__`:

    @aligner("warmer", target_driven=False, density="exact")
    @dataclass(frozen=True)
    class Warmer(Immediate):
        "The base at a temperature above 1. Never reads the target."

        by: float = 0.5

        def align(self, setting: Setting) -> Law:
            return law_of(setting.base, "warmer").warped(temperature=1 + self.by)

`tests/test_laws.py` then runs it like all others. An aligner may import floors 0 and 1, and never `features` or
`metrics`: the target measures features (`target.log_ratio_of(prompts, draws)`). `align` returns a `Sampler`; give it an
`identity()` of plain data, so that its draws can be found again on disk. An aligner that neither draws nor trains is
`Immediate`; any other has an `identity(setting)` of its own, see docs/plug-ins.md. If it only picks among draws of a
proposal, say how by `selection` (and what by `proposal`, where that is not the base), and its divergences are computed
from their weights.

`law_of` is in `generators.law`. `align` is given a `base.Setting`: base, target, prompts, those to train on
(`setting.train_prompts`), length, seed, and what training needs.
`@aligner` declares `target_driven`, whether the recipe reads the target (so that without constraints it gives the base
back), and `density`: "exact" (the sampler has `log_prob`) or "closed form" (it has a `selection`). One that
puts others to work calls `setting.aligned(recipe)`, or `setting.built(spec, where)`.
"""

from alignbench.aligners import chain as chain
from alignbench.aligners import decoding as decoding
from alignbench.aligners import guidance as guidance
from alignbench.aligners import null as null
from alignbench.aligners import prompting as prompting
from alignbench.aligners import selection as selection
from alignbench.aligners import training as training
