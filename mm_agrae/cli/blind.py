"""The blind control of an evaluation: every set with pictures once more without them, and what that costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mm_agrae.cli.progress import progress_bar
from mm_agrae.errors import DataError
from mm_agrae.evaluate.blind import Mode, blind_lines, blind_report, blinded
from mm_agrae.evaluate.diff import diff_sets
from mm_agrae.evaluate.run import Evaluator, Task
from mm_agrae.evaluate.saved import saved_sets
from mm_agrae.store.atomic import write_json
from mm_agrae.store.run_dir import RunDir


def measure_blind(
    evaluator: Evaluator, run_dir: RunDir, tasks: Sequence[Task], mode: Mode, log: Callable[[str], None]
) -> None:
    """Measure the sets blind, in a folder beside the evaluation with pictures, and write blind_<mode>.json.

    Raises:
        DataError: No set has pictures, or none of the problems of a set can be blinded.
    """
    seen = run_dir.eval_at(0)
    folder = seen / f"blind_{mode}"
    with_pictures = [task for task in tasks if any(sample.images for sample in task.samples)]
    for task in tasks:
        if task not in with_pictures:
            log(f"set {task.name} has no pictures, so it is not measured blind")
    if not with_pictures:
        raise DataError("no set of data.eval has pictures, so there is nothing to measure blind. Leave --blind out.")
    for task in with_pictures:
        samples = blinded(task.samples, mode, seed=task.plan.config.seed)
        blind = replace(task, samples=samples, blind=mode)
        with progress_bar(f"measuring {task.name} blind", len(samples), show=evaluator.ranks.is_main) as advance:
            evaluator.measure(blind, folder, step=0, advance=advance)
    if evaluator.ranks.is_main:
        found = _compared(seen, folder, with_pictures)
        for name, report in found.items():
            for line in blind_lines(name, mode, report):
                log(line)
        write_json(run_dir.path / f"blind_{mode}.json", {"mode": mode, "sets": found})


def _compared(seen: Path, folder: Path, tasks: Sequence[Task]) -> dict[str, Any]:
    with_pictures, without = saved_sets(seen), saved_sets(folder)
    return {
        task.name: blind_report(diff_sets(without[task.name], with_pictures[task.name], seed=task.plan.config.seed))
        for task in tasks
    }
