import math

import pytest
import torch
from torch import nn

from mm_agrae.config.schema import OptimConfig
from mm_agrae.policy.masters import store_in_bf16
from mm_agrae.policy.optim import learning_rate, make_optimizer, optimizer_step


def rates(num_steps: int, **settings: object) -> list[float]:
    config = OptimConfig.model_validate({"lr": 1.0, **settings})
    return [learning_rate(config, step, num_steps) for step in range(num_steps)]


def test_schedules_by_hand() -> None:
    assert rates(4) == [1.0, 1.0, 1.0, 1.0]
    assert rates(4, warmup_steps=2) == [0.5, 1.0, 1.0, 1.0]
    # After 2 steps of warm-up 4 are left: 1 - 0/4, 1 - 1/4, 1 - 2/4, 1 - 3/4.
    assert rates(6, schedule="linear", warmup_steps=2) == [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]
    # (1 + cos(pi k / 4)) / 2
    expected = [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2]
    assert rates(4, schedule="cosine") == pytest.approx(expected)
    assert rates(2, schedule="cosine", warmup_steps=5) == [0.2, 0.4]


def test_settings_reach_the_optimiser() -> None:
    config = OptimConfig(lr=0.1, weight_decay=0.2, betas=(0.8, 0.95))
    (group,) = make_optimizer([nn.Parameter(torch.ones(2))], config).param_groups
    assert (group["lr"], group["weight_decay"], group["betas"]) == (0.1, 0.2, (0.8, 0.95))


def test_a_step_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = make_optimizer([weight], OptimConfig(lr=1.0, weight_decay=0.1))
    weight.grad = torch.tensor([3.0, 4.0])
    norm = optimizer_step(optimizer, [weight], loss=0.0, lr=0.01, max_grad_norm=0.5)
    assert norm == pytest.approx(5.0)
    # Decay w (1 - 0.01 * 0.1); then Adam's first step moves by lr against the sign of the gradient.
    torch.testing.assert_close(weight.data, torch.tensor([0.999 - 0.01, 1.998 - 0.01]))
    assert weight.grad is None
    # The first moment holds 0.1 of the gradient clipped to norm 0.5.
    torch.testing.assert_close(optimizer.state[weight]["exp_avg"], torch.tensor([0.03, 0.04]))


@pytest.mark.parametrize(
    ("gradient", "loss"), [(math.nan, 0.0), (math.inf, 0.0), (1.0, math.nan), (1.0, math.inf), (1.0, -math.inf)]
)
@pytest.mark.parametrize("in_bf16", [False, True])
def test_a_loss_or_gradient_that_is_not_finite_leaves_the_weights(gradient: float, loss: float, in_bf16: bool) -> None:
    model = nn.ParameterList([nn.Parameter(torch.tensor([1.0, 2.0]))])
    masters = store_in_bf16(model, torch.device("cpu")) if in_bf16 else None
    (weight,) = model.parameters()
    optimizer = make_optimizer([weight], OptimConfig(lr=1.0), masters=masters)
    weight.grad = torch.tensor([gradient, 1.0])
    assert not math.isfinite(optimizer_step(optimizer, [weight], loss=loss, lr=1.0, max_grad_norm=1.0))
    assert weight.tolist() == [1.0, 2.0]
    assert weight.grad is None
    if masters:
        assert (weight.dtype, masters.fp32[0].tolist()) == (torch.bfloat16, [1.0, 2.0])
    assert not optimizer.state
