"""follows_instructions: the checks of IFEval and IFBench, none of them left to chance, none without its data."""

import random

import pytest
from one_text import draws_of

pytest.importorskip("if_verifiable", reason="needs the extra ifeval")

from alignbench.errors import RunError, UsageError
from alignbench.features import bind
from alignbench.features.instructions import NLTK_DATA, _checks, _variants

NO_COMMA, TITLE, WORDS = "punctuation:no_comma", "detectable_format:title", "length_constraints:number_words"
AT_LEAST_3 = {"relation": "at least", "num_words": 3, "keyword": None, "language": None}


def spec(prompt="p", names=(NO_COMMA, WORDS), arguments=({}, AT_LEAST_3), **params):
    given = {"instructions": {prompt: list(names)}, "arguments": {prompt: list(arguments)}}
    return {"feature": "follows_instructions", **given, **params}


def follows(text, *args, **params):
    return bind(spec("p", *args, **params))(["p"], draws_of(text))[0]


@pytest.mark.parametrize(
    ("text", "all_of_them", "share"),
    [
        ("one two three", 1, 1),
        ("one, two, three", 0, 1 / 2),
        ("one, two", 0, 0),
        ("two", 0, 1 / 2),
        ("", 0, 0),  # planted bug: no comma in nothing
        (" \n", 0, 0),
        ("word " * 100_000, 1, 1),
        ("ein zwei ünf 😀", 1, 1),
    ],
)
def test_levels(text, all_of_them, share):
    assert follows(text) == all_of_them
    assert follows(text, level="instruction") == share


def test_loose_leaves_out_the_first_and_last_line_and_asterisks():
    polite = "Sure, here it is:\none two three\nBye, now"
    assert follows(polite) == 0 and follows(polite, strict=False) == 1
    assert follows("b\none, two three\nc", strict=False) == 0
    title = ([TITLE], [{}])
    assert follows("*<<A title>>", *title) == 1 and follows("<*<A title>>", *title) == 0
    assert follows("<*<A title>>", *title, strict=False) == 1


@pytest.mark.parametrize("text", ["", "a", "a\nb", "*a*\n b\nc* ", "\n\n", " a "])
def test_the_loose_variants_are_those_of_the_reference(text):
    from if_verifiable.common import get_loose_transformations

    assert set(_variants(text)) == set(get_loose_transformations(text)) and len(_variants(text)) == 8


def test_each_prompt_has_its_own_instructions():
    asked = {"a": [NO_COMMA], "b": [TITLE]}
    bound = bind({"feature": "follows_instructions", "instructions": asked, "arguments": {"a": [{}], "b": [{}]}})
    assert bound(["a", "b"], draws_of("x", "x", "<<x>>, y", "<<x>>, y", prompt=[0, 1, 0, 1])).tolist() == [1, 0, 0, 1]


def test_an_ifbench_instruction():
    assert follows("rain and sun but no wind or snow", ["count:conjunctions"], [{"small_n": 3}]) == 1
    assert follows("rain and sun and wind", ["count:conjunctions"], [{"small_n": 3}]) == 0


def test_the_language_of_a_text_is_the_same_every_time():
    german = (["language:response_language"], [{"language": "de"}])
    texts = ["Das Haus ist old und the tree also", "in", "Genau so", "a b c d e"]
    bound = bind(spec("p", *german))
    once = bound(["p"], draws_of(*texts)).tolist()
    state = random.getstate()
    for _ in range(5):
        assert bound(["p"], draws_of(*reversed(texts))).tolist() == once[::-1]
    assert random.getstate() == state


def test_an_undetectable_language_is_as_in_ifeval_and_nothing_is_logged(caplog):
    assert follows("123", ["language:response_language"], [{"language": "de"}]) == 1
    assert not caplog.records


@pytest.mark.parametrize(
    ("names", "arguments", "message"),
    [
        (
            ["punctuation:no_coma"], [{}],
            "unknown instruction 'punctuation:no_coma'. Did you mean 'punctuation:no_comma'? Known: change_case:",
        ),
        (["no_comma"], [{}], "unknown instruction 'no_comma'. Known: "),
        ([NO_COMMA], [], "1 instructions and 0 sets of arguments"),
        ([], [], "0 instructions and 0 sets of arguments"),
        (
            [WORDS], [{"num_words": 3}],
            "instruction 'length_constraints:number_words' would draw an argument at random, since one of num_words,"
            " relation is missing in {'num_words': 3} or not what it can check: leave the prompt out",
        ),
        (
            ["keywords:letter_frequency"], [{"letter": "#", "let_frequency": 4, "let_relation": "at least"}],
            "instruction 'keywords:letter_frequency' would draw an argument at random",
        ),
        (
            [NO_COMMA], [{"num_words": 3}],
            "instruction 'punctuation:no_comma' failed: TypeError: CommaChecker.build_description() got an unexpected",
        ),
        (
            [WORDS], [{"num_words": 3, "relation": "about"}],
            "instruction 'length_constraints:number_words' failed: ValueError: ",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_checked_is_told_before_anything_is_sampled(names, arguments, message):
    state = random.getstate()
    with pytest.raises(UsageError) as error:
        bind(spec("p", names, arguments), "t:1")
    assert str(error.value).startswith(f"t:1: 'follows_instructions' in the prompt 'p': {message}")
    assert random.getstate() == state and "\n" not in str(error.value)


def test_a_prompt_that_is_missing_is_told():
    with pytest.raises(UsageError, match=r"^feature 'follows_instructions' has no instructions for the prompt 'o'$"):
        bind(spec())(["o"], draws_of("x"))
    with pytest.raises(UsageError, match=r"^t:1: 'follows_instructions' has no arguments for the prompt 'p'$"):
        bind({**spec(), "arguments": {"x" * 99: [{}]}}, "t:1")
    with pytest.raises(UsageError, match=r"^t:1: 'follows_instructions' has no prompts in 'instructions'$"):
        bind({**spec(), "instructions": {}}, "t:1")


def test_a_check_that_fails_on_a_text_is_told_and_is_no_0():
    with pytest.raises(
        RunError, match=r"^instruction 'format:quote_unquote', for the text '123', failed: IndexError: "
    ):
        follows("123", ["format:quote_unquote"], [{}])


ARGUMENTS = {
    "change_case:capital_word_frequency": {"capital_frequency": 1, "capital_relation": "at least"},
    "length_constraints:number_sentences": {"num_sentences": 2, "relation": "at least"},
    "ratio:stop_words": {"percentage": 50},
    "words:keywords_specific_position": {"keyword": "a", "n": 1, "m": 1},
    "words:words_position": {"keyword": "a"},
}


@pytest.fixture
def nltk_data(monkeypatch, tmp_path):
    """A folder that is the only place where NLTK looks for data; also for what it has already loaded."""
    import nltk
    from if_verifiable.ifeval import instructions_util

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    for loaded in (instructions_util._get_sentence_tokenizer, nltk.tokenize._get_punkt_tokenizer):
        loaded.cache_clear()
    yield tmp_path
    for loaded in (instructions_util._get_sentence_tokenizer, nltk.tokenize._get_punkt_tokenizer):
        loaded.cache_clear()


@pytest.mark.parametrize("name", sorted(NLTK_DATA))
def test_data_that_is_not_here_is_told_before_anything_is_sampled(name, nltk_data):
    with pytest.raises(UsageError) as error:
        bind(spec("p", [name], [ARGUMENTS.get(name, {})]), "t:1")
    data = NLTK_DATA[name][0].split("/")[1]
    assert str(error.value) == (
        f"t:1: 'follows_instructions' in the prompt 'p': instruction '{name}' is checked with NLTK's data '{data}', "
        f"which is not here: run `python -m nltk.downloader {data}`, or leave the prompt out"
    )


def test_every_check_that_reads_data_of_nltk_is_known(nltk_data):
    """Of each instruction, its check with drawn arguments on a text long enough to reach every branch."""
    text, reading = "A cat sat. It said no! Did it? " * 20, set()
    for name, check in _checks().items():
        built = check(name)
        if {"prompt_to_repeat", "reference_text"} & set(built.get_instruction_args_keys()):
            continue  # they compare words, as their source says
        built.build_description(**ARGUMENTS.get(name, {}))
        try:
            built.check_following(text)
        except LookupError as error:
            assert "Resource" in str(error)
            reading.add(name)
    assert reading == set(NLTK_DATA)


def test_with_the_data_the_check_is_made(nltk_data):
    folder = nltk_data / "tokenizers" / "punkt_tab" / "english"
    folder.mkdir(parents=True)
    for name in ("abbrev_types.txt", "collocations.tab", "ortho_context.tab", "sent_starters.txt"):
        (folder / name).write_text("")
    two = (["length_constraints:number_sentences"], [{"num_sentences": 2, "relation": "at least"}])
    assert follows("One is here. Two is there.", *two) == 1 and follows("One is here", *two) == 0


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    import sys

    _checks.cache_clear()
    for module in [name for name in sys.modules if name.startswith("if_verifiable")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "if_verifiable", None)
    with pytest.raises(UsageError, match=r"needs if-verifiable: pip install 'alignbench\[ifeval\]'$"):
        bind(spec(), "t:1")


def test_values_do_not_depend_on_the_batch():
    texts = ["one two three", "a, b", "x", "", "one two three four"]
    bound = bind(spec(level="instruction"))
    assert bound(["p"], draws_of(*texts)).tolist() == [bound(["p"], draws_of(text))[0] for text in texts]
