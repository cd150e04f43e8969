"""The files that accelerate launches with: its own loader takes them, and they start what their names say."""

from __future__ import annotations

from pathlib import Path

import pytest
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

FOLDER = Path(__file__).parents[2] / "configs" / "accelerate"


def loaded(name: str) -> ClusterConfig:
    return load_config_from_file(str(FOLDER / f"{name}.yaml"))


@pytest.mark.parametrize(
    ("name", "kind", "num_machines", "num_processes"),
    [
        ("single_gpu", "NO", 1, 1),
        ("multi_gpu", "MULTI_GPU", 1, 8),
        ("multi_node", "MULTI_GPU", 2, 16),
        ("two_cpu_processes", "MULTI_GPU", 1, 2),
    ],
)
def test_a_launch_file_starts_what_its_name_says(name: str, kind: str, num_machines: int, num_processes: int) -> None:
    config = loaded(name)
    assert config.distributed_type.value == kind
    assert (config.num_machines, config.num_processes) == (num_machines, num_processes)
    # The recipe decides on precision and on sharding; accelerate would add its own on top.
    assert config.mixed_precision == "no"
    assert not config.fsdp_config
    assert not config.deepspeed_config


def test_every_launch_file_is_tested() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == {"single_gpu", "multi_gpu", "multi_node", "two_cpu_processes"}


def test_machines_meet_at_a_port_that_is_known_beforehand() -> None:
    assert loaded("multi_node").main_process_port
