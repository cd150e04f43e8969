"""Going on with a run: what it must have in common with the one that was stopped, and what it should."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_agrae.config import RunConfig, config_hash, numbers_hash
from mm_agrae.config.flat import changed_settings
from mm_agrae.errors import CheckpointError
from mm_agrae.policy.load import Policy
from mm_agrae.store.checkpoint import check_files, latest_checkpoint, read_state
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.distributed import World


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a stopped run left.

    Attributes:
        run_dir: The run.
        checkpoint: Its latest checkpoint.
        state: What state.json of it holds.
    """

    run_dir: RunDir
    checkpoint: Path
    state: Mapping[str, Any]


def existing_run(out: Path | None, config: RunConfig, log: Callable[[str], None]) -> RunDir:
    """The run to go on with. Settings that it began with otherwise, as it may, are told.

    Raises:
        CheckpointError: It is not named, is no run, or began with another configuration.
    """
    if out is None:
        raise CheckpointError("--resume needs the run directory to go on with. Give it with --out RUN_DIR.")
    run_dir = RunDir.open(out)
    changed = _check_config(run_dir, config)
    if changed:
        log(f"{run_dir.path} began with other settings:" + "".join(f"\n  {line}" for line in changed))
    return run_dir


def find_left(run_dir: RunDir, job: str, world: World) -> Left | None:
    """Its latest checkpoint, whole to the last byte; None where it has none. Every process must call it.

    Raises:
        CheckpointError: The checkpoint is damaged or comes from another run or another kind of run; on every rank.
    """
    checkpoint = latest_checkpoint(run_dir.checkpoints)
    world.on_main(lambda: check_files(checkpoint) if checkpoint else None)
    if checkpoint is None:
        return None
    state = read_state(checkpoint)
    if state["config_hash"] != config_hash_of(run_dir):
        raise CheckpointError(
            f"checkpoint {checkpoint} was saved under another configuration than {run_dir.config} holds: one of the "
            "two comes from another run. Put the one that belongs here back, or start a new run."
        )
    if state["job"] != job:
        raise CheckpointError(
            f"{run_dir.path} is a run of `mm-agrae {state['job']}`, so `mm-agrae {job}` cannot resume it. "
            f"Name a run directory of {job}."
        )
    return Left(run_dir=run_dir, checkpoint=checkpoint, state=state)


def config_hash_of(run_dir: RunDir) -> str:
    """What binds a run's checkpoints to its config.json, which is written once."""
    return config_hash(json.loads(run_dir.config.read_text(encoding="utf-8")))


def stored_as(config: RunConfig, left: Left | None) -> RunConfig:
    """A run goes on with fp32 weights if it began so, wherever "auto" would choose otherwise today."""
    if left is None or config.model.stored_weights != "auto" or left.state["arithmetic"]["stored_weights"] != "fp32":
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"stored_weights": "fp32"})})


def arithmetic_of(policy: Policy) -> dict[str, str]:
    """What the settings of precision and storage came out as, and how groups are laid out: both differ by machine."""
    layout = "shared" if policy.shares_prompts else "repeated"
    return {"precision": policy.precision, "stored_weights": policy.stored_weights, "layout": layout}


def check_arithmetic(left: Left, policy: Policy) -> None:
    """Refuse to go on as another run.

    Raises:
        CheckpointError: The policy is computed or stored otherwise than before.
    """
    began, here = left.state["arithmetic"], arithmetic_of(policy)
    if began != here:
        raise CheckpointError(
            f"{left.run_dir.path} was learnt with {_in_words(began)}, but here it would go on with "
            f"{_in_words(here)}, and no longer be the same run. Resume it on a machine like the one "
            "that it began on, or start a new run from the model/ folder of its last checkpoint."
        )


def tell_changes(left: Left, here: Mapping[str, Any], log: Callable[[str], None]) -> None:
    """Say what numbers depend on beside the recipe and has changed: the run is not the same to the last bit then."""
    changed = changed_marks(left.state["computed_on"], here)
    if changed:
        log(
            f"resuming under other conditions ({', '.join(changed)}): results agree up to rounding, but not bit for bit"
        )


def changed_marks(before: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """What is otherwise than before, in words; an earlier version did not note everything."""
    return [f"{name} {before[name]} -> {here[name]}" for name in here if name in before and before[name] != here[name]]


def _in_words(arithmetic: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arithmetic.items())


def _check_config(run_dir: RunDir, config: RunConfig) -> list[str]:
    """A run goes on under the config it began with; the numbers would mean nothing otherwise.

    Returns:
        What is set otherwise and decides no number, in words.
    """
    saved = saved_config(run_dir)
    changed = changed_settings(saved.model_dump(mode="json"), config.model_dump(mode="json"))
    if numbers_hash(saved) == numbers_hash(config):
        return changed
    raise CheckpointError(
        f"{run_dir.path} belongs to another configuration; it differs in\n  " + "\n  ".join(changed) + "\n"
        "Resume with the recipe it began with, or start a new run."
    )


def saved_config(run_dir: RunDir) -> RunConfig:
    """The configuration that a run began with.

    Raises:
        CheckpointError: This version cannot read it.
    """
    try:
        return RunConfig.model_validate_json(run_dir.config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{run_dir.config} is no configuration of this version, so the run cannot be resumed: {error}\n"
            "Resume with the version that began it, or start a new run."
        ) from error
