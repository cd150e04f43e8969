"""Making steps again: together with the other processes, as patiently as a run, and never with a run's own servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mm_agrae.train.session as session_module
from mm_agrae.cli.jobs import run_verify_resume
from mm_agrae.config import RunConfig
from mm_agrae.errors import ConfigError
from mm_agrae.store.checkpoint import save_checkpoint
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.verify_resume import Comparison, plan_replay, replay_config, table

SERVERS = {"kind": "vllm_server", "base_urls": ["http://127.0.0.1:8000"]}


class ReachedError(Exception):
    """Ends a replay where it meets the other processes."""


def run_of(folder: Path, job: str, **settings: Any) -> RunDir:
    """A run of two steps with a checkpoint after the first."""
    run = RunDir.create_at(folder)
    config = RunConfig.model_validate(
        {"name": "test", "model": {"path": "model"}, "data": {"train": {"path": "data"}}, **settings}
    )
    run.write_config(config.model_dump(mode="json"))
    run.metrics.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(3)))
    save_checkpoint(run.checkpoints, 1, write=lambda folder: None, state={"job": job, "computed_on": {}})
    return run


def test_replay_waits_for_other_processes_as_long_as_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(tmp_path / "run", "train", supervision={"deadline_s": 7000})
    given: dict[str, Any] = {}

    def world(**named: Any) -> None:
        given.update(named)
        raise ReachedError

    monkeypatch.setattr(session_module, "World", world)
    with pytest.raises(ReachedError):
        run_verify_resume(run.path, 1, lambda line: None)
    assert given["timeout_s"] > 7000


def test_a_replay_leaves_the_servers_of_a_run_alone(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "train", engine=SERVERS)
    with pytest.raises(ConfigError, match=r"samples from servers \(http://127\.0\.0\.1:8000\).*older weights"):
        run_verify_resume(run.path, 1, lambda line: None)
    warm = run_of(tmp_path / "warm", "sft", engine=SERVERS)  # which asks no engine
    assert replay_config(plan_replay(warm, 1)).engine.kind == "vllm_server"


def test_the_verdict_claims_no_more_than_was_compared(tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", "train")
    figures = Comparison(what="step 2", compared=3, different=())
    told = list(table(plan_replay(run, 1), [figures], {}))
    assert told[-1].endswith("weights were not compared, because the run has no checkpoint after step 2")
    weights = Comparison(what="weights after step 2", compared=1, different=())
    assert list(table(plan_replay(run, 1), [figures, weights], {}))[-1] == "the run repeats itself to the last bit"


def test_steps_that_end_at_a_checkpoint_are_preferred(tmp_path: Path) -> None:
    """There the weights can be compared."""
    run = run_of(tmp_path / "run", "train")
    run.metrics.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(6)))
    for step in (2, 4):
        save_checkpoint(run.checkpoints, step, write=lambda folder: None, state={"job": "train", "computed_on": {}})
    ends = {steps: (plan.start, plan.stop) for steps in (1, 2, 3, 4) if (plan := plan_replay(run, steps))}
    assert ends == {1: (1, 2), 2: (2, 4), 3: (1, 4), 4: (1, 5)}
