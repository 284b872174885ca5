"""Tokens per second, drawn and scored: alignbench's law against transformers' `generate` and a scoring pass.

    python tests/bench/generate.py

Both draw from the whole vocabulary (`top_k=0`), in one process, with the same network, dtype and threads, and both
end with a log-probability of every token drawn. A token counts up to and including EOS, so that draws that end early
are no advantage. transformers gets its best batch size for `generate` and for the pass, by one trial each in every
cell, its default cache, prompts that are as little padded as ours, draws sorted by length before they are scored,
logits of the draw alone, and `inference_mode`. The column `drawing alone` leaves its scoring out. Equal mean lengths
and nats a token say that both sample the same law.
"""

from dataclasses import dataclass

import pairs
import torch

TARGET = 3.5
SLAB = 8
"""Rows whose logits are normalised at once: more would only move memory."""


@dataclass(frozen=True)
class Peer:
    """What a user of transformers writes: `generate`, then one teacher-forced pass over what it drew."""

    network: torch.nn.Module
    eos: torch.Tensor
    prompts: list[list[int]]
    draw_rows = (64, 128, 256)

    @classmethod
    def of(cls, law, prompts):
        """The law's own network, EOS ids and rendered prompts."""
        network = law.model.network
        encoded = [list(law.model.encode(law.render(prompt), 0)) for prompt in prompts]
        return cls(network, torch.tensor(sorted(law.vocab.eos), device=network.device), encoded)

    def draw(self, each: int, tokens: int, rows: int) -> list[tuple[list[int], torch.Tensor]]:
        """`each` draws of every prompt, `rows` at once: (prompt, ids up to and including EOS)."""
        todo = [prompt for prompt in self.prompts for _ in range(each)]
        return [drawn for batch in pairs.batched(todo, rows) for drawn in self._generate(batch, tokens)]

    @torch.inference_mode()
    def _generate(self, batch, tokens):
        ids, mask = self._left_padded(batch)
        out = self.network.generate(
            input_ids=ids, attention_mask=mask, do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
            max_new_tokens=tokens, eos_token_id=self.eos.tolist(), pad_token_id=int(self.eos[0]),
        )  # fmt: skip
        new = out[:, ids.shape[1] :]
        return [(prompt, row[:n]) for prompt, row, n in zip(batch, new, lengths(new, self.eos).tolist(), strict=True)]

    def score_rows(self, tokens: int) -> tuple[int, ...]:
        return (8, 32, 64)

    def count(self, drawn) -> int:
        return sum(len(new) for _, new in drawn)

    def distinct(self, drawn) -> int:
        return len({(tuple(prompt), *new.tolist()) for prompt, new in drawn})

    def score(self, drawn, rows: int) -> float:
        return float(sum(nats.double().sum() for nats in self.token_nats(drawn, rows)))

    def token_nats(self, drawn, rows: int) -> list[torch.Tensor]:
        """Nats of every token drawn, in the order of `drawn`; `rows` in one pass, those of like length together."""
        order = sorted(range(len(drawn)), key=lambda i: len(drawn[i][0]) + len(drawn[i][1]))
        found: list = [None] * len(drawn)
        for part in pairs.batched(order, rows):
            for i, nats in zip(part, self._pass([drawn[i] for i in part]), strict=True):
                found[i] = nats
        return found

    @torch.inference_mode()
    def _pass(self, batch):
        ids, mask = self._left_padded([prompt for prompt, _ in batch])
        said = torch.nn.utils.rnn.pad_sequence([new for _, new in batch], batch_first=True)
        ids = torch.cat([ids, said[:, :-1]], 1)
        mask = torch.cat([mask, torch.ones_like(said[:, :-1])], 1)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        logits = self.network(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=said.shape[1]
        ).logits
        nats = torch.cat([_nats(*slab) for slab in zip(logits.split(SLAB), said.split(SLAB), strict=True)]).cpu()
        return [row[: len(new)] for row, (_, new) in zip(nats, batch, strict=True)]

    def _left_padded(self, batch):
        width, device = max(map(len, batch)), self.network.device
        ids = torch.tensor([[0] * (width - len(p)) + p for p in batch], device=device)
        return ids, torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in batch], device=device)


def _nats(logits: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    logits = logits.float()
    return logits.gather(-1, ids[..., None]).squeeze(-1) - logits.logsumexp(-1)


def lengths(new: torch.Tensor, eos: torch.Tensor) -> torch.Tensor:
    """(R,) tokens up to and including the first EOS of (R, T) ids."""
    ended = torch.isin(new, eos)
    return torch.where(ended.any(1), ended.int().argmax(1) + 1, new.shape[1])


def agreement(law, peer: Peer, prompts, draws: int, tokens: int) -> float:
    """Max |Δ| in nats between our record of the sampled tokens and the peer's pass over the same draws."""
    sampled = pairs.ours(law, prompts, draws, tokens, entropy=1)
    drawn = [
        (peer.prompts[c], torch.as_tensor(ids[:n], device=peer.network.device))
        for c, ids, n in zip(sampled.prompt, sampled.tokens, sampled.length, strict=True)
    ]
    theirs = peer.token_nats(drawn, 8)
    return max(
        float(abs(nats.double().numpy() - known[:n]).max())
        for nats, known, n in zip(theirs, sampled.token_log_prob, sampled.length, strict=True)
    )


def main():
    args = pairs.options(__doc__).parse_args()
    pairs.set_up(args)
    law, prompts = pairs.load(args), pairs.PROMPTS[: args.prompts]
    peer = Peer.of(law, prompts)
    print(f"same draws scored by both: max |Δ| {agreement(law, peer, prompts, 2, min(args.tokens)):.1e} nats a token")
    pairs.last_line("generate", pairs.against(peer, law, args).value, TARGET)


if __name__ == "__main__":
    main()
