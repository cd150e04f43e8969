"""What a launcher says of a run in the environment, and what of it must not be ignored."""

from __future__ import annotations

from collections.abc import Mapping

from mm_agrae.errors import ConfigError

HOW_TO_LAUNCH = "Launch with `torchrun --nproc_per_node N -m mm_agrae.cli.main train ...`, or unset WORLD_SIZE."
# Accelerate would hold, cut or compute the model so if it were handed one; this trainer does all of that itself.
FOREIGN = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context or data parallelism",
}
YES = ("1", "true", "yes", "on", "t", "y")


def num_launched(environment: Mapping[str, str]) -> int:
    """How many processes a launcher has started, 1 without any.

    Args:
        environment: Of this process.

    Raises:
        ConfigError: The launch would train alone, or asks Accelerate for what it would not get.
    """
    _refuse_foreign(environment)
    launched = int(environment.get("WORLD_SIZE", "1"))
    if "WORLD_SIZE" not in environment and "MASTER_ADDR" in environment:
        # What `accelerate launch --cpu --num_processes 2` leaves behind: it asks for two and starts one.
        raise ConfigError(
            "MASTER_ADDR is set and WORLD_SIZE is not: a launcher was asked for several processes and started one, "
            f"which would train alone. {HOW_TO_LAUNCH} For a single process, unset MASTER_ADDR."
        )
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in environment]
    if launched > 1 and missing:
        raise ConfigError(
            f"WORLD_SIZE is {launched}, but {', '.join(missing)} is not set, so the other processes cannot be "
            f"found. {HOW_TO_LAUNCH}"
        )
    return launched


def _refuse_foreign(environment: Mapping[str, str]) -> None:
    asked = [what for name, what in FOREIGN.items() if environment.get(name, "").lower() in YES]
    precision, compiler = (
        environment.get(f"ACCELERATE_{what}", "no").lower() for what in ("MIXED_PRECISION", "DYNAMO_BACKEND")
    )
    if precision != "no":
        asked.append(f"mixed precision {precision}")
    if compiler != "no":
        asked.append(f"compilation by {compiler}")
    if asked:
        raise ConfigError(
            f"the launch asks Accelerate for {', '.join(asked)}, which would have no effect: the recipe decides how "
            "weights are held (train.sharding=fsdp2) and in what precision they compute (model.precision). Launch with "
            "a file of configs/accelerate, or take this out of yours."
        )
