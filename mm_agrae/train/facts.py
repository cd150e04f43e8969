"""What a run writes down of itself when it is opened: recipe, settings, machine, and where its figures go."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mm_agrae.config import RunConfig
from mm_agrae.store.atomic import write_json
from mm_agrae.store.run_dir import RunDir
from mm_agrae.store.tracker import Tracker, truncate_after


def write_facts(
    run_dir: RunDir, config: RunConfig, *, recipe: str | None, environment: Mapping[str, Any], step: int
) -> None:
    """Recipe and settings of a new run, and what a new or resumed one runs on.

    Args:
        run_dir: The run.
        config: The resolved config.
        recipe: As it was written; None of a resumed run, whose recipe and settings stay.
        environment: See `store.provenance.environment`.
        step: Steps done.
    """
    if recipe is not None:
        run_dir.write_recipe(recipe)
        run_dir.write_config(config.model_dump(mode="json"))
    run_dir.write_environment(environment, step=step)


def open_tracker(run_dir: RunDir, config: RunConfig, *, step: int | None, run_id: str | None) -> Tracker:
    """Where figures go from here on.

    Args:
        run_dir: The run.
        config: The resolved config.
        step: Step of the checkpoint that the run goes on from, 0 where there is none; None of a new run.
        run_id: Of the wandb run that the checkpoint names. One that was begun before any checkpoint is noted in logs/.
    """
    noted = run_dir.logs / "wandb_run.json"
    if step is not None:
        truncate_after(run_dir.metrics, step or -1)
        if run_id is None and noted.is_file():
            run_id = json.loads(noted.read_text(encoding="utf-8"))["id"]
    tracker = Tracker(
        run_dir.metrics,
        wandb_mode=config.tracker.wandb,
        project=config.tracker.project,
        name=f"{config.name}-{run_dir.path.name}",
        config=config.model_dump(mode="json"),
        run_id=run_id,
        directory=run_dir.logs,
    )
    if tracker.run_id is not None:
        write_json(noted, {"id": tracker.run_id})
    return tracker
