"""AdamW, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from mm_agrae.config.schema import OptimConfig


def make_optimizer(parameters: Sequence[nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW with fp32 moments; its learning rate is set before every step."""
    fused = parameters[0].is_cuda
    return torch.optim.AdamW(
        parameters, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=fused or None
    )


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """Learning rate of optimiser step `step` (from 0) of `num_steps`: linear warm-up, then the schedule down to 0.

    A pure function of the step, so a resumed run needs no scheduler state.
    """
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return config.lr
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    if config.schedule == "linear":
        return config.lr * (1 - progress)
    return config.lr * 0.5 * (1 + math.cos(math.pi * progress))


def optimizer_step(
    optimizer: torch.optim.Optimizer, parameters: Sequence[nn.Parameter], *, lr: float, max_grad_norm: float
) -> float:
    """Clip, step, clear; returns the global gradient norm before clipping.

    Raises:
        FloatingPointError: The norm is not finite; the weights are left as they were.
    """
    norm = float(nn.utils.clip_grad_norm_(parameters, max_grad_norm))
    if not math.isfinite(norm):
        raise FloatingPointError(
            f"gradient norm is {norm}, and a step with it would destroy the weights. Start a new run from the "
            "model/ folder of the last checkpoint (model.path) with a lower learning rate."
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm
