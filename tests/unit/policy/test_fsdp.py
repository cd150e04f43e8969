"""What is refused before and after weights are cut; what cut weights compute is in tests/integration/test_sharded_*."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mm_agrae.config.schema import ModelConfig
from mm_agrae.errors import ConfigError
from mm_agrae.policy import fsdp
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.sharing import same_states


class Mesh:
    """Two processes."""

    def size(self) -> int:
        return 2


class Unit:
    """What is left of a module by a launcher that cuts nothing."""

    def __init__(self, module: nn.Module, **wanted: Any) -> None:
        self.module = module

    def set_gradient_divide_factor(self, factor: float) -> None: ...

    def set_force_sum_reduction_for_comms(self, enable: bool) -> None: ...


@pytest.fixture
def policy(model_folder: Callable[[str], Path]) -> Policy:
    return load_policy(ModelConfig(path=str(model_folder("qwen3")), device="cpu"))


def test_a_frozen_language_model_is_refused(model_folder: Callable[[str], Path]) -> None:
    config = ModelConfig(path=str(model_folder("qwen2_5_vl")), device="cpu", freeze=("language",))
    with pytest.raises(ConfigError, match=r"model.freeze holds language.*Set train.sharding=none"):
        fsdp.shard(load_policy(config), Mesh())  # type: ignore[arg-type]


def test_weights_that_stay_whole_although_they_should_not(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fsdp, "fully_shard", Unit)
    with pytest.raises(ConfigError, match=r"should cut model.layers.0.*into 2 pieces, but it came out as Parameter"):
        fsdp.shard(policy, Mesh())  # type: ignore[arg-type]


def test_pieces_that_compute_something_else(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    states: Iterator[Tensor] = iter([torch.ones(2, 3), torch.full((2, 3), 1.001)])
    monkeypatch.setattr(fsdp, "fully_shard", Unit)
    monkeypatch.setattr(fsdp, "_check_pieces", lambda *found: None)
    monkeypatch.setattr(fsdp, "probe_states", lambda policy: next(states))
    with pytest.raises(ConfigError, match="sharded weights of model type 'qwen3' compute something else"):
        fsdp.shard(policy, Mesh())  # type: ignore[arg-type]


def test_every_layer_is_a_unit_and_tied_heads_are_none(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[nn.Module] = []
    monkeypatch.setattr(fsdp, "fully_shard", lambda module, **wanted: made.append(module) or Unit(module))
    monkeypatch.setattr(fsdp, "_check_pieces", lambda *found: None)
    sharded = fsdp.shard(policy, Mesh())  # type: ignore[arg-type]
    assert made == [*policy.inner.model.layers, policy.backbone]
    assert sharded.shards is not None
    assert len(sharded.shards.units) == len(made)
    assert not sharded.shards.with_tower


@pytest.mark.parametrize(("precision", "rounding"), [("fp32", 1e-6), ("bf16", 1e-2)])
def test_cut_weights_may_round_and_not_compute_something_else(precision: str, rounding: float) -> None:
    policy: Any = SimpleNamespace(precision=precision)
    states = torch.ones(3, 4)
    assert same_states(policy, states * (1 + rounding), states)
    assert not same_states(policy, states * (1 + 20 * rounding), states)
    assert not same_states(policy, states * float("nan"), states)
