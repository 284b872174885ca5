"""Generators: the things under test, and what they really sample from. Floor 1; torch may live here.

`base.py` has the protocols. `law.py` is a model with decoding settings (`warp.py`), and draws by `sampling.py`, the
loop. `hf.py` loads networks of transformers, `adapters.py` what was trained on top of it, `quantised.py` its weights
in 8 bits, `series.py` lists the checkpoints of a training run; `pretrained.py` is what they share, `transformer.py` a
causal one as a model, `slots.py` its fast way, `graphs.py` that on a GPU, `encoder_decoder.py` an encoder–decoder;
`budget.py` says how many rows fit, `precision.py` which dtype, `replicas.py` shares rows among GPUs. `exact.py` and
`hidden.py` are small worlds. What is known exactly: `automaton.py` and `pattern.py` say which draws are kept,
`masks.py` which tokens lead to
them, `lexical.py` by words over the bytes of tokens (`token_bytes.py`), `grammar.py` by expressions and grammars,
`steered.py` decodes so that they are, `dynamic.py` sums over all draws, `worlds.py` puts them together; `words.py` is
what they share. `classifier.py` is what only reads texts, for features. Estimators and aligners are proven against
these in the tests.

To add a generator, write a file with a factory `@generator def mine(*, batch_size, device, dtype, **model_args)` that
returns anything with the `Sampler` protocol (`alignbench.types`); with `log_prob` too its divergences are measured. A
file of your own is found by `--include_path`, a package by the entry-point group `alignbench`.
"""

from alignbench.generators import exact as exact
from alignbench.generators import hf as hf
