"""What a launcher leaves in the environment: runs that would train alone, and wishes that would have no effect."""

from __future__ import annotations

import pytest

from mm_agrae.errors import ConfigError
from mm_agrae.train.launch import num_launched

TWO = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


def test_how_many_were_launched() -> None:
    plain = {"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "no", "ACCELERATE_USE_FSDP": "false"}
    assert num_launched({}) == 1
    assert num_launched(plain) == 1
    assert num_launched(TWO | plain) == 2


def test_a_world_size_without_a_launcher() -> None:
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but RANK, MASTER_ADDR, MASTER_PORT is not set"):
        num_launched({"WORLD_SIZE": "2"})


def test_a_launcher_that_asked_for_several_and_started_one() -> None:
    with pytest.raises(ConfigError, match=r"MASTER_ADDR is set and WORLD_SIZE is not.*would train alone"):
        num_launched({"MASTER_ADDR": "127.0.0.1"})


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("ACCELERATE_USE_FSDP", "true", "FSDP"),
        ("ACCELERATE_USE_DEEPSPEED", "true", "DeepSpeed"),
        ("ACCELERATE_USE_MEGATRON_LM", "True", "Megatron-LM"),
        ("ACCELERATE_USE_PARALLELISM_CONFIG", "true", "tensor, context or data parallelism"),
        ("ACCELERATE_MIXED_PRECISION", "bf16", "mixed precision bf16"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", "mixed precision fp8"),
        ("ACCELERATE_DYNAMO_BACKEND", "INDUCTOR", "compilation by inductor"),
    ],
)
@pytest.mark.parametrize("launch", [{}, TWO])
def test_what_the_trainer_would_not_do_is_refused(launch: dict[str, str], name: str, value: str, what: str) -> None:
    told = rf"asks Accelerate for {what}, which would have no effect.*train\.sharding=fsdp2.*model\.precision.*configs/"
    with pytest.raises(ConfigError, match=told):
        num_launched(launch | {name: value})
