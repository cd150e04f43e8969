"""Weights and moments under names: complete, in fp32, what other programs call them, and given back exactly."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mm_agrae.config.model import LoraConfig, ModelConfig
from mm_agrae.config.schema import OptimConfig
from mm_agrae.errors import CheckpointError
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.optim import make_optimizer
from mm_agrae.policy.snapshot import model_tensors, named_weights, optimizer_tensors, restore_optimizer, save_weights

ModelFolder = Callable[[str], Path]
BF16 = {"precision": "bf16", "stored_weights": "bf16_with_fp32_masters"}


def load(folder: Path, **settings: object) -> Policy:
    return load_policy(ModelConfig.model_validate({"path": str(folder), "device": "cpu", **settings}))


def stepped(policy: Policy, *, steps: int = 2) -> torch.optim.AdamW:
    """An optimiser that has moved every weight by gradients of its own."""
    optimizer = make_optimizer(policy.trainable(), OptimConfig(lr=1e-2), masters=policy.masters)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        for weight in policy.trainable():
            weight.grad = torch.randn(weight.shape, generator=generator)
        optimizer.step()
        optimizer.zero_grad()
    return optimizer


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl", "qwen3"])
def test_every_weight_once_under_its_own_name(model_folder: ModelFolder, architecture: str) -> None:
    policy = load(model_folder(architecture))
    found = dict(named_weights(policy))
    expected = dict(policy.model.named_parameters())  # a tied head is not in it a second time
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert not any(tensor.requires_grad for tensor in found.values())


def test_masters_and_widened_weights(model_folder: ModelFolder) -> None:
    policy = load(model_folder("qwen2_5_vl"), freeze=["vision"], **BF16)
    stepped(policy)
    assert policy.masters is not None
    masters = dict(zip(map(id, policy.masters.weights), policy.masters.fp32, strict=True))
    found = dict(named_weights(policy))
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}
    rounded = 0
    for name, weight in policy.model.named_parameters():
        assert torch.equal(found[name], masters.get(id(weight), weight.detach().float()))
        rounded += not torch.equal(found[name], weight.float())
    assert rounded, "the masters are no finer than the weights"


def test_a_saved_folder_says_fp32_and_the_model_stays_what_it_is(model_folder: ModelFolder, tmp_path: Path) -> None:
    policy = load(model_folder("qwen3"), **BF16)
    save_weights(policy, tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float32"
    assert str(policy.inner.config.dtype).endswith("bfloat16")


def test_adapters_are_added_to_what_they_adapt(model_folder: ModelFolder) -> None:
    """The names are those of the model without adapters, the values those that peft itself would merge."""
    folder = model_folder("qwen2_5_vl")
    policy = load(folder, lora=LoraConfig(rank=4, alpha=8.0).model_dump())
    stepped(policy)
    found = dict(named_weights(policy))
    before = dict(load(folder).model.named_parameters())
    assert list(found) == list(before)
    merged = dict(copy.deepcopy(policy.model).merge_and_unload().named_parameters())  # type: ignore[operator]
    for name, weight in merged.items():
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)
    moved = {name for name, weight in before.items() if not torch.equal(found[name], weight)}
    assert {name.split(".")[-2] for name in moved} == set(LoraConfig().target_modules)


def test_a_process_that_does_not_write_gets_nothing(model_folder: ModelFolder) -> None:
    policy = load(model_folder("qwen3"))
    optimizer = stepped(policy)
    assert model_tensors(policy, keep=False) == optimizer_tensors(policy, optimizer, keep=False) == {}


@pytest.mark.parametrize(
    "settings", [{}, BF16, {"lora": LoraConfig(rank=2).model_dump()}], ids=["fp32", "bf16", "lora"]
)
def test_an_optimiser_goes_on_as_if_it_had_not_been_saved(
    model_folder: ModelFolder, tmp_path: Path, settings: dict[str, object]
) -> None:
    policy = load(model_folder("qwen3"), **settings)
    optimizer = stepped(policy)
    save_file(optimizer_tensors(policy, optimizer), tmp_path / "optimizer.safetensors")
    other = make_optimizer(policy.trainable(), OptimConfig(lr=1e-2), masters=policy.masters)
    restore_optimizer(policy, other, load_file(tmp_path / "optimizer.safetensors"))
    mine, theirs = optimizer.state_dict()["state"], other.state_dict()["state"]
    assert list(mine) == list(theirs) == list(range(len(policy.trainable())))
    for number, of in mine.items():
        assert of.keys() == theirs[number].keys()
        assert float(of["step"]) == 2
        assert all(torch.equal(value, theirs[number][key]) for key, value in of.items())
    assert other.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_before_the_first_step_there_is_nothing_to_remember(model_folder: ModelFolder) -> None:
    policy = load(model_folder("qwen3"))
    optimizer = make_optimizer(policy.trainable(), OptimConfig())
    tensors = optimizer_tensors(policy, optimizer)
    assert tensors == {}
    restore_optimizer(policy, optimizer, tensors)
    assert optimizer.state_dict()["state"] == {}


def test_moments_of_other_weights_are_refused(model_folder: ModelFolder) -> None:
    policy = load(model_folder("qwen2_5_vl"))
    optimizer = stepped(policy, steps=1)
    tensors = optimizer_tensors(policy, optimizer)
    frozen = load(model_folder("qwen2_5_vl"), freeze=["vision"])
    with pytest.raises(CheckpointError, match=r"visual\.\S+ is no longer trained\. Resume with the model"):
        restore_optimizer(frozen, make_optimizer(frozen.trainable(), OptimConfig()), tensors)
    name = next(name for name in tensors if name.startswith("exp_avg/"))
    with pytest.raises(CheckpointError, match=r"exp_avg of .* has shape \(3,\), but the weight has"):
        restore_optimizer(policy, optimizer, tensors | {name: torch.zeros(3)})
