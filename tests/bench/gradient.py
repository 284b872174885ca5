"""Forward and backward of a policy's log-probabilities: seconds and peak memory, ours over plain transformers + peft.

    python tests/bench/gradient.py

The job: nats by token of the draws of several prompts under a LoRA policy (r = 16, all linear layers), with their
gradient. The plain way runs each draw behind its whole prompt, as trainers do, and has logits of the draw alone. The
ways take turns. Before, each runs once in a process of its own for its memory: the most held during the job, less what
was held before it. Both must give the same nats and the same gradient.
"""

import argparse
import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import pairs
import psutil
import torch

TARGET, MEMORY = 1.0, 0.7


def plain(policy, prompts, draws) -> torch.Tensor:
    """(B, T) nats by transformers alone, padded to the left, 0 after the end."""
    law, network = policy, policy.model.network
    encoded = [list(law.model.encode(law.render(prompts[i]), 0)) for i in draws.prompt]
    width = max(map(len, encoded))
    before = torch.tensor([[0] * (width - len(ids)) + ids for ids in encoded])
    real = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in encoded])
    inside, said = torch.as_tensor(draws.tokens >= 0), torch.as_tensor(draws.tokens).clamp(min=0)
    mask = torch.cat([real, inside.long()], 1).to(network.device)
    ids, said = torch.cat([before, said], 1).to(network.device), said.to(network.device)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = network(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False,
                     logits_to_keep=said.shape[1] + 1).logits[:, :-1]  # fmt: skip
    nats = logits.float().log_softmax(-1).gather(-1, said[..., None])[..., 0]
    return nats * inside.to(network.device)


def ours(policy, prompts, draws) -> torch.Tensor:
    """The same by the policy's own module."""
    return policy.module(prompts, draws)


WAYS = {"ours": ours, "plain": plain}


def job(way, policy, prompts, draws):
    """The nats, and the gradient of their mean by draw, flat."""
    parameters = [p for p in policy.module.parameters() if p.requires_grad]
    nats = way(policy, prompts, draws)
    found = torch.autograd.grad(nats.sum() / len(draws), parameters)
    return nats.detach(), torch.cat([g.flatten() for g in found])


def setting(args):
    """The policy, its B not 0 as after a few steps, and draws of the base."""
    from alignbench.generators.policy import policy_of

    base, prompts = pairs.load(args), pairs.PROMPTS[: args.prompts]
    if args.plain_prompts:
        base.model.chat = False
    policy = policy_of(base, f"lora:r={args.rank}")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in policy.module.named_parameters():
        if tensor.requires_grad and "lora_B" in name:
            tensor.data += 0.01 * torch.randn(tensor.shape, generator=generator).to(tensor.device)
    return policy, prompts, pairs.ours(base, prompts, args.draws[0], args.tokens[0], 0)


def held(device) -> tuple[int, int]:
    """Bytes held now, and the most since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    lines = Path("/proc/self/status").read_text().splitlines()
    return psutil.Process().memory_info().rss, int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) * 1024


def forget_peak(device) -> None:
    """What was held before does not count."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def alone(args) -> None:
    """One job of one way in this process: prints its memory as JSON."""
    policy, prompts, draws = setting(args)
    policy.model.forget()
    small = draws.take(range(2))
    job(WAYS[args.way], policy, prompts, small)  # buffers that are made once
    forget_peak(policy.device)
    before, _ = held(policy.device)
    job(WAYS[args.way], policy, prompts, draws)
    print(json.dumps({"bytes": held(policy.device)[1] - before}))


def memory(way: str) -> int:
    """Bytes of one job of a way, in a process of its own."""
    words = [sys.executable, __file__, *sys.argv[1:], "--way", way]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()[-1])[
        "bytes"
    ]


def seconds(way, policy, prompts, draws, turn: int) -> float:
    return pairs.clock(lambda: job(way, policy, prompts, draws))[0]


def main() -> None:
    """Print the table and the last lines."""
    parser = pairs.options(__doc__, draws=[16], tokens=[40], pairs=5)
    parser.add_argument("--rank", type=int, default=16, help="of the adapter (default: %(default)s)")
    parser.add_argument("--plain_prompts", action="store_true", help="prompts as they are: shorter than in a chat")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    pairs.set_up(args)
    if args.way:
        alone(args)
        return
    bytes_of = {name: memory(name) for name in WAYS}
    policy, prompts, draws = setting(args)
    (mine, my_gradient), (theirs, gradient) = (job(way, policy, prompts, draws) for way in WAYS.values())
    off = float((my_gradient - gradient).norm() / gradient.norm())
    print(f"{len(draws)} draws of {draws.length.mean():.1f} tokens")
    print(f"nats at most {float((mine - theirs).abs().max()):.1e} apart, gradients {off:.1e} of their norm", flush=True)
    found = pairs.in_turn({name: partial(seconds, way, policy, prompts, draws) for name, way in WAYS.items()},
                          args.pairs, warm=())  # fmt: skip
    ratio = pairs.Ratio.of(found["plain"], found["ours"])
    share = bytes_of["ours"] / bytes_of["plain"]
    rows = [[name, f"{pairs.median(found[name]):.2f}", f"{bytes_of[name] / 2**20:.0f}"] for name in WAYS]
    pairs.show(("way", "seconds", "MiB more at most"), rows)
    print(f"speed {' '.join(ratio.cells())}")
    pairs.last_line("gradient_memory", share, MEMORY)
    pairs.last_line("gradient", ratio.value, TARGET)


if __name__ == "__main__":
    main()
