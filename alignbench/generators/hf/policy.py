"""What training changes of a network: an adapter over tensors that it shares with its base, or a copy of them all."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable
from warnings import catch_warnings, filterwarnings

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from alignbench.errors import StoreError, Unsupported, UsageError
from alignbench.files import check_writable
from alignbench.generators.checkpoint import weights_digest
from alignbench.generators.gradient import trainable_parameters
from alignbench.generators.hf.quantised import Int8Linear
from alignbench.generators.hf.quiet import no_bars
from alignbench.generators.hf.virtual import embedded, embedding_shape, put_before
from alignbench.generators.warp import at_least_float32
from alignbench.registry import Registry
from alignbench.spec import parse_spec

adapter = Registry("adapter")
"""What can be trained, by name: `lora:r=16`, `prompt:tokens=20`, `full`."""
CONFIGS = ("adapter_config.json", "config.json")
"""The file of a saved folder without which `hf` sees none."""
ROWS = "prompt_embeddings"
"""What peft calls the one tensor of a soft prompt."""


@dataclass(frozen=True)
class Untrained:
    """What a policy is made of: a network with its tokenizer, its name, and what loads it again."""

    network: Any
    tokenizer: Any
    name: str
    source: str = ""

    @property
    def told(self) -> dict[str, Any]:
        """What an adapter's configuration tells of the model that it is for."""
        return {
            "task_type": task_of(self.network),
            "base_model_name_or_path": self.source or None,
            "revision": getattr(self.network.config, "_commit_hash", None),
        }

    @property
    def words(self) -> list[int]:
        """The ids that a prompt may hold, special ones left out."""
        size, special = embedding_shape(self.network)[0], set(self.tokenizer.all_special_ids)
        return sorted(i for i in self.tokenizer.get_vocab().values() if i < size and i not in special)


@dataclass(frozen=True)
class Trained:
    """A network with those of its parameters that are trained: they alone require a gradient when it is made."""

    network: Any
    recipe: Recipe
    wrapped: Any = None  # in peft's wrapping, where it has one
    config: Any = None  # peft's configuration of an adapter
    names: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", tuple(trainable_parameters(self.network)))

    @property
    def tensors(self) -> dict[str, nn.Parameter]:
        """The parameters that are trained, by name; whether or not they were frozen since."""
        known = dict(self.network.named_parameters())
        return {name: known[name] for name in self.names}

    def digest(self) -> str:
        """16 hex digits of what is trained, and how, and of its numbers as they are now."""
        return weights_digest(self.tensors.items(), repr(self.recipe))

    @torch.no_grad()
    def follow(self, first: Trained) -> None:
        """Take over the trained numbers of the same network on another device."""
        theirs = first.tensors
        for name, p in self.tensors.items():
            p.copy_(theirs[name])

    def save(self, folder: Path, tokenizer: Any) -> None:
        """Write an adapter, or network and tokenizer, each file in one step and the one that tells of them last.

        Raises StoreError where it cannot.
        """
        check_writable(folder)
        try:
            with tempfile.TemporaryDirectory(prefix=".saving-", dir=folder) as scratch:
                with no_bars():
                    self._write(Path(scratch), tokenizer)
                for name in CONFIGS:  # until the new one is there, the folder holds nothing
                    (folder / name).unlink(missing_ok=True)
                files = (file for file in Path(scratch).rglob("*") if file.is_file())
                for file in sorted(files, key=lambda file: (file.name in CONFIGS, file)):
                    file.chmod(0o644)  # safetensors lets nobody else read
                    place = folder / file.relative_to(scratch)
                    place.parent.mkdir(exist_ok=True)
                    os.replace(file, place)  # noqa: PTH105 (atomic on every system)
        except (OSError, SafetensorError) as error:
            raise StoreError(f"{folder}: cannot be written: {getattr(error, 'strerror', '') or error}") from error

    def _write(self, folder: Path, tokenizer: Any) -> None:
        self.recipe.write(self, folder, tokenizer)


@runtime_checkable
class Adapted(Protocol):
    """A model over a network of transformers that tells what of it is trained."""

    @property
    def trained(self) -> Trained | None:
        """That; None where nothing is."""
        ...


class Recipe(Protocol):
    """What is trained: how it is put on a network, and how it is saved."""

    def put_on(self, base: Untrained, seed: int) -> Trained:
        """The network with what is trained of it; `base` stays as it is."""
        ...

    def write(self, made: Trained, folder: Path, tokenizer: Any) -> None:
        """Write what `hf` loads."""
        ...


@adapter("lora")
@dataclass(frozen=True)
class Lora:
    """W + (alpha / r)·B·A for each linear layer but the output layer, B (out, r) = 0 at first (Hu et al. 2021)."""

    r: int = 16
    alpha: int = 32
    layers: int | None = None  # of the network's blocks only the last so many: no gradient goes further down

    def __post_init__(self) -> None:
        for name, value in (("r", self.r), ("alpha", self.alpha), ("layers", self.layers)):
            if value is not None and value < 1:
                raise UsageError(f"lora: {name}={value}: must be at least 1")

    def put_on(self, base: Untrained, seed: int) -> Trained:
        """The adapter over the network's own tensors, A drawn by `seed`."""
        try:
            from peft import LoraConfig, PeftModel
        except ImportError:
            raise _without_peft("lora") from None
        chosen = "all-linear" if self.layers is None else linear_layers(base, self.layers)
        config = LoraConfig(r=self.r, lora_alpha=self.alpha, target_modules=chosen, **base.told)
        try:
            with torch.random.fork_rng(devices=[]), catch_warnings():
                torch.default_generator.manual_seed(seed)
                filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)  # peft's name for it is old
                filterwarnings("ignore", "fan_in_fan_out", UserWarning)  # GPT-2's layers: peft sets it as they need it
                wrapped = PeftModel(sharing(base.network), config)
        except ValueError as error:
            raise Unsupported(f"{base.name}: no adapter can be put on it: {error}") from error
        return Trained(wrapped.get_base_model(), self, wrapped, wrapped.active_peft_config)

    def write(self, made: Trained, folder: Path, tokenizer: Any) -> None:
        """As peft saves it."""
        made.config.target_modules = sorted(made.config.target_modules)  # of a set: each process would write another
        made.wrapped.save_pretrained(str(folder), save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's form of a model card, with nothing filled in


def linear_layers(base: Untrained, last: int) -> list[str]:
    """The names of the linear layers of a network's last blocks; raises Unsupported where it has no numbered ones."""
    from transformers.pytorch_utils import Conv1D

    linear = (name for name, module in base.network.named_modules() if isinstance(module, nn.Linear | Conv1D))
    numbers = {name: int(found[1]) for name in linear if (found := re.search(r"\.(\d+)\.", name))}
    if not numbers:
        raise Unsupported(f"{base.name}: no block of it has a number: leave out lora's layers={last}")
    return [name for name, number in numbers.items() if number > max(numbers.values()) - last]


@adapter("prompt")
@dataclass(frozen=True)
class Prompt:
    """Embeddings (tokens, D) before each prompt's own, at first copies of those of words (Lester et al. 2021).

    A policy with them does not begin as its base: the words that they are copies of are read too.
    """

    tokens: int = 20

    def __post_init__(self) -> None:
        if self.tokens < 1:
            raise UsageError(f"prompt: tokens={self.tokens}: must be at least 1")

    def put_on(self, base: Untrained, seed: int) -> Trained:
        """The embeddings before the network's own, the words drawn by `seed`; of an encoder–decoder, the encoder's."""
        try:
            from peft import PromptTuningConfig
        except ImportError:
            raise _without_peft("prompt") from None
        words = torch.tensor(base.words)
        drawn = torch.randint(len(words), (self.tokens,), generator=torch.Generator().manual_seed(seed))
        network = sharing(base.network)
        try:
            layer = put_before(network, at_least_float32(embedded(network, words[drawn])))
        except ValueError as error:
            raise Unsupported(f"{base.name}: no virtual tokens can stand before its prompts: {error}") from error
        config = PromptTuningConfig(
            num_virtual_tokens=self.tokens, token_dim=layer.prompt.embedding_dim, num_transformer_submodules=1,
            prompt_tuning_init="SAMPLE_VOCAB", inference_mode=True, **base.told,
        )  # fmt: skip
        return Trained(network, self, config=config)

    def write(self, made: Trained, folder: Path, tokenizer: Any) -> None:
        """As peft saves it; its decoder gets no tokens of its own, as peft's reads none."""
        [rows] = made.tensors.values()
        save_file({ROWS: rows.detach().cpu().contiguous()}, folder / "adapter_model.safetensors", {"format": "pt"})
        made.config.save_pretrained(str(folder))


@adapter("full")
@dataclass(frozen=True)
class Full:
    """All parameters, which are copied."""

    def put_on(self, base: Untrained, seed: int) -> Trained:
        """A copy; `seed` has no part in it."""
        made = copy.deepcopy(base.network).requires_grad_(True)
        for layer in made.modules():
            if isinstance(layer, nn.Embedding):
                layer.padding_idx = None  # a pad that is also BOS or EOS is read, and torch would give it no gradient
                computed = "Sinusoidal" in type(layer).__name__  # positions that no pass gives a gradient
                layer.requires_grad_(not computed)
        return Trained(made, self)

    def write(self, made: Trained, folder: Path, tokenizer: Any) -> None:
        """A checkpoint: network and tokenizer."""
        made.network.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))


def task_of(network: Any) -> str:
    """What peft calls the network's task."""
    return "SEQ_2_SEQ_LM" if network.config.is_encoder_decoder else "CAUSAL_LM"


def _without_peft(name: str) -> UsageError:
    return UsageError(f"adapter={name}: needs the package peft: pip install 'alignbench[train]'")


def recipe_of(given: str) -> Recipe:
    """What `given` names; raises UsageError where no such adapter is known."""
    found: Recipe = parse_spec(given, "adapter").build(adapter, "adapter")
    return found


def put_on(base: Untrained, given: str, seed: int) -> Trained:
    """The network with what `given` names put on it to be trained; nothing of `base` itself is changed.

    Raises UsageError where no such adapter is known, Unsupported where the network has none to be trained.
    """
    network = base.network
    whole = all(p.is_floating_point() for p in network.parameters())
    small = any(isinstance(layer, Int8Linear) for layer in network.modules())
    if getattr(network, "is_quantized", False) or small or not whole:
        raise Unsupported(f"{base.name}: its weights are quantised, and are not trained: give its unquantised model")
    found = recipe_of(given).put_on(base, seed)
    found.network.eval()  # with dropout it would be another law
    return found


def sharing(network: Any) -> Any:
    """A copy of the network whose parameters, frozen, and buffers are the memory of its own."""
    known: dict[int, Any] = {id(b): b for b in network.buffers()}
    known |= {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in network.parameters()}
    return copy.deepcopy(network, known)
