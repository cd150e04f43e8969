"""The checkpoint that measured best, which pruning spares.

It is found anew among the checkpoints there are and the lines of metrics.jsonl, so a run that was killed anywhere finds
the same. Checkpoints are removed only after a new one is saved: a run that is resumed with other settings by mistake
loses none by that.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from mm_agrae.config import RunConfig
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.metrics.catalogue import MACHINE_UNITS, UncataloguedMetricError, lookup
from mm_agrae.store.atomic import write_json
from mm_agrae.store.checkpoint import complete_checkpoints, prune
from mm_agrae.store.run_dir import RunDir, step_name
from mm_agrae.store.tracker import read_metrics


def check_keep_best(config: RunConfig) -> None:
    """Refuse, before anything is loaded, a train.keep_best by which no checkpoint could be chosen.

    Raises:
        ConfigError: The metric is not in the catalogue, has no better and worse or measures the machine, is of a set
            that is not measured, or only the last checkpoint would be measured by it.
    """
    key = config.train.keep_best
    if key is None:
        return
    try:
        metric = lookup(key)
    except UncataloguedMetricError as error:
        raise ConfigError(f"train.keep_best is {key!r}, which is no metric: {error}") from error
    if metric.direction == "none" or metric.unit in MACHINE_UNITS:
        why = "measures the machine" if metric.unit in MACHINE_UNITS else "has no better and worse"
        raise ConfigError(
            f"train.keep_best is {key!r}, which {why}. Choose a metric by which one model is better than another, such "
            "as eval/<set>/pass@1."
        )
    if _is_evaluated(key) and key.split("/")[1] not in config.data.eval:
        raise ConfigError(
            f"train.keep_best is {key!r}, but data.eval has no set of that name; it has "
            f"{', '.join(config.data.eval) or 'none'}. Name one of them, or add the set."
        )
    _check_meeting(config, key)


def check_measured(config: RunConfig, step: int, metrics: Mapping[str, Any]) -> None:
    """Refuse, at the first line that could hold it, a train.keep_best that the run does not measure.

    Raises:
        ConfigError: The line of step 0 (of a metric of training: of step 1) does not hold it.
    """
    key = config.train.keep_best
    if key is None or key in metrics or step != (0 if _is_evaluated(key) else 1):
        return
    alike = sorted(name for name in metrics if name.split("/")[:-1] == key.split("/")[:-1])
    raise ConfigError(
        f"train.keep_best is {key!r}, which this run does not measure. It measures "
        f"{', '.join(alike or sorted(metrics))}. Choose one of them."
    )


def check_measured_so_far(config: RunConfig, run_dir: RunDir) -> None:
    """Refuse to go on where the lines of the first steps lack the metric of train.keep_best, which may be a new one.

    Raises:
        ConfigError: The lines of its first steps do not hold the metric.
    """
    if config.train.keep_best is None or not run_dir.metrics.exists():
        return
    for line in read_metrics(run_dir.metrics):
        check_measured(config, line["step"], line)


def keep_checkpoints(run_dir: RunDir, config: RunConfig, job: str) -> None:
    """After a save: name the best checkpoint in best.json, and remove what is neither named there nor among the newest.

    Without train.keep_best the checkpoint that best.json names already stays. Doing it twice is doing it once, so it
    also ends what a killed process had begun.
    """
    name_best(run_dir, config, job)
    best = best_step(run_dir)
    prune(run_dir.checkpoints, config.train.keep_checkpoints, spare=() if best is None else (best,))


def name_best(run_dir: RunDir, config: RunConfig, job: str) -> None:
    """Write best.json where train.keep_best chooses a checkpoint; nothing is removed."""
    key = config.train.keep_best
    if job != "train" or key is None or not run_dir.metrics.exists():
        return
    steps = complete_checkpoints(run_dir.checkpoints)
    best = best_line(key, [line for line in read_metrics(run_dir.metrics) if line["step"] in steps])
    if best is not None:
        write_json(run_dir.best, best)


def best_step(run_dir: RunDir) -> int | None:
    """The step of the checkpoint that best.json names; None where there is no best.json.

    Raises:
        CheckpointError: It names none.
    """
    if not run_dir.best.is_file():
        return None
    try:
        return int(json.loads(run_dir.best.read_text(encoding="utf-8"))["step"])
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{run_dir.best} names no step of a checkpoint. Remove it: a run with train.keep_best writes it again."
        ) from error


def best_line(key: str, lines: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The step that measured best; of equal ones the earliest, None where no line holds a number.

    Args:
        key: A metric with a direction.
        lines: Lines of metrics.jsonl, by step.

    Returns:
        step, checkpoint (name of its folder), metric and value.
    """
    sign = 1.0 if lookup(key).direction == "up" else -1.0
    measured = [line for line in lines if line.get(key) is not None]
    if not measured:
        return None
    best = max(measured, key=lambda line: (sign * line[key], -line["step"]))
    return {"step": best["step"], "checkpoint": step_name(best["step"]), "metric": key, "value": best[key]}


def _check_meeting(config: RunConfig, key: str) -> None:
    measured = config.evaluate.every if _is_evaluated(key) else 1
    saved = config.train.checkpoint_every
    if measured and saved and math.lcm(measured, saved) < config.train.num_steps:
        return
    settings = f"train.checkpoint_every is {saved} and train.num_steps {config.train.num_steps}"
    if _is_evaluated(key):
        settings = f"evaluate.every is {config.evaluate.every}, {settings}"
    raise ConfigError(
        f"train.keep_best is {key!r}, but no checkpoint before the last is measured by it, so there is nothing to "
        f"choose from: {settings}. Let both happen at the same steps, or leave keep_best out."
    )


def _is_evaluated(key: str) -> bool:
    return key.startswith("eval/")
