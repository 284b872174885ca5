"""Tokens per second, drawn and scored: alignbench's law against lm-eval's `generate_until` and `loglikelihood`.

    pip install -c constraints.txt -e ".[bench]" && python tests/bench/lm_eval_peer.py

lm-eval's `HFLM` gets the same network and tokenizer objects, `top_k=0` (its own default silently keeps 50 tokens), the
rendered chat prompt as context and each draw as a request of its own; `loglikelihood` then scores the same draws. Both
calls get their own best batch size, by one trial each in every cell; sizes whose logits would not fit half of the free
memory are left out, since `loglikelihood` keeps those of the prompt too. A token counts as the network drew it, up to
and including EOS; lm-eval itself returns text, and scores what that text is tokenised to.
"""

import logging
import sys
from dataclasses import dataclass, field

import pairs
import psutil
import torch
from generate import lengths

try:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
except ImportError:
    print('lm_eval_peer: lm-eval is not installed; pip install -e ".[bench]"', file=sys.stderr)
    sys.exit(2)

TARGET = 6.0


class Counting(HFLM):
    """lm-eval's model, which also keeps the ids that were drawn, so that they can be counted."""

    def _model_generate(self, context, *given, **more):
        out = super()._model_generate(context, *given, **more)
        self.kept.append(out[:, context.shape[1] :])
        return out


@dataclass
class Peer:
    """lm-eval on our network."""

    law: object
    prompts: tuple[str, ...]
    lm: Counting = field(init=False)
    draw_rows = (64, 128, 256)

    def __post_init__(self):
        model = self.law.model
        self.lm = Counting(pretrained=model.network, tokenizer=model.tokenizer, batch_size=8)
        self.lm.kept = []
        self.eos = torch.tensor(sorted(self.law.vocab.eos), device=model.network.device)
        self.contexts = [self.law.render(prompt) for prompt in self.prompts]

    def draw(self, draws: int, tokens: int, rows: int) -> list[tuple[str, str]]:
        """`draws` requests of every prompt: (context, text)."""
        self.lm.kept.clear()
        self.lm.batch_size_per_gpu = rows
        asked = [
            Instance("generate_until", {}, (context, _settings(tokens)), idx)
            for context in self.contexts
            for idx in range(draws)
        ]
        texts = self.lm.generate_until(asked, disable_tqdm=True)
        return [(request.args[0], text) for request, text in zip(asked, texts, strict=True)]

    def score_rows(self, tokens: int) -> list[int]:
        """Sizes whose logits, in float32 and three copies, fit half of the free memory; at least the smallest."""
        device = self.law.model.network.device
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
        longest = max(map(len, map(self.lm.tok_encode, self.contexts))) + tokens
        row = longest * len(self.law.vocab) * 12
        sizes = (8, 16, 32, 64)
        return [size for size in sizes if size * row <= free / 2] or [min(sizes)]

    def score(self, drawn: list[tuple[str, str]], rows: int) -> float:
        """Nats of all texts; an empty one has no request, since lm-eval has no EOS term."""
        self.lm.batch_size_per_gpu = rows
        asked = [Instance("loglikelihood", {}, pair, idx) for idx, pair in enumerate(drawn) if pair[1]]
        return sum(nats for nats, _ in self.lm.loglikelihood(asked, disable_tqdm=True))

    def count(self, drawn: list[tuple[str, str]]) -> int:
        return int(sum(lengths(new, self.eos).sum() for new in self.lm.kept))

    def distinct(self, drawn: list[tuple[str, str]]) -> int:
        return len(set(drawn))


def _settings(tokens: int) -> dict[str, object]:
    return {"until": [], "do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0, "max_gen_toks": tokens}


def main():
    args = pairs.options(__doc__).parse_args()
    pairs.set_up(args, "lm-eval")
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    logging.getLogger("lm_eval.models.huggingface").setLevel(logging.ERROR)
    law = pairs.load(args)
    ratio = pairs.against(Peer(law, pairs.PROMPTS[: args.prompts]), law, args)
    pairs.last_line("lm_eval_peer", ratio.value, TARGET)


if __name__ == "__main__":
    main()
