"""Tiny random language models on disk, as `save_pretrained` saves real ones; no network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignbench.testing.worlds import save_network, tokenizer

EOS = "</s>"
NOUNS = ("rain", "sun", "wind", "snow", "cloud", "fog", "she", "he", "her", "his", "nurse", "said", "that", "the")
VOCAB = 32


def tiny_gpt2(folder: Path, vocab: int | Sequence[str] = VOCAB, *, seed: int = 0, window: int = 64) -> Path:
    """Save a random GPT-2 (learned positions, tied embeddings; pad == eos) into `folder`; see `words_of`."""
    return save_network(folder, words_of(vocab), kind="gpt2", seed=seed, window=window)


def tiny_llama(folder: Path, vocab: int | Sequence[str] = VOCAB, *, seed: int = 0, window: int = 64) -> Path:
    """Save a random Llama (rotary positions, untied embeddings; pad == eos) into `folder`; see `words_of`."""
    return save_network(folder, words_of(vocab), kind="llama", seed=seed, window=window)


CHAT = (
    "{{ bos_token }} {% for m in messages %}{{ m.role }} {{ m.content TRIM }} {{ eos_token }} {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)


def chatty_llama(folder: Path, *, adds_bos: bool = False, trims: bool = False) -> Any:
    """The law of a random Llama with a chat template, whose tokenizer puts a BOS before any other text if asked."""
    from tokenizers.processors import TemplateProcessing

    from alignbench.generators.hf.factory import hf

    path = folder / "chatty"
    law = hf(pretrained=str(tiny_llama(path, (*NOUNS[:4], "user", "assistant", "system"))))
    tokens = law.model.tokenizer
    tokens.chat_template = CHAT.replace("TRIM", "| trim" if trims else "")
    if adds_bos:
        inner = tokens.backend_tokenizer
        inner.post_processor = TemplateProcessing(single=f"{EOS} $A", special_tokens=[(EOS, tokens.bos_token_id)])
    return law


def tiny_t5(folder: Path, vocab: int | Sequence[str] = VOCAB, *, seed: int = 0, **config: Any) -> Path:
    """Save a random T5 (relative positions; the decoder starts with the pad, which is no EOS here) into `folder`."""
    return save_network(folder, words_of(vocab), kind="t5", seed=seed, **config)


def tiny_bart(folder: Path, vocab: int | Sequence[str] = VOCAB, *, seed: int = 0, window: int = 64,
              **config: Any) -> Path:  # fmt: skip
    """Save a random BART (learned positions; starts with its EOS, which is its pad too) into `folder`."""
    from transformers import BartConfig, BartForConditionalGeneration

    size = len(words_of(vocab)) + 1
    made = BartConfig(**{
        "vocab_size": size, "max_position_embeddings": window, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32,
        "init_std": 0.3, "dropout": 0.0,
        "decoder_start_token_id": size - 1, "forced_eos_token_id": size - 1, **_ends(size),
        **config,
    })  # fmt: skip
    return _save(BartForConditionalGeneration, made, folder, words_of(vocab), seed)


def words_of(vocab: int | Sequence[str]) -> tuple[str, ...]:
    """The words as given, or the first `vocab` − 1 of NOUNS, w14, w15, …: with EOS that makes `vocab` tokens."""
    if not isinstance(vocab, int):
        return tuple(vocab)
    return (NOUNS + tuple(f"w{i}" for i in range(len(NOUNS), vocab)))[: vocab - 1]


def _ends(size: int) -> dict[str, int]:
    return {"bos_token_id": size - 1, "eos_token_id": size - 1, "pad_token_id": size - 1}


def _save(kind: type, config: object, folder: Path, words: Sequence[str], seed: int) -> Path:
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = kind(config)
    network.save_pretrained(str(folder))
    tokenizer(words).save_pretrained(str(folder))
    return folder


def tiny_classifier(folder: Path, kind: str = "Bert", labels: Sequence[str] = ("sad", "glad", "mad"), **config) -> Path:
    """Save a random classifier that reads at most 24 tokens; `kind` is transformers' prefix of the architecture."""
    return _save_reader(
        folder, f"{kind}ForSequenceClassification", kind, {"id2label": dict(enumerate(labels)), **config}
    )


def tiny_encoder(folder: Path) -> Path:
    """Save a random BERT without a head."""
    return _save_reader(folder, "BertModel", "Bert", {})


def _save_reader(folder: Path, network: str, kind: str, config: dict) -> Path:
    import torch
    import transformers

    shape = {
        "Bert": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32},
        "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
        "GPT2": {"n_embd": 16, "n_layer": 2, "n_head": 2},
        "XLNet": {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 32},
    }
    shape["Roberta"] = shape["Bert"]
    words = (*READER, *NOUNS)
    given = {"vocab_size": len(words), "initializer_range": 0.3, "pad_token_id": 0}
    if kind != "XLNet":
        given["max_position_embeddings"] = 24
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = getattr(transformers, network)(
            getattr(transformers, f"{kind}Config")(**{**shape[kind], **given, **config})
        )
    made.save_pretrained(str(folder))
    bare = kind == "GPT2"
    tokens = reader_tokenizer(words, bare)
    if made.config.pad_token_id is None:
        tokens.pad_token = None
    if kind == "Bert":
        tokens.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
    tokens.save_pretrained(str(folder))
    return folder


READER = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def reader_tokenizer(words: Sequence[str], bare: bool = False):
    """One token a word between [CLS] and [SEP], and a second text before another [SEP]; `bare`: words alone."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = WhitespaceSplit()
    if not bare:
        inner.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]", bos_token="[CLS]", eos_token="[SEP]"
    )
