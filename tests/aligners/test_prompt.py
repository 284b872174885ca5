"""Zero-shot prompting: the base after another text, scored on continuations of the original prompt."""

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS

from alignbench.aligners.prompt import Prompt
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.exact import enumerate_draws, exact
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of

BASE = exact(words="sun rain wind", order=3, seed=3)


def align(text, base=BASE):
    return Prompt(text).align(base, None, PROMPTS, max_tokens=LENGTH, seed=Seed())


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("wind", ("wind sun", "wind rain wind")), ("wind ", ("wind sun", "wind rain wind")),
        ("wind {prompt} rain", ("wind sun rain", "wind rain wind rain")), ("{prompt}", PROMPTS),
    ],
)  # fmt: skip
def test_the_law_is_the_bases_on_the_longer_text(text, seen):
    law = align(text)
    mine, plain = (enumerate_draws(x, p, max_tokens=LENGTH) for x, p in ((law, PROMPTS), (BASE, seen)))
    assert np.array_equal(mine.tokens, plain.tokens) and np.allclose(mine.log_prob, plain.log_prob, atol=1e-12)
    drawn = collect(law.sample(PROMPTS, rows_of(2, 30), max_tokens=LENGTH, seed=Seed(1)))
    assert np.allclose(law.log_prob(PROMPTS, drawn), drawn.log_prob, atol=1e-12)
    if text == "wind {prompt} rain":  # planted: the template forgotten when scoring
        assert not np.allclose(BASE.log_prob(PROMPTS, drawn), drawn.log_prob, atol=0.01)


def test_prompts_compose_and_braces_in_a_prompt_are_text():
    law = align("rain", align("wind {prompt}"))
    assert law.render("sun") == "wind rain sun"
    assert align("wind").render("{prompt}") == "wind {prompt}"


@pytest.mark.parametrize("text", ["", "  ", None, 3])
def test_a_text_is_needed(text):
    with pytest.raises(UsageError, match=r"^prompt: needs text=…"):
        Prompt(text)


def test_a_word_that_the_model_does_not_know_is_found_before_sampling():
    with pytest.raises(UsageError, match=r"the world has no word 'winds'\. Did you mean 'wind'\?"):
        align("winds").check(PROMPTS, LENGTH)


def test_a_black_box_cannot_be_prompted():
    with pytest.raises(Unsupported, match=r"^aligner 'prompt' changes decoding settings"):
        align("x", "a black box")
