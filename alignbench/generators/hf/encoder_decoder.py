"""An encoder–decoder of transformers (T5, BART) as next-token distributions of its decoder.

The prompt is what the encoder reads; a draw is what the decoder says after its prefix: `decoder_start_token_id` and,
where the generation config names one, `forced_bos_token_id`. Both condition and neither is drawn or scored, as under
`generate`, which says them with probability 1. The other settings of `generate` (beams, n-gram bans, forced EOS, length
penalties) shape a search and are no part of the law, but for single `bad_words_ids`: see `never`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from alignbench.errors import UsageError
from alignbench.generators.base import Decoder, Positions
from alignbench.generators.gradient import inference
from alignbench.generators.hf.heads import Logits, Nats, body_of
from alignbench.generators.hf.pretrained import (
    CHUNK_BYTES,
    TOGETHER,
    LogitsState,
    Pretrained,
    Whole,
    fork,
    normalised,
    shown,
)
from alignbench.generators.hf.slots import CLOSE, apart
from alignbench.generators.sampling import Stepwise
from alignbench.generators.warp import at_least_float32
from alignbench.generators.window import Window, as_mask, seen
from alignbench.types import Array, Draws

UNSAID = ("m2m_100",)
"""Kinds of networks (M2M100, NLLB) in which a draw with a pad inside has no one probability, so that it gets 0: their
decoders count positions without the pads in one pass, and with them step by step."""


@dataclass(eq=False)
class HFEncoderDecoder(Pretrained):
    """An encoder–decoder language model with its tokenizer, as raw next-token distributions.

    Prompts are padded to the right and masked; the encoder runs once for all draws of a prompt, and its keys and values
    are kept beside those of the decoder. No position ids: a row of the decoder has no padding before it.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.network.generation_config
        begins = [getattr(config, f"{name}_token_id", None) for name in ("decoder_start", "forced_bos")]
        if not isinstance(begins[0], int):
            raise UsageError(
                f"{self.name}: its generation_config.json names no decoder_start_token_id, the one id that the decoder "
                "begins with; add it there"
            )
        self.prefix = [int(i) for i in begins if i is not None]

    @cached_property
    def never(self) -> list[int]:
        """Ids of probability 0: `bad_words_ids` of one id (Marian's pad, whose logit means nothing); see `UNSAID`."""
        never = {ids[0] for ids in self.network.generation_config.bad_words_ids or () if len(ids) == 1}
        if self.network.config.model_type in UNSAID and self._pad is not None:
            never |= {self._pad} - self.vocab.eos
        return sorted(never)

    @property
    def _pad(self) -> int | None:
        return getattr(self.network.config, "pad_token_id", None)

    def identity(self) -> Mapping[str, Any]:
        """Weights, tokenizer, dtype, rendering, and what the decoder begins with and never says."""
        return {**super().identity(), "prefix": self.prefix, "never": self.never}

    def start(self, rendered: Sequence[str], *, max_tokens: int) -> HFEncoderDecoderState:
        """See `Model.start`; equal prompts are computed once."""
        place = {text: i for i, text in enumerate(dict.fromkeys(rendered))}
        state = self._begun([self.encode(text, max_tokens) for text in place])
        if len(place) == len(rendered):
            return state
        return state.select(torch.tensor([place[text] for text in rendered], device=self.device))

    def _begun(self, encoded: Sequence[list[int]]) -> HFEncoderDecoderState:
        ids, mask = self._right_padded(encoded)
        prefix = torch.tensor([self.prefix] * len(encoded), device=self.device)
        out = self._forward(prefix, mask, input_ids=ids, **self._empty_cache())
        hidden, read = out.encoder_last_hidden_state, self._read(mask)
        if read is not mask:  # the encoder reads it all, and the decoder attends to a part
            encoded = BaseModelOutput(last_hidden_state=hidden)
            out = self._forward(prefix, read, encoder_outputs=encoded, **self._empty_cache())
        return HFEncoderDecoderState(self, out.past_key_values, hidden, read, at_least_float32(out.logits[:, -1]))

    def _empty_cache(self) -> dict[str, Any]:
        """Under a window masks say what is seen: layers with a window of their own must not forget keys."""
        return {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if self.window else {}

    def _read(self, mask: torch.Tensor) -> torch.Tensor:
        """(R, L) 1 where the decoder may attend to a prompt, of which `mask` is 1 at real tokens.

        A span is one of the prompt's own tokens, and leaves out virtual ones.
        """
        if self.window is None or not self.window.cuts_source:
            return mask
        read = torch.zeros_like(mask)
        for row, length in zip(read, mask.sum(1).tolist(), strict=True):
            row[len(self.virtual) : length][self.window.source] = 1
        return read

    def _forward(self, said: torch.Tensor, mask: torch.Tensor, **more: Any) -> Any:
        """The network's own output on decoder ids (R, T), for prompts of which `mask` (R, L) is 1 at real tokens."""
        if self.window is not None:
            more["decoder_attention_mask"] = self._decoder_mask(said, more.get("past_key_values"))
        with inference():
            out = self.network(attention_mask=mask, decoder_input_ids=said, use_cache=True, return_dict=True, **more)
            if self.never:
                out.logits[..., self.never] = -torch.inf
        return out

    def history(self, rendered: str) -> list[int]:
        """See `Remembering.history`: the decoder's own prefix; what the encoder reads was not said."""
        return self.prefix

    def _decoder_mask(self, said: torch.Tensor, cache: Any) -> torch.Tensor:
        """(R, 1, T, L) what decoder ids (R, T) see of all L, those in the cache included."""
        before = 0 if cache is None else int(cache.get_seq_length())
        width = before + said.shape[1]
        allowed = seen(torch.arange(before, width, device=said.device), width, self.window)
        return as_mask(self.network, allowed.expand(len(said), 1, -1, -1))

    def forced(self, rendered: Sequence[str], draws: Draws) -> Positions:
        """See `Model.forced`: one pass over each prompt once, and one over all draws."""
        assert draws.tokens is not None
        width = int(draws.length.max())
        place = {text: i for i, text in enumerate(dict.fromkeys(rendered))}
        encoded = [self.encode(text, width) for text in place]
        which = self._tensor([place[text] for text in rendered])
        said = torch.as_tensor(draws.tokens[:, : width - 1], device=self.device).clamp(min=0)
        inside = torch.as_tensor(np.arange(width) < draws.length[:, None], device=self.device)
        if self.headed:
            return Nats(Logits(self.network, self._said(encoded, which, said)[inside], self.never))
        state = self._begun(encoded).select(which)
        found = state.logits[:, None]
        if width > 1:
            found = torch.cat([found, at_least_float32(state.after(said).logits)], 1)
        return Whole(found[inside])

    def _said(self, encoded: Sequence[list[int]], which: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
        """(R, T + 1, D) last hidden states before and after each of `said` (R, T), which follow prompts `which`."""
        ids, mask = self._right_padded(encoded)
        with inference():
            source = self.network.get_encoder()(input_ids=ids, attention_mask=mask).last_hidden_state
        read, cache = self._read(mask), EncoderDecoderCache(DynamicCache(), DynamicCache())
        prefix = self._tensor([self.prefix] * len(encoded))
        hidden = self._decoded(prefix, source, read, cache)[which, -1:]
        if not said.shape[1]:
            return hidden
        cache.batch_select_indices(which)
        return torch.cat([hidden, self._decoded(said, source[which], read[which], cache)], 1)

    def _decoded(self, said: torch.Tensor, source: torch.Tensor, read: torch.Tensor, cache: Any) -> torch.Tensor:
        """(R, T, D) last hidden states of decoder ids (R, T) after those in the cache, which grows by them."""
        mask = None if self.window is None else self._decoder_mask(said, cache)
        with inference():
            return body_of(self.network)(  # type: ignore[no-any-return]
                input_ids=said, attention_mask=mask, encoder_hidden_states=source, encoder_attention_mask=read,
                past_key_values=cache, use_cache=True, return_dict=True,
            ).last_hidden_state  # fmt: skip

    @property
    def hidden_width(self) -> None:
        """See `WithHiddenWidth.hidden_width`: its states show no hidden states of what is said."""
        return None

    def _hidden(self, ids: list[int]) -> torch.Tensor:
        """See `Pretrained._hidden`: in two passes and beside a longer prompt, as draws are scored."""
        source = self._source(1, 3, 2)
        return self._said([source, [*source, *source]], self._tensor([0]), self._tensor([self._sayable(ids)]))[0]

    def decoder(self, rows: int, width: int) -> Decoder:
        """Its states, at most `rows` of them and as many as memory holds; see `Slotted`."""
        return Stepwise(self, self.budget.rows(self._row_bytes(width), min(rows, self.batch_size), self.device), 0)

    def give_back(self, decoder: Decoder) -> None:
        """See `Slotted.give_back`: nothing is kept."""

    def forget(self) -> None:
        """See `Slotted.forget`: nothing is kept."""

    def too_many(self, rows: int, width: int) -> None:
        """Remember that a batch of so many rows did not fit."""
        self.budget.halve(rows, self._row_bytes(width))

    def together(self, prompt: int, width: int) -> int:
        """See `Grouped.together`."""
        most = min(CHUNK_BYTES // (16 * len(self.vocab)), TOGETHER.get(self.device.type, 4096)) // width
        return self.budget.rows(self._row_bytes(prompt + width), max(1, most), self.device)

    def _row_bytes(self, width: int) -> int:
        """What a row of `width` tokens, its prompt's included, takes: keys and values, twice, and copies of logits."""
        return 2 * width * self.position_bytes + 4 * 4 * len(self.vocab)

    @cached_property
    def position_bytes(self) -> int:
        """Bytes of the keys and values of one token, the encoder's and the decoder's alike."""
        cache = self._begun([[0]]).cache
        layers = [*cache.self_attention_cache.layers, *cache.cross_attention_cache.layers]
        return int(sum(x.keys.nbytes + x.values.nbytes for x in layers)) // (1 + len(self.prefix))

    def encode(self, rendered: str, max_tokens: int) -> list[int]:
        """Token ids that the encoder reads; raises UsageError where they, or `max_tokens`, do not fit a window."""
        ids = self._all_ids(rendered)
        if len(ids) > self.context:
            raise UsageError(
                f"{self.name}: {shown(rendered)} has {self._counted(ids)}, more than the encoder's window of "
                f"{self.context}"
            )
        if len(self.prefix) + max_tokens - 1 > self._window("decoder"):
            raise UsageError(
                f"{self.name}: max_tokens {max_tokens}, after a prefix of {len(self.prefix)}, is more than the "
                f"decoder's window of {self._window('decoder')}"
            )
        own = ids[len(self.virtual) :]
        if self.window is not None and not own[self.window.source]:
            raise UsageError(
                f"{self.name}: {shown(rendered)} has {len(own)} tokens, none of them in the span "
                f"source_begin={self.window.source_begin}, source_end={self.window.source_end}"
            )
        return ids

    @property
    def context(self) -> float:
        """See `Pretrained.context`."""
        return self._window("encoder")

    def _window(self, side: str) -> float:
        """Most positions of the encoder or the decoder; infinite where positions are relative, as T5's."""
        config = self.network.config
        nested = getattr(config, side, None)  # a config for each side
        found = getattr(config, f"max_{side}_position_embeddings", None)
        return found or getattr(nested or config, "max_position_embeddings", None) or np.inf

    def decode(self, rendered: str, tokens: Sequence[Array]) -> list[str]:
        """The draws' own texts: a decoder's answer stands by itself, its prompt adds no space before it."""
        return [self._text([int(i) for i in ids]) for ids in tokens]

    def _right_padded(self, encoded: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        width = max(map(len, encoded))
        ids = torch.tensor([e + [0] * (width - len(e)) for e in encoded], device=self.device)
        mask = torch.tensor([[1] * len(e) + [0] * (width - len(e)) for e in encoded], device=self.device)
        return ids, mask

    def _whole(self, ids: list[int]) -> torch.Tensor:
        """See `Pretrained._whole`: of ids that the decoder says."""
        said = self._tensor([[*self.prefix, *self._sayable(ids)]])
        source = self._tensor([self._source(1, 3, 2)])
        return normalised(self._forward(said, torch.ones_like(source), input_ids=source).logits[0])

    def _source(self, *ids: int) -> list[int]:
        """A prompt that the network is tried with."""
        return [*self.virtual, *(i % len(self.vocab) for i in ids)]

    def _sayable(self, ids: list[int]) -> list[int]:
        """The ids, others in the place of pads and of those that it never says."""
        may = [i for i in range(len(self.vocab)) if i != self._pad and i not in self.never]
        return [may[i % len(may)] for i in ids]

    def _obeys(self) -> bool:
        """See `Pretrained._obeys`; also whether it hears nothing of what is outside a span of the source."""
        part = replace(self, window=Window(1, 1, 3), replicas=())
        source, prefix = self._tensor([self._source(1, 3, 2, 5)]), self._tensor([self.prefix])
        read, found = part._read(torch.ones_like(source)), []
        hidden = part._forward(prefix, torch.ones_like(source), input_ids=source).encoder_last_hidden_state
        for what in (hidden, hidden + (1 - read)[..., None]):
            out = part._forward(prefix, read, encoder_outputs=BaseModelOutput(last_hidden_state=what))
            found.append(normalised(out.logits))
        return bool(apart(*found).max() <= CLOSE) and super()._obeys()

    def _padding_gap(self) -> torch.Tensor:
        """See `Pretrained._padding_gap`; a pad is said, if it may be, and is a token like others."""
        encoded = [[i % len(self.vocab) for i in ids] for ids in ([1, 3, 2, 5, 4], [2])]
        some = (3, self._pad, 4, 2, 0, 1)
        may: list[Any] = [i for i in some if i in range(len(self.vocab)) and i not in self.never]
        said = [[may[k % len(may)] for k in row] for row in ([0, 1, 2], [3, 4, 0])]
        state = self._begun(encoded).select(torch.tensor([0, 1], device=self.device))
        whole = torch.cat([state.log_probs[:, None], normalised(state.after(self._tensor(said)).logits)], 1)
        steps = [state.log_probs]
        for column in zip(*said, strict=True):
            state = state.extend(self._tensor(column))
            steps.append(state.log_probs)
        gaps = [apart(torch.stack(steps, 1), whole)]
        for i, ids in enumerate(encoded):
            alone = self._forward(self._tensor([self.prefix + said[i]]), self._tensor([[1] * len(ids)]),
                                  input_ids=self._tensor([ids])).logits[0]  # fmt: skip
            gaps.append(apart(normalised(alone[len(self.prefix) - 1 :]), whole[i])[None])
        return torch.cat(gaps)

    def _tensor(self, ids: Sequence[Any]) -> torch.Tensor:
        return torch.tensor(ids, device=self.device)


@dataclass(frozen=True)
class HFEncoderDecoderState(LogitsState):
    """R prefixes with the keys and values of decoder and encoder; a new state writes nothing of the old one's."""

    model: HFEncoderDecoder
    cache: Any
    hidden: torch.Tensor  # (R, L, H) what the encoder made of each prompt
    mask: torch.Tensor  # (R, L) 1 where a real token stands
    logits: torch.Tensor  # (R, V)

    def after(self, said: torch.Tensor) -> Any:
        """The network's output on more decoder ids (R, T), for which the encoder does not run again."""
        encoded = BaseModelOutput(last_hidden_state=self.hidden)
        return self.model._forward(said, self.mask, encoder_outputs=encoded, past_key_values=fork(self.cache))

    def extend(self, tokens: torch.Tensor) -> HFEncoderDecoderState:
        """See `State.extend`."""
        out = self.after(tokens[:, None])
        logits = at_least_float32(out.logits[:, -1])
        return HFEncoderDecoderState(self.model, out.past_key_values, self.hidden, self.mask, logits)

    def select(self, rows: torch.Tensor) -> HFEncoderDecoderState:
        """See `State.select`."""
        cache = fork(self.cache)
        cache.batch_select_indices(rows)
        return HFEncoderDecoderState(self.model, cache, self.hidden[rows], self.mask[rows], self.logits[rows])
