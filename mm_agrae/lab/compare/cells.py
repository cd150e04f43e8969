"""The cells of a comparison on disk: which are finished, and what they measured. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mm_agrae.config import RunConfig, load_config, numbers_hash
from mm_agrae.config.flat import changed_settings
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.lab.compare.spec import Matrix, overrides
from mm_agrae.store.checkpoint import latest_checkpoint
from mm_agrae.store.rollout_log import read_groups
from mm_agrae.store.run_dir import RunDir, step_of
from mm_agrae.store.tracker import read_metrics

State = Literal["absent", "begun", "finished"]

CURVES = ("reward/batch_accuracy", "group/mixed_frac", "policy/entropy_nats")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the matrix: an algorithm with a seed."""

    algorithm: str
    seed: int
    recipe: Path
    overrides: tuple[str, ...]
    config: RunConfig
    run: RunDir

    @property
    def name(self) -> str:
        return f"{self.algorithm} seed {self.seed}"

    @property
    def log(self) -> Path:
        """What the run says, beside its folder: a run begins in an empty one."""
        return self.run.path.with_suffix(".log")

    @property
    def failure(self) -> Path:
        """Why the last attempt failed; there only when it did."""
        return self.run.path.with_suffix(".failed")


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a finished cell measured.

    Attributes:
        before: Metric -> value before training.
        after: The same after the last step.
        num_correct: Evaluation set -> problem -> correct ones among its sampled completions, after the last step.
        curves: Metric -> step -> value, for the metrics of CURVES.
        seconds: Time of training and measuring, without the start of the program.
        arithmetic: What the policy computed in and what its weights were stored in.
        code: Version and revision of the code that ran, "+" behind what differs from its revision.
    """

    algorithm: str
    seed: int
    before: Mapping[str, float]
    after: Mapping[str, float]
    num_correct: Mapping[str, Mapping[str, int]]
    curves: Mapping[str, Mapping[int, float]]
    seconds: float
    arithmetic: str
    code: str


def cells(matrix: Matrix, out: Path) -> list[Cell]:
    """Every cell, seed by seed: after each seed, all algorithms can be compared.

    Raises:
        ConfigError: The settings of a cell do not fit, or its evaluation does not measure what the matrix reports.
    """
    recipe = Path(matrix.recipe)
    made = []
    for seed in matrix.seeds:
        for algorithm in matrix.algorithms:
            settings = overrides(matrix, algorithm, seed)
            try:
                config = load_config(recipe, settings)
            except ConfigError as error:
                raise ConfigError(f"algorithm {algorithm}: {error}") from error
            _check_metrics(matrix.metrics, config)
            run = RunDir(Path(out) / algorithm / f"seed_{seed}")
            made.append(
                Cell(
                    algorithm=algorithm,
                    seed=seed,
                    recipe=recipe,
                    overrides=tuple(settings),
                    config=config,
                    run=run,
                )
            )
    return made


def state(cell: Cell) -> State:
    """How far a cell is.

    Raises:
        CheckpointError: Its folder holds a run under another configuration, or something that is no run.
    """
    run = cell.run
    if not run.path.exists():
        return "absent"
    if not run.config.is_file():
        if _is_stillborn(run):
            return "absent"
        raise CheckpointError(
            f"{run.path} holds no config.json, so it is no run of this comparison. Move it away, or name another --out."
        )
    _check_config(cell)
    last = cell.config.train.num_steps
    saved = latest_checkpoint(run.checkpoints)
    is_saved = saved is not None and step_of(saved.name) == last
    return "finished" if is_saved and not _missing(cell, _lines(run)) else "begun"


def steps_done(cell: Cell) -> int:
    """Steps with metrics; a resumed run repeats those after its last checkpoint."""
    return max(_lines(cell.run), default=0)


def read_result(cell: Cell) -> Result:
    """What a finished cell measured.

    Raises:
        CheckpointError: If the cell lacks a measurement.
    """
    lines = _lines(cell.run)
    missing = _missing(cell, lines)
    if missing:
        raise CheckpointError(f"{cell.run.metrics} lacks {missing[0]}. Run the comparison to its end first.")
    last = cell.config.train.num_steps
    sets = cell.config.data.eval
    facts = _environment(cell.run)
    return Result(
        algorithm=cell.algorithm,
        seed=cell.seed,
        before={key: value for key, value in lines[0].items() if key.startswith("eval/")},
        after={key: value for key, value in lines[last].items() if key.startswith("eval/")},
        num_correct={name: _num_correct(cell.run.eval_at(last) / f"{name}.jsonl") for name in sets},
        curves={key: {step: line[key] for step, line in lines.items() if key in line} for key in CURVES},
        arithmetic=_arithmetic(facts),
        code=_code(facts),
        seconds=sum(line["time/step_s"] for line in lines.values() if "time/step_s" in line)
        + lines[0].get("time/evaluate_s", 0.0),
    )


def _check_metrics(metrics: Sequence[str], config: RunConfig) -> None:
    measured = [f"pass@{k}" for k in config.evaluate.ks] + [f"avg@{config.evaluate.num_samples}"]
    measured += ["formatted", "truncated", *(["greedy"] if config.evaluate.greedy else [])]
    for metric in metrics:
        _, name, figure = metric.split("/")
        if name not in config.data.eval or figure not in measured:
            raise ConfigError(
                f"metric {metric} is not measured: the recipe has the sets {', '.join(config.data.eval) or 'none'} and "
                f"the figures {', '.join(measured)}. Report one of these, or change data.eval or evaluate."
            )


def _check_config(cell: Cell) -> None:
    """A table of runs under mixed configurations would mean nothing."""
    try:
        saved = RunConfig.model_validate_json(cell.run.config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{cell.run.config} is no configuration of this version, so the run is not part of this comparison: {error}"
        ) from error
    if numbers_hash(saved) == numbers_hash(cell.config):
        return
    changed = changed_settings(*(config.model_dump(mode="json") for config in (saved, cell.config)))
    raise CheckpointError(
        f"{cell.run.path} was made under another configuration; it differs in\n  " + "\n  ".join(changed) + "\n"
        "Move it away, restore the matrix and its recipe, or name another --out."
    )


def _is_stillborn(run: RunDir) -> bool:
    """Whether a run was killed while it made its folder, before it wrote its configuration."""
    files = {path.name for path in run.path.rglob("*") if path.is_file()}
    return run.path.is_dir() and all(name == run.recipe.name or name.endswith(".tmp") for name in files)


def _missing(cell: Cell, lines: Mapping[int, Mapping[str, Any]]) -> list[str]:
    """What a finished run has and this one has not, in words."""
    wanted = [f"eval/{name}/truncated" for name in cell.config.data.eval]
    steps = (0, cell.config.train.num_steps)
    return [f"{key} of step {step}" for step in steps for key in wanted if key not in lines.get(step, {})]


def _lines(run: RunDir) -> dict[int, dict[str, float]]:
    """Step -> metric -> value; lines of one step are merged, values that were not finite are left out."""
    merged: dict[int, dict[str, float]] = {}
    for line in read_metrics(run.metrics) if run.metrics.is_file() else ():
        values = {key: value for key, value in line.items() if key != "step" and value is not None}
        merged.setdefault(line["step"], {}).update(values)
    return merged


def _num_correct(path: Path) -> dict[str, int]:
    """Problem -> correct samples; empty where the completions were not kept."""
    if not path.is_file():
        return {}
    return {
        line["sample_id"]: sum(rollout["verdict"]["status"] == "correct" for rollout in line["rollouts"])
        for line in read_groups(path)
    }


def _environment(run: RunDir) -> Mapping[str, Any]:
    """Empty where it was not kept."""
    try:
        return json.loads(run.environment.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _arithmetic(facts: Mapping[str, Any]) -> str:
    if "stored_weights" not in facts:
        return "unknown"
    return f"{facts['precision']} with weights stored as {facts['stored_weights']}"


def _code(facts: Mapping[str, Any]) -> str:
    if not facts:
        return "unknown"
    revision = (facts.get("git_revision") or "no revision")[:12]
    return f"{facts.get('version')} {revision}{'+' if facts.get('git_dirty') else ''}"
