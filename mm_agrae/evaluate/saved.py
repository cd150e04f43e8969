"""Evaluations on disk: the sets of a folder, and their problems as they were scored. Needs no model and no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

from mm_agrae.errors import DataError
from mm_agrae.evaluate.summary import Measured, ScoredProblems, measured_from
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
        return self.folder / f"{self.name}.greedy.jsonl" if "greedy" in self.summary["overall"] else None

    def groups(self) -> Iterator[tuple[Group, Group | None]]:
        """Sampled and most probable completions, problem by problem.

        Raises:
            DataError: A line cannot be read, the two files do not go together, or there are not as many problems as
                the summary says.
        """
        greedy = read_groups(self.greedy_file) if self.greedy_file else repeat(None)
        num_problems = 0
        for sampled in read_groups(self.sampled_file):
            best = next(greedy, None)
            if self.greedy_file and (best is None or best["sample_id"] != sampled["sample_id"]):
                raise DataError(
                    f"{self.greedy_file} does not hold the problems of {self.sampled_file.name} in the same order. "
                    "Restore both files from one evaluation."
                )
            num_problems += 1
            yield sampled, best
        if num_problems != self.summary["num_problems"]:
            raise DataError(
                f"{self.sampled_file} holds {num_problems} problems, but its summary is of "
                f"{self.summary['num_problems']}. Restore both files from one evaluation."
            )

    def problems(self) -> ScoredProblems:
        """Its problems, scored as the verdicts say.

        Raises:
            DataError: As `groups`.
        """
        scored = ScoredProblems(self.measured)
        for sampled, best in self.groups():
            scored.add(sampled, best)
        return scored


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
        try:
            summary = json.loads(file.read_text(encoding="utf-8"))
            if not file.with_suffix(".jsonl").is_file() and "measured" not in summary:
                continue  # something else that was put here, such as a comparison
            values, _, _ = summary["measured"], summary["num_problems"], summary["overall"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{file} is no summary of this version ({error!r}). Measure again.") from error
        saved = SavedSet(folder=folder, name=file.stem, summary=summary, measured=measured_from(values, file))
        for needed in (saved.sampled_file, saved.greedy_file):
            if needed and not needed.is_file():
                raise DataError(f"{file.name} is there and {needed} is not. Restore both files from one evaluation.")
        found[file.stem] = saved
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
