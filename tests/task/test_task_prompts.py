"""Prompts and references of task files: lists, datasets, records in the file, and the fields that features ask for."""

import json
import logging
from pathlib import Path
from textwrap import dedent, indent

import pytest

from alignbench import sources
from alignbench.errors import SourceError, TaskError
from alignbench.registry import feature
from alignbench.task import load_task

ROWS = [
    {"id": 1, "question": "Why?", "answer": "Because.", "more": ["So.", "Thus."]},
    {"id": 2, "question": "How?", "answer": "Like this.", "more": ["Thus."]},
    {"id": 3, "question": "Why?", "answer": "No reason.", "more": ["Thus."]},
]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))


@pytest.fixture
def answers(monkeypatch):
    """A feature that is told something of each prompt."""
    monkeypatch.setattr(feature, "entries", dict(feature.entries))

    @feature(version=1, range=(0, 1))
    def is_answer(prompts, draws, *, answers: dict[str, str]):
        return [float(text == answers[prompts[c]]) for text, c in zip(draws.texts, draws.prompt, strict=True)]


def task(prompts: str, more: str = ""):
    """The task with these prompts; the file is written for the messages' sake."""
    text = dedent(
        """\
        name: asked
        version: 1
        summary: Short answers.
        max_tokens: 4
        features: {short: {feature: length_tokens}}
        target: [{feature: short, moment: 3.0}]
        prompts:
        """
    )
    Path("t.yaml").write_text(text + indent(prompts, "  ") + "\n" + more, encoding="utf-8")
    return load_task("t.yaml")


def asking():
    """The task just written, with one more feature that asks for the field `answer`."""
    text = Path("t.yaml").read_text(encoding="utf-8")
    asked = text.replace("features: {", "features: {right: {feature: is_answer, answers: {field: answer}}, ")
    Path("t.yaml").write_text(asked, encoding="utf-8")
    return load_task("t.yaml")


def test_prompts_of_a_dataset_without_repeats(caplog):
    caplog.set_level(logging.INFO)
    assert task("{source: data.jsonl, field: question}").prompts == ("Why?", "How?")
    assert "t.yaml:8: prompts: 1 of 3 records repeat a prompt and are left out" in caplog.text


def test_a_template_skip_and_take():
    made = task('{source: data.jsonl, template: "{id}. {question}", skip: 1, take: 1}')
    assert made.prompts == ("2. How?",)


def test_records_with_unwanted_values_are_left_out():
    without = "{source: data.jsonl, field: answer, without: {more: [So.], id: [3]}}"
    assert task(without).prompts == ("Like this.",)


def test_sources_follow_each_other_and_take_counts_in_each():
    assert task("{source: [data.jsonl, ./data.jsonl], field: answer, take: 2}").prompts == ("Because.", "Like this.")


def test_records_in_the_file_and_their_references():
    made = task("{records: [{text: a, ref: b}, {text: c, ref: [d, e]}]}", "references: {field: ref}")
    assert made.prompts == ("a", "c")
    assert made.references == (("b",), ("d", "e"))


def test_one_corpus_of_references_for_all_prompts():
    made = task("{source: data.jsonl, field: question}", "references: {source: data.jsonl, field: answer, take: 2}")
    assert made.references == (("Because.", "Like this."),) * 2


def test_a_corpus_holds_no_reference():
    records = "{records: [{text: a, ref: b}]}"
    made = task(records, "references: {field: ref}\ncorpus: [c, d]")
    assert made.corpus == ("c", "d")
    with pytest.raises(TaskError, match="corpus has the task's own reference ' b': keep what is tested apart"):
        task(records, 'references: {field: ref}\ncorpus: [c, " b"]')


def test_a_repeated_prompt_keeps_the_first_record(answers):
    task("{source: data.jsonl, field: question}")
    assert asking().features["right"].params == {"answers": {"Why?": "Because.", "How?": "Like this."}}


def test_a_field_is_part_of_the_hash(answers):
    def hash_of(answer: str) -> str:
        plain = task(f"{{records: [{{text: a, answer: {answer}}}]}}").hash
        asked = asking().hash
        assert asked != plain
        return asked

    assert hash_of("sure") == hash_of("sure") != hash_of("never")


@pytest.mark.parametrize(
    ("prompts", "more", "message"),
    [
        ("{source: data.jsonl}", "", "t.yaml:7: record 0 has no field 'text'. Known: answer, id, more, question."),
        ("{source: data.jsonl, field: qestion}", "", "t.yaml:8: record 0 has no field 'qestion'. Did you mean"),
        ("{source: data.jsonl, field: id}", "", "t.yaml:8: field 'id' of record 0 is 1, not a text"),
        ("{source: data.jsonl, template: '{qustion}'}", "", "t.yaml:8: record 0 has no field 'qustion'. Did you mean"),
        ("{source: data.jsonl, template: x, field: y}", "", "t.yaml:8: field and template: give one of them"),
        ("{source: data.jsonl, field: question, take: 0}", "", "t.yaml:8: take must be at least 1, not 0"),
        ("{source: data.jsonl, field: question, skip: 9}", "", "t.yaml:8: data.jsonl: has 3 records, none from number"),
        ("{field: question}", "", "t.yaml:7: prompts must have exactly one of source, file, records, and has none"),
        ("{records: [{text: a}], file: x}", "", "t.yaml:7: prompts must have exactly one of source, file,"),
        ("{source: data.jsonl, field: question, without: {mroe: [a]}}", "", "t.yaml:8: record 0 has no field"),
        ("{source: data.jsonl, field: question, without: {more: [Thus.]}}", "", "t.yaml:8: without leaves no record"),
        ("{records: []}", "", "t.yaml:8: records is empty: a task needs at least one prompt"),
        ("[a, b]", "references: {field: c}", "t.yaml:9: there is no field 'c': the prompts are plain texts"),
        ("{records: [{text: a, ref: 1}]}", "references: {field: ref}", "t.yaml:9: field 'ref' is 1, not a text or a"),
        ("[a, b]", "references: [[c], d]", "t.yaml:9: references: item 1 is 'd', not a list of texts"),
        ("[a, b]", "references: x", "t.yaml:9: references must be a list of texts for each prompt or {field: NAME}"),
        ("[a]", "metrics: [{metric: f1, feature: shrt, labels: {a: b}}]", "t.yaml:9: unknown feature 'shrt'. Did you"),
        ("[a]", "metrics: [{metric: f1, feature: short, labels: {a: b}}]", "t.yaml:9: 'short' is a number; labels are"),
        ("[a]", "metrics: [{metric: distinct, draws: {field: n}}]", "t.yaml:9: there is no field 'n': the prompts"),
    ],
)  # fmt: skip
def test_mistakes_name_the_line(prompts, more, message):
    with pytest.raises(TaskError) as error:
        task(prompts, more)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_a_label_that_is_no_category_is_found_before_anything_is_drawn():
    more = "metrics: [{metric: accuracy, feature: mood, labels: {a: postive}}]"
    task("[a]")
    text = (
        Path("t.yaml")
        .read_text(encoding="utf-8")
        .replace("features: {", "features: {mood: {feature: sentiment_label}, ")
    )
    Path("t.yaml").write_text(text + more, encoding="utf-8")
    with pytest.raises(TaskError, match=r"unknown label 'postive'. Did you mean 'positive'\?"):
        load_task("t.yaml")


def test_a_source_that_cannot_be_had_says_what_to_do_offline(monkeypatch):
    def no_network(arguments):
        return type("Done", (), {"returncode": 1, "stderr": "ERROR: No matching distribution found"})

    monkeypatch.setattr(sources, "run_pip", no_network)
    monkeypatch.setenv("ALIGNBENCH_CACHE", "empty")
    with pytest.raises(SourceError) as error:
        task(f"{{source: 'pypi:nothing==1#a.jsonl?sha256={'0' * 64}', field: question}}")
    assert str(error.value).startswith("t.yaml:8: pypi:nothing==1#a.jsonl?sha256=000")
    assert "could not be downloaded (pip: No matching distribution found). Run once where" in str(error.value)


def test_a_damaged_dataset_is_a_failure_of_the_world():
    Path("data.jsonl").write_text("{broken", encoding="utf-8")
    with pytest.raises(SourceError, match=r"^t.yaml:8: data.jsonl: cannot be read: "):
        task("{source: data.jsonl, field: question}")


def test_evaluate_is_short_for_the_metric_of_that_name():
    Path("mine.py").touch()
    made = task("[a]", "metrics: [{evaluate: mine.py}, distinct]")
    assert dict(made.metrics)["evaluate"] == {"path": str(Path("mine.py").resolve())}  # from wherever `score` is called
    assert dict(task("[a]", "metrics: [{evaluate: exact_match}]").metrics)["evaluate"] == {"path": "exact_match"}
