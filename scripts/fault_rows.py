"""Rows of the fault table: what each fault does to a run, measured against the run that nothing happened to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "integration"))

import faults
import run_files
from colours import colour_sample, cut_short_after, write_colours
from faults import FILLER, Ended, Fault, Kind, Launcher, Running, as_argument, resumed_after
from processes import environment, small_disk, torchrun

from mm_agrae.store.checkpoint import latest_checkpoint
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.supervision import STALLED

ROOT = Path(__file__).resolve().parents[1]
NUM_STEPS = 6
SETTINGS = (f"train.num_steps={NUM_STEPS}", "train.keep_checkpoints=9", "evaluate.num_samples=1", "evaluate.ks=[1]")
DEADLINE_S = 3.0
TOLD = 2  # exit status of an error that says what to do


@dataclass(frozen=True, kw_only=True)
class Row:
    """One fault.

    Attributes:
        recover_s: None where nothing was measured.
        holds: Whether the run met it as it must; None where it could not be tried.
    """

    fault: str
    ended: str
    lost: str
    repeated: int
    recover_s: float | None
    holds: bool | None


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A recipe, a folder for runs, and the run that nothing happens to."""

    folder: Path
    launcher: Launcher
    recipe: Path
    straight: RunDir

    def out(self, name: str) -> Path:
        """Where a row keeps its run."""
        return self.folder / name.replace(" ", "_")

    def words(self, out: Path, *more: str) -> list[str]:
        return ["train", str(self.recipe), *SETTINGS, *more, "--out", str(out)]

    def fault(self, out: Path, kind: Kind, phase: str, step: int, *, rank: int = 0) -> Fault:
        return Fault(kind=kind, phase=phase, step=step, rank=rank, mark=f"{out}.mark")


def make_bench(folder: Path, recipe: Path, launcher: Launcher) -> Bench:
    """Run the recipe undisturbed."""
    ended = launcher.run("train", recipe, *SETTINGS, "--out", folder / "straight")
    if ended.status != 0:
        raise RuntimeError(f"the undisturbed run failed: {ended.said[-3000:]}")
    return Bench(folder=folder, launcher=launcher, recipe=recipe, straight=RunDir.open(folder / "straight"))


def single(bench: Bench, name: str, kind: Kind, phase: str, step: int, *, says: str = "", status: int = TOLD) -> Row:
    """One process meets a fault, ends, and is resumed."""
    out = bench.out(name)
    more = [f"supervision.deadlines_s.{phase}={DEADLINE_S}"] if kind == "hang" else []
    fault = bench.fault(out, kind, phase, step)
    ended = bench.launcher.run(*bench.words(out, *more), fault=fault)
    return recovered(bench, name, out, ended, fault, holds=ended.status == status and says in ended.said)


def full_disk(bench: Bench, name: str, step: int, *, says: str, settings: tuple[str, ...] = ()) -> Row:
    """Nothing fits on the disk of the run any more, then its owner makes room."""
    disk = bench.out(name)
    with small_disk(disk, 100) as mounted:
        if not mounted:
            untried = "not tried: root alone can mount a small disk"
            return Row(fault=name, ended=untried, lost="not measured", repeated=0, recover_s=None, holds=None)
        out = disk / "run"
        fault = bench.fault(out, "full_disk", "save", step)
        ended = bench.launcher.run(*bench.words(out, *settings), fault=fault)
        (disk / FILLER).unlink()
        return recovered(bench, name, out, ended, fault, holds=ended.status == TOLD and says in ended.said)


def recovered(bench: Bench, name: str, out: Path, ended: Ended, fault: Fault, *, holds: bool) -> Row:
    """Resume the run to its end, and compare it with the undisturbed one."""
    after, recover_s, resumed = resume(bench, out, fault)
    lost = difference(RunDir.open(out), bench.straight) if resumed.status == 0 else "the run does not go on"
    return Row(
        fault=name,
        ended=how(ended),
        lost=lost or "nothing",
        repeated=fault.step - 1 - after,
        recover_s=recover_s,
        holds=holds and not lost,
    )


def resume(bench: Bench, out: Path, fault: Fault) -> tuple[int, float | None, Ended]:
    """The step after which the run goes on, and the seconds from the fault until its step is made."""
    running = bench.launcher.start(*bench.words(out), "--resume")
    made = await_step(running, fault.step)
    ended = running.end()
    if ended.status != 0:
        return 0, None, ended
    return resumed_after(ended.said), made - float(Path(fault.mark).read_text(encoding="utf-8")), ended


def await_step(running: Running, step: int) -> float:
    """The time when a run says that it has made a step, or that it ended."""
    while running.process.is_alive():
        if any(line.strip().startswith(f"{step}/{NUM_STEPS} ") for line in running.said().splitlines()):
            break
        running.process.join(0.01)
    return time.time()


def difference(run: RunDir, straight: RunDir) -> str:
    """What differs from the undisturbed run, in words; "" if nothing does."""
    parts = {"metrics": run_files.metrics, "weights": run_files.weights, "moments": run_files.optimizer}
    found = [what for what, part in parts.items() if part(run) != part(straight)]
    return f"{' and '.join(found)} differ" if found else ""


def how(ended: Ended) -> str:
    """How a process ended, in a few words."""
    if ended.status < 0:
        return f"signal {-ended.status}"
    errors = [line for line in ended.said.splitlines() if line.startswith("error: ")]
    return f"status {ended.status}" + (f", {errors[0]}" if errors else "")


def stalled_rank(bench: Bench, name: str) -> Row:
    """Rank 1 hangs in its rollout; rank 0 waits for it in a collective, which no signal handler would end."""
    out = bench.out(name)
    fault = bench.fault(out, "hang", "rollout", 3, rank=1)
    words = bench.words(out, f"supervision.deadlines_s.rollout={DEADLINE_S}")
    first, second = (running.end() for running in bench.launcher.start_two(*words, fault=fault))
    table = [line.split()[:3] for line in second.said.splitlines() if line[:4].strip() in ("0", "1")]
    holds = (first.status, second.status) == (STALLED, STALLED)
    holds = holds and table == [["0", "3", "between"], ["1", "3", "rollout"]]
    holds = holds and "_hang" in (out / "logs" / "stall_rank1.txt").read_text(encoding="utf-8")
    return resumed_by_two(bench, name, out, second, fault, holds=holds)


def killed_rank(bench: Bench, name: str) -> Row:
    """The agent of torchrun ends the other rank."""
    out = bench.out(name)
    fault = bench.fault(out, "kill", "update", 3, rank=1)
    command = torchrun(2, faults.__file__, as_argument(fault), *bench.words(out))
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=environment())
    ended = Ended(status=done.returncode, said=done.stderr)
    return resumed_by_two(bench, name, out, ended, fault, holds=done.returncode == 1)


def lonely_rank(bench: Bench, name: str) -> Row:
    """Nobody ends the other rank; it finds out in the next collective."""
    out = bench.out(name)
    fault = bench.fault(out, "kill", "update", 3, rank=1)
    first, second = (running.end() for running in bench.launcher.start_two(*bench.words(out), fault=fault))
    holds = second.status == -9 and first.status == TOLD and "cannot reach the other processes" in first.said
    return resumed_by_two(bench, name, out, first, fault, holds=holds)


def resumed_by_two(bench: Bench, name: str, out: Path, ended: Ended, fault: Fault, *, holds: bool) -> Row:
    """Two ranks go on; the run must be that of two ranks that nothing happened to."""
    straight = bench.folder / "straight_two"
    nowhere = bench.fault(out, "kill", "update", NUM_STEPS + 1)
    if not straight.exists():
        statuses = [running.end().status for running in bench.launcher.start_two(*bench.words(straight), fault=nowhere)]
        holds = holds and statuses == [0, 0]
    both = bench.launcher.start_two(*bench.words(out), "--resume", fault=nowhere)
    made = await_step(both[0], fault.step)
    first, second = (running.end() for running in both)
    holds = holds and (first.status, second.status) == (0, 0)
    lost = difference(RunDir.open(out), RunDir.open(straight)) if holds else "not as it must be"
    return Row(
        fault=name,
        ended=how(ended),
        lost=lost or "nothing",
        repeated=fault.step - 1 - resumed_after(first.said) if holds else 0,
        recover_s=made - float(Path(fault.mark).read_text(encoding="utf-8")),
        holds=holds and not lost,
    )


def one_nan(bench: Bench, name: str) -> Row:
    """One update is left out, and the run goes on by itself."""
    out = bench.out(name)
    ended = bench.launcher.run(*bench.words(out), fault=bench.fault(out, "nan", "update", 3))
    skipped = [line.get("policy/skipped_updates") for line in run_files.metrics(RunDir.open(out))[1:]]
    holds = ended.status == 0 and skipped == [float(step == 3) for step in range(1, NUM_STEPS + 1)]
    lost = "that update, counted" if holds else "not as it must be"
    return Row(fault=name, ended=how(ended), lost=lost, repeated=0, recover_s=None, holds=holds)


def endless_nan(bench: Bench, name: str) -> Row:
    """From step 3 on: two updates are left out, the third ends the run."""
    out = bench.out(name)
    fault = bench.fault(out, "nan_for_ever", "update", 3)
    ended = bench.launcher.run(*bench.words(out, "supervision.max_skipped_updates=2"), fault=fault)
    run = RunDir.open(out)
    holds = ended.status == TOLD and "not finite in more than 2 updates in a row" in ended.said
    holds = holds and run.rollouts_at(5).exists() and run_files.state(run)["step"] == 5
    before = bench.straight.checkpoints / "step_000002" / "model" / "model.safetensors"
    now = run.checkpoints / "step_000005" / "model" / "model.safetensors"
    holds = holds and before.read_bytes() == now.read_bytes()
    lost = "three updates, counted; the weights are those before them" if holds else "weights differ"
    return Row(fault=name, ended=how(ended), lost=lost, repeated=0, recover_s=None, holds=holds)


def truncated_checkpoint(bench: Bench, name: str) -> Row:
    """The newest checkpoint of a killed run loses the end of a file; its owner removes it."""
    out = bench.out(name)
    fault = bench.fault(out, "kill", "rollout", 6)
    bench.launcher.run(*bench.words(out), fault=fault)
    newest = latest_checkpoint(RunDir.open(out).checkpoints)
    assert newest is not None
    weights = newest / "model" / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    refused = bench.launcher.run(*bench.words(out), "--resume")
    holds = refused.status == TOLD and str(weights) in refused.said
    shutil.rmtree(newest)
    return recovered(bench, name, out, refused, fault, holds=holds)


def damaged_picture(bench: Bench, name: str) -> Row:
    """A picture that ends early is met in step 3; then it is mended."""
    out, data = bench.out(name), bench.out(f"{name} data")
    cut_short_after(2, data)
    settings = [f"data.train.path={data}", f"data.eval.held_out.path={data}"]
    words = [*bench.words(out), *settings]
    ended = bench.launcher.run(*words)
    told_at = time.time()
    holds = ended.status == TOLD and "cannot be decoded" in ended.said and "saved up to step 2" in ended.said
    whole = write_colours(bench.out(f"{name} whole"), [colour_sample(index) for index in range(12)])
    for path in whole.iterdir():
        shutil.copy(path, data / path.name)
    resumed = bench.launcher.start(*words, "--resume")
    made = await_step(resumed, 3)
    holds = holds and resumed.end().status == 0
    straight = bench.out(f"{name} straight")
    holds = holds and bench.launcher.run(*bench.words(straight), *settings).status == 0
    lost = difference(RunDir.open(out), RunDir.open(straight))
    return Row(
        fault=name, ended=how(ended), lost=lost or "nothing", repeated=0,
        recover_s=made - told_at, holds=holds and not lost,
    )  # fmt: skip
