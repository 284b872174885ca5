"""Weights of 8 bits: a linear layer whose result for a row depends on that row alone.

torch's own dynamic quantisation (deprecated) scales activations by the largest of the whole batch, so that what a
model says of a prompt depends on the prompts beside it: 0.15 nats on a random Llama. No law could be stated of that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from alignbench.errors import UsageError, did_you_mean

SCHEMES = ("int8",)


def refuse_scheme(quantize: str | None, device: torch.device) -> None:
    """Raise UsageError where `quantize` names no scheme, or one that is not for this device."""
    if quantize is None:
        return
    if quantize not in SCHEMES:
        raise UsageError(f"unknown quantize '{quantize}'.{did_you_mean(str(quantize), SCHEMES)}")
    if device.type != "cpu":
        raise UsageError(
            f"quantize={quantize}: on a CPU only, not on '{device}'; use device=cpu, or a checkpoint that is quantised"
        )


def as_loaded(network: Any, dtype: torch.dtype | None, where: str) -> str:
    """What a quantised checkpoint's identity adds: "+dequantised" where transformers made its weights floating again.

    It does so where the device cannot run the scheme. Raises UsageError where it knows no such scheme, and would take
    the numbers in the file for weights, or where it keeps another dtype than the one asked for.
    """
    state = getattr(network, "is_quantized", None)
    if state is None:
        method = dict(network.config.quantization_config).get("quant_method")
        raise UsageError(f"{where}: its weights are quantised by '{method}', which transformers does not know")
    if dtype not in (None, network.dtype):
        wanted, kept = (str(x).removeprefix("torch.") for x in (dtype, network.dtype))
        raise UsageError(f"{where}: dtype={wanted}, but its weights are quantised and run in {kept}; leave dtype out")
    return "" if state else "+dequantised"


class Int8Linear(nn.Module):
    """x ↦ s ∘ (Q xᵀ) + b with Q (out, in) whole numbers of at most 127 and s (out,) one scale an output.

    s = max |w| / 127 of each row, Q = w / s rounded to nearest; activations stay as they are. Q is made floating in
    each pass: a quarter of float32's memory, and slower than it.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        largest = weight.float().abs().amax(1, keepdim=True)
        scale = torch.where(largest > 0, largest / 127, 1)  # a pruned row is 0 whatever its scale
        self.register_buffer("weight", (weight.float() / scale).round().to(torch.int8))
        self.register_buffer("scale", scale[:, 0].to(weight.dtype))
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, out) of x (…, in)."""
        y = nn.functional.linear(x, self.weight.to(x.dtype)) * self.scale
        return y if self.bias is None else y + self.bias


def to_int8(network: Any, name: str) -> Any:
    """The network with its linear layers as `Int8Linear`, all but the output layer; in place.

    Raises UsageError where it is quantised already, or has none.
    """
    if getattr(network, "is_quantized", False):
        raise UsageError(f"{name}: quantize=int8, but its weights are quantised already")
    head, found = network.get_output_embeddings(), []
    for path, layer in network.named_modules():
        weight = _matrix(layer)
        if weight is not None and layer is not head:
            found.append((path, Int8Linear(weight, None if layer.bias is None else layer.bias.data)))
    if not found:
        raise UsageError(f"{name}: quantize=int8, but it has no linear layers to quantise")
    for path, small in found:
        network.set_submodule(path, small)
    return network


def _matrix(layer: nn.Module) -> Tensor | None:
    """(out, in) of a linear layer; GPT-2 has its own kind, transposed."""
    from transformers.pytorch_utils import Conv1D

    if type(layer) is nn.Linear:
        return layer.weight.data
    return layer.weight.data.T.contiguous() if isinstance(layer, Conv1D) else None
