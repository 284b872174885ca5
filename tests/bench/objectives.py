"""Which objective reaches the target: KL(p‖π) at the end, nats, on the world of tests/aligners/training.

    python tests/bench/objectives.py
    python tests/bench/objectives.py --steps 200

Three targets: a word that must be there ("hard"), a reward, and a strong one. Exact: gradients with all draws listed,
500 steps of Adam, or the fixed point of a backup by dynamic programming. By draws: 64 a prompt and step, one run each.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "aligners" / "training"))

import reward_worlds
import test_convergence
import test_soft_q
from training_worlds import BASE, HARD, REWARD, STRONG, Listed, world

from alignbench.aligners.training import losses, rewards
from alignbench.aligners.training.cdpg import CDPG
from alignbench.aligners.training.dpg import DPG
from alignbench.aligners.training.f_dpg import FDPG
from alignbench.aligners.training.gdc import GDC
from alignbench.aligners.training.grpo import GRPO
from alignbench.aligners.training.ppo import PPO
from alignbench.aligners.training.q_learning import QLearning
from alignbench.aligners.training.reinforce import KL, Reinforce
from alignbench.aligners.training.sft import SFT
from alignbench.aligners.training.soft_q import SoftQ

TARGETS = {"hard": HARD, "reward": REWARD, "strong": STRONG}
EPSILON = 0.01
COMMON = {"batch": 128, "lr": 0.05, "cooldown": 0.5}
HEAD = {"batch": 128, "lr": 0.1, "cooldown": 0.5, "adapter": "head:rank=500"}
BY_DRAWS = {
    "dpg": lambda n: DPG(steps=n, pool=20000, **COMMON),
    "dpg, no baseline": lambda n: DPG(steps=n, pool=20000, baseline=False, **COMMON),
    "gdc": lambda n: GDC(steps=n, pool=20000, baseline=True, **COMMON),
    "cdpg": lambda n: CDPG(steps=n, **COMMON),
    "f_dpg:f=js": lambda n: FDPG(steps=n, pool=20000, f="js", **COMMON),
    "sft": lambda n: SFT(steps=n, **COMMON),
    "sft:data=fixed": lambda n: SFT(steps=n, data="fixed", **COMMON),
    "reinforce": lambda n: Reinforce(steps=n, **COMMON),
    "ppo, trace 1": lambda n: PPO(steps=n, trace=1.0, batch=128, lr=0.05),
    "ppo": lambda n: PPO(steps=n, batch=128, lr=0.05),
    "ppo:target_kl=0.1": lambda n: PPO(steps=n, target_kl=0.1, batch=128, lr=0.05),
    "grpo": lambda n: GRPO(steps=n, **COMMON),
    "grpo:unbiased=true": lambda n: GRPO(steps=n, unbiased=True, **COMMON),
    "soft_q": lambda n: SoftQ(steps=n, **HEAD),
    "soft_q:backup=soft": lambda n: SoftQ(steps=n, backup="soft", **HEAD),
    "q_learning": lambda n: QLearning(steps=n, **HEAD),
    "q_learning:tau=0.7": lambda n: QLearning(steps=n, tau=0.7, **HEAD),
}


def exact(name):
    """KL(p‖π) of each target where exact gradients end."""
    losses.others = rewards.others = lambda value, prompt: torch.zeros_like(value)
    for target in TARGETS.values():
        real, listed = Listed(target=target), Listed(target=target, floor=float(np.log(EPSILON)))
        if name == "grpo":
            base = reward_worlds.by_token_law(BASE.model.network.logits, listed.draws)
            yield real.kl(reward_worlds.ended(reward_worlds.mean_of_grpo(listed, base)))
        elif name in KL:
            base = reward_worlds.by_token_law(BASE.model.network.logits, listed.draws)
            yield real.kl(reward_worlds.ended(reward_worlds.mean_of(name, listed, base)))
        elif name in test_soft_q.ENDS:
            yield real.kl(real.log_a) * test_soft_q.part_of(
                target, test_soft_q.q_table(target, test_soft_q.ENDS[name][0])
            )
        else:
            yield real.kl(test_convergence.ended(name, listed if name == "reverse_kl" else real))


def by_draws(name, steps):
    """KL(p‖π) of each target after so many steps."""
    for target in TARGETS.values():
        yield Listed(target=target).kl_of(world(target).aligned(BY_DRAWS[name](steps)))


def line(name, found):
    """A row of the table."""
    print(f"| {name} | " + " | ".join(f"{round(kl, 4) + 0.0:.4f}" for kl in found) + " |", flush=True)


def main():
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of each training by draws")
    parser.add_argument("--only", nargs="*", help="objectives by name (default: all)")
    args = parser.parse_args()
    steps, right, only = args.steps, losses.others, args.only
    line("KL(p‖a)", [Listed(target=t).kl(Listed(target=t).log_a) for t in TARGETS.values()])
    for name in ("sft", "dpg", "kl", "tv", "js", "chi2", "reverse_kl", *KL, "grpo", *test_soft_q.ENDS):
        if not only or name in only:
            line(f"exact: {name}", exact(name))
    losses.others = rewards.others = right
    for name in BY_DRAWS:
        if not only or name in only:
            line(f"{steps} steps: {name}", by_draws(name, steps))


if __name__ == "__main__":
    main()
