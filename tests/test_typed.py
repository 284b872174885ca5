"""Where plug-ins attach, types mean something: no `Any` for a generator, none looked into, none asked for its class."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

import pytest
from test_floors import ROOT, modules, planted

MAKERS = {
    "align", "aligned", "aligner", "aligners", "built", "given", "made", "make", "outline_of", "outlined", "recipe",
    "recipes", "warped",
}  # fmt: skip
"""Names that hold an aligner or whatever a user gives, and of functions that make a generator."""
GENERATORS = {
    "base", "generator", "generators", "judge", "judges", "law", "laws", "model", "models", "outline", "proposal",
    "proposals", "sampler", "scorer", "state", "steered",
}  # fmt: skip
"""Names that hold a generator, or what it is made of."""
UNTYPED = {
    "alignbench.generators.hf.factory._template.given": "a chat template of transformers: a text, several, or none",
    "alignbench.spec._from_mapping.given": "what YAML says, before it is checked",
    "alignbench.reports.table.labels._parsed.given": "an argument in a label: whatever it is, parsing tells",
    "alignbench.task.keys.TaskFile.base": "what YAML says, before it is checked",
    "alignbench.task.keys.TaskFile.proposals": "what YAML says, before it is checked",
}
"""Where such a name is `Any` after all, and why."""
ADAPTER = "alignbench.generators.described"
"""The one module that reads attributes which a generator may lack."""


def is_loose(annotation: ast.expr | None) -> bool:
    """Whether `Any` stands in an annotation otherwise than as a mapping's values."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return is_loose(ast.parse(annotation.value, mode="eval").body)
    if isinstance(annotation, ast.Name | ast.Attribute):
        return called(annotation) == "Any"
    if isinstance(annotation, ast.Subscript) and called(annotation.value) in ("Mapping", "dict"):
        return False
    parts = [] if annotation is None else ast.iter_child_nodes(annotation)
    return any(is_loose(part) for part in parts if isinstance(part, ast.expr))


def called(node: ast.expr) -> str:
    """`law`, `self.law` and `case.law` → `law`; "" for what has no name."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def annotated(node: ast.AST, where: str) -> Iterator[tuple[str, str, ast.expr | None]]:
    """(place, name, annotation) of each parameter, field, variable and return below a node."""
    for child in ast.iter_child_nodes(node):
        inside = where
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inside = f"{where}.{child.name}"
        if isinstance(child, ast.FunctionDef):
            yield where, child.name, child.returns
            for given in (*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs):
                yield inside, given.arg, given.annotation
        if isinstance(child, ast.AnnAssign):
            yield where, called(child.target), child.annotation
        yield from annotated(child, inside)


def untyped(trees: Mapping[str, ast.Module]) -> list[str]:
    """`module.function.name` of every name of a generator or of what makes it whose type is not said."""
    names, found = GENERATORS | MAKERS, (entry for module, tree in trees.items() for entry in annotated(tree, module))
    return [f"{where}.{name}" for where, name, annotation in found if name in names and is_loose(annotation)]


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """The calls of some functions, with two arguments or more."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and called(node.func) in names and len(node.args) > 1:
            yield node


def looked_into(trees: Mapping[str, ast.Module]) -> list[str]:
    """`module: call` of every `getattr` and `hasattr` on a name that holds a generator, but for the adapter's."""
    return [
        f"{module}: {ast.unparse(call)}"
        for module, tree in trees.items()
        if module != ADAPTER
        for call in calls(tree, "getattr", "hasattr")
        if called(call.args[0]) in GENERATORS
    ]


def asked_for_law(trees: Mapping[str, ast.Module]) -> list[str]:
    """`module: call` of every `isinstance` that asks for the class `Law`, but for those of generators."""
    return [
        f"{module}: {ast.unparse(call)}"
        for module, tree in trees.items()
        if not module.startswith("alignbench.generators.")
        for call in calls(tree, "isinstance", "issubclass")
        if any(called(n) == "Law" for n in ast.walk(call.args[1]) if isinstance(n, ast.expr))
    ]


def test_what_holds_a_generator_has_a_type():
    assert sorted(untyped(modules(ROOT))) == sorted(UNTYPED)


def test_generators_are_read_by_the_adapter_alone():
    assert looked_into(modules(ROOT)) == []


def test_capabilities_are_asked_for_and_not_the_class():
    assert asked_for_law(modules(ROOT)) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("def f(generator: Any): ...", "f.generator"), ("def f(*, base: Any = None): ...", "f.base"),
        ("class A:\n    law: Any", "A.law"), ("class A:\n    def proposal(self) -> Any: ...", "A.proposal"),
        ("def f(models: list[Any]): ...", "f.models"), ("def f(judge: 'Any | None'): ...", "f.judge"),
        ("def f(model: typing.Any): ...", "f.model"), ("def f():\n    recipe: Any = g()", "f.recipe"),
        ("def f(law: Callable[[], Any]): ...", "f.law"), ("def aligned(aligner: Aligner) -> Any: ...", "aligned"),
    ],
)  # fmt: skip
def test_a_planted_any_is_caught(text, wrong):
    assert untyped(planted(run__a=text)) == [f"alignbench.run.a.{wrong}"]


@pytest.mark.parametrize(
    "text",
    [
        "def f(generator: Sampler): ...", "def f(value: Any): ...", "def f(**given: Any): ...",
        "def f(given: str | Mapping[str, Any]): ...", "def f(outline: object): ...", "def f(law): ...",
    ],
)  # fmt: skip
def test_a_type_that_is_said_is_not_caught(text):
    assert untyped(planted(run__a=text)) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("getattr(generator, 'name', '')", 1), ("hasattr(self.law, 'vocab')", 1), ("getattr(case.generator, name)", 1),
        ("getattr(getattr(law.model, 'network', None), 'config', None)", 1), ("getattr(network, 'dtype')", 0),
        ("getattr(law.model.network, 'config')", 0), ("generator.name", 0),
    ],
)  # fmt: skip
def test_a_planted_look_into_a_generator_is_caught(text, found):
    assert len(looked_into(planted(checks__a=text))) == found
    assert looked_into(planted(generators__described=text)) == []


@pytest.mark.parametrize(
    "text", ["isinstance(x, Law)", "isinstance(x, (A, law.Law))", "isinstance(x, A | Law)", "issubclass(x, Law)"]
)
def test_a_planted_question_for_the_class_is_caught(text):
    assert len(asked_for_law(planted(aligners__a=text))) == 1
    assert asked_for_law(planted(generators__a=text)) == []
    assert asked_for_law(planted(aligners__a="isinstance(x, LawState)")) == []
