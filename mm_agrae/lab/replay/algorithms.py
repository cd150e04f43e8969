"""Names of algorithms -> what each makes of a log, step by step as in training.

Shapes: P groups of all steps, G completions per group.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from pydantic import ValidationError
from torch import Tensor

from mm_agrae.algorithms import WEIGHTINGS, ClipBounds
from mm_agrae.algorithms.groups import batch_accuracy, scored_flags
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.config.presets import PRESETS
from mm_agrae.errors import ConfigError
from mm_agrae.estimator import START, Algorithm, Estimate, EstimatorState, Outcomes, assemble, estimate
from mm_agrae.lab.replay.read import Log, Step
from mm_agrae.store.run_dir import RunDir

RUN = "run"
ELASTIC = "elastic"
REFERENCE = "grpo"
DEFAULT_NAMES = (RUN, "grpo", "dr_grpo", "grpo+agrae", "grpo+hadw", "grpo+elastic", "rloo", "dapo")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What a run's config.json says of its estimator; None for what it does not say, `problem` why."""

    algorithm: AlgorithmConfig | None
    max_completion_tokens: int | None
    problem: str


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What one algorithm makes of a log.

    Attributes:
        advantages: [P, G] after all weightings; 0 where the algorithm leaves a rollout out of the loss.
        base: [P, G] before the weightings.
        unguarded: [P, G] base advantages as they would be if groups of equal flags and unequal rewards were compared
            too; None for an algorithm that compares no rewards.
        kept: [P, G] False where the algorithm leaves a rollout out of the loss.
        bounds: [P, G] each, of the policy ratio.
        anchors: C used in each step, in the order of the log; None without HA-DW.
    """

    config: AlgorithmConfig
    advantages: Float[Tensor, "P G"]
    base: Float[Tensor, "P G"]
    unguarded: Float[Tensor, "P G"] | None
    kept: Bool[Tensor, "P G"]
    bounds: ClipBounds
    anchors: tuple[float, ...] | None


def read_settings(path: Path) -> RunSettings:
    """The algorithm section and the completion bound of a run directory; a single file of rollouts has none."""
    try:
        values = json.loads(RunDir(path).config.read_text(encoding="utf-8"))
        algorithm = AlgorithmConfig.model_validate(values["algorithm"])
        bound = int(values["rollout"]["max_completion_tokens"])
    except (FileNotFoundError, NotADirectoryError):
        problem = "there is no config.json beside the rollouts"
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in ("algorithm", *first["loc"]))
        problem = f"config.json is of another version ({where}: {first['msg']})"
    except (ValueError, KeyError, TypeError) as error:
        problem = f"config.json cannot be read ({type(error).__name__}: {error})"
    else:
        return RunSettings(algorithm=algorithm, max_completion_tokens=bound, problem="")
    return RunSettings(algorithm=None, max_completion_tokens=None, problem=problem)


def parse_algorithm(name: str, run: RunSettings) -> AlgorithmConfig:
    """`gspo+agrae+elastic` -> settings: a preset, or "run" for the run's own, then weightings in order, and elastic.

    Raises:
        ConfigError: A part is unknown, the run has no settings, or the parts do not go together.
    """
    first, *parts = name.split("+")
    known = f"presets {', '.join(PRESETS)}; weightings {', '.join(WEIGHTINGS)}; and {ELASTIC}"
    if first == RUN:
        if run.algorithm is None:
            raise ConfigError(f"algorithm {name!r} asks for the run's own settings, but {run.problem}. Name a preset.")
        values = run.algorithm.model_dump()
    elif first in PRESETS:
        values = {"preset": first, "weighting": PRESETS[first]["weighting"]}
    else:
        raise ConfigError(
            f"algorithm {name!r} begins with {first!r}, which is no preset. Write a preset or {RUN!r}, then + and "
            f"weightings, such as grpo+agrae+{ELASTIC}. Known: {known}."
        )
    for part in parts:
        if part not in WEIGHTINGS and part != ELASTIC:
            raise ConfigError(f"algorithm {name!r} has the part {part!r}, which is unknown. Known: {known}.")
    values["weighting"] = (*values["weighting"], *(part for part in parts if part != ELASTIC))
    if ELASTIC in parts:
        values["trust_region"] = "elastic"
    try:
        return AlgorithmConfig.model_validate(values)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ConfigError(f"algorithm {name!r}: {reason}") from error


def replay_all(log: Log, configs: Mapping[str, AlgorithmConfig], *, max_completion_tokens: int) -> dict[str, Replayed]:
    """Every algorithm over every step of the log, each from its first step on and with its own state."""
    accuracies = step_accuracies(log)
    return {
        name: _replay(log, config, assemble(config, max_completion_tokens=max_completion_tokens), accuracies)
        for name, config in configs.items()
    }


def step_accuracies(log: Log) -> dict[int, float]:
    """Step -> batch accuracy, ascending: of every logged step, and of the unlogged ones before the last where known.

    The run's own number comes first: it counts all that was sampled, also groups that were dropped before the log.
    """
    last = log.steps[-1].number
    known = {step: value for step, value in log.accuracies.items() if 0 < step <= last}
    for step in log.steps:
        if step.number not in known:
            known[step.number] = batch_accuracy(scored_flags(log.correct[step.rows], log.rewards[step.rows]))
    return dict(sorted(known.items()))


def reward_flags(rewards: Float[Tensor, "P G"]) -> Bool[Tensor, "P G"]:
    """True above the lowest reward of the group: flags that are unequal exactly where the rewards are.

    With these for flags an estimator compares every group of unequal rewards, as implementations without a guard do.
    """
    lowest = rewards.masked_fill(rewards.isnan(), torch.inf).amin(dim=1, keepdim=True)
    return rewards > lowest


def _replay(log: Log, config: AlgorithmConfig, algorithm: Algorithm, accuracies: Mapping[int, float]) -> Replayed:
    state = START
    logged = {step.number: step for step in log.steps}
    found: list[Estimate] = []
    for number, accuracy in accuracies.items():
        if number in logged:
            one, state = estimate(algorithm, state, _outcomes(log, logged[number]), batch_accuracy=accuracy)
            found.append(one)
        elif algorithm.anchor is not None:
            state = EstimatorState(anchor=algorithm.anchor(state.anchor, accuracy)[1])
    compares = config.baseline != "none"
    return Replayed(
        config=config,
        advantages=torch.cat([one.advantages * one.kept for one in found]),
        base=torch.cat([one.base * one.kept for one in found]),
        unguarded=torch.cat([algorithm.advantage(one.rewards, reward_flags(one.rewards)) * one.kept for one in found])
        if compares
        else None,
        kept=torch.cat([one.kept for one in found]),
        bounds=ClipBounds(
            low=torch.cat([one.bounds.low for one in found]), high=torch.cat([one.bounds.high for one in found])
        ),
        anchors=_anchors(found),
    )


def _outcomes(log: Log, step: Step) -> Outcomes:
    rows = step.rows
    return Outcomes(
        rewards=log.rewards[rows], correct=log.correct[rows], lengths=log.lengths[rows], truncated=log.truncated[rows]
    )


def _anchors(found: Sequence[Estimate]) -> tuple[float, ...] | None:
    known = tuple(one.anchor for one in found if one.anchor is not None)
    return known or None
