"""Run a matrix of algorithms x seeds as child processes, and make the table of what is finished."""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn

import typer

from mm_agrae.errors import CheckpointError
from mm_agrae.lab.compare.cells import Cell, cells, read_result, state, steps_done
from mm_agrae.lab.compare.page import write_comparison
from mm_agrae.lab.compare.results import compare as figures_of
from mm_agrae.lab.compare.spec import Matrix, load_matrix
from mm_agrae.store.atomic import write_text

Log = Callable[[str], None]

POLL_S = 0.2
# Begins the log of each attempt.
ATTEMPT = "$ mm-agrae "
# A run that is asked to stop may be in the middle of a checkpoint.
STOP_S = 60.0


def compare(matrix: Path, out: Path, jobs: int, table_only: bool) -> None:
    """Run every cell that is not finished, then write the table.

    Args:
        matrix: The matrix file.
        out: Folder of the comparison: a run directory per cell, and the table.
        jobs: Runs side by side; they share the cores, unless OMP_NUM_THREADS says how many threads each has.
        table_only: Run nothing; make the table of what is there.

    Raises:
        ConfigError: The matrix or a cell's settings do not fit.
        CheckpointError: A cell was made under another configuration, or another comparison holds the folder.
        typer.Exit: With 1 where a cell is missing after the runs, with 130 after an interrupt.
    """
    asked = load_matrix(matrix)
    found = cells(asked, out)
    # All of them before the first run: a folder of another configuration is told now and not after an hour.
    states = {cell.name: state(cell) for cell in found}
    if not table_only:
        left = [cell for cell in found if states[cell.name] != "finished"]
        _say(f"{len(found)} cells, {len(found) - len(left)} finished, {len(left)} to run")
        with _alone(out) as lock:
            try:
                run_cells(left, jobs=jobs, lock=lock, log=_say)
            except KeyboardInterrupt:
                _say("stopped; the same command goes on with what is left")
                raise typer.Exit(130) from None
    missing = write_table(asked, found, out, _say)
    if missing and not table_only:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Child:
    """A cell that runs, since a moment of the monotonic clock."""

    cell: Cell
    process: subprocess.Popen[bytes]
    since: float


def run_cells(left: Sequence[Cell], *, jobs: int, lock: int, log: Log) -> None:
    """Run cells as child processes, `jobs` at a time, in their order; a cell that fails is noted and the rest go on.

    Args:
        left: The cells to run.
        jobs: Children at a time.
        lock: File descriptor that the children hold too, so that no other comparison starts beside them.
        log: Receives a line per cell that ends.

    Raises:
        KeyboardInterrupt: On an interrupt or a request to end, after the children were stopped; they can be resumed.
    """
    waiting, running = list(left), list[Child]()
    started, num_ended = time.monotonic(), 0
    with _interruptible():
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    cell = waiting.pop(0)
                    running.append(Child(cell, start(cell, jobs=jobs, lock=lock), time.monotonic()))
                for child in [child for child in running if child.process.poll() is not None]:
                    running.remove(child)
                    num_ended += 1
                    now, num_left = time.monotonic(), len(left) - num_ended
                    log(
                        f"[{num_ended}/{len(left)}] {child.cell.name}: {settle(child.cell, child.process.returncode)} "
                        f"after {_time(now - child.since)}; {num_left} left, about "
                        f"{_time((now - started) / num_ended * num_left)}"
                    )
                time.sleep(POLL_S)
        finally:
            stop([child.process for child in running])


def start(cell: Cell, *, jobs: int, lock: int) -> subprocess.Popen[bytes]:
    """Start the run of a cell, from its latest checkpoint where it has begun; what it says goes to the cell's log."""
    arguments = ["train", str(cell.recipe), *cell.overrides, "--out", str(cell.run.path)]
    if state(cell) == "begun":
        arguments.append("--resume")
    else:
        # At most empty folders of a run that was killed before it wrote its configuration.
        shutil.rmtree(cell.run.path, ignore_errors=True)
    cell.failure.unlink(missing_ok=True)
    cell.log.parent.mkdir(parents=True, exist_ok=True)
    # Another number of threads rounds differently, so whoever sets it decides.
    threads = os.environ.get("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // jobs)))
    with cell.log.open("ab") as log:
        log.write(f"{ATTEMPT}{shlex.join(arguments)}\n".encode())
        log.flush()
        return subprocess.Popen(
            [sys.executable, "-m", "mm_agrae.cli.main", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": threads, "OMP_WAIT_POLICY": "passive"},
            # A key press in the terminal reaches this program alone, which then stops each run once.
            start_new_session=True,
            pass_fds=[lock],
        )


def settle(cell: Cell, code: int) -> str:
    """What became of a run that ended, in words; the reason of a failure is kept beside the cell."""
    if code == 0 and state(cell) == "finished":
        return ", ".join(_headline(cell))
    reason = f"exit code {code}: {_last_words(cell)}" if code >= 0 else f"ended by {signal.Signals(-code).name}"
    write_text(cell.failure, f"{reason}\n")
    return f"failed, {reason}; see {cell.log},"


def stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Interrupt runs as Ctrl-C does, so that they end their own workers; what does not end in a minute is killed."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        try:
            process.wait(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def write_table(matrix: Matrix, found: Sequence[Cell], out: Path, log: Log) -> list[str]:
    """Write the table of the finished cells; returns what is missing, in words."""
    finished = [cell for cell in found if state(cell) == "finished"]
    missing = [_lack(cell) for cell in found if cell not in finished]
    results = [read_result(cell) for cell in finished]
    for path in write_comparison(figures_of(matrix, results, missing=missing), out):
        log(f"table: {path}")
    for line in missing:
        log(f"missing: {line}")
    return missing


def _headline(cell: Cell) -> Iterator[str]:
    result = read_result(cell)
    for key in result.after:
        if key.split("/")[-1] in ("pass@1", "greedy"):
            yield f"{key.removeprefix('eval/')} {result.before[key]:.3f} -> {result.after[key]:.3f}"


def _last_words(cell: Cell) -> str:
    """The error that the last attempt told, else its last line."""
    attempt = cell.log.read_text(encoding="utf-8", errors="replace").rpartition(ATTEMPT)[2]
    lines = [line for line in attempt.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines)[-1]


def _lack(cell: Cell) -> str:
    if cell.failure.exists():
        return f"{cell.name} failed, {cell.failure.read_text(encoding='utf-8').strip()}"
    if state(cell) == "absent":
        return f"{cell.name} was not run."
    return f"{cell.name} is at step {steps_done(cell)} of {cell.config.train.num_steps}."


@contextmanager
def _alone(out: Path) -> Iterator[int]:
    """Hold the folder for one comparison at a time: two writers would spoil a run."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CheckpointError(
                f"{out} is in use by another comparison or by a run that it left behind. Wait for it or stop it."
            ) from error
        yield file.fileno()


@contextmanager
def _interruptible() -> Iterator[None]:
    """A request to end counts as an interrupt, so that no run stays behind."""

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _say(line: str) -> None:
    print(line, flush=True)
