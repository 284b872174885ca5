"""A step of DPG: seconds, ours over plain transformers + peft; or of REINFORCE, over trl's RLOO.

    python tests/bench/train_step.py
    python tests/bench/train_step.py --plain_prompts --profile
    python tests/bench/train_step.py --plain_prompts --draws 16 --trl

The job: 32 draws of 40 tokens of a LoRA policy (r = 8, all linear layers) on the four prompts of lexical_word, scored
under base and policy, one backward pass with the weights of KL(p‖π), clipped, AdamW. The plain way is `generate`, a
pass with the adapter off, a pass with it on, and its gradient, every draw behind its whole prompt. Ours is the loop's
own step, over as many steps as it draws for at once. The ways take turns. Before, both give the gradient of the same
draws. Z is given to both. `--profile` tells where our step's time goes.

`--trl`: the step of `reinforce` against that of trl's RLOOTrainer, see `rloo_step`.
"""

import time
from collections import defaultdict
from functools import partial

import gradient
import numpy as np
import pairs
import rloo_step
import torch

TARGET = 1.5
MOST_APART = 1e-3
"""Of the norm: torch's log_softmax is 7e-6 nats off at each token on a CPU, and the weights π/q of 40 feel that."""
TASK = "lexical_word"


def setting(args):
    """The base on the task's prompts, as aligners are put to work on it."""
    from alignbench.run.plan import look_up
    from alignbench.run.words import settings_of
    from alignbench.scoring.bench import Bench
    from alignbench.scoring.references import References
    from alignbench.seeds import Seed
    from alignbench.store.draws import DrawStore
    from alignbench.types import silent

    base = pairs.load(args)
    base.model.chat = not args.plain_prompts
    [task] = look_up(settings_of({"tasks": [TASK]}, {})).tasks
    assert task.max_tokens == args.tokens[0] and len(task.prompts) == args.prompts
    bench = Bench(
        task=task, given=base, base_name="base", draws=1, store=DrawStore(None), seed=Seed(0), progress=silent
    )
    return References(bench).setting


class Ours:
    """The loop's own step."""

    def __init__(self, args, given) -> None:
        from alignbench.aligners.training.dpg import DPG
        from alignbench.aligners.training.folder import Folder
        from alignbench.aligners.training.loop import Loop
        from alignbench.aligners.training.processes import Processes
        from alignbench.aligners.training.work import Work

        recipe = DPG(steps=10**6, adapter=f"lora:r={args.rank}", batch=args.prompts * args.draws[0], renew=args.renew,
                     pool=args.pool, warmup=0, cooldown=0.0)  # fmt: skip
        self.renew = args.renew
        self.policy = policy_of(args, given.base)
        self.loop = Loop(recipe, recipe.method, Work(given, self.policy, Processes()), Folder(None, "dpg", None, 0))
        self.loop.begin()
        self.log_z = self.loop.method.log_z

    def batch(self):
        """The draws of one step, which is not made."""
        own = self.loop.method.own
        batch = own.batch(0, self.policy)
        own.held.clear()
        return batch

    def gradient(self, batch) -> torch.Tensor:
        """Of a step's loss, flat."""
        self.loop.passes.back(batch, partial(self.loop.method.loss, "loss"))
        return taken(self.policy)

    def seconds(self, turn: int) -> float:
        """Of a step: of as many as there are draws for at once, by their number."""
        return pairs.clock(self._steps)[0] / self.renew

    def _steps(self) -> None:
        for _ in range(self.renew):
            self.loop.one()


class Plain:
    """The same step by transformers and peft alone."""

    def __init__(self, args, given, log_z) -> None:
        self.given, self.log_z, self.prompts = given, log_z, list(given.prompts)
        self.policy = policy_of(args, given.base)
        self.wrapped, self.tokenizer = self.policy.model.trained.wrapped, self.policy.model.tokenizer
        self.each, self.tokens = args.draws[0], args.tokens[0]
        self.optimiser = torch.optim.AdamW(self.policy.parameters, lr=2e-4, weight_decay=0.0)

    def drawn(self):
        """Draws by `generate`: ids, −1 after the end; each prompt's number; texts."""
        from alignbench.types import Draws

        law, eos = self.policy, sorted(self.policy.vocab.eos)
        encoded = [list(law.model.encode(law.render(prompt), 0)) for prompt in self.prompts]
        width = max(map(len, encoded))
        ids = torch.tensor([[eos[0]] * (width - len(e)) + e for e in encoded], device=law.device)
        mask = torch.tensor([[0] * (width - len(e)) + [1] * len(e) for e in encoded], device=law.device)
        with torch.inference_mode():
            found = self.wrapped.generate(
                input_ids=ids, attention_mask=mask, do_sample=True, top_k=0, top_p=1.0, temperature=1.0,
                num_return_sequences=self.each, max_new_tokens=self.tokens, pad_token_id=eos[0], eos_token_id=eos,
            )  # fmt: skip
        tokens = found[:, width:].cpu().numpy().copy()
        ended = np.isin(tokens, eos).cumsum(1)
        tokens[(ended - np.isin(tokens, eos)) > 0] = -1
        length, count = (tokens >= 0).sum(1), len(tokens)
        texts = self.tokenizer.batch_decode([row[row >= 0] for row in tokens], skip_special_tokens=True)
        return Draws(
            prompt=np.repeat(np.arange(len(self.prompts)), self.each),
            index=np.tile(np.arange(self.each), count // self.each),
            texts=tuple(texts), tokens=tokens, length=length, finished=length < self.tokens, log_prob=None,
            token_log_prob=None, model_log_prob=None, vocab=law.vocab.fingerprint,
        )  # fmt: skip

    def backward(self, draws, allowed, log_q=None) -> None:
        """The gradient of Σ (π/q − P/(Zq))·log π / B, q = π as it is now where none is given."""
        with torch.no_grad(), self.wrapped.disable_adapter():
            log_base = gradient.plain(self.policy, self.prompts, draws).sum(1)
        log_pi = gradient.plain(self.policy, self.prompts, draws).sum(1)
        now = log_pi.detach()
        log_q = now if log_q is None else torch.as_tensor(log_q).to(now)
        log_p = log_base - torch.as_tensor(self.log_z[draws.prompt]).to(log_base)
        weight = torch.as_tensor(allowed).to(now) * (log_p - log_q).exp() - (now - log_q).exp()
        (-(weight * log_pi).mean()).backward()

    def gradient(self, batch) -> torch.Tensor:
        """Of a step's loss on draws that are given, flat."""
        self.backward(batch.draws, batch.log_ratio > -np.inf, batch.log_proposal)
        return taken(self.policy)

    def seconds(self, turn: int) -> float:
        """Of one step."""
        torch.manual_seed(turn)
        return pairs.clock(self._step)[0]

    def _step(self) -> None:
        draws = self.drawn()
        [c] = self.given.target.constraints
        allowed = c.holds(self.given.target.measure(self.prompts, draws)[c.feature])
        self.optimiser.zero_grad(set_to_none=True)
        self.backward(draws, allowed)
        torch.nn.utils.clip_grad_norm_(self.policy.parameters, 1.0)
        self.optimiser.step()


def policy_of(args, base):
    """A policy, its B not 0 as after a few steps."""
    from alignbench.generators.policy import policy_of as made_of

    policy = made_of(base, f"lora:r={args.rank}")
    generator = torch.Generator().manual_seed(0)
    for name, tensor in policy.module.named_parameters():
        if tensor.requires_grad and "lora_B" in name:
            tensor.data += 0.01 * torch.randn(tensor.shape, generator=generator).to(tensor.device)
    return policy


def taken(policy) -> torch.Tensor:
    """The gradient, flat, which is forgotten."""
    flat = torch.cat([p.grad.flatten() for p in policy.parameters])
    for p in policy.parameters:
        p.grad = None
    return flat


def profile(ours) -> None:
    """Where the time of our step goes: its parts, and the operations of torch that take the most."""
    took = defaultdict(float)

    def timed(thing, name, part):
        inner = getattr(thing, name)

        def outer(*given, **more):
            began = time.perf_counter()
            answer = inner(*given, **more)
            pairs.synchronise()
            took[part] += time.perf_counter() - began
            return answer

        setattr(thing, name, outer)

    timed(ours.loop.work, "own_draws", "draw")
    timed(ours.loop.work, "of_policy", "score")
    timed(ours.loop.passes, "back", "train")
    whole = ours.seconds(0)
    parts = {part: seconds / ours.renew for part, seconds in took.items()}
    parts["rest"] = whole - sum(parts.values())
    pairs.show(("part", "seconds a step", "share"), [[k, f"{v:.2f}", f"{v / whole:.0%}"] for k, v in parts.items()])
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as found:
        ours.seconds(0)
    events = sorted(found.key_averages(), key=lambda e: -e.self_cpu_time_total)
    total = sum(e.self_cpu_time_total for e in events)
    pairs.show(("operation", "seconds a step", "share", "calls"), [
        [e.key[:60], f"{e.self_cpu_time_total / 1e6 / ours.renew:.2f}", f"{e.self_cpu_time_total / total:.0%}",
         e.count // ours.renew] for e in events[:15]])  # fmt: skip


def main() -> None:
    """Print the table and the last line."""
    parser = pairs.options(__doc__, draws=[8], tokens=[40], pairs=5)
    parser.add_argument("--rank", type=int, default=8, help="of the adapter (default: %(default)s)")
    parser.add_argument("--renew", type=int, default=4, help="steps that ours draws for at once (default: %(default)s)")
    parser.add_argument("--pool", type=int, default=64, help="base draws a prompt for Z (default: %(default)s)")
    parser.add_argument("--plain_prompts", action="store_true", help="prompts as they are: shorter than in a chat")
    parser.add_argument("--profile", action="store_true", help="only where the time of our step goes")
    parser.add_argument("--trl", action="store_true", help="REINFORCE against trl's RLOO")
    args = parser.parse_args()
    pairs.set_up(args, "peft", *(["trl"] if args.trl else []))
    given = setting(args)
    if args.trl:
        rloo_step.measure(args, given)
        return
    ours = Ours(args, given)
    if args.profile:
        ours.seconds(0)
        profile(ours)
        return
    plain, batch = Plain(args, given, ours.log_z), ours.batch()
    mine, theirs = ours.gradient(batch), plain.gradient(batch)
    off = float((mine - theirs).norm() / theirs.norm())
    allowed = (batch.log_ratio > -np.inf).mean()
    print(f"{len(batch)} draws of {batch.draws.length.mean():.1f} tokens, {allowed:.0%} with P > 0")
    print(f"gradients of the same draws {off:.1e} of their norm apart", flush=True)
    if off > MOST_APART:
        raise SystemExit(f"the gradients differ by more than {MOST_APART:g} of their norm: two different steps")
    found = pairs.in_turn({"ours": ours.seconds, "plain": plain.seconds}, args.pairs)
    ratio = pairs.Ratio.of(found["plain"], found["ours"])
    pairs.show(("way", "seconds a step"), [[name, f"{pairs.median(took):.2f}"] for name, took in found.items()])
    print(f"speed {' '.join(ratio.cells())}")
    pairs.last_line("train_step", ratio.value, TARGET)


if __name__ == "__main__":
    main()
