"""Machines that are not alike, or do not share the run folder, are told before anything is computed."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path, PosixPath
from typing import Any

import pytest

from mm_agrae.config import RunConfig
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.train.hosts import check_alike, check_shared, check_start
from tests.thread_ranks import on_ranks


def meet(size: int, check: Callable[[Any], None]) -> list[Exception | None]:
    """What the check raises on each rank."""
    return on_ranks(size, check, stops=(ConfigError, CheckpointError))


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
