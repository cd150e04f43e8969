"""A wandb run that was begun before the first checkpoint is gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mm_agrae.config import RunConfig
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train import facts


class FakeTracker:
    """Gives a new run the id "new"."""

    def __init__(self, path: Path, **given: Any) -> None:
        self.asked = given["run_id"]
        self.run_id = (self.asked or "new") if given["wandb_mode"] != "off" else None


@pytest.mark.parametrize(
    ("mode", "step", "saved", "asked"),
    [("offline", 0, None, "new"), ("offline", 4, "saved", "saved"), ("off", 0, None, None)],
)
def test_the_id_survives_a_kill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, step: int, saved: str | None, asked: str | None
) -> None:
    monkeypatch.setattr(facts, "Tracker", FakeTracker)
    run = RunDir.create_at(tmp_path / "run")
    config = RunConfig.model_validate({"name": "test", "model": {"path": "m"}, "data": {}, "tracker": {"wandb": mode}})
    assert facts.open_tracker(run, config, step=None, run_id=None).asked is None
    again: Any = facts.open_tracker(run, config, step=step, run_id=saved)
    assert again.asked == asked


def test_figures_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    run = RunDir.create_at(tmp_path / "run")
    config = RunConfig.model_validate({"name": "test", "model": {"path": "m"}, "data": {}})
    lines = [json.dumps({"step": step}) + "\n" for step in range(4)]
    for step, left in [(None, 4), (2, 3), (0, 0)]:
        run.metrics.write_text("".join(lines))
        facts.open_tracker(run, config, step=step, run_id=None).close()
        assert run.metrics.read_text() == "".join(lines[:left])
