"""The fraction of the machine's matrix-product rate that drawing reaches.

    python tests/bench/gemm_bound.py [--profile]

Tokens per second × 2 × (parameters that multiply), over the rate of a 2048³ matrix product in the same dtype, measured
before each timing of the draws and after the last. A parameter multiplies where a token meets it in a matrix product:
embeddings that are only looked up, norms and biases do not, a tied output layer does, once. Prompts, attention and the
draw itself count as nothing, so that 1 cannot be reached. `--profile` adds where the loop's time goes.
"""

import re

import pairs
import torch

NAME, TARGET, HEADLINE = "gemm_bound", 0.45, (64, 48)
SIDE, PRODUCTS = 2048, 5
CLASSES = {
    "matrix products": r"aten::(mm|addmm|matmul|linear|_weight_int.*)|mkldnn.*linear.*|.*(gemm|cutlass|nvjet).*",
    "attention": r".*(attention|sdpa|flash|fmha|bmm).*",
    "cache, copies": r"aten::(cat|copy_|index|index_put_|index_select|index_copy_|clone|_to_copy)|Memcpy.*",
    "softmax, draw": r".*(softmax|exp|cumsum|searchsorted|gather|sort|topk|logsumexp|sum|multinomial).*",
}
"""Class → the names of its operators and kernels; the first that fits counts."""


def gemm_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Floating-point operations per second of a 2048³ product: the median of 5."""
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=torch.float32).to(dtype) for _ in range(2))
    out = a @ b
    took = [pairs.clock(lambda: torch.mm(a, b, out=out))[0] for _ in range(PRODUCTS)]
    return 2 * SIDE**3 / pairs.median(took)


def multiplying(network: torch.nn.Module) -> int:
    """Parameters that a token meets in a matrix product."""
    kinds = (torch.nn.Embedding,)
    weights = (m.weight for m in network.modules() if not isinstance(m, kinds) and hasattr(m, "weight"))
    distinct = {id(w): w.numel() for w in weights if isinstance(w, torch.Tensor) and w.ndim == 2}
    return sum(distinct.values())


class Bench:
    """The draws of one size, as floating-point operations per second."""

    def __init__(self, law, prompts, draws: int, tokens: int):
        self.law, self.prompts, self.draws, self.tokens = law, prompts, draws, tokens
        self.flops = 2 * multiplying(law.model.network)
        self.rates = []

    def work(self, turn: int) -> float:
        """Operations per second of the draws."""
        seconds, drawn = pairs.clock(lambda: pairs.ours(self.law, self.prompts, self.draws, self.tokens, turn))
        self.rates.append(drawn.length.sum() / seconds)
        return self.flops * self.rates[-1]

    def bound(self, turn: int) -> float:
        """Operations per second of the matrix product."""
        return gemm_rate(self.law.model.network.device, self.law.model.network.dtype)

    def measure(self, turns: int) -> tuple[pairs.Ratio, list[object]]:
        """The fraction, and its line of the table."""
        found = pairs.in_turn({"bound": self.bound, "work": self.work}, turns)
        rates = [*found["bound"], self.bound(turns)]
        by_turn = [w / pairs.median(rates[k : k + 2]) for k, w in enumerate(found["work"])]
        ratio = pairs.Ratio(pairs.median(found["work"]) / pairs.median(rates), min(by_turn), max(by_turn))
        return ratio, [
            f"{len(self.prompts) * self.draws} × {self.tokens}", f"{pairs.median(self.rates[1:]):.0f}",
            f"{pairs.median(found['work']) / 1e9:.1f}", f"{pairs.median(rates) / 1e9:.1f}", *ratio.cells(),
        ]  # fmt: skip

    def profile(self) -> list[tuple[str, str, str]]:
        """Share of the time by class of operator, and the operators that take most of it."""
        from torch.profiler import ProfilerActivity, profile

        gpu = self.law.model.network.device.type == "cuda"
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
        with profile(activities=kinds, acc_events=True) as seen:
            pairs.ours(self.law, self.prompts, self.draws, self.tokens, 0)
        took = {e.key: e.self_device_time_total if gpu else e.self_cpu_time_total for e in seen.key_averages()}
        return shares(took)


def shares(took: dict[str, float]) -> list[tuple[str, str, str]]:
    """Class, share of the time, and its three largest operators."""
    groups: dict[str, dict[str, float]] = {name: {} for name in (*CLASSES, "other")}
    for name, time in took.items():
        group = next((c for c, pattern in CLASSES.items() if re.fullmatch(pattern, name)), "other")
        groups[group][name] = time
    total = sum(took.values())
    return [
        (group, f"{sum(ops.values()) / total:.1%}",
         ", ".join(f"{name[:40]} {ops[name] / total:.1%}" for name in sorted(ops, key=lambda n: -ops[n])[:3]))
        for group, ops in groups.items()
    ]  # fmt: skip


def main():
    parser = pairs.options(__doc__, tokens=[48])
    parser.add_argument("--profile", action="store_true", help="where the loop's time goes, by class of operator")
    args = parser.parse_args()
    pairs.set_up(args)
    law, prompts = pairs.load(args), pairs.PROMPTS[: args.prompts]
    ratios, rows, profiles = {}, [], []
    for draws, tokens in pairs.product(args.draws, args.tokens):
        bench = Bench(law, prompts, draws, tokens)
        ratios[draws, tokens], row = bench.measure(args.pairs)
        rows.append(row)
        profiles += [(row[0], *line) for line in bench.profile()] if args.profile else []
    print(f"{multiplying(law.model.network) / 1e6:.1f} M parameters multiply")
    pairs.show(("draws × tokens", "tokens/s", "useful GFLOP/s", f"{SIDE}³ product", "fraction", "range"), rows)
    if profiles:
        print()
        pairs.show(("draws × tokens", "class", "share of time", "most of it"), profiles)
    headline = HEADLINE if HEADLINE in ratios else next(iter(ratios))
    print(f"headline: {args.prompts} prompts × {headline[0]} draws × {headline[1]} tokens")
    pairs.last_line(NAME, ratios[headline].value, TARGET)


if __name__ == "__main__":
    main()
