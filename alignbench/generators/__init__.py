"""Generators: the things under test, and what they really sample from. Floor 1; torch may live here.

`base` has the protocols. `law` is a model with decoding settings (`warp`); it samples by the loop in `sampling` and
scores the same draws. `history` is what a repetition penalty remembers, `point_mass` a law of one continuation,
`window` what a token may attend to, `budget` how many rows fit in memory, `memory` the most that was used, `replicas`
copies on several GPUs, `token_bytes` what each token spells. `reweighted` is a law guided by a rule, `policy` one that
is trained, of a network's weights or of a `head` over its hidden states: `gradient` says when passes keep what that
needs, `checkpoint` keeps where training stands.

    hf/      networks of transformers
    masked/  laws that forbid tokens: words, regular expressions, grammars
    exact/   worlds so small that every continuation can be listed

To add a generator, write a file with a factory `@generator def mine(*, batch_size, device, dtype, **model_args)` that
returns anything with the `Sampler` protocol (`alignbench.types`); with `log_prob` too its divergences are measured.
Where weights take long to load, `@generator(outline=f)` names a function of the same arguments that makes the law
without them, or None: by it a run checks prompts and tokenizers before it draws. A file of your own is found by
`--include_path`, a package by the entry-point group `alignbench`. May import: floor 0 and `sources`.
"""

from alignbench.generators import head as head
from alignbench.generators.exact import world as world
from alignbench.generators.hf import factory as factory
