"""AdamW, and the learning rate as a function of the step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from mm_agrae.config.schema import OptimConfig
from mm_agrae.policy.fsdp import is_piece, whole
from mm_agrae.policy.masters import Masters, master_of

T = TypeVar("T", bound=Tensor)


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
    fp32 = master_of(masters)
    if not fp32.keys() <= set(parameters):
        raise ValueError(
            f"there are masters of {len(fp32)} weights, but {len(parameters)} others are trained. "
            "Pass Policy.trainable() and Policy.masters of one policy."
        )
    moved: list[Tensor] = [fp32.get(parameter, parameter) for parameter in parameters]
    narrow = sorted({str(tensor.dtype) for tensor in moved if tensor.dtype.itemsize < 4})
    if narrow:
        raise ValueError(
            f"weights are stored in {', '.join(narrow)}, which loses steps of a small learning rate. Pass "
            "Policy.masters, and load the policy with trained=True."
        )
    optimizer = torch.optim.AdamW(
        [{"params": part} for part in _apart(moved)],
        lr=config.lr,
        betas=config.betas,
        weight_decay=config.weight_decay,
        fused=moved[0].is_cuda or None,
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
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    *,
    loss: float,
    lr: float,
    max_grad_norm: float,
) -> float:
    """Clip, step, clear the gradients; or no step where loss or gradient is not finite.

    A step along a gradient whose norm is not finite would destroy the weights, and a loss that is not finite says that
    the gradient means nothing. Weights and optimiser then stay as they were.

    Args:
        optimizer: Moves the parameters, or masters of them.
        parameters: With the gradient of the whole batch, the same on every process, so that all decide alike.
        loss: Of the whole batch.
        lr: Learning rate of this step.
        max_grad_norm: Longer gradients are scaled down to it.

    Returns:
        The global gradient norm before clipping, >= 0; infinite or NaN where no step was made.
    """
    norm = float(_clip(parameters, max_grad_norm)) if math.isfinite(loss) else math.nan
    if math.isfinite(norm):
        for group in optimizer.param_groups:
            group["lr"] = lr
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    else:
        _drop_gradients(parameters)
    return norm


def _clip(parameters: Sequence[nn.Parameter], max_norm: float) -> Tensor:
    """Scale the gradients to a global norm of at most `max_norm`; returns the norm before.

    Every process has all of a whole gradient, and of one in pieces its own: norms of pieces meet in `whole`.
    """
    parts = _apart([parameter for parameter in parameters if parameter.grad is not None])
    norms = [
        whole(nn.utils.get_total_norm([weight.grad for weight in part if weight.grad is not None])) for part in parts
    ]
    norm = norms[0] if len(norms) == 1 else torch.linalg.vector_norm(torch.stack(norms))
    for part in parts:
        nn.utils.clip_grads_with_norm_(part, max_norm, norm)
    return norm


def _apart(tensors: Sequence[T]) -> list[list[T]]:
    """Whole tensors and those in pieces, which no kernel takes together; at least one of the two."""
    kinds = ([tensor for tensor in tensors if is_piece(tensor) == piece] for piece in (False, True))
    return [kind for kind in kinds if kind]


def _drop_gradients(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
