"""Machines that are not alike, or do not share the run folder, are told before anything is computed."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

import pytest
import torch

from mm_agrae.config import RunConfig
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.train.distributed import World
from mm_agrae.train.hosts import check_alike, check_shared, check_start, weights_mark


class Meeting:
    """Stands for the processes of a run: each is a thread."""

    def __init__(self, size: int) -> None:
        self.size, self.said = size, {}
        self.barrier = threading.Barrier(size, timeout=10)


class Rank:
    """World, as far as these checks know it."""

    def __init__(self, meeting: Meeting, rank: int) -> None:
        self.meeting, self.rank, self.size, self.is_main = meeting, rank, meeting.size, rank == 0

    def collect(self, mine: list[Any]) -> list[Any]:
        self.meeting.said[self.rank] = mine
        self.meeting.barrier.wait()
        found = [item for rank in range(self.size) for item in self.meeting.said[rank]]
        self.meeting.barrier.wait()
        return found

    def broadcast(self, value: Any) -> Any:
        return self.collect([value])[0]

    on_main = World.on_main


def meet(size: int, check: Callable[[Any], None]) -> list[Exception | None]:
    """What the check raises on each rank."""
    raised: list[Exception | None] = [None] * size
    meeting = Meeting(size)

    def run(rank: int) -> None:
        try:
            check(Rank(meeting, rank))
        except (ConfigError, CheckpointError) as error:
            raised[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_a_recipe_that_differs_on_one_machine_stops_all() -> None:
    facts = {"train.checkpoint_every": "5", "torch": "2.13.0"}

    def check(rank: Any) -> None:
        check_alike(rank, facts | ({"train.checkpoint_every": "2"} if rank.rank == 2 else {}))

    raised = meet(3, check)
    assert all(isinstance(error, ConfigError) for error in raised)
    for error in raised:
        assert "rank 2 on " in str(error)
        assert "train.checkpoint_every: 5 -> 2" in str(error)
        assert "torch" not in str(error)


@pytest.mark.parametrize("resume", [False, True])
def test_processes_go_on_with_one_run_but_may_name_a_new_one_differently(tmp_path: Path, resume: bool) -> None:
    """Of a new run the main process's name counts; what each process goes on with it opens itself."""
    config = RunConfig.model_validate(
        {"name": "run", "model": {"path": "model"}, "data": {}, "rollout": {}, "train": {"num_steps": 1}}
    )

    def check(rank: Any) -> None:
        rank.device = "cpu"
        check_start(rank, config, tmp_path / str(rank.rank), job="train", resume=resume)

    raised = meet(2, check)
    if not resume:
        assert raised == [None, None]
        return
    assert f"--resume: {tmp_path}/0 -> {tmp_path}/1" in str(raised[0])
    assert str(raised[0]) == str(raised[1])


def test_a_fact_that_one_machine_lacks_is_a_difference() -> None:
    raised = meet(2, lambda rank: check_alike(rank, {"peft": "0.19"} if rank.is_main else {}))
    assert "peft: 0.19 -> not there" in str(raised[0])
    assert str(raised[0]) == str(raised[1])


def test_machines_that_are_alike_start() -> None:
    assert meet(3, lambda rank: check_alike(rank, {"torch": "2.13.0"})) == [None] * 3


class OtherDisk(PosixPath):
    """The same path on a machine that has a disk of its own there: what others write is not on it."""

    def is_file(self) -> bool:
        return False


def test_a_run_folder_that_one_machine_has_for_itself_stops_all(tmp_path: Path) -> None:
    def check(rank: Any) -> None:
        on_main = rank.on_main
        if rank.rank == 1:
            rank.on_main = lambda act: OtherDisk(made) if isinstance(made := on_main(act), Path) else made
        check_shared(rank, tmp_path)

    raised = meet(2, check)
    for error in raised:
        assert isinstance(error, CheckpointError)
        assert "rank 1 on " in str(error)
        assert f"writes to {tmp_path}" in str(error)
        assert "output_dir or --out" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_all_see_is_left_as_it_was(tmp_path: Path) -> None:
    assert meet(2, lambda rank: check_shared(rank, tmp_path)) == [None, None]
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_is_not_made_yet_is_judged_by_the_one_around_it(tmp_path: Path) -> None:
    """It must not be made before the model is loaded, or a recipe that cannot start would leave it behind."""
    assert meet(2, lambda rank: check_shared(rank, tmp_path / "runs" / "new")) == [None, None]
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_that_cannot_be_written_to_stops_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "touch", full)
    raised = meet(2, lambda rank: check_shared(rank, tmp_path))
    for error in raised:
        assert isinstance(error, CheckpointError)
        assert f"{tmp_path}, where the run folder" in str(error)
        assert "No space left on device" in str(error)


@pytest.mark.parametrize(("job", "name"), [("train", "rollout.num_prompts"), ("sft", "sft.batch_size"), ("eval", "")])
def test_pieces_need_work_for_every_process(tmp_path: Path, job: str, name: str) -> None:
    settings: dict[str, Any] = {
        "name": "run",
        "model": {"path": "model"},
        "data": {},
        "rollout": {"num_prompts": 2},
        "train": {"num_steps": 1, "sharding": "fsdp2"},
        "sft": {"batch_size": 2},
    }

    def check(config: RunConfig, size: int) -> list[Exception | None]:
        def start(rank: Any) -> None:
            rank.device = "cpu"
            check_start(rank, config, tmp_path, job=job, resume=False)

        return meet(size, start)

    sharded = RunConfig.model_validate(settings)
    assert check(sharded, 2) == [None, None]
    whole = RunConfig.model_validate(settings | {"train": {"num_steps": 1}})
    assert check(whole, 3) == [None] * 3
    raised = check(sharded, 3)
    if name:
        assert all(isinstance(error, ConfigError) for error in raised)
        assert f"{name} is 2, but with train.sharding=fsdp2 each of the 3 processes" in str(raised[0])
    else:
        assert raised == [None] * 3


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8])
def test_equal_weights_have_equal_marks_and_others_not(dtype: torch.dtype) -> None:
    weights = [("a", torch.arange(6).to(dtype).reshape(2, 3)), ("b", torch.tensor(3.0).to(dtype))]
    mark = weights_mark(weights)
    assert mark == weights_mark([(name, tensor.clone()) for name, tensor in weights])
    changed = weights[0][1].clone()
    changed[1, 2] += 1
    assert mark != weights_mark([("a", changed), weights[1]])
    assert mark != weights_mark([("c", weights[0][1]), weights[1]])
    assert mark != weights_mark([("a", weights[0][1].reshape(3, 2)), weights[1]])
    assert mark != weights_mark([("a", -weights[0][1]), weights[1]])


def test_weights_in_other_places_have_another_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_agrae.train.hosts.STRETCH", 7)
    weights = torch.linspace(-1, 1, 100)
    mark = weights_mark([("a", weights)])
    assert weights_mark([("a", weights.flip(0))]) != mark
    assert weights_mark([("a", weights.roll(7))]) != mark  # stretches change places
