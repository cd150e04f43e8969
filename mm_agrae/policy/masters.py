"""Weights kept in bf16 to compute with, and fp32 masters of those that are trained.

bf16 holds 8 significant bits, so a weight of 1 ignores every step below 2^-9; a learning rate of 1e-6 makes far smaller
ones. The optimiser therefore moves an fp32 master, and the model computes with the master rounded to bf16:

    gradient += d loss / d weight (fp32)        master = AdamW(master, gradient)        weight = bf16(master)

(mixed precision training, arXiv:1710.03740, section 3.1). Autograd casts a gradient to fp32 before it adds it up, so
neither the uses of one weight (tied, or met by several pieces of the head) nor micro-batches add up in bf16.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mm_agrae.errors import ConfigError

Storage = Literal["fp32", "bf16_with_fp32_masters"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Masters:
    """The trained weights of a model twice, in one order.

    Attributes:
        weights: Parameters of the model, bf16; their gradients are fp32.
        fp32: What the optimiser moves; each weight is its master, rounded.
    """

    weights: tuple[nn.Parameter, ...]
    fp32: tuple[Tensor, ...]

    def take_gradients(self) -> None:
        """Show the gradients of the weights to the optimiser; nothing is copied."""
        for weight, master in zip(self.weights, self.fp32, strict=True):
            master.grad = weight.grad

    @torch.no_grad()
    def round_weights(self) -> None:
        """Give the weights what their masters have become, and drop the gradients that led there."""
        torch._foreach_copy_(self.weights, self.fp32)
        for weight in self.weights:
            weight.grad = None


def master_of(masters: Masters | None) -> dict[nn.Parameter, Tensor]:
    """Weight -> its master, of every weight that has one."""
    return dict(zip(masters.weights, masters.fp32, strict=True)) if masters else {}


def pick_storage(name: str, *, precision: str, device: torch.device) -> Storage:
    """How weights are stored under model.stored_weights.

    Args:
        name: The setting.
        precision: Arithmetic, "fp32" or "bf16".
        device: Where the model runs.

    Raises:
        ConfigError: If bf16 weights are asked for with fp32 arithmetic.
    """
    if name == "auto":
        return "bf16_with_fp32_masters" if precision == "bf16" and device.type == "cuda" else "fp32"
    if name == "fp32":
        return "fp32"
    if precision != "bf16":
        raise ConfigError(
            f"model.stored_weights is {name}, but model.precision comes out as {precision}, which would compute in "
            "fp32 with weights that were rounded to bf16. Set model.precision=bf16, or model.stored_weights=fp32."
        )
    return "bf16_with_fp32_masters"


def store_in_bf16(model: nn.Module, device: torch.device, *, masters_on: torch.device | None = None) -> Masters | None:
    """Round every weight to bf16 and move it to a device; buffers stay as they are.

    Args:
        model: A model in fp32. Its parameters stay the same objects, so tied weights stay tied.
        device: Where weights go.
        masters_on: Where masters go; None takes the same device.

    Returns:
        Masters of the parameters that require a gradient, in the order of model.parameters(); None where none does.
    """
    weights: list[nn.Parameter] = []
    fp32: list[Tensor] = []
    for parameter in model.parameters():
        full = parameter.data
        # Weight by weight: the whole model in fp32 may be larger than the device.
        parameter.data = full.to(device, torch.bfloat16)
        if parameter.requires_grad:
            parameter.grad_dtype = torch.float32
            weights.append(parameter)
            fp32.append(full.to(masters_on or device, torch.float32))
    return Masters(weights=tuple(weights), fp32=tuple(fp32)) if weights else None
