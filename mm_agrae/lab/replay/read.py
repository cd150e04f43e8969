"""Recorded rollouts -> one [P, G] matrix per fact, with every doubt about the log in words.

Shapes: P groups of all steps in the order of the steps, G completions per group.

A log of 100,000 rollouts holds millions of token ids, of which only the count matters here, so lines are parsed by
pydantic's JSON reader, which builds no Python object for what is not asked for, and the few lines that the page shows
are read again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from torch import Tensor

from mm_agrae.errors import DataError
from mm_agrae.records import StopReason, VerdictStatus
from mm_agrae.store.run_dir import RunDir, step_of
from mm_agrae.store.tracker import read_metrics


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


def _count(values: object) -> int:
    if not isinstance(values, list):
        raise ValueError("must be a list")
    return len(values)


class _Verdict(_Part):
    status: VerdictStatus
    answer: str | None
    formatted: bool


class _Rollout(_Part):
    token_ids: Annotated[int, BeforeValidator(_count)]
    stop_reason: StopReason
    verdict: _Verdict
    reward: float | None
    advantage: float | None


class _Line(_Part):
    step: int
    sample_id: str
    family: str
    difficulty: int | None
    question: str
    target: str
    rollouts: list[_Rollout]


@dataclass(frozen=True)
class Place:
    """Where a group stands: its file, the line from 1, and the first byte of the line."""

    file: Path
    line: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class Step:
    """One logged step: rows `first` up to `last` (excluded) of the matrices."""

    number: int
    first: int
    last: int

    @property
    def rows(self) -> slice:
        return slice(self.first, self.last)


@dataclass(frozen=True, kw_only=True)
class Log:
    """What a run recorded.

    Attributes:
        name: Of the run or of the file.
        steps: Ascending; together they cover all rows.
        accuracies: Step -> batch accuracy as the run measured it over all it sampled, for every step that has one,
            logged or not. Empty without a metrics.jsonl.
        rewards: [P, G] float64, NaN where a rollout has none.
        correct, formatted, truncated: [P, G] bool.
        lengths: [P, G] completion tokens.
        recorded: [P, G] float64, the advantages that the run computed; NaN where it has none.
        sample_ids, families, difficulties, places: One per row.
        notes: What is missing or was left out, in sentences.
    """

    name: str
    steps: tuple[Step, ...]
    accuracies: Mapping[int, float]
    rewards: Tensor
    correct: Tensor
    formatted: Tensor
    truncated: Tensor
    lengths: Tensor
    recorded: Tensor
    sample_ids: tuple[str, ...]
    families: tuple[str, ...]
    difficulties: tuple[int | None, ...]
    places: tuple[Place, ...]
    notes: tuple[str, ...]


def read_log(path: Path) -> Log:
    """Read a run directory, or a single file of rollouts.

    A file that ends in the middle of a line keeps the lines before it, an empty one counts as no step, and a step
    without a scored rollout is left out; each is told in `notes`.

    Raises:
        DataError: There is nothing to read, a line is broken or lacks a field, a reward is infinite, or groups differ
            in size; the message names file and line.
    """
    path = Path(path)
    notes: list[str] = []
    found: dict[int, list[tuple[_Line, Place]]] = {}
    for file in _files(path, notes):
        count = 0
        for line, place in _lines(file, notes):
            named = step_of(file.name)
            if named is not None and named != line.step:
                raise DataError(
                    f"line {place.line} of {file} is of step {line.step}, but the file is named after step {named}. "
                    "Rename the file or restore it."
                )
            found.setdefault(line.step, []).append((line, place))
            count += 1
        if not count:
            notes.append(f"{file.name} holds no group and counts as a step that was not logged.")
    accuracies = _accuracies(RunDir(path).metrics)
    steps = {step: found[step] for step in sorted(found) if _has_score(step, found[step], notes)}
    if not steps:
        raise DataError(f"{path} holds no group with a reward, so there is nothing to replay. Name another run.")
    _check_sizes(steps)
    notes += _gaps(list(steps), accuracies)
    return _log("/".join(path.resolve().parts[-2:]), steps, accuracies, notes)


def read_line(place: Place) -> dict[str, Any]:
    """Everything that the log says of one group, as `store.rollout_log` wrote it."""
    with place.file.open("rb") as file:
        file.seek(place.offset)
        line: dict[str, Any] = json.loads(file.readline())
    return line


def _files(path: Path, notes: list[str]) -> list[Path]:
    """The files to read, in the order of their steps."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path} does not exist, but must be a run directory or a file of rollouts. Check the path.")
    found = [(step_of(file.name), file) for file in path.glob("rollouts/*.jsonl")]
    strangers = sorted(file.name for step, file in found if step is None)
    notes += [f"{name} is not named after a step and is left out." for name in strangers]
    files = sorted((step, file) for step, file in found if step is not None)
    if not files:
        raise DataError(
            f"{path} holds no rollouts/step_*.jsonl, so there is nothing to replay. Name the folder of a training run, "
            "which saves rollouts every train.rollout_log_every steps, or a file of rollouts."
        )
    return [file for _, file in files]


def _lines(path: Path, notes: list[str]) -> Iterator[tuple[_Line, Place]]:
    offset = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            place = Place(path, number, offset)
            offset += len(raw)
            try:
                line = _parsed(raw, place)
            except ValueError as error:
                # Only the last line can lack its end: a copy that was cut. Anything else is damage.
                if raw.endswith(b"\n") or isinstance(error, DataError):
                    raise DataError(f"line {number} of {path}: {error}. Restore or remove the file.") from error
                notes.append(
                    f"{path.name} ends in the middle of line {number}: the {number - 1} groups before it are used."
                )
                return
            yield line, place


def _parsed(raw: bytes, place: Place) -> _Line:
    """One line as a record.

    Raises:
        DataError: It is JSON, and no group.
        ValueError: It is no JSON.
    """
    try:
        return _Line.model_validate_json(raw)
    except ValidationError as fast:
        # Completions may hold lone surrogates, which pydantic's reader refuses and Python's takes.
        value = json.loads(raw) if fast.errors()[0]["type"] == "json_invalid" else None
        problem = fast.errors()[0]
    if value is not None:
        try:
            return _Line.model_validate(value)
        except ValidationError as slow:
            problem = slow.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "the line"
    raise DataError(f"{where}: {problem['msg']}")


def _has_score(step: int, groups: Sequence[tuple[_Line, Place]], notes: list[str]) -> bool:
    has = any(_is_score(rollout.reward) for line, _ in groups for rollout in line.rollouts)
    if not has:
        notes.append(f"Step {step} has no rollout with a reward and is left out.")
    return has


def _is_score(reward: float | None) -> bool:
    return reward is not None and not math.isnan(reward)


def _check_sizes(steps: Mapping[int, Sequence[tuple[_Line, Place]]]) -> None:
    first: tuple[int, Place] | None = None
    for line, place in (pair for groups in steps.values() for pair in groups):
        size = len(line.rollouts)
        first = first or (size, place)
        if size != first[0]:
            raise DataError(
                f"line {place.line} of {place.file} holds a group of {size}, but line {first[1].line} of "
                f"{first[1].file} one of {first[0]}: a run has one group size. Replay the files of each size apart."
            )
        if size < 2:
            raise DataError(
                f"line {place.line} of {place.file} holds {size} rollouts, but a group-relative advantage needs at "
                "least 2. Replay rollouts of training, with rollout.group_size of 2 or more."
            )
        if any(rollout.reward in (math.inf, -math.inf) for rollout in line.rollouts):
            raise DataError(f"line {place.line} of {place.file} has an infinite reward, but rewards must be finite.")


def _accuracies(path: Path) -> dict[int, float]:
    """Step -> reward/batch_accuracy; empty without the file."""
    if not path.is_file():
        return {}
    key = "reward/batch_accuracy"
    return {line["step"]: float(line[key]) for line in read_metrics(path) if line.get(key) is not None}


def _gaps(steps: Sequence[int], accuracies: Mapping[int, float]) -> list[str]:
    """What an anchor, which learns from every step, cannot know."""
    missing = [step for step in range(1, steps[-1]) if step not in steps]
    unknown = [step for step in missing if step not in accuracies]
    if not missing:
        return []
    told = f"{len(missing)} of the steps 1 to {steps[-1]} were not logged. "
    if not unknown:
        return [
            told + "Their batch accuracies are taken from metrics.jsonl, so an anchor sees every step; all other "
            "figures are of the logged steps."
        ]
    return [
        told + f"For {len(unknown)} of them no batch accuracy is known either (metrics.jsonl lacks it): an anchor sees "
        "only the others, so its trace differs from that of a run. Set train.rollout_log_every=1 to log every step."
    ]


def _log(
    name: str, steps: Mapping[int, Sequence[tuple[_Line, Place]]], accuracies: Mapping[int, float], notes: Sequence[str]
) -> Log:
    pairs = [pair for groups in steps.values() for pair in groups]
    table = [line.rollouts for line, _ in pairs]
    ends = torch.tensor([len(groups) for groups in steps.values()]).cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    return Log(
        name=name,
        steps=tuple(
            Step(number=step, first=first, last=last) for step, first, last in zip(steps, starts, ends, strict=True)
        ),
        accuracies=accuracies,
        rewards=_numbers([[rollout.reward for rollout in row] for row in table]),
        correct=torch.tensor([[rollout.verdict.status == "correct" for rollout in row] for row in table]),
        formatted=torch.tensor([[rollout.verdict.formatted for rollout in row] for row in table]),
        truncated=torch.tensor([[rollout.stop_reason == "length" for rollout in row] for row in table]),
        lengths=torch.tensor([[rollout.token_ids for rollout in row] for row in table]),
        recorded=_numbers([[rollout.advantage for rollout in row] for row in table]),
        sample_ids=tuple(line.sample_id for line, _ in pairs),
        families=tuple(line.family for line, _ in pairs),
        difficulties=tuple(line.difficulty for line, _ in pairs),
        places=tuple(place for _, place in pairs),
        notes=tuple(notes),
    )


def _numbers(rows: Sequence[Sequence[float | None]]) -> Tensor:
    return torch.tensor([[math.nan if value is None else value for value in row] for row in rows], dtype=torch.float64)
