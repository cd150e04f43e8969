"""A run directory as frozen records. What is missing or unreadable becomes a note for the page, never a crash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mm_agrae.errors import CheckpointError
from mm_agrae.store.rollout_log import read_groups
from mm_agrae.store.run_dir import RunDir, step_of
from mm_agrae.store.tracker import read_metrics


@dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Figures ("pass@1", "greedy" ...) over some problems of an evaluation."""

    num_problems: int
    figures: Mapping[str, Interval]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One data set evaluated after `step` updates with `num_samples` completions per problem.

    Attributes:
        aggregate: Figures over groups of problems; those that are undefined are left out.
        by_category: Further axis -> value -> figures.
        protocol: Name of the protocol card; "" where the recipe decided.
        departures: What was done otherwise than the card says.
    """

    name: str
    step: int
    num_samples: int
    overall: Scores
    by_family: Mapping[str, Scores]
    by_difficulty: Mapping[str, Scores]
    aggregate: Scores = field(default_factory=lambda: Scores(num_problems=0, figures={}))
    by_category: Mapping[str, Mapping[str, Scores]] = field(default_factory=dict)
    protocol: str = ""
    departures: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BlindRow:
    """One figure of one set with its pictures and with grey or swapped ones; the difference is what pictures are worth.

    `needs_image_frac` is None where nothing was right with pictures.
    """

    name: str
    mode: str
    figure: str
    num_problems: int
    seen: float
    blind: float
    difference: Interval
    p_value: float
    needs_image_frac: float | None


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """One completion with its verdict; `reward` and `advantage` are None where there is none."""

    text: str
    span: tuple[int, int] | None
    status: str
    answer: str | None
    rule: str
    stop_reason: str
    num_tokens: int
    reward: float | None
    advantage: float | None

    @property
    def correct(self) -> bool:
        return self.status == "correct"


@dataclass(frozen=True, kw_only=True)
class Group:
    """One problem with its completions; `images` are the thumbnail files that exist."""

    step: int
    sample_id: str
    family: str
    difficulty: int | None
    question: str
    target: str
    options: tuple[str, ...]
    images: tuple[Path, ...]
    rollouts: tuple[Rollout, ...]

    @property
    def num_correct(self) -> int:
        return sum(rollout.correct for rollout in self.rollouts)

    @property
    def mixed(self) -> bool:
        return 0 < self.num_correct < len(self.rollouts)


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything a report shows.

    Attributes:
        metrics: Step -> metric -> value; lines of one step are merged, values that were not finite are left out.
        evaluations: By data set name, each list from the first step to the last.
        rollouts: Step -> groups, of the first and the last step that were saved.
        completions: (data set name, step) -> groups, for the first and the last evaluation of each set.
        notes: What could not be read, in words.
        blind: Figures with and without pictures, set by set.
    """

    name: str
    recipe: str | None
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    metrics: Mapping[int, Mapping[str, float]]
    evaluations: Mapping[str, tuple[Evaluation, ...]]
    rollouts: Mapping[int, tuple[Group, ...]]
    completions: Mapping[tuple[str, int], tuple[Group, ...]]
    notes: tuple[str, ...]
    blind: tuple[BlindRow, ...] = ()


def read_run(path: Path) -> Run:
    """Read a run directory.

    Raises:
        CheckpointError: If the folder does not exist; anything less is a note.
    """
    if not Path(path).is_dir():
        raise CheckpointError(f"{path} does not exist, but must be the folder of a run. Check the path.")
    run = RunDir(Path(path))
    notes: list[str] = []
    evaluations = _evaluations(run, notes)
    blind = _blind(run, notes)
    ends = {(name, each.step) for name, found in evaluations.items() for each in (found[0], found[-1])}
    return Run(
        name="/".join(run.path.resolve().parts[-2:]),
        recipe=run.recipe.read_text(encoding="utf-8") if run.recipe.is_file() else None,
        config=_json_object(run.config, notes),
        environment=_json_object(run.environment, notes),
        metrics=_metrics(run.metrics, notes),
        evaluations=evaluations,
        rollouts={step: _groups(file, run, notes) for step, file in _first_and_last(run.rollouts).items()},
        completions={
            (name, step): _groups(run.eval_at(step) / f"{name}.jsonl", run, notes) for name, step in sorted(ends)
        },
        notes=tuple(notes),
        blind=blind,
    )


def _json_object(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        notes.append(f"{path.name} is missing.")
        return {}
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read: {error}")
        return {}
    return value if isinstance(value, dict) else {}


def _metrics(path: Path, notes: list[str]) -> dict[int, dict[str, float]]:
    merged: dict[int, dict[str, float]] = {}
    try:
        lines = read_metrics(path) if path.is_file() else []
    except (OSError, CheckpointError) as error:
        notes.append(f"metrics.jsonl cannot be read: {error}")
        lines = []
    for line in lines:
        values = {key: float(value) for key, value in line.items() if key != "step" and _is_number(value)}
        merged.setdefault(line["step"], {}).update(values)
    return dict(sorted(merged.items()))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _evaluations(run: RunDir, notes: list[str]) -> dict[str, tuple[Evaluation, ...]]:
    found: dict[str, list[Evaluation]] = {}
    for _, folder in sorted(_by_step(run.eval).items()):
        for file in sorted(folder.glob("*.json")):
            try:
                evaluation = _evaluation(json.loads(file.read_text(encoding="utf-8")))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                notes.append(f"{file.relative_to(run.path)} cannot be read: {type(error).__name__}: {error}")
            else:
                found.setdefault(evaluation.name, []).append(evaluation)
    return {name: tuple(sorted(each, key=lambda one: one.step)) for name, each in sorted(found.items())}


def _blind(run: RunDir, notes: list[str]) -> tuple[BlindRow, ...]:
    rows: list[BlindRow] = []
    for file in sorted(run.path.glob("blind_*.json")):
        try:
            report = json.loads(file.read_text(encoding="utf-8"))
            for name, figures in report["sets"].items():
                for figure, row in figures.items():
                    values = {**row, "difference": Interval(**row["difference"])}
                    rows.append(BlindRow(name=name, mode=report["mode"], figure=figure, **values))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            notes.append(f"{file.name} cannot be read: {type(error).__name__}: {error}")
    return tuple(rows)


def _evaluation(summary: Mapping[str, Any]) -> Evaluation:
    num_problems, measured = int(summary["num_problems"]), summary.get("measured", {})
    return Evaluation(
        name=str(summary["set"]),
        step=int(summary["step"]),
        num_samples=int(summary["num_samples"]),
        overall=Scores(num_problems=num_problems, figures=_figures(summary["overall"])),
        by_family=_table(summary.get("by_family", {})),
        by_difficulty=_table(summary.get("by_difficulty", {})),
        aggregate=Scores(num_problems=num_problems, figures=_figures(summary.get("aggregate", {}).get("figures", {}))),
        by_category={axis: _table(parts) for axis, parts in summary.get("by_category", {}).items()},
        protocol=measured.get("protocol") or "",
        departures=tuple(measured.get("departures", ())),
    )


def _table(parts: Mapping[str, Any]) -> dict[str, Scores]:
    return {name: _scores(part) for name, part in parts.items()}


def _scores(part: Mapping[str, Any]) -> Scores:
    return Scores(num_problems=int(part["num_problems"]), figures=_figures(part))


def _figures(part: Mapping[str, Any]) -> dict[str, Interval]:
    return {
        name: Interval(value=float(figure["value"]), low=float(figure["low"]), high=float(figure["high"]))
        for name, figure in part.items()
        if isinstance(figure, Mapping)
    }


def _by_step(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    return {step: path for path in folder.iterdir() if (step := step_of(path.name)) is not None}


def _first_and_last(folder: Path) -> dict[int, Path]:
    files = _by_step(folder)
    return {step: files[step] for step in sorted({min(files), max(files)})} if files else {}


def _groups(file: Path, run: RunDir, notes: list[str]) -> tuple[Group, ...]:
    if not file.is_file():
        return ()
    try:
        return tuple(_group(line, run.thumbnails) for line in read_groups(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        notes.append(f"{file.relative_to(run.path)} cannot be read: {type(error).__name__}: {error}")
        return ()


def _group(line: Mapping[str, Any], thumbnails: Path) -> Group:
    return Group(
        step=line["step"],
        sample_id=line["sample_id"],
        family=line["family"],
        difficulty=line["difficulty"],
        question=line["question"],
        target=line["target"],
        options=tuple(line["options"]),
        # The bare name, so that a log from elsewhere cannot make the page show a file outside the run.
        images=tuple(file for name in line["images"] if (file := thumbnails / Path(name).name).is_file()),
        rollouts=tuple(_rollout(rollout) for rollout in line["rollouts"]),
    )


def _rollout(rollout: Mapping[str, Any]) -> Rollout:
    verdict = rollout["verdict"]
    span = verdict["span"]
    return Rollout(
        text=rollout["text"],
        span=None if span is None else (int(span[0]), int(span[1])),
        status=verdict["status"],
        answer=verdict["answer"],
        rule=verdict["rule"],
        stop_reason=rollout["stop_reason"],
        num_tokens=len(rollout["token_ids"]),
        reward=rollout["reward"],
        advantage=rollout["advantage"],
    )
