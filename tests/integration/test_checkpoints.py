"""Checkpoints: damage, a full disk, other conditions, a better one; and whether one repeats its run."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import processes
import pytest
import run_files
from colours import ignore
from typer.testing import CliRunner

import mm_agrae.train.session as session_module
from mm_agrae.cli.jobs import run_sft, run_train, run_verify_resume
from mm_agrae.cli.main import app
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.store.checkpoint import check_files, complete_checkpoints
from mm_agrae.store.provenance import PACKAGES
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.verify_resume import plan_replay


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def marks(run: RunDir) -> dict[str, str]:
    """Every file of a run by its content."""
    return {
        path.relative_to(run.path).as_posix(): path.read_bytes().hex()
        for path in sorted(run.path.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("name", ["model/model.safetensors", "optimizer.safetensors"])
def test_a_flipped_bit_stops_a_resume(recipe: Path, straight: RunDir, tmp_path: Path, name: str) -> None:
    run = run_files.copied(straight, tmp_path / "run")
    flip(run.checkpoints / "step_000004" / name)
    with pytest.raises(CheckpointError, match=rf"{name} is damaged.*move the checkpoint away"):
        run_train(recipe, [], run.path, True, ignore)
    if name.startswith("model"):  # the remedy that the message names
        shutil.move(run.checkpoints / "step_000004", tmp_path / "away")
        said: list[str] = []
        run_files.check_same(run_train(recipe, [], run.path, True, said.append), straight)
        assert not any("other conditions" in line for line in said)


def test_a_checkpoint_says_what_it_was_computed_on(recipe: Path, straight: RunDir, tmp_path: Path) -> None:
    state = run_files.state(straight)
    assert state["computed_on"]["processes"] == 1
    assert state["computed_on"].keys() >= {"cpu_capability", "micro_batch_tokens", "version", "git_revision", "sympy"}
    assert state["computed_on"].keys() >= set(PACKAGES)
    run = run_files.copied(straight, tmp_path / "run")
    said: list[str] = []
    run_files.write_state(run, computed_on=state["computed_on"] | {"processes": 2, "pillow": "1.0"})
    first = run.environment.read_bytes()
    run_train(recipe, ["train.micro_batch_targets=9"], run.path, True, said.append)
    ground = f"processes 2 -> 1, micro_batch_targets None -> 9, pillow 1.0 -> {state['computed_on']['pillow']}"
    assert any(f"under other conditions ({ground}): results agree up to rounding" in line for line in said)
    assert any("began with other settings" in line and "micro_batch_targets: null -> 9" in line for line in said)
    assert run.environment.read_bytes() == first
    assert json.loads((run.path / "environment_resumed_000004.json").read_text())["packages"]["pillow"] != "1.0"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that has room for one checkpoint and not for two."""
    with processes.small_disk(tmp_path / "disk", 20) as mounted:
        if not mounted:
            pytest.skip("a file system can be mounted by root alone")
        yield tmp_path / "disk"


def test_a_disk_that_is_full_while_saving(recipe: Path, straight: RunDir, small_disk: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the disk is full.*step_000004.*newest is step_000002.*--resume"):
        run_train(recipe, [], small_disk / "run", False, ignore)
    run = RunDir.open(small_disk / "run")
    assert [path.name for path in run.checkpoints.iterdir()] == ["step_000002"]
    subprocess.run(["mount", "-o", "remount,size=100m", str(small_disk)], check=True)
    run_files.check_same(run_train(recipe, [], run.path, True, ignore), straight)


def test_a_file_that_cannot_be_written_whole(recipe: Path, tmp_path: Path) -> None:
    """The system refuses in the middle of a file, as a quota does; needs no root."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limited(line: str) -> None:
        if line.strip().startswith("3/4"):
            resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, limits[1]))

    try:
        with pytest.raises(CheckpointError, match=r"step_000004.*newest is step_000002") as caught:
            run_train(recipe, [], tmp_path / "run", False, limited)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.strerror(errno.EFBIG) in str(caught.value)
    left = tmp_path / "run" / "checkpoints"
    assert [path.name for path in left.iterdir()] == ["step_000002"]
    check_files(left / "step_000002")


def test_two_launches_do_not_resume_one_run(recipe: Path, straight: RunDir, tmp_path: Path) -> None:
    run = run_files.copied(straight, tmp_path / "run")
    code = "import pathlib, sys, time; from mm_agrae.store.lock import hold; "
    code += "held = hold(pathlib.Path(sys.argv[1]), print); print('held', flush=True); time.sleep(600)"
    with subprocess.Popen([sys.executable, "-c", code, str(run.path / "lock")], stdout=subprocess.PIPE) as other:
        assert other.stdout
        other.stdout.readline()
        with pytest.raises(CheckpointError, match=f"in use by process {other.pid}"):
            run_train(recipe, [], run.path, True, ignore)
        other.kill()
    run_train(recipe, [], run.path, True, ignore)


BEST = ["train.keep_best=eval/held_out/avg@2", "train.checkpoint_every=1", "train.keep_checkpoints=1"]


def test_the_best_checkpoint_of_a_run_survives(recipe: Path, tmp_path: Path) -> None:
    settings = [*BEST, "evaluate.every=1", "train.optim.lr=1e-2"]
    run = run_train(recipe, settings, tmp_path / "run", False, ignore)
    values = {line["step"]: line["eval/held_out/avg@2"] for line in run_files.metrics(run)[1:]}
    best = max(values, key=lambda step: (values[step], -step))
    assert json.loads(run.best.read_text()) == {
        "step": best,
        "checkpoint": f"step_{best:06d}",
        "metric": "eval/held_out/avg@2",
        "value": values[best],
    }
    assert set(complete_checkpoints(run.checkpoints)) == {best, 4}
    # Killed between the last checkpoint and what is done for it: best.json is of before, an old one is still there.
    run.best.unlink()
    old = next(step for step in (2, 3) if step != best)
    shutil.copytree(run.checkpoints / "step_000004", run.checkpoints / f"step_{old:06d}")
    run_train(recipe, settings, run.path, True, ignore)
    assert set(complete_checkpoints(run.checkpoints)) == {best, old, 4}
    assert json.loads(run.best.read_text())["step"] == best
    # Without the settings it began with: they are named, and nothing is lost.
    said: list[str] = []
    run_train(recipe, ["evaluate.every=1", "train.optim.lr=1e-2"], run.path, True, said.append)
    assert set(complete_checkpoints(run.checkpoints)) == {best, old, 4}
    assert json.loads(run.best.read_text())["step"] == best
    (told,) = (line for line in said if "began with other settings" in line)
    assert told.splitlines()[1:] == [
        "  train.checkpoint_every: 1 -> 2",
        '  train.keep_best: "eval/held_out/avg@2" -> null',
        "  train.keep_checkpoints: 1 -> 2",
    ]


def test_a_metric_that_is_not_measured_stops_a_run_before_it_learns(
    recipe: Path, straight: RunDir, tmp_path: Path
) -> None:
    settings = [*BEST, "evaluate.every=1", "train.keep_best=eval/held_out/pass@3"]
    with pytest.raises(ConfigError, match=r"does not measure.*eval/held_out/pass@1"):
        run_train(recipe, settings, tmp_path / "run", False, ignore)
    assert not RunDir.open(tmp_path / "run").metrics.read_text()
    with pytest.raises(ConfigError, match=r"evaluate\.every is 0"):
        run_train(recipe, BEST, tmp_path / "other", False, ignore)
    assert not (tmp_path / "other").exists()
    # A run that goes on may ask for it later, and is told as early.
    run = run_files.copied(straight, tmp_path / "resumed")
    with pytest.raises(ConfigError, match=r"does not measure.*reward/std"):
        run_train(recipe, ["train.keep_best=sft/loss_nats", "train.checkpoint_every=1"], run.path, True, ignore)


def test_a_run_repeats_its_steps_and_stays_as_it_is(straight: RunDir) -> None:
    before, said = marks(straight), []
    assert run_verify_resume(straight.path, None, said.append)
    assert marks(straight) == before
    text = "\n".join(said)
    assert "steps 3 to 4 again, from checkpoint step_000002" in text
    for what in ("step 3", "step 4", "weights after step 4", "moments after step 4", "state after step 4"):
        assert any(line.split("  ")[1].startswith(what) and line.endswith("identical") for line in said if what in line)
    assert said[-1] == "the run repeats itself to the last bit"


def test_what_a_resume_forgets_is_found(straight: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "read_optimizer", lambda *given: None)
    said: list[str] = []
    assert not run_verify_resume(straight.path, None, said.append)
    assert any("moments after step 4" in line and "differ" in line for line in said)
    assert any("weights after step 4" in line and line.endswith("1 differ") for line in said)
    assert said[-1] == "the run does NOT repeat itself"


def test_another_figure_is_found(straight: RunDir, tmp_path: Path) -> None:
    """And steps without a checkpoint behind them are compared by their figures."""
    run = run_files.copied(straight, tmp_path / "run")
    lines = run.metrics.read_text().splitlines()
    line = json.loads(lines[3])
    changed = line | {"policy/loss": line["policy/loss"] + 1e-9, "time/step_s": 1e9}
    run.metrics.write_text("\n".join([*lines[:3], json.dumps(changed), *lines[4:]]) + "\n")
    ended = CliRunner().invoke(app, ["verify-resume", str(run.path), "--steps", "1"])
    assert ended.exit_code == 2
    assert f"policy/loss: {changed['policy/loss']} -> {line['policy/loss']}" in ended.output
    assert "time/step_s" not in ended.output
    assert "weights" not in ended.output
    with pytest.raises(CheckpointError, match=r"after steps \[2, 4\] and metrics up to step 4, so none has 3 later"):
        plan_replay(run, 3)


def test_a_warm_start_repeats_itself(recipe: Path, tmp_path: Path) -> None:
    run = run_sft(recipe, [], tmp_path / "run", False, ignore)
    said: list[str] = []
    assert run_verify_resume(run.path, None, said.append)
    assert any("weights after step 4" in line for line in said)
