"""Sentiment (VADER) and language (py3langid): corner cases, and that neither depends on the rest of a batch."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_text import draws_of, value

from alignbench.errors import UsageError
from alignbench.features import bind

GERMAN, ENGLISH, FRENCH = "Das ist ein schönes Haus.", "This is a beautiful house.", "C'est une très belle maison."


# compound scores of the README of vaderSentiment
@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("VADER is smart, handsome, and funny.", 0.8316),
        ("VADER is VERY SMART, handsome, and FUNNY!!!", 0.9342),
        ("VADER is not smart, handsome, nor funny.", -0.7424),
        ("The book was only kind of good.", 0.3832),
        ("", 0),
        (" \n", 0),
        ("das Haus", 0),
        ("\x00", 0),
    ],
)
def test_sentiment_is_vaders_compound_score(text, score):
    assert value("sentiment", text) == score


def test_labels():
    label = bind({"feature": "sentiment_label"})
    assert label.categories == ("negative", "neutral", "positive")
    assert label(["p"], draws_of("awful", "a house", "lovely", "")).tolist() == [0, 1, 2, 1]
    for name, truth in (("negative", [1, 0, 0]), ("neutral", [0, 1, 0]), ("positive", [0, 0, 1])):
        bound = bind({"feature": "sentiment_is", "label": name})
        assert bound(["p"], draws_of("awful", "a house", "lovely")).tolist() == truth


def test_the_thresholds_themselves_are_positive_and_negative():
    text = "The book was only kind of good."
    assert value("sentiment_label", text, positive=0.3832) == 2
    assert value("sentiment_label", text, positive=0.3833) == 1
    assert value("sentiment_label", text, positive=0.5, negative=0.3832) == 0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"feature": "sentiment_label", "positive": -0.1, "negative": 0.1},
            "t:1: 'sentiment_label' needs −1 ≤ negative < positive ≤ 1, and has negative 0.1, positive -0.1",
        ),
        (
            {"feature": "sentiment_is", "label": "happy"},
            "t:1: 'sentiment_is' argument 'label': input should be 'negative', 'neutral' or 'positive', not 'happy'",
        ),
        (
            {"feature": "language", "languages": ["en", "de", "EN"]},
            "t:1: 'language' has the language 'EN', which py3langid does not know. Did you mean 'en'? Known: ",
        ),
        (
            {"feature": "is_language", "language": "frr"},
            "t:1: 'is_language' has the language 'frr', which py3langid does not know. Did you mean 'fr'? Known: ",
        ),
        ({"feature": "language", "languages": ["en"]}, "t:1: 'language' needs at least two languages to tell apart"),
        ({"feature": "language", "languages": ["en", "en"]}, "t:1: 'language' has a language twice"),
        (
            {"feature": "is_language", "language": "fr", "languages": ["en", "de"]},
            "t:1: 'is_language' asks for 'fr', which is not among its languages: en, de",
        ),
    ],
)
def test_bad_parameters(spec, message):
    with pytest.raises(UsageError) as error:
        bind(spec, "t:1")
    assert str(error.value).startswith(message)


def test_language():
    bound = bind({"feature": "language", "languages": ["de", "en"]})
    assert bound.categories == ("de", "en")
    texts = (GERMAN, ENGLISH, "", " \n", "123 456!", "😀", GERMAN * 2000)
    assert bound(["p"], draws_of(*texts)).tolist() == [0, 1, -1, -1, -1, -1, 0]
    assert value("language", FRENCH, languages=["de", "en"]) in (0, 1)  # only these are candidates
    assert value("language", FRENCH, languages=["de", "en", "fr"]) == 2


def test_is_language():
    texts = draws_of(GERMAN, ENGLISH, FRENCH, "", "12")
    assert bind({"feature": "is_language", "language": "en"})(["p"], texts).tolist() == [0, 1, 0, 0, 0]
    one = bind({"feature": "is_language", "language": "fr", "languages": ["fr", "en"]})
    assert one(["p"], texts)[1:].tolist() == [0, 1, 0, 0]
    assert value("is_language", "Это красивый дом", language="ru") == 1


def test_candidates_of_one_feature_are_not_those_of_another_nor_of_the_package():
    import py3langid

    assert value("language", GERMAN, languages=["en", "fr"]) in (0, 1)  # planted bug: set_languages on a shared one
    assert value("language", GERMAN, languages=["en", "de"]) == 1
    assert py3langid.classify(GERMAN)[0] == "de"
    assert value("is_language", GERMAN, language="de") == 1


@settings(max_examples=10)
@given(st.lists(st.text(max_size=40), min_size=2, max_size=4))
def test_a_value_does_not_depend_on_the_batch(texts):
    for spec in ({"feature": "sentiment"}, {"feature": "language", "languages": ["en", "de", "ja"]}):
        bound = bind(spec)
        assert bound(["p"], draws_of(*texts)).tolist() == [bound(["p"], draws_of(t))[0] for t in texts]
