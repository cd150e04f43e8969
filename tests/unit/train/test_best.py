"""The best checkpoint: which it is, that it stays, and what cannot choose one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mm_agrae.config import RunConfig
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.store.checkpoint import complete_checkpoints, save_checkpoint
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.best import best_line, best_step, check_keep_best, check_measured, keep_checkpoints, name_best

KEY = "eval/held_out/pass@1"


def config(key: str | None, *, every: int = 2, saved: int = 2, keep: int = 1) -> RunConfig:
    return RunConfig.model_validate(
        {
            "name": "test",
            "model": {"path": "model"},
            "data": {"eval": {"held_out": {"path": "data"}}},
            "evaluate": {"every": every},
            "train": {"num_steps": 10, "checkpoint_every": saved, "keep_checkpoints": keep, "keep_best": key},
        }
    )


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("eval/held_out/pass@", r'is no metric: .*nearest is "eval/pass@k"'),
        ("policy/loss", "has no better and worse. Choose a metric"),
        ("time/step_s", "measures the machine"),
        ("throughput/update_tokens_per_s", "measures the machine"),
        ("eval/other/pass@1", "data.eval has no set of that name; it has held_out"),
    ],
)
def test_a_metric_that_chooses_nothing(key: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_keep_best(config(key))


@pytest.mark.parametrize(
    ("every", "saved", "fits"),
    [(2, 2, True), (3, 2, True), (0, 2, False), (2, 0, False), (5, 2, False), (4, 3, False), (3, 3, True)],
)
def test_measuring_and_saving_have_to_meet(every: int, saved: int, fits: bool) -> None:
    """Before the last of 10 steps, at which both always happen."""
    if fits:
        check_keep_best(config(KEY, every=every, saved=saved))
        return
    with pytest.raises(
        ConfigError, match=f"evaluate.every is {every}, train.checkpoint_every is {saved} and train.num"
    ):
        check_keep_best(config(KEY, every=every, saved=saved))


def test_a_metric_of_training_is_measured_at_every_step() -> None:
    check_keep_best(config("reward/mean", every=0))
    with pytest.raises(ConfigError, match=r"choose from: train.checkpoint_every is 0"):
        check_keep_best(config("reward/mean", every=0, saved=0))
    check_keep_best(config(None, every=0, saved=0))


def test_what_a_run_does_not_measure_is_found_in_its_first_lines() -> None:
    measured = {"eval/held_out/pass@1": 0.5, "eval/held_out/pass@4": 0.6, "eval/held_out/greedy": None}
    check_measured(config("eval/held_out/greedy"), 0, measured)
    with pytest.raises(ConfigError, match=r"does not measure. It measures eval/held_out/greedy, .*pass@1, .*pass@4\."):
        check_measured(config("eval/held_out/pass@8"), 0, measured)
    check_measured(config("advantage/anchor"), 0, measured)
    with pytest.raises(ConfigError, match="advantage/abs_mean"):
        check_measured(config("reward/mean"), 1, {"advantage/abs_mean": 1.0})
    check_measured(config("reward/mean"), 2, {})


@pytest.mark.parametrize(
    ("key", "values", "best"),
    [
        (KEY, [0.1, 0.4, 0.3], 2),
        (KEY, [0.4, 0.1, 0.4], 1),  # of equal ones the earlier
        (KEY, [None, 0.0, None], 2),  # a line without a number is no candidate
        (KEY, [None, None, None], None),
        ("verify/timeout_frac", [0.1, 0.0, 0.0], 2),  # smaller is better
    ],
)
def test_best_of_three(key: str, values: list[float | None], best: int | None) -> None:
    lines = [{"step": step, key: value} for step, value in enumerate(values, start=1)]
    found = best_line(key, lines)
    assert (found["step"] if found else None) == best


def run_with(folder: Path, values: dict[int, float | None]) -> RunDir:
    """A run with these measurements by step, each with a checkpoint."""
    run = RunDir.create_at(folder)
    for step, value in values.items():
        line = {"step": step} | ({} if value is None else {KEY: value})
        with run.metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        save_checkpoint(run.checkpoints, step, write=lambda folder: None, state={})
    return run


def steps(run: RunDir) -> list[int]:
    return list(complete_checkpoints(run.checkpoints))


def named(run: RunDir) -> dict[str, Any]:
    return json.loads(run.best.read_text(encoding="utf-8"))


def test_the_best_one_survives_and_is_named(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {1: 0.3, 2: 0.5, 3: 0.4, 4: None})
    keep_checkpoints(run, config(KEY), "train")
    assert steps(run) == [2, 4]
    assert named(run) == {"step": 2, "checkpoint": "step_000002", "metric": KEY, "value": 0.5}
    keep_checkpoints(run, config(KEY), "train")
    assert steps(run) == [2, 4]
    # A better one takes its place, and the old one goes.
    save_checkpoint(run.checkpoints, 5, write=lambda folder: None, state={})
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 5, KEY: 0.6}) + "\n")
    keep_checkpoints(run, config(KEY), "train")
    assert steps(run) == [5]
    assert named(run)["step"] == 5


def test_a_measurement_without_a_checkpoint_is_no_candidate(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {2: 0.3, 4: 0.2})
    with run.metrics.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": 5, KEY: 0.9}) + "\n")
    keep_checkpoints(run, config(KEY), "train")
    assert named(run)["step"] == 2


def test_without_the_setting_the_newest_are_kept_alone(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {1: 0.3, 2: 0.5, 3: 0.4})
    keep_checkpoints(run, config(KEY, keep=2), "train")
    assert steps(run) == [2, 3]
    assert named(run)["step"] == 2
    warm = run_with(tmp_path / "warm", {1: 0.3, 2: 0.1})
    keep_checkpoints(warm, config(KEY), "sft")
    assert steps(warm) == [2]


def test_a_run_that_forgets_the_setting_keeps_the_best_one(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {1: 0.3, 2: 0.5, 3: 0.4})
    keep_checkpoints(run, config(KEY), "train")
    before = run.best.read_bytes()
    save_checkpoint(run.checkpoints, 5, write=lambda folder: None, state={})
    keep_checkpoints(run, config(None), "train")
    assert (steps(run), run.best.read_bytes()) == ([2, 5], before)


def test_naming_the_best_removes_nothing(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {1: 0.3, 2: 0.5, 3: 0.4})
    name_best(run, config(KEY), "train")
    assert (steps(run), best_step(run)) == ([1, 2, 3], 2)
    name_best(run, config("eval/held_out/pass@2"), "train")  # no line holds it, so the old one stays
    assert best_step(run) == 2


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"step": "last"}'])
def test_a_best_json_that_names_nothing(tmp_path: Path, text: str) -> None:
    run = RunDir.create_at(tmp_path / "run")
    assert best_step(run) is None
    run.best.write_text(text)
    with pytest.raises(CheckpointError, match=r"best\.json names no step .*Remove it"):
        best_step(run)
