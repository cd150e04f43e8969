"""What must be so on every machine of a run; checked when it starts, where nothing is lost yet.

Recipe, packages, data and model are read by every process for itself, maybe from a copy on its own machine. A copy that
differs would not fail: the processes would wait for each other for ever, or add up gradients of different models.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from uuid import uuid4

from mm_agrae.config import RunConfig
from mm_agrae.config.flat import flat
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.policy.load import Policy
from mm_agrae.policy.marks import processor_facts, weights_mark
from mm_agrae.store.provenance import environment
from mm_agrae.train.distributed import World


def check_start(world: World, config: RunConfig, out: Path | None, *, job: str, resume: bool) -> None:
    """Before anything is loaded: the same job everywhere, and one place for the run folder.

    Args:
        world: The processes; all of them must call.
        config: As this process read it.
        out: The run folder as it was named to this process; None where config.output_dir decides.
        job: What the run does.
        resume: Whether this process was asked to go on with it.

    Raises:
        ConfigError: Settings, versions or what was asked for differ between the processes, or weights are shared out
            over more processes than there is work for.
        CheckpointError: A process does not see the folder of the main one, or that one cannot write there.
    """
    if world.size == 1:
        return
    found = environment(str(world.device))
    # A new run is made where the main process was told to, but each process opens what it goes on with.
    facts = {"--resume": str(out) if resume else "no"}
    facts |= {name: json.dumps(value) for name, value in flat(config.model_dump(mode="json")).items()}
    facts |= {"version of mm-agrae": str(found["version"]), "git revision": str(found["git_revision"])}
    check_alike(world, facts | {f"version of {name}": version for name, version in found["packages"].items()})
    _check_work(world, config, job)
    check_shared(world, out or Path(config.output_dir))


def check_model(world: World, policy: Policy) -> None:
    """See that all processes loaded the same model; to be called before they share out its weights.

    Raises:
        ConfigError: They did not.
    """
    if world.size > 1:
        weights = weights_mark(policy.model.named_parameters())
        check_alike(world, {"weights of model.path": weights} | processor_facts(policy))


def check_alike(world: World, facts: Mapping[str, str]) -> None:
    """Compare what every process found for itself.

    Args:
        world: The processes; all of them must call.
        facts: By their names in words.

    Raises:
        ConfigError: A process found something else than the main process; raised on every rank.
    """
    everyone = world.collect([(socket.gethostname(), dict(facts))])
    main_host, main_facts = everyone[0]
    for rank, (host, theirs) in enumerate(everyone):
        other = sorted(name for name in main_facts | theirs if main_facts.get(name) != theirs.get(name))
        if other:
            listed = "".join(
                f"\n  {name}: {main_facts.get(name, 'not there')} -> {theirs.get(name, 'not there')}" for name in other
            )
            raise ConfigError(
                f"rank {rank} on {host} does not start like rank 0 on {main_host}:{listed}\n"
                "All processes of a run need the same recipe, packages, data and model. Copy those of rank 0."
            )


def check_shared(world: World, folder: Path) -> None:
    """See that all processes have one run folder: everyone reads its checkpoints and writes pictures and logs to it.

    Args:
        world: The processes; all of them must call.
        folder: The run folder, or where it will be made; the innermost of its folders that is there is looked at.

    Raises:
        CheckpointError: A process does not see what the main process writes there, or it cannot write; raised on every
            rank.
    """
    mark = world.on_main(lambda: _leave_mark(folder))
    everyone = world.collect([(socket.gethostname(), mark.is_file())])
    world.on_main(mark.unlink)
    blind = [f"rank {rank} on {host}" for rank, (host, sees) in enumerate(everyone) if not sees]
    if blind:
        raise CheckpointError(
            f"{', '.join(blind)} does not see what rank 0 on {everyone[0][0]} writes to {mark.parent.absolute()}, but "
            f"all processes of a run share its folder, {folder}. Put it, by output_dir or --out, on a file system that "
            "every machine has mounted at the same path."
        )


def _check_work(world: World, config: RunConfig, job: str) -> None:
    """With weights in pieces every process must compute in every update."""
    work = {
        "train": ("rollout.num_prompts", config.rollout.num_prompts),
        "sft": ("sft.batch_size", config.sft.batch_size),
    }
    if config.train.sharding == "none" or job not in work:
        return
    name, count = work[job]
    if count < world.size:
        raise ConfigError(
            f"{name} is {count}, but with train.sharding={config.train.sharding} each of the {world.size} processes "
            f"must compute in every update. Set {name} to at least {world.size}, or start fewer processes."
        )


def _leave_mark(folder: Path) -> Path:
    there = next(one for one in (folder, *folder.parents) if one.is_dir())
    mark = there / f".seen_by_all_{uuid4().hex}"
    try:
        mark.touch()
    except OSError as error:
        raise CheckpointError(
            f"{there.absolute()}, where the run folder {folder} belongs, cannot be written to ({error}). Free or open "
            "it, or name another place by output_dir or --out."
        ) from error
    return mark
