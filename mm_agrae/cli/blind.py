"""The blind control of an evaluation: every set with pictures once more without them, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mm_agrae.cli.progress import measuring
from mm_agrae.errors import DataError
from mm_agrae.evaluate.blind import Donors, Mode, blind_lines, blind_report, blinded, find_donors
from mm_agrae.evaluate.diff import diff_sets
from mm_agrae.evaluate.run import Evaluator, Task
from mm_agrae.evaluate.saved import saved_sets
from mm_agrae.store.atomic import write_json
from mm_agrae.train.session import Session


@dataclass(frozen=True, kw_only=True)
class BlindSet:
    """A set that can be measured blind, and how many of its problems with pictures cannot."""

    task: Task
    donors: Donors
    num_left_out: int


def plan_blind(tasks: Sequence[Task], mode: Mode, log: Callable[[str], None]) -> tuple[BlindSet, ...]:
    """Which sets are measured blind, found before anything is measured; the others are named in the log.

    Raises:
        DataError: No set can be measured blind, or a picture cannot be read.
    """
    planned = []
    for task in tasks:
        num_with_pictures = sum(bool(sample.images) for sample in task.samples)
        donors = find_donors(task.samples, mode, seed=task.plan.config.seed)
        left_out = num_with_pictures - len(donors)
        if donors:
            planned.append(BlindSet(task=task, donors=donors, num_left_out=left_out))
        if not num_with_pictures:
            log(f"set {task.name} has no pictures, so it is not measured blind")
        elif not donors:
            log(f"no problem of set {task.name} can swap its pictures for other ones, so it is not measured blind")
        elif left_out:
            log(
                f"set {task.name}: {left_out} of {num_with_pictures} problems with pictures are not measured blind, "
                "because no others have as many pictures and none of theirs"
            )
    if not planned:
        raise DataError(
            "no set of data.eval can be measured blind: pictures are needed, and for swap others to swap with. Leave "
            f"--blind {mode} out."
        )
    return tuple(planned)


def measure_blind(session: Session, evaluator: Evaluator, planned: Sequence[BlindSet], mode: Mode) -> None:
    """Measure the sets blind, in a folder beside the evaluation with pictures, and write blind_<mode>.json."""
    seen = session.run_dir.eval_at(0)
    folder = seen / f"blind_{mode}"
    for one in planned:
        task = replace(one.task, samples=blinded(one.task.samples, mode, one.donors), blind=mode)
        with measuring(session, f"{task.name} blind", len(task.samples)) as advance:
            evaluator.measure(task, folder, step=0, advance=advance)
    if evaluator.ranks.is_main:
        found = _compared(seen, folder, [one.task for one in planned])
        for name, report in found.items():
            for line in blind_lines(name, mode, report):
                session.log(line)
        left_out = {one.task.name: one.num_left_out for one in planned}
        write_json(session.run_dir.path / f"blind_{mode}.json", {"mode": mode, "sets": found, "left_out": left_out})


def _compared(seen: Path, folder: Path, tasks: Sequence[Task]) -> dict[str, Any]:
    with_pictures, without = saved_sets(seen), saved_sets(folder)
    return {
        task.name: blind_report(diff_sets(without[task.name], with_pictures[task.name], seed=task.plan.config.seed))
        for task in tasks
    }
