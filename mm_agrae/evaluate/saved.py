"""Evaluations on disk: the sets of a folder, and their problems as they were scored. Needs no model and no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from mm_agrae.errors import DataError
from mm_agrae.evaluate.summary import Measured, Tally, measured_from
from mm_agrae.store.rollout_log import read_groups
from mm_agrae.store.run_dir import RunDir, step_of

Group = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class SavedSet:
    """One evaluated set: its summary, and the files of its completions."""

    folder: Path
    name: str
    summary: dict[str, Any]
    measured: Measured

    @property
    def sampled_file(self) -> Path:
        return self.folder / f"{self.name}.jsonl"

    @property
    def greedy_file(self) -> Path | None:
        """None where no most probable completions were drawn."""
        path = self.folder / f"{self.name}.greedy.jsonl"
        return path if path.is_file() else None

    def groups(self) -> Iterator[tuple[Group, Group | None]]:
        """Sampled and most probable completions, problem by problem.

        Raises:
            DataError: A line cannot be read, or the two files do not go together.
        """
        greedy = read_groups(self.greedy_file) if self.greedy_file else repeat(None)
        for sampled in read_groups(self.sampled_file):
            best = next(greedy, None)
            if self.greedy_file and (best is None or best["sample_id"] != sampled["sample_id"]):
                raise DataError(
                    f"{self.greedy_file} does not hold the problems of {self.sampled_file.name} in the same order. "
                    "Restore both files from one evaluation."
                )
            yield sampled, best

    def tally(self) -> Tally:
        """Its problems, scored as the verdicts say.

        Raises:
            DataError: As `groups`.
        """
        tally = Tally(self.measured)
        for sampled, best in self.groups():
            tally.add(sampled, best)
        return tally


def saved_sets(path: Path) -> dict[str, SavedSet]:
    """The evaluated sets of a folder, by name.

    Args:
        path: A folder of summaries and completions, or a run directory, of which the last evaluation is meant.

    Raises:
        DataError: There is no evaluation, or a summary cannot be read.
    """
    folder = _folder(path)
    found = {}
    for file in sorted(folder.glob("*.json")):
        if not file.with_suffix(".jsonl").is_file():
            continue
        try:
            summary = json.loads(file.read_text(encoding="utf-8"))
            values = summary["measured"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no summary of this version ({error!r}). Measure again.") from error
        measured = measured_from(values, file)
        found[file.stem] = SavedSet(folder=folder, name=file.stem, summary=summary, measured=measured)
    if not found:
        raise DataError(
            f"{folder} holds no evaluated set, but must hold NAME.json and NAME.jsonl. Name a run directory, or the "
            "folder of one evaluation such as RUN/eval/step_000000."
        )
    return found


def _folder(path: Path) -> Path:
    steps = RunDir(path).eval
    if not steps.is_dir():
        return path
    by_step = {step: folder for folder in steps.iterdir() if (step := step_of(folder.name)) is not None}
    return by_step[max(by_step)] if by_step else path
