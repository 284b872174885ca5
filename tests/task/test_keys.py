"""The JSON schema of task files: what editors accept is what the reader accepts, as far as it can be said."""

import json

import pytest
from jsonschema import Draft202012Validator

from alignbench import yamlfile
from alignbench.errors import AlignbenchError
from alignbench.registry import metric
from alignbench.task import all_tasks, load_task
from alignbench.task.reader import schema

VALID = Draft202012Validator(schema())
GOOD = """\
name: größe.1
version: 1
summary: Short.
prompts: [a, b]
max_tokens: 4
features:
  short: {feature: length_tokens}
  clean: {feature: contains_any, words: [x]}
  who: {feature: pronoun_gender}
target: [{feature: clean, always: true}]
"""


@pytest.fixture(autouse=True)
def no_metrics(monkeypatch):
    """Names are not looked up, whatever other tests have loaded: a schema cannot know them."""
    monkeypatch.setattr(metric, "entries", {})


def problems(path):
    """What an editor would underline."""
    return [error.message for error in VALID.iter_errors(yamlfile.read(path).data)]


def written(tmp_path, old, new):
    assert GOOD.count(old) == 1, old
    path = tmp_path / "t.yaml"
    path.write_text(GOOD.replace(old, new), encoding="utf-8")
    (tmp_path / "p.txt").write_text("one\n", encoding="utf-8")
    return path


def test_it_is_a_schema_of_its_draft_and_plain_data():
    Draft202012Validator.check_schema(schema())
    assert schema()["$schema"].endswith("2020-12/schema") and json.loads(json.dumps(schema())) == schema()


@pytest.mark.parametrize("path", all_tasks().values(), ids=lambda path: path.stem)
def test_every_built_in_task_is_valid(path):
    assert problems(path) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 1"), ("[a, b]", "{file: p.txt}"), ("[a, b]", "{file: p.txt, field: text, skip: 0}"),
        ("[a, b]", "{records: [{q: hi, id: 1}], field: q, take: 1, without: {id: [2]}, source: null}"),
        ("[a, b]", "[a, b]\ntrain: [c]\nprimary: null\nmetrics: null\nbase: null"),
        ("[a, b]", "[a, b]\nreferences: [[x], [y, z]]"), ("[a, b]", "[a, b]\nreferences: {file: p.txt}"),
        ("[a, b]", "{records: [{q: hi, a: x}], field: q}\nreferences: {field: a}"),
        ("max_tokens: 4", "max_tokens: 4\nmetrics: [perplexity, {metric: distinct, draws: 8}, {evaluate: ./mine}]"),
        ("max_tokens: 4", "max_tokens: 4\nbase: 'exact:order=2'\nproposals: [top_k, {name: temperature, t: 2}]"),
        ("max_tokens: 4", "max_tokens: 4\nbase: {name: exact, order: 2}\nci_over: prompts_like_these"),
        ("clean, always: true", "clean, always: true, moment: null, per: null"),
        ("clean, always: true", "short, moment: 3, per: prompt"),
        ("clean, always: true", "short, reward: true, beta: 1e-3"),
        ("clean, always: true", "who, distribution: {she: 0.5, he: 0.5}"),
    ],
)  # fmt: skip
def test_what_the_reader_accepts_is_valid(tmp_path, old, new):
    path = written(tmp_path, old, new)
    assert load_task(path) and problems(path) == []


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "verison: 1"), ("version: 1", "version: 1\ntrian: [c]"), ("version: 1\n", ""),
        ("max_tokens: 4", "max_tokens: 0"), ("max_tokens: 4", "max_tokens: 4\ndraws: many"),
        ("max_tokens: 4", "max_tokens: 4\nci_over: prompts"), ("größe.1", "'a b'"), ("  short:", "  a b:"),
        ("[a, b]", "[]"), ("[a, b]", "[a, a]"), ("[a, b]", "[a, 1]"), ("[a, b]", "hello"), ("[a, b]", "{fiel: x}"),
        ("[a, b]", "{field: x}"), ("[a, b]", "{file: p.txt, records: []}"), ("[a, b]", "{file: p.txt, take: 0}"),
        ("[a, b]", "[a, b]\nreferences: [a, b]"), ("[a, b]", "[a, b]\nmetrics: []"),
        ("[a, b]", "[a, b]\nmetrics: [{name: x}]"), ("[a, b]", "[a, b]\nbase: [exact]"),
        ("[a, b]", "[a, b]\nproposals: [3]"), ("[a, b]", "[a, b]\nproposals: [{name: hf, trust_remote_code: true}]"),
        ("{feature: length_tokens}", "{}"), ("{feature: length_tokens}", "length_tokens"),
        ("clean, always: true", "clean, allways: true"), ("clean, always: true", "clean, always: false"),
        ("clean, always: true", "clean"), ("clean, always: true", "clean, always: true, moment: 0.5"),
        ("clean, always: true", "clean, always: true, beta: 2"), ("clean, always: true", "short, reward: true"),
        ("clean, always: true", "clean, always: true, per: prompt"),
        ("clean, always: true", "short, reward: true, beta: 0"), ("clean, always: true", "who, distribution: {she: 1}"),
    ],
)  # fmt: skip
def test_what_is_not_valid_the_reader_refuses_too(tmp_path, old, new):
    path = written(tmp_path, old, new)
    assert problems(path)
    with pytest.raises(AlignbenchError):
        load_task(path)


def test_every_key_is_documented():
    def undocumented(node, key=""):
        for name, value in node.get("properties", {}).items():
            if "additionalProperties" in node and "description" not in value:
                yield f"{key}.{name}"
        for value in node.values():
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, dict):
                    yield from undocumented(item, key)

    assert not list(undocumented(schema()))
