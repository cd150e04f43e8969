"""Faults on purpose: real processes of the command line that are killed, hang or run out of something on the way.

    python scripts/faults.py '{"kind": "kill", "phase": "rollout", "step": 3}' train RECIPE --out RUN

runs `mm-agrae train RECIPE --out RUN` in which SIGKILL comes in the rollout of step 3. `Launcher` starts the same with
the imports done already, so that twenty runs cost seconds each.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, NoReturn

from processes import environment, free_port

PRELOAD = ["mm_agrae.cli.main", "mm_agrae.cli.jobs", "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl"]
FILLER = "filler"  # what takes the last room on a disk
Patch = Callable[[object, str, object], None]
Kind = Literal["kill", "kill_in_checkpoint", "hang", "memory", "full_disk", "nan", "nan_for_ever"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What happens, in which phase of which step, on which rank; `mark` is a file that gets the time of it."""

    kind: Kind
    phase: str
    step: int
    rank: int = 0
    mark: str = ""

    def plant(self) -> None:
        """Make it happen in this process."""
        if int(os.environ.get("RANK", "0")) != self.rank:
            return
        if self.kind == "kill_in_checkpoint":
            _kill_between_weights_and_moments(self)
        elif self.kind == "nan":
            spoil_gradients(lambda number: number == self.step)
        elif self.kind == "nan_for_ever":
            spoil_gradients(lambda number: number >= self.step)
        else:
            _when(self, {"kill": _kill, "hang": _hang, "memory": _memory, "full_disk": _full_disk}[self.kind])

    def note(self) -> None:
        if self.mark:
            Path(self.mark).write_text(repr(time.time()), encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a process ended: its status (minus the signal), and all that it said."""

    status: int
    said: str


class Running:
    """A process of the command line."""

    def __init__(self, process: multiprocessing.process.BaseProcess, log: Path) -> None:
        self.process = process
        self.log = log

    def end(self, timeout_s: float = 240.0) -> Ended:
        """Wait for it; one that does not end is killed, and that is an error."""
        self.process.join(timeout_s)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise TimeoutError(f"did not end within {timeout_s} s: {self.said()[-2000:]}")
        return Ended(status=self.process.exitcode, said=self.said())

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8") if self.log.exists() else ""


class Launcher:
    """Starts the command line in processes that share the imports of one parent."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.count = 0
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(PRELOAD)

    def start(self, *words: str | Path, fault: Fault | None = None, place: Mapping[str, str] | None = None) -> Running:
        """Start one process.

        Args:
            words: The command line.
            fault: What is to happen in it.
            place: Environment that a launcher of several processes sets.
        """
        self.count += 1
        log = self.logs / f"process_{self.count}.txt"
        process = self.context.Process(target=_child, args=(list(map(str, words)), str(log), fault, dict(place or {})))
        process.start()
        return Running(process, log)

    def start_two(self, *words: str | Path, fault: Fault) -> list[Running]:
        """Two ranks of one run, without an agent that would end one when the other has died."""
        shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
        shared["MASTER_PORT"] = str(free_port())
        return [
            self.start(*words, fault=fault, place={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in (0, 1)
        ]

    def run(self, *words: str | Path, fault: Fault | None = None) -> Ended:
        return self.start(*words, fault=fault).end()


def resumed_after(said: str) -> int:
    """The step that a run says it goes on after."""
    found = re.search(r"after step (\d+)", said)
    if found is None:
        raise ValueError(f"nothing was resumed: {said[-2000:]}")
    return int(found[1])


def main(arguments: Sequence[str]) -> NoReturn:
    Fault(**json.loads(arguments[0])).plant()
    _command_line(arguments[1:])


def as_argument(fault: Fault) -> str:
    """The fault as this script takes it."""
    return json.dumps(asdict(fault))


def spoil_gradients(is_bad: Callable[[int], bool], patch: Patch = setattr) -> None:
    """The summed gradients of the updates whose number, from 1, is bad hold one that is no number.

    Tests give a patch that they can take away again.
    """
    import torch

    from mm_agrae.train.distributed import World

    real, counted = World.sum_gradients, itertools.count(1)

    def sum_gradients(self: World, parameters: Sequence[torch.nn.Parameter]) -> None:
        real(self, parameters)
        if is_bad(next(counted)):
            assert parameters[0].grad is not None
            parameters[0].grad.view(-1)[0] = float("nan")

    patch(World, "sum_gradients", sum_gradients)


def _command_line(words: Sequence[str]) -> NoReturn:
    from mm_agrae.cli.main import main as command_line

    sys.argv = ["mm-agrae", *words]
    command_line()
    raise SystemExit(0)


def _child(words: list[str], log: str, fault: Fault | None, place: dict[str, str]) -> None:
    import torch

    settled = environment() | place
    os.environ.clear()
    os.environ.update(settled)
    torch.set_num_threads(1)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    if fault:
        fault.plant()
    _command_line(words)


def _when(fault: Fault, act: Callable[[Fault], None]) -> None:
    """Act inside a phase of a step, before its work."""
    from mm_agrae.train.supervision import Watch

    real = Watch.phase

    @contextlib.contextmanager
    def phase(self: Watch, name: str) -> Iterator[None]:
        with real(self, name):  # type: ignore[arg-type]
            if (name, self.step) == (fault.phase, fault.step):
                fault.note()
                act(fault)
            yield

    Watch.phase = phase  # type: ignore[method-assign,assignment]


def _kill(fault: Fault) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _hang(fault: Fault) -> None:
    threading.Event().wait()


def _memory(fault: Fault) -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB (on purpose).")


def _full_disk(fault: Fault) -> None:
    """Fill the disk that `mark` is on, which must be a small one."""
    with contextlib.suppress(OSError), Path(fault.mark).with_name(FILLER).open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def _kill_between_weights_and_moments(fault: Fault) -> None:
    """Of a checkpoint that is being written."""
    import mm_agrae.train.saving as saving

    real = saving.write_model

    def write_model(policy: object, tensors: object, folder: Path) -> None:
        real(policy, tensors, folder)  # type: ignore[arg-type]
        if folder.parent.name == f".step_{fault.step:06d}.tmp":
            fault.note()
            _kill(fault)

    saving.write_model = write_model  # type: ignore[assignment]


if __name__ == "__main__":
    main(sys.argv[1:])
