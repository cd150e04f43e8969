"""A tiny model with rendered prompts, and the gradients that reach its optimiser."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from torch import Tensor

import mm_agrae.train.update as update_module
from mm_agrae.config.schema import ImageConfig, ModelConfig
from mm_agrae.data.dataset import open_dataset
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.render import render
from mm_agrae.prompts import make_prompt
from mm_agrae.records import RenderedPrompt
from mm_agrae.train.distributed import World


@pytest.fixture(scope="module")
def world() -> World:
    return World(device="cpu")


@pytest.fixture(scope="module")
def prompts(model_folder: Callable[[str], Path], gym_folder: Path) -> list[RenderedPrompt]:
    policy = load_policy(ModelConfig(path=str(model_folder("qwen2_5_vl")), device="cpu"))
    samples = open_dataset(gym_folder, "train")
    return [
        render(
            policy,
            make_prompt(samples[index], system="none", instruction="none"),
            ImageConfig(min_pixels=1024, max_pixels=4096),
        )
        for index in range(4)
    ]


@pytest.fixture
def policy(model_folder: Callable[[str], Path]) -> Policy:
    return load_policy(ModelConfig(path=str(model_folder("qwen2_5_vl")), device="cpu"))


@pytest.fixture
def gradients(monkeypatch: pytest.MonkeyPatch) -> list[list[Tensor]]:
    """Gradients of every optimiser step, as the optimiser gets them."""
    seen: list[list[Tensor]] = []
    real = update_module.optimizer_step

    def spy(optimizer, parameters, *, loss, lr, max_grad_norm):
        seen.append([parameter.grad.clone() for parameter in parameters])
        return real(optimizer, parameters, loss=loss, lr=lr, max_grad_norm=max_grad_norm)

    monkeypatch.setattr(update_module, "optimizer_step", spy)
    return seen
