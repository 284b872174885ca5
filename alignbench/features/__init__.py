"""Features: what is measured of one draw, as a number or a category.

Lives here: functions (prompts, draws) → (B,) array, registered with `@feature`, and their binding to parameters.

    words groups pattern names      what is said: words, groups of them, regular expressions, names
    shape repetition readability    how: lengths, repetitions, how hard it is to read
    structure instructions          rules that are kept: JSON and Python, IFEval's checks
    sentiment language models       what a lexicon, byte n-grams or a network says of it
    binding checkpoints             a feature with its parameters; where networks lie, and what identifies them
    spans                           where in a text a feature finds what it looks for

May import: floors 0 and 1 (never metrics or aligners, never torch; a feature that needs a model asks
`generators/hf/classifier.py` for it at its first value, as `models.py` does, so that tasks are read without torch).

To add one, write a function in a file of this folder and import the file below:

    @feature(version=1, range=(0, 1))
    def shouts(prompts: Sequence[str], draws: Draws, *, marks: int = 1) -> Array:
        "1 where the continuation has at least `marks` exclamation marks."
        return np.array([float(text.count("!") >= marks) for text in draws.texts])

Declarations: `version` (raise it whenever a value can change: it is part of every task's hash), `range` (lowest and
highest value, infinity allowed: rejection needs it), `categories` (a tuple, or a function of the parameters; the
function then returns codes, −1 = none of them), `check` (called with the parameters before anything is sampled;
raises UsageError), `identity` (a function of the parameters: what of them the values depend on, for the task's hash;
default: all. A device does not belong there; the fingerprint of a folder of weights does, its path does not), `spans`
(called with a prompt, a continuation and the parameters: where in the continuation the feature finds what it looks for,
as (begin, end) of characters; a page of example draws marks them).
Parameters are keyword-only; their type hints are checked.
"""

from alignbench.features import (
    groups,
    instructions,
    language,
    models,
    names,
    pattern,
    readability,
    repetition,
    sentiment,
    shape,
    structure,
    words,
)
from alignbench.features.binding import BoundFeature, bind

__all__ = [
    "BoundFeature",
    "bind",
    "groups",
    "instructions",
    "language",
    "models",
    "names",
    "pattern",
    "readability",
    "repetition",
    "sentiment",
    "shape",
    "structure",
    "words",
]
