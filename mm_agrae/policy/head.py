"""The language-model head: logits in fp32, and the scores of targets without logits of a whole batch.

A product of bf16 matrices is summed in fp32. A layer of that format rounds the sum to bf16 again, which leaves errors
of 1e-2 in log-probabilities; here the sums stay what they are.

    log p(y) = z_y - log Σ exp z        gradient with respect to z: onehot(y) - p
    entropy  = -Σ p log p               gradient with respect to z: -p (log p + entropy)

with z the logits over the temperature. The gradient of the weight is summed in fp32 over all targets.

Shapes: K targets, H hidden width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from mm_agrae.policy.product import NARROW, product

# Rows of logits alive at a time.
CHUNK = 1024


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How tokens are drawn from logits.

    Attributes:
        temperature: Divides the logits.
        banned: Ids that have probability 0.
    """

    temperature: float = 1.0
    banned: tuple[int, ...] = ()


class Head(nn.Linear):
    """Takes the place of a model's own head, with the same weight, tied where that is tied."""

    def __init__(self, head: nn.Linear) -> None:
        super(nn.Linear, self).__init__()
        self.in_features, self.out_features = head.in_features, head.out_features
        self.weight = head.weight
        self.register_parameter("bias", head.bias)

    def forward(self, states: Tensor) -> Tensor:
        """Logits in fp32, or wider where the states are wider; for gradients there is `score`.

        Args:
            states: [..., H].

        Returns:
            [..., V].

        Raises:
            RuntimeError: A gradient is wanted, and the product of bf16 on CUDA would have none.
        """
        arithmetic = _arithmetic(states)
        with torch.autocast(states.device.type, enabled=False):
            rows = _factor(states.reshape(-1, self.in_features), arithmetic)
            columns = _factor(self.weight, arithmetic).t()
            differentiated = torch.is_grad_enabled() and (rows.requires_grad or columns.requires_grad)
            if differentiated and rows.dtype in NARROW:  # on CUDA; elsewhere factors are fp32 by now
                raise RuntimeError(
                    f"logits of {rows.dtype} on CUDA have no gradient, but one is wanted. Take Head.score, which has "
                    "one, or call under torch.no_grad()."
                )
            logits = product(rows, columns).view(*states.shape[:-1], -1)
        return logits if self.bias is None else logits + self.bias

    def score(
        self, states: Float[Tensor, "K H"], targets: Int[Tensor, " K"], drawing: Drawing, *, entropy_gradient: bool
    ) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
        """Log-probability of every target, and the entropy of the distribution that it is drawn from, in nats.

        Args:
            states: Hidden states that predict the targets.
            targets: Token ids.
            drawing: Temperature and banned ids.
            entropy_gradient: Let the entropy carry a gradient too.
        """
        logprobs, entropy = _Scores.apply(states, self.weight, self.bias, targets, drawing)
        return logprobs, entropy if entropy_gradient else entropy.detach()


class _Scores(torch.autograd.Function):
    """Logits are computed anew on the way back: kept, they would be the largest tensor of the whole step."""

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor, drawing: Drawing
    ) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(states, weight, bias, targets)
        ctx.drawing, ctx.arithmetic = drawing, _arithmetic(states)
        ctx.set_materialize_grads(False)
        logprobs, entropy = [], []
        with torch.autocast(states.device.type, enabled=False):
            columns = _factor(weight, ctx.arithmetic).t()  # [H, V]
            for chunk, wanted in zip(states.split(CHUNK), targets.split(CHUNK), strict=True):
                every = _log_softmax(_factor(chunk, ctx.arithmetic), columns, bias, drawing)
                logprobs.append(every.gather(1, wanted[:, None])[:, 0])
                entropy.append(_entropy(every, every.exp(), drawing))
        return torch.cat(logprobs), torch.cat(entropy)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_logprob: Tensor | None, by_entropy: Tensor | None) -> tuple[Tensor | None, ...]:
        states, weight, bias, targets = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        if not len(states):
            zeros = [
                torch.zeros_like(x) if wants else None for x, wants in zip(ctx.saved_tensors, wanted, strict=False)
            ]
            return *zeros, None, None
        to_states, to_weight, to_bias = [], None, None
        with torch.autocast(states.device.type, enabled=False):
            columns = _factor(weight, ctx.arithmetic).t()
            for start in range(0, len(states), CHUNK):
                chosen = slice(start, start + CHUNK)
                chunk = _factor(states[chosen], ctx.arithmetic)
                gradient = _logit_gradient(
                    _log_softmax(chunk, columns, bias, ctx.drawing),
                    targets[chosen],
                    None if by_logprob is None else by_logprob[chosen],
                    None if by_entropy is None else by_entropy[chosen],
                    ctx.drawing,
                )
                factor = _factor(gradient, ctx.arithmetic)
                if wanted[0]:
                    to_states.append(product(factor, columns.t()).to(states.dtype))
                if wanted[1]:
                    to_weight = _sum(to_weight, product(factor.t(), chunk))
                if wanted[2]:
                    to_bias = _sum(to_bias, gradient.sum(0))
        return torch.cat(to_states) if to_states else None, to_weight, to_bias, None, None


def _logit_gradient(
    every: Tensor, targets: Tensor, by_logprob: Tensor | None, by_entropy: Tensor | None, drawing: Drawing
) -> Tensor:
    """[K, V] gradient with respect to the logits before the temperature, from those of the scores."""
    probabilities = every.exp()
    factor = torch.zeros_like(every[:, :1]) if by_logprob is None else by_logprob[:, None]
    if by_entropy is not None:
        entropy = _entropy(every, probabilities.clone(), drawing)
        factor = factor + by_entropy[:, None] * (every.clamp_min(torch.finfo(every.dtype).min) + entropy[:, None])
    gradient = probabilities.mul_(-factor)
    if by_logprob is not None:
        gradient.scatter_add_(1, targets[:, None], by_logprob[:, None])
    return _tempered(_ban(gradient, drawing, 0.0), drawing)


def _log_softmax(states: Tensor, columns: Tensor, bias: Tensor | None, drawing: Drawing) -> Tensor:
    logits = product(states, columns)
    if bias is not None:
        logits += bias
    return _tempered(_ban(logits, drawing, float("-inf")), drawing).log_softmax(-1)


def _entropy(every: Tensor, probabilities: Tensor, drawing: Drawing) -> Tensor:
    """[K], from log-probabilities [K, V]; overwrites the probabilities."""
    # 0 · -inf of a banned id must count 0.
    return -_ban(probabilities.mul_(every), drawing, 0.0).sum(-1)


def _ban(rows: Tensor, drawing: Drawing, value: float) -> Tensor:
    """Overwrites the columns of banned ids."""
    return rows.index_fill_(-1, torch.tensor(drawing.banned, device=rows.device), value) if drawing.banned else rows


def _tempered(rows: Tensor, drawing: Drawing) -> Tensor:
    """Divides them in place."""
    return rows if drawing.temperature == 1.0 else rows.div_(drawing.temperature)


def _arithmetic(states: Tensor) -> torch.dtype:
    """The format that factors of products are rounded to."""
    device = states.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else states.dtype


def _factor(x: Tensor, arithmetic: torch.dtype) -> Tensor:
    rounded = x.to(arithmetic)
    return (
        rounded.float() if arithmetic in NARROW and not x.is_cuda else rounded
    )  # only CUDA multiplies them as they are


def _sum(total: Tensor | None, part: Tensor) -> Tensor:
    return part if total is None else total.add_(part)
