"""A step of REINFORCE with a leave-one-out baseline: seconds, ours over trl's RLOOTrainer; and the KL that each tells.

Part of `train_step`. Both draw, score under base and policy, and train the same adapter of the same network on the same
reward, in the same dtype, with as many draws and tokens. Ours draws for `--renew` steps at once, its default, and once
more for each step alone, as trl's default is. trl's is timed from the begin of its first step to the end of
its last, its trainer made before. Its KL is the mean of log π/a over all tokens of a step; ours is that of whole draws.
On the draws of trl's last step both are printed, with our laws' log π and log a of the weights that drew them.
"""

import tempfile
import time

import pairs
import torch

TARGET = 2.0
RATE = 1e-4


class Ours:
    """The loop's own steps, as many as it draws for at once, `renew`."""

    def __init__(self, args, given, renew: int) -> None:
        from alignbench.aligners.training.folder import Folder
        from alignbench.aligners.training.loop import Loop
        from alignbench.aligners.training.processes import Processes
        from alignbench.aligners.training.reinforce import Reinforce
        from alignbench.aligners.training.work import Work
        from alignbench.generators.policy import policy_of

        recipe = Reinforce(steps=10**6, adapter=f"lora:r={args.rank}", batch=args.prompts * args.draws[0], lr=RATE,
                           renew=renew, warmup=0, cooldown=0.0)  # fmt: skip
        self.renew = renew
        work = Work(given, policy_of(given.base, recipe.adapter), Processes())
        self.loop = Loop(recipe, recipe.method, work, Folder(None, "reinforce", None, 0))
        self.loop.begin()

    def seconds(self, turn: int) -> float:
        """Of a step."""
        return pairs.clock(self._steps)[0] / self.renew

    def _steps(self) -> None:
        for _ in range(self.renew):
            self.loop.one()


class Theirs:
    """As many steps of a trainer that is made anew for each turn."""

    def __init__(self, args, given) -> None:
        from alignbench.aligners.training.trl import Trl

        self.given, self.steps = given, args.renew
        self.recipe = Trl(steps=args.renew, adapter=f"lora:r={args.rank}", batch=args.prompts * args.draws[0], lr=RATE,
                          warmup=0)  # fmt: skip
        self.told = (0.0, 0.0, 0.0)

    def seconds(self, turn: int) -> float:
        """Of a step."""
        from transformers import TrainerCallback

        from alignbench.aligners.training.processes import Processes
        from alignbench.aligners.training.trl import Peer
        from alignbench.aligners.training.work import Work
        from alignbench.generators.policy import policy_of

        moments, logged, ours = [], [], []
        peer = Peer(self.recipe, Work(self.given, policy_of(self.given.base, self.recipe.adapter), Processes()), None)

        class Watch(TrainerCallback):
            def on_step_begin(self, *given, **more):
                moments.append(time.perf_counter())

            def on_step_end(self, *given, **more):
                pairs.synchronise()
                moments.append(time.perf_counter())

            def on_log(self, args, state, control, logs=None, **more):
                logged.append((logs or {}).get("kl", 0.0))

        reward, last = peer.reward, self.steps

        def heard(prompts, completions, completion_ids, number, **more):
            found = reward(prompts, completion_ids, number)
            if len(moments) == 2 * last - 1:
                began = time.perf_counter()
                peer.take(trainer.model)
                ours.append(self._kl(peer, peer.draws(completion_ids, number)))
                moments[-1] += time.perf_counter() - began  # which is ours, and not its
            return found

        peer.reward = heard
        with tempfile.TemporaryDirectory() as scratch:
            trainer = peer.trainer(scratch)
            trainer.add_callback(Watch())
            trainer.train()
        kl, tokens = ours[0]
        self.told = (logged[self.steps - 1], kl, kl / tokens)
        return sum(moments[1::2]) / self.steps - sum(moments[::2]) / self.steps

    def _kl(self, peer, draws) -> tuple[float, float]:
        """Mean of log π/a of draws, nats, by our laws; and of their tokens."""
        work = peer.work
        log_pi = work.policy.log_prob(work.prompts, draws)
        log_base = self.given.base.log_prob(work.prompts, draws)
        return float((log_pi - log_base).mean()), float(draws.length.mean())


def measure(args, given) -> None:
    """Print the table and the last line."""
    ours, each, theirs = Ours(args, given, args.renew), Ours(args, given, 1), Theirs(args, given)
    torch.manual_seed(0)
    ways = {"reinforce": ours.seconds, "reinforce:renew=1": each.seconds, "trl RLOO": theirs.seconds}
    found = pairs.in_turn(ways, args.pairs)
    ratio, alike = (pairs.Ratio.of(found["trl RLOO"], found[name]) for name in list(ways)[:2])
    pairs.show(("way", "seconds a step"), [[name, f"{pairs.median(took):.2f}"] for name, took in found.items()])
    logged, kl, by_token = theirs.told
    print(f"draws of trl's step {args.renew}: it logs a KL of {logged:.4f} nats a token; ours is {kl:.4f} nats a draw, "
          f"{by_token:.4f} a token")  # fmt: skip
    print(f"speed where ours draws for each step alone, as trl does: {' '.join(alike.cells())}")
    print(f"speed {' '.join(ratio.cells())}")
    pairs.last_line("train_step --trl", ratio.value, TARGET)
