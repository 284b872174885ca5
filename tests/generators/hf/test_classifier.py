"""Scores in batches are those of transformers' own forward, one text at a time."""

import json
import logging

import numpy as np
import pytest
import torch
from models import tiny_classifier, tiny_encoder
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from alignbench.errors import RunError, UsageError
from alignbench.generators.hf import classifier as module
from alignbench.generators.hf.classifier import Checkpoint, TextModel, classifier, encoder

TEXTS = ["rain", "she said that the sun and the fog", "", "her nurse", "wind snow cloud fog she he her", "he"]
PAIRS = ["the sun said that", "", "fog", "rain rain rain", "he", "his his"]


def checkpoint(folder, **given):
    return Checkpoint("tiny", str(folder), None, **{"weights": "weights", "device": "cpu", **given})


def one_by_one(folder, texts, pairs=None, kind=AutoModelForSequenceClassification):
    """(B, K) by transformers alone, each text in a batch of its own."""
    network, tokenizer = kind.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    found = []
    for i, text in enumerate(texts):
        inputs = tokenizer([text], None if pairs is None else [pairs[i]], return_tensors="pt")
        if not inputs["input_ids"].numel():
            inputs = {"input_ids": torch.tensor([[tokenizer.bos_token_id]])}
        with torch.inference_mode():
            out = network(**inputs)
        found.append(out.logits[0] if hasattr(out, "logits") else out.last_hidden_state[0].mean(0))
    return torch.stack(found).double().numpy()


@pytest.fixture(autouse=True)
def _forgotten():
    """No test sees the models of another."""
    classifier.cache_clear()
    encoder.cache_clear()


@pytest.mark.parametrize("kind", ["Bert", "DistilBert", "Roberta", "GPT2"])
@pytest.mark.parametrize("batch_size", ["auto", 3])
def test_a_batch_changes_no_score(tmp_path, kind, batch_size):
    model = classifier(checkpoint(tiny_classifier(tmp_path, kind), batch_size=batch_size))
    assert model.rows > 1
    truth = one_by_one(tmp_path, TEXTS)
    assert np.ptp(truth, axis=0).min() > 0.01
    np.testing.assert_allclose(model.scores(TEXTS), truth, atol=1e-5)


@pytest.mark.parametrize("kind", ["Bert", "Roberta", "GPT2"])
def test_pairs_keep_their_order_and_their_segments(tmp_path, kind):
    found = classifier(checkpoint(tiny_classifier(tmp_path, kind))).scores(TEXTS, PAIRS)
    np.testing.assert_allclose(found, one_by_one(tmp_path, TEXTS, PAIRS), atol=1e-5)
    assert np.abs(found - classifier(checkpoint(tmp_path)).scores(PAIRS, TEXTS)).max() > 0.01


def test_a_tokenizer_that_pads_on_the_left_changes_nothing(tmp_path):
    truth = one_by_one(tiny_classifier(tmp_path, "GPT2"), TEXTS)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**config, "padding_side": "left"}))
    np.testing.assert_allclose(classifier(checkpoint(tmp_path)).scores(TEXTS), truth, atol=1e-5)


@pytest.mark.parametrize(("kind", "config"), [("GPT2", {"pad_token_id": None}), ("XLNet", {})])
def test_a_network_that_cannot_be_padded_reads_one_text_at_a_time(tmp_path, caplog, kind, config):
    truth = one_by_one(tiny_classifier(tmp_path, kind, **config), TEXTS)
    with caplog.at_level(logging.INFO, logger="alignbench"):
        model = classifier(checkpoint(tmp_path))
    assert model.rows == 1 and "padding would change its scores, so texts go through it one by one" in caplog.text
    np.testing.assert_allclose(model.scores(TEXTS), truth, atol=1e-5)


def test_planted_a_forgotten_mask_is_seen_by_the_loader_and_changes_scores(tmp_path, monkeypatch):
    truth = one_by_one(tiny_classifier(tmp_path), TEXTS)
    whole = classifier(checkpoint(tmp_path))
    monkeypatch.setattr(module, "_mask", lambda lengths: torch.ones(len(lengths), int(lengths.max()), dtype=torch.bool))
    assert np.abs(whole.scores(TEXTS) - truth).max() > 0.01
    classifier.cache_clear()
    assert classifier(checkpoint(tmp_path)).rows == 1


def test_a_long_text_is_cut_at_its_end_and_that_is_said_once(tmp_path, caplog):
    model = classifier(checkpoint(tiny_classifier(tmp_path)))
    long = " ".join(["rain", "sun"] * 20)
    found = model.scores([long, "fog"])
    np.testing.assert_allclose(found[0], model.scores([" ".join(long.split()[:22])])[0], atol=1e-5)  # 24 less 2 marks
    model.scores([long], ["fog"])
    assert [r.getMessage() for r in caplog.records] == [
        "tiny: a text has 42 tokens and it reads 24: longer ones are cut at their end (said once)"
    ]


def test_positions_that_begin_behind_the_padding_leave_a_smaller_window(tmp_path):
    model = classifier(checkpoint(tiny_classifier(tmp_path, "Roberta")))
    assert model.window == 23 and np.isfinite(model.scores(["rain " * 40])).all()


def test_out_of_memory_halves_the_batch_for_good(tmp_path, monkeypatch):
    model = classifier(checkpoint(tiny_classifier(tmp_path)))
    truth, forward, sizes = model.scores(TEXTS), TextModel._forward, []

    def narrow(self, items):
        sizes.append(len(items))
        if len(items) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, items)

    monkeypatch.setattr(TextModel, "_forward", narrow)
    np.testing.assert_allclose(model.scores(TEXTS), truth, atol=1e-5)
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1] and model.rows == 1
    monkeypatch.setattr(TextModel, "_forward", lambda self, items: torch.zeros(1 << 60))
    with pytest.raises(RunError, match="memory ran out with one text"):
        model.scores(["rain"])


def test_auto_holds_fewer_long_texts_than_short_ones(tmp_path, monkeypatch):
    monkeypatch.setitem(module.AUTO_TOKENS, "cpu", 24)
    model, sizes, forward = classifier(checkpoint(tiny_classifier(tmp_path))), [], TextModel._forward
    monkeypatch.setattr(
        TextModel,
        "_forward",
        lambda self, items: sizes.append([len(i["input_ids"]) for i in items]) or forward(self, items),
    )
    np.testing.assert_allclose(model.scores(TEXTS), one_by_one(tmp_path, TEXTS), atol=1e-5)
    assert sizes == [[10, 9], [4, 3, 3, 2]]


def test_no_texts_have_no_scores(tmp_path):
    assert classifier(checkpoint(tiny_classifier(tmp_path))).scores([]).shape == (0, 3)


def test_a_checkpoint_is_loaded_once_and_anew_when_it_changed(tmp_path):
    first = classifier(checkpoint(tiny_classifier(tmp_path)))
    assert classifier(checkpoint(tmp_path)) is first
    assert classifier(checkpoint(tmp_path, weights="others")) is not first


def test_a_sentence_is_the_mean_of_its_tokens_or_the_first(tmp_path):
    folder = tiny_encoder(tmp_path)
    truth = one_by_one(folder, TEXTS, kind=AutoModel)
    np.testing.assert_allclose(encoder(checkpoint(folder), "mean", None).scores(TEXTS), truth, atol=1e-5)
    assert np.abs(encoder(checkpoint(folder), "cls", None).scores(TEXTS) - truth).max() > 0.01
    assert encoder(checkpoint(folder), "mean", 7).window == 7


def test_chat_template(tmp_path):
    tiny_classifier(tmp_path, "GPT2", labels=["reward"])
    with pytest.raises(UsageError, match="apply_chat_template, but its tokenizer has no chat template"):
        classifier(checkpoint(tmp_path)).chat_scores(["she"], ["rain"])
    (tmp_path / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.role }} {{ m.content }} [SEP] {% endfor %}"
    )
    classifier.cache_clear()
    found = classifier(checkpoint(tmp_path)).chat_scores(["she", "he"], ["rain", "the sun"])
    texts = ["user she [SEP] assistant rain [SEP] ", "user he [SEP] assistant the sun [SEP] "]
    np.testing.assert_allclose(found, one_by_one(tmp_path, texts), atol=1e-5)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('no assistants here') }}")
    classifier.cache_clear()
    with pytest.raises(UsageError, match="its chat template refuses a conversation: no assistants here"):
        classifier(checkpoint(tmp_path)).chat_scores(["she"], ["rain"])


def test_what_cannot_be_loaded_is_one_line(tmp_path):
    with pytest.raises(UsageError, match=r"lacks 2 of the weights of a BertForSequenceClassification, the first is cl"):
        classifier(checkpoint(tiny_encoder(tmp_path / "headless")))
    with pytest.raises(UsageError, match="cannot be loaded by AutoModelForSequenceClassification: ") as error:
        classifier(checkpoint(tmp_path))
    assert "\n" not in str(error.value)
    bare = tiny_classifier(tmp_path / "bare")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(UsageError, match="its tokenizer cannot be made: are the files there"):
        classifier(checkpoint(bare))
    with pytest.raises(UsageError, match="device 'cdu'"):
        classifier(checkpoint(tmp_path / "headless", device="cdu"))


def test_pickles_are_read_only_where_they_are_asked_for(tmp_path):
    folder = tiny_classifier(tmp_path)
    truth = one_by_one(folder, TEXTS)
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(
        UsageError, match=r"cannot be loaded by AutoModelForSequenceClassification: .*model.safetensors"
    ):
        classifier(checkpoint(folder))
    np.testing.assert_allclose(classifier(checkpoint(folder, use_safetensors=False)).scores(TEXTS), truth, atol=1e-5)
