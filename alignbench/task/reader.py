"""A task file to a task: read strictly; every error names the file and the line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignbench.errors import UsageError, brief, did_you_mean, unknown
from alignbench.features import BoundFeature, bind
from alignbench.registry import aligner, generator, metric
from alignbench.spec import Spec, beside, parse_spec
from alignbench.target import Constraint, Kind, Target
from alignbench.task.keys import ConstraintFile, TaskFile, schema
from alignbench.task.prompts import Prompts, read_preferences, read_prompts, read_references, with_fields
from alignbench.task.task import Task
from alignbench.yamlfile import Page, read

__all__ = ["load_task", "schema"]


def load_task(path: str | Path) -> Task:
    """The task in a YAML file. Raises TaskError, with the line, on anything that is wrong with it."""
    page = read(Path(path))
    raw = page.checked(TaskFile, page.data, ())
    _check_together(page, raw)
    prompts = read_prompts(page, "prompts", raw.prompts)
    references = read_references(page, raw.references, prompts)
    features = _features(page, raw.features, prompts)
    metrics = None if raw.metrics is None else _metrics(page, raw.metrics, prompts)
    _check_asked_of_features(page, metrics or (), features)
    return Task(
        name=raw.name,
        version=raw.version,
        summary=" ".join(raw.summary.split()),
        prompts=prompts.texts,
        max_tokens=raw.max_tokens,
        draws=raw.draws,
        features=features,
        target=_target(page, raw.target, features),
        train=_train(page, raw.train, prompts.texts),
        corpus=_corpus(page, raw.corpus, references),
        preferences=_preferences(page, raw.preferences, prompts.texts),
        metrics=metrics,
        primary=_primary(page, raw.primary, metrics),
        base=_base(page, raw.base),
        proposals=_proposals(page, raw.proposals),
        references=references,
        ci_over=raw.ci_over,
        path=page.path,
    )


def _train(page: Page, raw: Any, prompts: Sequence[str]) -> tuple[str, ...]:
    """The training prompts; raises TaskError where one is a prompt of the task too."""
    texts = () if raw is None else read_prompts(page, "train", raw).texts
    if seen := [text for text in texts if text in set(prompts)]:
        raise page.refuse(("train",), f"train has the task's own prompt {brief(seen[0])}: keep what is tested apart "
                                      "from what may be trained on")  # fmt: skip
    return texts


def _corpus(page: Page, raw: Any, references: Sequence[Sequence[str]] | None) -> tuple[str, ...]:
    """The texts to learn from; raises TaskError where one is a reference of the task too."""
    texts = () if raw is None else read_prompts(page, "corpus", raw).texts
    known = {text.strip() for mine in references or () for text in mine}
    if seen := [text for text in texts if text.strip() in known]:
        raise page.refuse(("corpus",), f"corpus has the task's own reference {brief(seen[0])}: keep what is tested "
                                       "apart from what may be learned")  # fmt: skip
    return texts


def _preferences(page: Page, raw: Any, prompts: Sequence[str]) -> tuple[tuple[str, str, str], ...]:
    """(prompt, chosen, rejected) to learn from; raises TaskError where a prompt is one of the task too."""
    found = () if raw is None else read_preferences(page, raw)
    if seen := [prompt for prompt, _, _ in found if prompt in set(prompts)]:
        raise page.refuse(("preferences",), f"preferences has the task's own prompt {brief(seen[0])}: keep what is "
                                            "tested apart from what may be learned")  # fmt: skip
    return found


def _features(page: Page, specs: Mapping[str, Mapping[str, Any]], prompts: Prompts) -> dict[str, BoundFeature]:
    """The features by the names that the task gives them."""
    bound = {}
    for name, spec in specs.items():
        with page.at(("features", name)) as where:
            bound[name] = bind(with_fields(page, ("features", name), spec, prompts), where)
    return bound


def _target(page: Page, items: list[dict[str, Any]], features: Mapping[str, BoundFeature]) -> Target:
    """The target; errors point at the constraint that is wrong, or at `target` where several clash."""
    categories = {name: f.categories for name, f in features.items() if f.categories}
    ranges = {name: f.range for name, f in features.items() if not f.categories}
    constraints = []
    for i, item in enumerate(items):
        raw = page.checked(ConstraintFile, item, ("target", i))
        with page.at(("target", i)):
            constraints.append(_constraint(raw))
            Target(tuple(constraints[-1:]), categories, ranges)  # checks this one alone
    with page.at(("target",)):
        return Target(tuple(constraints), categories, ranges)


def _constraint(raw: ConstraintFile) -> Constraint:
    """What one item of `target` asks; raises UsageError when it asks nothing, two things, or half of one."""
    kinds: tuple[Kind, ...] = ("always", "moment", "distribution", "reward")
    asked = [kind for kind in kinds if getattr(raw, kind) is not None]
    if len(asked) != 1:
        got = " and ".join(asked) or "none"
        raise UsageError(f"'{raw.feature}' must have exactly one of {', '.join(kinds)}, and has {got}")
    kind = asked[0]
    if kind == "reward" and raw.beta is None:
        raise UsageError(f"'{raw.feature}': a reward needs 'beta', the reward worth one nat")
    if kind != "reward" and raw.beta is not None:
        raise UsageError(f"'{raw.feature}': only a reward has 'beta'")
    if raw.per and kind in ("always", "reward"):
        raise UsageError(f"'{raw.feature}': 'per' says how many λ are fitted, and {kind} has none")
    wanted = getattr(raw, kind) if kind in ("moment", "distribution") else None
    return Constraint(raw.feature, kind, wanted, 1.0 if raw.beta is None else raw.beta, raw.per or "task")


def _metrics(page: Page, items: list[Any], prompts: Prompts) -> tuple[tuple[str, Mapping[str, Any]], ...]:
    """(name, parameters) of each metric; checked against the registry once metrics are loaded."""
    if not items:
        raise page.refuse(("metrics",), "metrics is empty: leave the key out to have all that apply")
    chosen: dict[str, Mapping[str, Any]] = {}
    for i, item in enumerate(items):
        spec = _metric_spec(page, item)
        if not isinstance(spec.get("metric"), str):
            raise page.refuse(("metrics", i), f"a metric is a name or {{metric: NAME, …}}, not {brief(item)}")
        given = {k: v for k, v in spec.items() if k != "metric"}
        name, params = spec["metric"], with_fields(page, ("metrics", i), given, prompts)
        if name in chosen:
            raise page.refuse(("metrics", i), f"the metric '{name}' is there twice")
        chosen[name] = params
        with page.at(("metrics", i)) as where:
            if metric:
                metric.find(name, where).check(params, where)
    return tuple(chosen.items())


def _check_asked_of_features(
    page: Page, metrics: Sequence[tuple[str, Mapping[str, Any]]], features: Mapping[str, BoundFeature]
) -> None:
    """Refuse a metric's `feature` that the task has not, and `labels` that are none of its categories."""
    for i, (_, params) in enumerate(metrics):
        name, labels = params.get("feature"), params.get("labels")
        with page.at(("metrics", i)) as where:
            if isinstance(name, str) and name not in features:
                raise unknown("feature", name, features, where)
            if not isinstance(name, str) or not isinstance(labels, Mapping):
                continue
            if not features[name].categories:
                raise UsageError(f"'{name}' is a number; labels are for a categorical feature")
            for label in dict.fromkeys(labels.values()):
                if label not in features[name].categories:
                    raise unknown("label", str(label), features[name].categories, where)


def _metric_spec(page: Page, item: Any) -> Mapping[str, Any]:
    """`item` as {metric: NAME, …}; {evaluate: PATH, …} is short for the metric `evaluate` with that path."""
    if isinstance(item, str):
        return {"metric": item}
    if not isinstance(item, Mapping):
        return {}
    if "evaluate" not in item or "metric" in item:
        return item
    path = (page.path.parent / str(item["evaluate"])).resolve()  # beside the task, wherever `score` is called from
    rest = {k: v for k, v in item.items() if k != "evaluate"}
    return {"metric": "evaluate", "path": str(path) if path.exists() else item["evaluate"], **rest}


def _primary(page: Page, primary: str | None, metrics: tuple[tuple[str, Any], ...] | None) -> str | None:
    """`metric` or `metric.part`; raises TaskError where the task measures no such thing."""
    if primary is None:
        return None
    name, _, part = primary.partition(".")
    known = [n for n, e in metric.items() if not e.opt_in] if metrics is None else [name for name, _ in metrics]
    if known and name not in known:
        raise page.refuse(("primary",), f"primary names the metric '{name}', which the task does not measure."
                                        f"{did_you_mean(name, known)}")  # fmt: skip
    if name in metric and not _has_part(metric[name].meta, part):
        parts = _parts(metric[name].meta)
        if not part:
            raise page.refuse(("primary",), f"primary: '{name}' has several numbers; name one: "
                                            f"{', '.join(f'{name}.{p}' for p in parts)}")  # fmt: skip
        raise page.refuse(("primary",), f"primary: '{name}' has no part '{part}' that a table can be sorted by."
                                        f"{did_you_mean(part, parts)}")  # fmt: skip
    return primary


def _parts(meta: Mapping[str, Any]) -> list[str]:
    """The parts that a metric declares, or the beginnings of parts for which it says what is better."""
    better = meta.get("better")
    return list(meta.get("parts") or (better if isinstance(better, Mapping) else ()))


def _has_part(meta: Mapping[str, Any], part: str) -> bool:
    """Whether a metric with these declarations can have the part; one that declares no parts can have any."""
    if meta.get("parts"):
        return part in meta["parts"]
    known = _parts(meta)
    return not known or part in known or any(part.startswith(key) for key in known)


def _base(page: Page, raw: Any) -> str | Mapping[str, Any] | None:
    """A generator spec: ``name``, ``name:key=value,…`` or ``{name: …, key: value}``."""
    if raw is None:
        return None
    if not (isinstance(raw, str) and raw) and not (isinstance(raw, dict) and isinstance(raw.get("name"), str)):
        raise page.refuse(("base",), f"base is a generator's name or {{name: NAME, …}}, not {brief(raw)}")
    with page.at(("base",)) as where:
        spec = parse_spec(raw, where)
    found = beside(page.path.parent, spec.arguments)
    return raw if found == spec.arguments else {"name": spec.name, **found}


def _check_together(page: Page, raw: TaskFile) -> None:
    """Refuse λ's own error where intervals are over prompts: λ would have to be fitted anew without each of them."""
    asked = [m for m in raw.metrics or () if isinstance(m, Mapping) and m.get("at") == "asked"]
    if asked and raw.ci_over == "prompts_like_these":
        raise page.refuse(("ci_over",), "ci_over: prompts_like_these does not go with a metric's 'at: asked': drop one")


def _proposals(page: Page, items: list[Any]) -> tuple[Spec, ...]:
    """Specs of aligners on the base, or of generators; checked against the registries once these are loaded."""
    found: dict[str, Spec] = {}
    for i, item in enumerate(items):
        with page.at(("proposals", i)) as where:
            if not isinstance(item, (str, Mapping)):
                raise UsageError(f"a proposal is an aligner, a generator or {{name: NAME, …}}, not {brief(item)}")
            spec = parse_spec(item, where)
            if aligner:
                (generator if spec.name in generator else aligner).find(spec.name, where).check(spec.arguments, where)
            if spec.label in found:
                raise UsageError(f"the proposal '{spec.label}' is there twice")
            found[spec.label] = spec
    return tuple(found.values())
