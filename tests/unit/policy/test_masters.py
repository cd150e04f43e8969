"""bf16 weights with fp32 masters in small modules: what is rounded, what adds up, what moves."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mm_agrae.config.schema import OptimConfig
from mm_agrae.policy.masters import pick_storage, store_in_bf16
from mm_agrae.policy.optim import make_optimizer, optimizer_step
from mm_agrae.train.distributed import World

CPU = torch.device("cpu")


class Tied(nn.Module):
    """A table that is read and written with, a frozen layer, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.table.weight
        self.frozen = nn.Linear(4, 4)
        self.frozen.requires_grad_(False)
        self.register_buffer("frequencies", torch.tensor([0.1, 0.01]))


@pytest.mark.parametrize(
    ("name", "precision", "device", "expected"),
    [
        ("auto", "bf16", "cuda", "bf16_with_fp32_masters"),
        ("auto", "fp32", "cuda", "fp32"),
        ("auto", "bf16", "cpu", "fp32"),
        ("auto", "fp32", "cpu", "fp32"),
        ("fp32", "bf16", "cuda", "fp32"),
        ("bf16_with_fp32_masters", "bf16", "cpu", "bf16_with_fp32_masters"),
    ],
)
def test_what_a_setting_stores(name: str, precision: str, device: str, expected: str) -> None:
    assert pick_storage(name, precision=precision, device=torch.device(device)) == expected


def test_rounding_a_module() -> None:
    model = Tied()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    masters = store_in_bf16(model, CPU)
    assert masters is not None
    (weight,), (master,) = masters.weights, masters.fp32
    assert weight is model.table.weight is model.head.weight, "a tied weight has one master"
    assert torch.equal(master, before["table.weight"])
    assert torch.equal(weight, before["table.weight"].bfloat16())
    assert not torch.equal(weight.float(), master), "nothing was rounded"
    assert torch.equal(model.frozen.weight, before["frozen.weight"].bfloat16())
    assert torch.equal(model.frequencies, before["frequencies"]), "positions would drift with bf16 frequencies"
    assert store_in_bf16(Tied().requires_grad_(False), CPU) is None


def test_gradients_add_up_in_fp32() -> None:
    """In bf16 a sum of ones stops at 256: 257 is no bf16 number."""
    model = nn.Linear(1, 1, bias=False)
    store_in_bf16(model, CPU)
    for _ in range(300):
        model.weight.sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.dtype == torch.float32
    assert model.weight.grad.item() == 300, "over micro-batches"
    model.weight.grad = None
    sum(model.weight.sum() for _ in range(300)).backward()  # type: ignore[union-attr]
    assert model.weight.grad.item() == 300, "over the uses in one pass"

    plain = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
    sum(plain.sum() for _ in range(300)).backward()  # type: ignore[union-attr]
    assert plain.grad is not None
    assert plain.grad.item() == 256


def test_steps_of_1e_6_survive() -> None:
    """bf16 numbers below 0.25 are 2^-10 = 0.00098 apart: 1000 steps of 1e-6 cross to the next, one changes nothing."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 0.25)
    masters = store_in_bf16(model, CPU)
    assert masters is not None
    config = OptimConfig(lr=1e-6)
    optimizer = make_optimizer(list(model.parameters()), config, masters=masters)
    seen = set()
    for step in range(1000):
        model.weight.sum().backward()
        optimizer_step(optimizer, list(model.parameters()), loss=0.0, lr=1e-6, max_grad_norm=1.0)
        seen.add(model.weight.item())
        if step == 0:
            assert masters.fp32[0].item() == pytest.approx(0.25 - 1e-6, abs=2e-8)
            assert model.weight.item() == 0.25
    assert masters.fp32[0].item() == pytest.approx(0.249, abs=1e-5)
    assert seen == {0.25, 0.25 - 2**-10}

    plain = nn.Parameter(torch.full((1, 1), 0.25, dtype=torch.bfloat16))
    alone = torch.optim.AdamW([plain], lr=1e-6, weight_decay=0.0)
    for _ in range(10):
        plain.sum().backward()
        alone.step()
    assert plain.item() == 0.25, "bf16 alone would learn too, and this test would show nothing"


def test_a_step_moves_the_master_and_rounds_it() -> None:
    """The arithmetic of test_optim.py::test_a_step_by_hand, on a weight stored in bf16."""
    model = nn.Linear(2, 1, bias=False)
    model.weight.data = torch.tensor([[1.0, 2.0]])
    masters = store_in_bf16(model, CPU)
    parameters = list(model.parameters())
    optimizer = make_optimizer(parameters, OptimConfig(lr=1.0, weight_decay=0.1), masters=masters)
    parameters[0].grad = torch.tensor([[3.0, 4.0]])
    version = parameters[0]._version
    assert optimizer_step(optimizer, parameters, loss=0.0, lr=0.01, max_grad_norm=0.5) == pytest.approx(5.0)
    assert masters is not None
    torch.testing.assert_close(masters.fp32[0], torch.tensor([[0.999 - 0.01, 1.998 - 0.01]]))
    assert torch.equal(parameters[0], masters.fp32[0].bfloat16())
    assert parameters[0].grad is None
    assert masters.fp32[0].grad is None
    assert parameters[0]._version > version, "what is cached for these weights would be kept"
    torch.testing.assert_close(optimizer.state[masters.fp32[0]]["exp_avg"], torch.tensor([[0.03, 0.04]]))


def test_weights_that_no_gradient_reached_count_as_zeros() -> None:
    model = nn.Linear(2, 1)
    masters = store_in_bf16(model, CPU)
    parameters = list(model.parameters())
    model.weight.sum().backward()
    World(device="cpu").sum_gradients(parameters)
    assert [parameter.grad.dtype for parameter in parameters if parameter.grad is not None] == [torch.float32] * 2
    optimizer = make_optimizer(parameters, OptimConfig(lr=1.0), masters=masters)
    bias = model.bias.item()
    optimizer_step(optimizer, parameters, loss=0.0, lr=0.1, max_grad_norm=1.0)
    assert model.bias.item() == bias


def test_16_bits_without_masters_are_not_trained() -> None:
    model, other = nn.Linear(2, 1), nn.Linear(2, 1)
    masters = store_in_bf16(model, CPU)
    with pytest.raises(ValueError, match=r"weights are stored in torch.bfloat16.*Pass Policy.masters"):
        make_optimizer(list(model.parameters()), OptimConfig())
    with pytest.raises(ValueError, match=r"masters of 2 weights, but 2 others are trained"):
        make_optimizer(list(other.parameters()), OptimConfig(), masters=masters)
