"""A comparison that is interrupted, goes on, survives a cell that fails, and tables what it has."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import run_files
from processes import environment

import mm_agrae.cli.main as command_line
from mm_agrae.cli.jobs import run_train
from mm_agrae.store.run_dir import RunDir

STEPS = 8

MATRIX = """\
title: Colours
recipe: {recipe}
seeds: [3]
baseline: GRPO
common: {{train.num_steps: {steps}}}
algorithms:
  GRPO: {{algorithm: {{preset: grpo}}}}
  Dr.GRPO: {{algorithm: {{preset: dr_grpo}}}}
  Broken: {{model.path: /nowhere/model}}
metrics: [eval/held_out/pass@1]
"""


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Path:
    path = tmp_path_factory.mktemp("matrix") / "matrix.yaml"
    path.write_text(MATRIX.format(recipe=recipe, steps=STEPS), encoding="utf-8")
    return path


def interrupted(words: list[str | Path], ready: Callable[[], bool]) -> int:
    """Exit code of the command line that gets Ctrl-C as soon as `ready` says so."""
    command = [sys.executable, "-m", "mm_agrae.cli.main", *map(str, words)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as process:
        while not ready() and process.poll() is None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.001)
        process.send_signal(signal.SIGINT)
        return process.wait()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, matrix: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """Folder and last words of a comparison that was interrupted in its first cell and then went on."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    lines = out / "GRPO" / "seed_3" / "metrics.jsonl"
    words: list[str | Path] = ["compare", matrix, "--out", out]
    # Line 1 is the evaluation before training, and step 2 has a checkpoint.
    assert interrupted(words, lambda: lines.exists() and lines.read_bytes().count(b"\n") >= 4) == 130
    assert not (out / "GRPO" / "seed_3" / "checkpoints" / f"step_{STEPS:06d}").exists(), "interrupted too late"
    with (out / ".lock").open("w") as lock:  # held as long as a run of the comparison lives
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    command = [sys.executable, "-m", "mm_agrae.cli.main", *map(str, words)]
    return out, subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)


def test_an_interrupted_cell_goes_on_where_it_was(
    story: tuple[Path, subprocess.CompletedProcess[str]], recipe: Path, tmp_path: Path
) -> None:
    out, _ = story
    assert "resuming" in (out / "GRPO" / "seed_3.log").read_text()
    overrides = ["seed=3", f"train.num_steps={STEPS}", "algorithm={preset: grpo}"]
    straight = run_train(recipe, overrides, tmp_path / "straight", False, lambda line: None)
    run = RunDir.open(out / "GRPO" / "seed_3")
    assert run_files.metrics(run) == run_files.metrics(straight)
    assert run_files.weights(run) == run_files.weights(straight)


def test_a_cell_that_fails_is_told_and_the_others_go_on(
    story: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    out, ended = story
    assert ended.returncode == 1
    assert "[1/3] GRPO seed 3: held_out/pass@1 0." in ended.stdout
    assert "[2/3] Dr.GRPO seed 3: held_out/pass@1 0." in ended.stdout
    assert "[3/3] Broken seed 3: failed, exit code 2: error: model.path '/nowhere/model'" in ended.stdout
    table = (out / "comparison.md").read_text(encoding="utf-8")
    assert "Broken seed 3 failed, exit code 2: error: model.path" in table
    assert "| Broken | 0 | – | – |" in table
    figures = json.loads((out / "comparison.json").read_text(encoding="utf-8"))
    last = run_files.metrics(RunDir.open(out / "Dr.GRPO" / "seed_3"))[-1]
    assert figures["rows"][1]["after"]["eval/held_out/pass@1"]["mean"] == last["eval/held_out/pass@1"]
    assert "<svg" in (out / "comparison.html").read_text(encoding="utf-8")


Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """command(*words): exit code, output and errors of the command line, in this process."""

    def run(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mm-agrae", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


def test_what_is_finished_is_not_run_again(
    story: tuple[Path, subprocess.CompletedProcess[str]], matrix: Path, command: Command
) -> None:
    out, _ = story
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/seed_3/metrics.jsonl")}
    assert len(before) == 2
    code, said, _ = command("compare", matrix, "--out", out)
    assert (code, "3 cells, 2 finished, 1 to run" in said) == (1, True)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_table_alone_runs_nothing(
    story: tuple[Path, subprocess.CompletedProcess[str]], matrix: Path, command: Command
) -> None:
    out, _ = story
    logs = {path: path.read_bytes() for path in out.glob("*/*.log")}
    (out / "comparison.md").unlink()
    code, said, _ = command("compare", matrix, "--out", out, "--table-only")
    assert (code, "missing: Broken seed 3 failed," in said) == (0, True)
    assert (out / "comparison.md").exists()
    assert {path: path.read_bytes() for path in out.glob("*/*.log")} == logs


def test_two_comparisons_do_not_share_a_folder(tmp_path: Path, matrix: Path, command: Command) -> None:
    with (tmp_path / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        code, _, said = command("compare", matrix, "--out", tmp_path)
    assert (code, "is in use by another comparison" in said) == (2, True)
    assert not list(tmp_path.glob("*/*"))


def test_a_cell_of_another_configuration_stops_everything_before_it_starts(
    story: tuple[Path, subprocess.CompletedProcess[str]], matrix: Path, tmp_path: Path, command: Command
) -> None:
    out, _ = story
    changed = tmp_path / "changed.yaml"
    changed.write_text(matrix.read_text().replace("preset: dr_grpo", "preset: dr_grpo, beta: 0.1"))
    code, said, errors = command("compare", changed, "--out", out)
    assert (code, said) == (2, "")
    assert "Dr.GRPO/seed_3 was made under another configuration" in errors
    assert "algorithm.beta: 0.0 -> 0.1" in errors
