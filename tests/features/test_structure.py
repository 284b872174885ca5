"""is_json, python_parses, pep8_errors and is_pep8."""

import ast
import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_text import value

from alignbench.errors import UsageError
from alignbench.features import bind

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        (' {"a": [1, 2.5, "é", null]}\n', 1),
        ("3", 1),
        ('"a"', 1),
        ("", 0),
        (" ", 0),
        ("{'a': 1}", 0),
        ('{"a": 1,}', 0),
        ('{"a": 1} done', 0),
        ("NaN", 0), ("[Infinity]", 0), ("-Infinity", 0),  # planted bug: what Python's json takes besides
        ("\u00a01", 0),  # a space, but not one of JSON's
        ('"\\ud800"', 1),
        ("\x00", 0),
        ("[" * 100_000, 0),
        ("[" * 100_000 + "]" * 100_000, 0),  # deeper than Python follows
        (json.dumps(["x" * 100] * 10_000), 1),
    ],
)  # fmt: skip
def test_is_json(text, hit):
    assert value("is_json", text) == hit


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ('{"name": "Ada", "age": 36}', 1),
        ('{"name": "Ada"}', 1),
        ('{"age": 36}', 0),
        ('{"name": "Ada", "age": -1}', 0),
        ('{"name": "Ada", "age": true}', 0),  # planted bug: a boolean is an int in Python
        ('{"name": "Ada", "x": 1}', 0),
        ("[]", 0),
        ('{"name": "Ada"', 0),
    ],
)
def test_is_json_of_a_schema(text, hit):
    assert value("is_json", text, schema=PERSON) == hit


@pytest.mark.parametrize(
    ("text", "hit"),
    [
        ('{"name": "Ada"}\n{"name": 3}', 1),
        ('{"name": "Ada"} and so on', 1),
        ('Well: {"name": "Ada"}', 0),
        ('{"name": 3} {"name": "Ada"}', 0),
        ('{"name": "Ada"', 0),
        ("", 0),
    ],
)
def test_the_first_value_may_be_all_that_counts(text, hit):
    assert value("is_json", text, schema=PERSON, first=True) == hit


def test_a_prompt_may_open_the_object():
    assert value("is_json", ' "Ada"}', prompt='{"name":', schema=PERSON, include_prompt=True) == 1
    assert value("is_json", ' "Ada"}', prompt='{"name":', schema=PERSON) == 0


@settings(max_examples=30)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_what_is_written_as_json_is_json_and_cut_in_an_object_it_is_not(thing):
    assert value("is_json", json.dumps(thing)) == 1
    assert value("is_json", json.dumps({"a": thing})[:-1]) == 0


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "objct"}, "type: 'objct' is not valid under any of the given schemas"),
        ({"properties": {"a": {"minimum": "1"}}}, "properties: a: minimum: '1' is not of type 'number'"),
        ({"pattern": "("}, "pattern: '(' is not a 'regex'"),
        ({"properties": {"a": {"$ref": "#/$defs/b"}}}, "the $ref '/$defs/b' points to nothing inside it"),
        ({"$ref": "https://example.org/x"}, "the $ref 'https://example.org/x' points to nothing inside it"),
        ({"$ref": "#"}, "a $ref in it leads back to itself without end"),
    ],
)
def test_a_broken_schema_is_told_before_anything_is_sampled(schema, why):
    with pytest.raises(UsageError) as error:
        bind({"feature": "is_json", "schema": schema}, "t:1")
    assert str(error.value).startswith(f"t:1: 'is_json' has a schema that is no JSON Schema: {why}")


def test_a_recursive_schema_is_followed_as_deep_as_the_text_goes():
    nested = {"type": "array", "items": {"$ref": "#"}}
    assert value("is_json", "[[[]]]", schema=nested) == 1 and value("is_json", "[[1]]", schema=nested) == 0
    assert value("is_json", "[" * 900 + "]" * 900, schema=nested) == 0  # deeper than the validator follows


@pytest.mark.parametrize(
    ("prompt", "text", "hit"),
    [
        ("def f(x):\n", "    return x\n", 1),
        ("def f(x):\n", "return x\n", 0),
        ("", "", 1),
        ("", "x = \x00", 0),
        ("", "x = '\udc80'", 0),
        ("", "x = '\\d'; y = 1 is 1", 1),  # a warning is no error
        ("", "print 1", 0),
        ("", "é = 'ü'", 1),
        ("", "import os; os._exit(3)", 1),  # planted bug: execution
        ("", "(" * 5000, 0),
        ("", "-" * 100_000 + "1", 0),
        ("", "1" + "+1" * 100_000, 0),
        ("", "lambda:" * 100_000 + "1", 0),
        ("", "x = 1\n" * 20_000, 1),
    ],
)
def test_python_parses(prompt, text, hit):
    assert value("python_parses", text, prompt=prompt) == hit


def test_the_prompt_may_be_left_out_and_warnings_are_as_before():
    assert value("python_parses", "x = 1", prompt="this is", include_prompt=False) == 1
    assert value("python_parses", "x = 1", prompt="this is") == 0
    assert value("python_parses", "'\\d'", prompt="") == 1
    with warnings.catch_warnings(), pytest.raises(SyntaxError):
        warnings.simplefilter("error")
        ast.parse("'\\d'")


@pytest.mark.parametrize(
    ("text", "errors", "clean"),
    [
        ("", 0, 1),
        ("x = 1\n", 0, 1),
        ("x = 1", 0, 1),  # the end of the last line is not the generator's to write
        ("x=1", 1, 0),
        ("x=1\ny=2", 2, 0),  # planted bug: kinds of findings
        ("x = 1 \n", 1, 0),
        ("x = 1\r\n", 0, 1),
        ("x = 1\n\n\n", 1, 0),
        ("é = 1", 0, 1),
        ("\x00", 0, 0),  # nothing found, but no Python
        ("x = = 1", 0, 0),
        ("def f(:", 1, 0),
        ("x" * 80, 1, 0),
        ("'\\d'", 1, 0),
        ("l = 1", 1, 0),
        ("b", 0, 1),  # pycodestyle 2.15 fails here if it looks for imports
        ("x = 1 + \\\n    2", 0, 1),
        ("x = (1\n     + 2)", 0, 1),  # W503 against W504: neither is asked
    ],
)
def test_pep8(text, errors, clean):
    assert value("pep8_errors", text, prompt="") == errors
    assert value("is_pep8", text, prompt="") == clean


def test_pep8_parameters():
    assert value("pep8_errors", "x" * 80, prompt="", max_line_length=80) == 0
    assert value("pep8_errors", "x=1\nl = 2", prompt="", ignore=["E2"]) == 1
    assert value("pep8_errors", "x = (1\n     + 2)", prompt="", ignore=["E2"]) == 0  # the default ones stay left out
    assert value("pep8_errors", "=1", prompt="x") == 1 and value("pep8_errors", "\ny=1", prompt="x=1") == 2
    assert value("is_pep8", "x = 1", prompt="x=", include_prompt=False) == 1


def test_no_settings_of_the_user_or_the_folder_are_read_and_nothing_is_printed(tmp_path, monkeypatch, capsys):
    import pycodestyle

    (tmp_path / "setup.cfg").write_text("[pycodestyle]\nmax-line-length = 200\n")
    (tmp_path / "user").write_text("[pycodestyle]\nignore = E\nmax-line-length = 200\nnonsense = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pycodestyle, "USER_CONFIG", str(tmp_path / "user"))
    assert value("pep8_errors", "x=" + "x" * 100, prompt="") == 2
    assert capsys.readouterr() == ("", "")


@settings(max_examples=30)
@given(st.text(max_size=30) | st.text(alphabet="x=1 ():\n\t'\"#\\{[if", max_size=30))
def test_any_text_has_a_style(text):
    assert value("is_pep8", text, prompt="") == (
        value("python_parses", text, prompt="") and value("pep8_errors", text, prompt="") == 0
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"max_line_length": 0}, "argument 'max_line_length' is 0; it must be 1 or more"),
        (
            {"ignore": ["E5011"]},
            "argument 'ignore': 'E5011' is no code of pycodestyle, nor the beginning of one (E501, W6)",
        ),
        ({"ignore": [""]}, "argument 'ignore': '' is no code of pycodestyle, nor the beginning of one (E501, W6)"),
    ],
)
def test_bad_parameters_of_the_style(params, message):
    for name in ("pep8_errors", "is_pep8"):
        with pytest.raises(UsageError) as error:
            bind({"feature": name, **params}, "t:1")
        assert str(error.value) == f"t:1: '{name}' {message}"
