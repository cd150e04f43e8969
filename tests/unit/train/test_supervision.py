"""A stall is found by its deadline, told to every rank, and leaves a table and the stacks."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mm_agrae.config import RunConfig
from mm_agrae.config.supervision import SupervisionConfig
from mm_agrae.train.supervision import STALLED, Place, Watch, table


def settings(**supervision: object) -> RunConfig:
    return RunConfig.model_validate({"name": "x", "model": {"path": "m"}, "data": {}, "supervision": supervision})


class Ended:
    """Stands for the end of a process: what it was ended with, and a lock that opens then."""

    def __init__(self) -> None:
        self.statuses: list[int] = []
        self.happened = threading.Event()

    def __call__(self, status: int) -> None:
        self.statuses.append(status)
        self.happened.set()


def watches(folder: Path, size: int, config: RunConfig) -> list[tuple[Watch, Ended]]:
    """The ranks of one launch."""
    made = []
    for rank in range(size):
        ended = Ended()
        made.append((Watch(folder, Place(rank=rank, size=size, launch="now"), config, end=ended), ended))
    return made


def entry_of(folder: Path) -> tuple[str, float] | None:
    """The phase that rank 0 says it is in, and the seconds."""
    path = folder / "rank_0.json"
    if not path.exists():
        return None
    entry = json.loads(path.read_text())
    return entry["phase"], entry["seconds"]


def test_deadlines_by_phase() -> None:
    limits = SupervisionConfig(deadline_s=10, deadlines_s={"rollout": 40, "save": 2})
    assert [limits.limit_s(phase) for phase in ("rollout", "save", "update")] == [40, 2, 10]
    assert limits.shortest_s == 2


def test_who_waits_between_phases_outlasts_all_phases_in_a_row() -> None:
    """The other rank is in order for all of that time, one phase after another."""
    assert SupervisionConfig(deadline_s=10, deadlines_s={"rollout": 40, "save": 2}).limit_s(None) == 6 * 10 + 40 + 2


def test_one_rank_of_two_stalls(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rank 1 hangs in its rollout; rank 0 has rolled out and waits for it between phases."""
    config = settings(deadline_s=60, deadlines_s={"rollout": 0.3})
    (first, first_ended), (second, second_ended) = watches(tmp_path, 2, config)
    (tmp_path / "rank_1.json").write_text(json.dumps({"launch": "earlier", "stalled": True}))
    first.step = second.step = 7
    with first.steps():
        with first.phase("rollout"):
            pass
        with second.steps(), second.phase("rollout"):
            assert second_ended.happened.wait(20)
            assert first_ended.happened.wait(20)
    assert (first_ended.statuses, second_ended.statuses) == ([STALLED], [STALLED])
    said = capfd.readouterr().err
    assert "error: rank 1 of 2 has been in phase rollout of step 7 for 0." in said
    assert "over its deadline of 0.3 s" in said
    assert "rank 0 ends because the run has stalled" in said
    rows = [line.split() for line in said.splitlines() if line.strip().startswith(("0 ", "1 "))]
    assert [row[:4] for row in rows] == [["0", "7", "between", "phases"], ["1", "7", "rollout", rows[1][3]]]
    assert 0.3 <= float(rows[1][3]) < 20
    assert said.splitlines()[0] in (tmp_path / "stall_now.txt").read_text()
    for rank in (0, 1):
        stacks = (tmp_path / f"stall_rank{rank}.txt").read_text()
        assert stacks.count("hread 0x") >= 2, "stacks of one thread only"
        assert "test_one_rank_of_two_stalls" in stacks


def test_a_rank_that_is_gone_does_not_keep_the_table(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Rank 1 never wrote a word, rank 2 is of an earlier launch."""
    (watch, ended), *_ = watches(tmp_path, 3, settings(deadline_s=0.2))
    (tmp_path / "rank_2.json").write_text(json.dumps({"launch": "earlier", "stalled": True}))
    with watch.phase("update"):
        assert ended.happened.wait(20)
    said = capfd.readouterr().err
    assert "error: rank 0 of 3 has been in phase update" in said
    assert [line.split()[-1] for line in said.splitlines() if line.strip().startswith(("1 ", "2 "))] == ["never"] * 2


def test_what_gets_on_does_not_stall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Longer than its deadline as a whole, in parts shorter than it; so is a phase with phases inside."""
    clock = [0.0]
    (watch, ended), *_ = watches(tmp_path, 1, settings(deadline_s=0.5))

    def work(phase: str) -> None:
        """0.4 s by the clock of the watch, seen by its thread."""
        clock[0] += 0.4
        while entry_of(tmp_path) != (phase, 0.4):
            assert not ended.statuses

    with monkeypatch.context() as patched:
        patched.setattr("mm_agrae.train.supervision.time.monotonic", lambda: clock[0])
        with watch.phase("evaluate"):
            work("evaluate")
            watch.get_on()
            work("evaluate")
            with watch.phase("rollout"):
                work("rollout")
            work("evaluate")
    assert not ended.statuses
    assert not list(tmp_path.glob("stall*"))


def test_nothing_is_watched_before_and_after(tmp_path: Path) -> None:
    (watch, ended), *_ = watches(tmp_path, 1, settings(deadline_s=0.05))
    watch.get_on()
    before = threading.active_count()
    with watch.steps():
        assert threading.active_count() == before + 2
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="within"), watch.steps():
        raise ValueError("within")
    assert threading.active_count() == before
    assert not ended.statuses
    assert json.loads((tmp_path / "rank_0.json").read_text())["phase"] == "ended"


@pytest.mark.parametrize("make", [lambda path: path / "missing", lambda path: path / "file" / "logs"])
def test_a_folder_that_takes_nothing_hides_no_stall(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], make: Callable[[Path], Path]
) -> None:
    """A full disk is a reason to stall, and must not keep the watch from ending it."""
    (tmp_path / "file").touch()
    (watch, ended), *_ = watches(make(tmp_path), 1, settings(deadline_s=0.2))
    with watch.phase("save"):
        assert ended.happened.wait(20)
    said = capfd.readouterr().err
    assert said.count("a stall is still found, its table may be old") == 1
    assert "error: rank 0 of 1 has been in phase save" in said


@contextlib.contextmanager
def deaf_stderr(why: str) -> Iterator[None]:
    """Nothing can be written to it inside: its disk is full, or nobody reads a pipe that is full."""
    readable, deaf = os.pipe()
    if why == "full disk":
        os.dup2(os.open("/dev/full", os.O_WRONLY), deaf)
    else:
        os.set_blocking(deaf, False)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(deaf, bytes(4096))
        os.set_blocking(deaf, True)
    kept = os.dup(2)
    os.dup2(deaf, 2)
    try:
        yield
    finally:
        os.close(readable)  # who waits to write hears that nobody ever reads
        join_threads()
        os.dup2(kept, 2)
        os.close(kept)
        os.close(deaf)


def join_threads() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("supervision"):
            thread.join(20)


@pytest.mark.parametrize("why", ["full disk", "nobody reads"])
def test_a_stall_ends_although_nobody_can_be_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """The rank that finds it, and the one that sees that it was found."""
    monkeypatch.setattr("mm_agrae.train.supervision._FILES_S", 0.2)
    config = settings(deadline_s=60, deadlines_s={"rollout": 0.2})
    (first, first_ended), (second, second_ended) = watches(tmp_path, 2, config)
    with deaf_stderr(why), first.phase("rollout"), second.phase("update"):
        assert first_ended.happened.wait(20)
        assert second_ended.happened.wait(20)
    assert (first_ended.statuses, second_ended.statuses) == ([STALLED], [STALLED])


def test_a_folder_that_hangs_hides_no_stall(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a file never comes back, as on a network mount whose server is gone: here a pipe that nobody reads."""
    monkeypatch.setattr("mm_agrae.train.supervision._FILES_S", 0.2)
    pipe, other_name = tmp_path / ".rank_0.json.tmp", tmp_path / "pipe"
    os.mkfifo(pipe)
    (watch, ended), *_ = watches(tmp_path, 1, settings(deadline_s=0.2))
    with watch.phase("rollout"):
        assert ended.happened.wait(20)
    said = capfd.readouterr().err
    assert "error: rank 0 of 1 has been in phase rollout of step 0 for " in said
    assert f"{tmp_path} does not answer either" in said
    assert "test_a_folder_that_hangs_hides_no_stall" in said, "no stacks"
    os.link(pipe, other_name)
    pipe.unlink()
    os.close(os.open(other_name, os.O_RDONLY | os.O_NONBLOCK))  # lets the thread go that wanted to write
    join_threads()


def test_the_table() -> None:
    seen = {"step": 12, "phase": "rollout", "seconds": 3600.24, "host": "one", "pid": 17}
    assert table([(seen, 0.04), (None, 0.0)]).splitlines() == [
        "rank   step  phase            seconds  last seen",
        "   0     12  rollout           3600.2  0.0 s ago (one, process 17)",
        "   1      -  -                      -  never",
    ]
