"""AdamW, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mm_agrae.config.schema import OptimConfig
from mm_agrae.policy.masters import Masters


def make_optimizer(
    parameters: Sequence[nn.Parameter], config: OptimConfig, *, masters: Masters | None = None
) -> torch.optim.AdamW:
    """AdamW with fp32 moments; its learning rate is set before every step.

    Args:
        parameters: The trained weights.
        config: Everything but the learning rate of a step.
        masters: fp32 copies of these weights, where they are stored in bf16; they are what moves, and every step ends
            with the weights rounded anew and their gradients dropped.

    Raises:
        ValueError: If weights of 16 bits come without masters, or masters are of other weights.
    """
    moved: Sequence[Tensor] = parameters if masters is None else masters.fp32
    if masters is not None and [id(weight) for weight in masters.weights] != [id(weight) for weight in parameters]:
        raise ValueError(
            f"there are masters of {len(masters.weights)} weights, but {len(parameters)} others are trained. "
            "Pass Policy.trainable() and Policy.masters of one policy."
        )
    narrow = sorted({str(tensor.dtype) for tensor in moved if tensor.dtype.itemsize < 4})
    if narrow:
        raise ValueError(
            f"weights are stored in {', '.join(narrow)}, which loses steps of a small learning rate. Pass "
            "Policy.masters, and load the policy with trained=True."
        )
    optimizer = torch.optim.AdamW(
        moved, lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, fused=moved[0].is_cuda or None
    )
    if masters is not None:
        optimizer.register_step_pre_hook(lambda *_: masters.take_gradients())
        optimizer.register_step_post_hook(lambda *_: masters.round_weights())
    return optimizer


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
