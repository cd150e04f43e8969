"""Runs that meet a fault: what they say, that they end, that nothing is lost. scripts/fault_table.py has all faults."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import fault_rows
import pytest
import run_files
import torch
from colours import ignore
from faults import Launcher, spoil_gradients

import mm_agrae.cli.main as command_line
from mm_agrae.cli.jobs import run_sft, run_train
from mm_agrae.lab.replay.run import run_replay
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.supervision import STALLED

SHORT = ["train.num_steps=4", "evaluate.num_samples=1", "evaluate.ks=[1]"]


@pytest.fixture(scope="module")
def bench(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> fault_rows.Bench:
    folder = tmp_path_factory.mktemp("faults")
    return fault_rows.make_bench(folder, recipe, Launcher(folder))


def test_an_engine_that_hangs(bench: fault_rows.Bench) -> None:
    """The process ends although its main thread never comes back, and the run goes on to the same weights."""
    row = fault_rows.single(
        bench, "engine hangs", "hang", "rollout", 4, says="has been in phase rollout of step 4 for 3.", status=STALLED
    )
    assert row.holds, row
    assert (row.lost, row.repeated) == ("nothing", 1)
    assert row.recover_s > 3
    logs = bench.folder / "engine_hangs" / "logs"
    stacks = (logs / "stall_rank0.txt").read_text(encoding="utf-8")
    assert "in _hang" in stacks
    assert "in _roll_out" in stacks
    assert json.loads((logs / "rank_0.json").read_text(encoding="utf-8"))["phase"] == "ended", "the resumed run"


def test_one_rank_of_two_stalls(bench: fault_rows.Bench) -> None:
    """Rank 0 waits in a collective for rank 1, and nobody is there who would end it."""
    out = bench.folder / "stalled"
    words = bench.words(out, f"supervision.deadlines_s.rollout={fault_rows.DEADLINE_S}")
    fault = bench.fault(out, "hang", "rollout", 1, rank=1)
    first, second = (running.end() for running in bench.launcher.start_two(*words, fault=fault))
    assert (first.status, second.status) == (STALLED, STALLED), first.said + second.said
    assert "error: rank 1 of 2 has been in phase rollout of step 1" in second.said
    rows = [line.split()[:4] for line in second.said.splitlines() if line[:4].strip() in ("0", "1")]
    assert [row[:3] for row in rows] == [["0", "1", "between"], ["1", "1", "rollout"]]
    assert "rank 0 ends because the run has stalled" in first.said
    stacks = [(out / "logs" / f"stall_rank{rank}.txt").read_text(encoding="utf-8") for rank in (0, 1)]
    assert "in collect" in stacks[0]
    assert "in _hang" in stacks[1]


def last_weights(run: RunDir, step: int) -> bytes:
    return (run.checkpoints / f"step_{step:06d}" / "model" / "model.safetensors").read_bytes()


def test_gradients_that_stay_no_numbers_end_the_run(
    bench: fault_rows.Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps 3 and 4 are left out, 5 is one too many; the run can go on, and then every step is counted from there."""
    settings = [*fault_rows.SETTINGS, "train.rollout_log_every=100"]
    said: list[str] = []
    with monkeypatch.context() as patched:
        spoil_gradients(lambda number: number >= 3, patched.setattr)
        with pytest.raises(FloatingPointError, match="more than 2 updates in a row") as ended:
            run_train(
                bench.recipe, [*settings, "supervision.max_skipped_updates=2"], tmp_path / "run", False, said.append
            )
    run = RunDir.open(tmp_path / "run")
    lines = run_files.metrics(run)[1:]
    assert [line["policy/skipped_updates"] for line in lines] == [0, 0, 1, 1, 1]
    assert [line["policy/grad_norm"] is None for line in lines] == [False, False, True, True, True]
    assert run_files.state(run)["skipped_in_a_row"] == 3
    assert last_weights(run, 5) == last_weights(bench.straight, 2) != last_weights(bench.straight, 4)
    assert sum("1 of 1 updates left out" in line for line in said) == 3
    # The batch that was learnt from last, for the laboratory; no other step had to be logged.
    assert {path.name for path in run.rollouts.iterdir()} == {"step_000001.jsonl", "step_000005.jsonl"}
    batch = run.rollouts_at(5)
    assert f"mm-agrae lab replay {batch}" in str(ended.value)
    run_replay(batch, algorithms=("grpo", "dapo"), out=tmp_path / "replay", num_groups=1, log=ignore)
    # Resumed with the bound of before, the next bad update is the fourth in a row.
    with monkeypatch.context() as patched:
        spoil_gradients(lambda number: True, patched.setattr)
        with pytest.raises(FloatingPointError, match="the last of them in step 6"):
            run_train(bench.recipe, [*settings, "supervision.max_skipped_updates=3"], run.path, True, ignore)
    assert run_files.state(run)["skipped_in_a_row"] == 4


def test_a_warm_start_that_is_no_number(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil_gradients(lambda number: number != 2, monkeypatch.setattr)
    settings = ["sft.num_steps=4", "supervision.max_skipped_updates=1"]
    with pytest.raises(FloatingPointError, match=r"in step 4.*It learnt from (colour\d+, )+colour\d+\."):
        run_sft(recipe, settings, tmp_path / "run", False, ignore)
    run = RunDir.open(tmp_path / "run")
    assert [line["sft/skipped_updates"] for line in run_files.metrics(run)] == [1, 0, 1, 1]
    assert run_files.state(run)["step"] == 4


def test_out_of_memory_is_one_message(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*given: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("mm_agrae.train.update.differentiate", fail)
    monkeypatch.setattr(sys, "argv", ["mm-agrae", "train", str(recipe), *SHORT, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.startswith("error: out of memory in phase update of step ")
    assert "lower train.micro_batch_tokens (now 16384; with --resume); switch on model.gradient_checkpointing" in said
    assert "Traceback" not in said
