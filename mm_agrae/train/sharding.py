"""How a run's weights are held by its processes, as train.sharding says."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from mm_agrae.config.schema import TrainConfig
from mm_agrae.policy.fsdp import shard
from mm_agrae.policy.load import Policy
from mm_agrae.train.distributed import World


def is_sharded(config: TrainConfig, world: World) -> bool:
    """Whether each process holds pieces; one process has nobody to share with."""
    return config.sharding != "none" and world.size > 1


def shard_if_asked(policy: Policy, config: TrainConfig, world: World, log: Callable[[str], None]) -> Policy:
    """A policy that every process holds whole, or that is shared out in place.

    Args:
        policy: Whole, and the same on every process.
        config: Its `sharding`.
        world: The processes.
        log: Is told when there is nobody to share with.

    Raises:
        ConfigError: This policy cannot be shared out.
    """
    if is_sharded(config, world):
        return shard(policy, world.mesh())
    if config.sharding != "none":
        log(f"train.sharding is {config.sharding}, and one process holds all pieces: the weights stay whole")
    return policy


def gathering(policy: Policy, config: TrainConfig) -> AbstractContextManager[None]:
    """Context for the passes of one update.

    With train.reshard_after_forward=false all weights are gathered on entry and let go on exit; otherwise every layer
    gathers its own, and nothing is done here.
    """
    return nullcontext() if config.reshard_after_forward else policy.whole()
