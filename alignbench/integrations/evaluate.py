"""The bridge to `evaluate`: a metric of alignbench as an `evaluate.Metric`, over texts alone.

``as_evaluate("distinct", draws=4).compute(predictions=texts)``, or with evaluate's own loader
``evaluate.load(script(), "distinct", draws=4)``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from alignbench import metrics
from alignbench.errors import UsageError
from alignbench.registry import load_plugins
from alignbench.registry import metric as registry
from alignbench.types import Draws, Estimate, Evidence, Fit, Scored

TEXTS = frozenset({"own", "references"})
"""What a metric may need here: draws and references as texts."""


def as_evaluate(name: str, **params: Any) -> Any:
    """The metric `name` with `params` as an `evaluate.Metric`: texts (and reference texts) in, numbers out.

    ``compute(predictions=…, references=…, prompts=…)``: (B,) texts; where the metric compares with them, (B,) lists of
    references; and the prompt of each text. Without prompts, texts that have the same references are taken for draws of
    one prompt. The answer has each part's value, and <part>_stderr, _ci_low, _ci_high and _note where there are any; a
    value that cannot be had is None. Raises UnknownName, and UsageError for parameters that the metric does not take
    or a metric that texts alone cannot answer.
    """
    return metric_class()(config_name=name, keep_in_memory=True, **params)


def script() -> str:
    """The path that `evaluate.load` takes: ``evaluate.load(script(), "distinct", draws=4)``."""
    return str(Path(__file__).with_name("alignbench_metric.py"))


@cache
def metric_class() -> type[Any]:
    """The subclass of `evaluate.Metric` whose configurations are the metrics of alignbench."""
    import evaluate  # here, since it takes seconds

    class Alignbench(evaluate.Metric):  # type: ignore[misc]
        """A metric of alignbench over texts."""

        def __init__(self, *args: Any, config_name: str | None = None, **options: Any) -> None:
            own = {"keep_in_memory", "cache_dir", "num_process", "process_id", "seed", "experiment_id", "hash",
                   "max_concurrent_cache_files", "timeout"}  # fmt: skip
            self.params = {key: value for key, value in options.items() if key not in own}
            self.needs = _checked(config_name or "", self.params)
            super().__init__(*args, config_name=config_name, **{k: v for k, v in options.items() if k in own})

        def _info(self) -> Any:
            return _info(self)

        def _compute(self, predictions: Any, references: Any = None, prompts: Any = None) -> dict[str, Any]:
            evidence = _evidence(predictions, references, prompts)
            return _flat(self.config_name, metrics.measure(self.config_name, evidence, **self.params))

    return Alignbench


def _checked(name: str, params: dict[str, Any]) -> frozenset[str]:
    """What of `TEXTS` the metric needs; raises UsageError where that is not enough, or a parameter is wrong."""
    load_plugins()
    entry = registry.find(name)
    entry.check(params, where=f"metric '{name}'")
    needs = frozenset(entry.meta.get("needs", ()))
    if beyond := sorted(needs - TEXTS):
        raise UsageError(
            f"metric '{name}' needs more than texts ({'; '.join(metrics.REASONS[n] for n in beyond)}): measure it on a "
            "task, with alignbench.run.runner"
        )
    return needs | ({"references"} & set(map(str, params.values())))


def _info(module: Any) -> Any:
    import evaluate

    datasets: Any = import_module("datasets")  # on which evaluate stands
    text, several = datasets.Value("string"), datasets.Sequence(datasets.Value("string"))
    forms = [{"predictions": text, "references": kind} for kind in (several, text)]
    return evaluate.MetricInfo(
        description=registry[module.config_name].summary, citation="", inputs_description=as_evaluate.__doc__,
        features=[datasets.Features(form) for form in forms] if "references" in module.needs
        else datasets.Features({"predictions": text}),
    )  # fmt: skip


def _evidence(texts: Sequence[str], references: Sequence[Any] | None, prompts: Sequence[str] | None) -> Evidence:
    """Evidence of texts alone: those of one prompt and the same references are its draws."""
    lists = [()] * len(texts) if references is None else [(r,) if isinstance(r, str) else tuple(r) for r in references]
    asked = [""] * len(texts) if prompts is None else list(prompts)
    if len(asked) != len(texts):
        raise UsageError(f"{len(asked)} prompts for {len(texts)} predictions: give one for each")
    number: dict[tuple[str, tuple[str, ...]], int] = {}
    prompt = np.array([number.setdefault(key, len(number)) for key in zip(asked, lists, strict=True)], int)
    rows = np.stack([prompt, np.arange(len(texts))], axis=1)
    own, none = (Scored(Draws.from_texts(r, t), {}, *[None] * 4) for r, t in ((rows, texts), (rows[:0], ())))
    return Evidence(
        own=own, ref=none, fit=Fit((), np.zeros((1, 0)), np.zeros((1, 0))), prompts=[key[0] for key in number],
        references=None if references is None else [key[1] for key in number],
    )  # fmt: skip


def _flat(name: str, parts: dict[str, Estimate]) -> dict[str, Any]:
    """Part → value, and beside it what is known of its error."""
    answer: dict[str, Any] = {}
    for part, estimate in parts.items():
        answer[part or name] = estimate.value
        told = {key: getattr(estimate, key) for key in ("stderr", "ci_low", "ci_high", "note")}
        answer |= {f"{part or name}_{key}": value for key, value in told.items() if value not in (None, "")}
    return answer
