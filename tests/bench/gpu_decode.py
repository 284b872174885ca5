"""Decoding on a GPU: tokens per second against the memory-bandwidth bound and against transformers' `generate`.

    python tests/bench/gpu_decode.py

Llama-shaped models of about 135 M (SmolLM2's shape) and 1.2 B parameters with random weights, made from a config, no
hub; bfloat16, 256 rows at once, prompts of 32 tokens. The bound: every step reads all weights that multiply and the
keys and values of all rows once, at the bandwidth that a large copy on the device reaches (bytes read plus bytes
written per second, measured in every turn). `products` is the same for the matrix products' rate. Exits with 2 where
there is no GPU; `--device cpu --tiny` runs the same code on a model of a few thousand parameters.
"""

import sys
import tempfile
from pathlib import Path

import pairs
import torch
from gemm_bound import gemm_rate, multiplying
from generate import Peer

sys.path.insert(0, str(Path(__file__).parents[1]))
from models import tokenizer, words_of

SHARED = {"tie_word_embeddings": True, "max_position_embeddings": 2048}
SHAPES = {
    "135M": {"vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
             "num_attention_heads": 9, "num_key_value_heads": 3},
    "1B": {"vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8},
}  # fmt: skip
TINY = {"tiny": {"vocab_size": 512, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
                 "num_attention_heads": 4, "num_key_value_heads": 2}}  # fmt: skip
COPIED, PROMPT = 2**30, 32


def saved(shape: dict[str, int], dtype: torch.dtype, device: str, folder: Path) -> Path:
    """A folder with a random Llama of that shape and a tokenizer of one word a token; its last id is EOS."""
    from transformers import LlamaConfig, LlamaForCausalLM

    last = shape["vocab_size"] - 1
    torch.manual_seed(0)
    with torch.device(device):
        network = LlamaForCausalLM(LlamaConfig(**shape, **SHARED, bos_token_id=last, eos_token_id=last,
                                               pad_token_id=last)).to(dtype)  # fmt: skip
    network.save_pretrained(str(folder))
    tokenizer(words_of(shape["vocab_size"])).save_pretrained(str(folder))
    return folder


def bandwidth(device: torch.device, size: int) -> float:
    """Bytes per second that a copy of `size` bytes reads and writes: the median of 5."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    took = [pairs.clock(lambda: target.copy_(source))[0] for _ in range(6)]
    return 2 * size / pairs.median(took[1:])


class Bench:
    """One model, decoded by us and by `generate`, and what its memory traffic allows."""

    def __init__(self, law, prompts, draws: int, tokens: int, copied: int):
        self.law, self.prompts, self.draws, self.tokens, self.copied = law, prompts, draws, tokens, copied
        self.network = law.model.network
        self.peer = Peer.of(law, prompts)
        self.rows = len(prompts) * draws

    def ours(self, turn: int) -> float:
        """Tokens per second, ours, log-probabilities included."""
        seconds, drawn = pairs.clock(lambda: pairs.ours(self.law, self.prompts, self.draws, self.tokens, turn))
        return drawn.length.sum() / seconds

    def generate(self, turn: int) -> float:
        """Tokens per second of `generate`, without log-probabilities."""
        torch.manual_seed(turn)
        seconds, drawn = pairs.clock(lambda: self.peer.draw(self.draws, self.tokens, self.rows))
        return self.peer.count(drawn) / seconds

    def bound(self, turn: int) -> float:
        """Tokens per second if memory traffic were all."""
        return self.rows * self.tokens * bandwidth(self.network.device, self.copied) / self.bytes()

    def products(self, turn: int) -> float:
        """Tokens per second if matrix products were all."""
        return gemm_rate(self.network.device, self.network.dtype) / (2 * multiplying(self.network))

    def bytes(self) -> int:
        """Read by all steps: the weights that multiply, and keys and values of prompt and draw so far."""
        config, width = self.network.config, self.network.dtype.itemsize
        head = config.hidden_size // config.num_attention_heads
        cached = 2 * config.num_hidden_layers * config.num_key_value_heads * head * width
        weights = multiplying(self.network) * width
        return sum(weights + self.rows * cached * (PROMPT + step) for step in range(self.tokens))

    def measure(self, turns: int) -> dict[str, list[float]]:
        """The figures of all ways, in turn."""
        ways = {"ours": self.ours, "generate": self.generate, "bound": self.bound, "products": self.products}
        return pairs.in_turn(ways, turns)


def arguments():
    parser = pairs.options(__doc__, draws=[64], tokens=[128], dtype="bfloat16", device="cuda", batch_size="256")
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand parameters, to try the code")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES), help="(default: %(default)s)")
    return parser.parse_args()


def law_of(args, shape: dict[str, int], folder: str):
    """The random model as a law, loaded from disk as any other; its prompts are words, without a chat template."""
    from alignbench.registry import generator, load_plugins
    from alignbench.spec import Spec

    load_plugins()
    device = "cuda" if args.device == "auto" else args.device
    saved(shape, getattr(torch, args.dtype), device, Path(folder))
    spec = Spec("hf", {"pretrained": folder, "dtype": args.dtype})
    return spec.build(generator, "bench", batch_size=args.batch_size, device=device)


def prompts_of(count: int) -> tuple[str, ...]:
    """Prompts of 32 words that every vocabulary here has, no two alike."""
    return tuple(" ".join(f"w{20 + (k + 7 * i) % 400}" for i in range(PROMPT)) for k in range(count))


def line(name: str, bench: Bench, found: dict[str, list[float]]) -> list[object]:
    """A line of the table."""
    rates = [f"{pairs.median(found[way]):.0f}" for way in ("ours", "generate", "bound", "products")]
    against = [cell for way in ("bound", "generate") for cell in pairs.Ratio.of(found["ours"], found[way]).cells()]
    return [name, f"{multiplying(bench.network) / 1e6:.2f}", bench.rows, *rates, *against]


COLUMNS = ("model", "M multiply", "rows", "ours, tokens/s", "generate", "bandwidth bound", "products", "of the bound",
           "range", "ours / generate", "range")  # fmt: skip


def main():
    args = arguments()
    if not torch.cuda.is_available() and args.device != "cpu":
        print("gpu_decode: no CUDA device here; --device cpu --tiny tries the code", file=sys.stderr)
        sys.exit(2)
    pairs.set_up(args)
    rows, figures = [], {}
    for name, shape in TINY.items() if args.tiny else ((name, SHAPES[name]) for name in args.shapes):
        with tempfile.TemporaryDirectory() as folder:
            law = law_of(args, shape, folder)
            bench = Bench(law, prompts_of(args.prompts), args.draws[0], args.tokens[0], 2**20 if args.tiny else COPIED)
            figures[name] = bench.measure(args.pairs)
            rows.append(line(name, bench, figures[name]))
        del law, bench
    pairs.show(COLUMNS, rows)
    for name, found in figures.items():
        for way in ("generate", "bound"):
            pairs.last_line(f"gpu_decode_{name}_{way}", pairs.Ratio.of(found["ours"], found[way]).value, None)


if __name__ == "__main__":
    main()
