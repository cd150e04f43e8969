"""The processes of a run: how work is dealt out, and launches that would train alone."""

from __future__ import annotations

import errno
import pickle
import re
import threading
from collections.abc import Sequence
from datetime import timedelta
from email.message import Message
from io import BytesIO
from typing import Any
from urllib.error import HTTPError

import pytest
import torch
from torch import nn

import mm_agrae.train.distributed as distributed
from mm_agrae.errors import CheckpointError, ConfigError, DataError, EngineError, LostProcessError
from mm_agrae.train.distributed import World


class Launched:
    """Stands for accelerate's object in a process that found `found` others."""

    device = torch.device("cpu")

    def __init__(self, found: int, rank: int = 0) -> None:
        self.num_processes, self.process_index, self.is_main_process = found, rank, rank == 0

    def reduce(self, value, reduction):
        assert reduction == "sum"
        return value * self.num_processes


def world(monkeypatch, found: int, rank: int = 0) -> World:
    monkeypatch.setattr(distributed, "Accelerator", lambda cpu, kwargs_handlers: Launched(found, rank))
    for name, value in {"WORLD_SIZE": str(found), "RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    monkeypatch.setattr(distributed, "_meet", lambda launched: None)
    return World(device="cpu")


def test_a_launcher_that_started_more_than_found_each_other(monkeypatch):
    world(monkeypatch, 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="the launcher started 2 processes, but 1 found each other"):
        World(device="cpu")


@pytest.mark.parametrize(("rank", "port"), [(0, 0), (1, 9)])
def test_a_process_whose_others_do_not_start_says_so(monkeypatch, rank, port):
    """The first of two serves the address and nobody comes; the second finds nobody there."""
    monkeypatch.setattr(distributed, "START_S", 1.0)
    monkeypatch.setattr(distributed, "Accelerator", None)  # not reached
    settings = {"WORLD_SIZE": "2", "RANK": str(rank), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    told = rf"rank {rank} on .* waited 1 s at 127\.0\.0\.1:{port} for 2 processes.*what the other machines say"
    with pytest.raises(LostProcessError, match=told):
        World(device="cpu")


def test_a_launch_for_something_else_is_refused_before_anybody_is_waited_for(monkeypatch):
    monkeypatch.setattr(distributed, "Accelerator", None)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ConfigError, match="asks Accelerate for FSDP"):
        World(device="cpu")


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (DataError("no such file"), "rank 0 on .+: no such file"),
        (OSError(errno.ENOSPC, "No space left", "page"), r"\[Errno 28\] rank 0 on .+: No space left: 'page'"),
    ],
)
def test_who_could_not_act_stops_all(monkeypatch, problem, told):
    """A rank that goes on alone would wait in the next collective."""
    said: list[Any] = []

    def act() -> int:
        raise problem

    def gather(mine):
        said.append(mine[0])
        return [*said, [[]]][:2]

    ranks = [world(monkeypatch, 2, rank) for rank in range(2)]
    monkeypatch.setattr(distributed, "gather_object", gather)
    for one, what in zip(ranks, (act, lambda: 1), strict=True):
        with pytest.raises(type(problem)) as raised:
            one.everywhere(what)
        if what is act:
            assert raised.value is problem
        else:  # who did not fail says whose error it is
            assert re.fullmatch(told, str(raised.value))
            assert raised.value.args[0] == (errno.ENOSPC if isinstance(problem, OSError) else str(raised.value))
    monkeypatch.setattr(distributed, "gather_object", lambda mine: [[[]], [[]]])
    assert [one.everywhere(lambda: 1) for one in ranks] == [1, 1]


@pytest.mark.parametrize(("given", "waits"), [(3660.0, [timedelta(seconds=3660)]), (None, [])])
def test_how_long_processes_wait_for_each_other(monkeypatch, given, waits):
    seen = []

    def accelerator(cpu, kwargs_handlers):
        seen.extend(handler.timeout for handler in kwargs_handlers)
        return Launched(1)

    monkeypatch.setattr(distributed, "Accelerator", accelerator)
    World(device="cpu", timeout_s=given)
    assert seen == waits


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there_is_no_cpu(monkeypatch):
    with pytest.raises(ConfigError, match="torch sees no CUDA device"):
        World(device="cuda")


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_collect_undoes_share(monkeypatch, size):
    items = list(range(4))
    worlds = [world(monkeypatch, size, rank) for rank in range(size)]
    parts = [one.share(items) for one in worlds]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    monkeypatch.setattr(distributed, "gather_object", lambda mine: parts)
    for one, part in zip(worlds, parts, strict=True):
        assert one.collect(part) == items


@pytest.mark.parametrize("held", [[(0, 1, 2, 3), ()], [(0, 2, 3), (1,)], [(3,), (2, 0, 1)], [(), (), (1, 0, 2, 3)]])
def test_merge_orders_what_is_held_unevenly(monkeypatch, held):
    parts = [[{number: f"item {number}" for number in numbers}] for numbers in held]
    monkeypatch.setattr(distributed, "gather_object", lambda mine: parts)
    for rank, mine in enumerate(parts):
        assert world(monkeypatch, len(held), rank).merge(mine[0]) == [f"item {number}" for number in range(4)]


@pytest.mark.parametrize("bucket", [1, 7, 1000])
def test_gradients_are_summed_in_any_buckets(monkeypatch, bucket):
    two = world(monkeypatch, 2)
    monkeypatch.setattr(distributed, "BUCKET_ELEMENTS", bucket)
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in ((2, 3), (4,), (), (5, 1))]
    gradients = [torch.arange(p.numel(), dtype=torch.float32).view_as(p) + 1 for p in parameters]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient.clone()
    parameters[1].grad = None  # a rank whose micro-batches never touched it
    two.sum_gradients(parameters)
    for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        assert parameter.grad is not None
        assert torch.equal(parameter.grad, gradient * 2 if number != 1 else torch.zeros(4))


def keeping_step(monkeypatch, rank: int, ranks: list[tuple[int, bool]]) -> World:
    """A rank of a world whose parameters are sharded: how many micro-batches each rank has, and if it has a filler."""
    one = world(monkeypatch, len(ranks), rank)
    monkeypatch.setattr(distributed, "DTensor", nn.Parameter)
    monkeypatch.setattr(distributed, "gather_object", lambda mine: [[(count, has)] for count, has in ranks])
    return one


def test_ranks_keep_step_where_parameters_are_sharded(monkeypatch):
    sharded = [nn.Parameter(torch.zeros(2))]
    busy, idle, empty = (keeping_step(monkeypatch, rank, [(3, True), (1, True), (0, True)]) for rank in range(3))
    assert busy.in_step(["a", "b", "c"], ["x"], sharded) == [("a", True), ("b", True), ("c", True)]
    assert idle.in_step(["d"], ["x"], sharded) == [("d", True), ("d", False), ("d", False)]
    assert empty.in_step([], ["x", "y"], sharded) == [("x", False)] * 3


def test_every_rank_stops_where_one_has_nothing_to_compute(monkeypatch):
    """A rank that stops alone leaves the others waiting for it."""
    sharded = [nn.Parameter(torch.zeros(2))]
    busy, idle = (keeping_step(monkeypatch, rank, [(1, True), (0, False)]) for rank in range(2))
    for one, batches in ((busy, ["a"]), (idle, [])):
        with pytest.raises(ConfigError, match="rank 1 of 2 has no group, but with sharded weights every rank must"):
            one.in_step(batches, [], sharded)
    resting = keeping_step(monkeypatch, 1, [(0, True), (0, False)])
    assert resting.in_step([], [], sharded) == []


def test_ranks_go_at_their_own_pace_where_weights_are_whole(monkeypatch):
    two = world(monkeypatch, 2)
    monkeypatch.setattr(distributed, "gather_object", None)  # nobody is asked
    assert two.in_step(["a"], ["x"], [nn.Parameter(torch.zeros(2))]) == [("a", True)]
    assert two.in_step([], [], []) == []


def test_gradients_of_sharded_parameters_are_summed_already(monkeypatch):
    two = world(monkeypatch, 2)
    monkeypatch.setattr(distributed, "DTensor", Sharded)
    parameters = [nn.Parameter(torch.zeros(2)), Sharded(torch.zeros(2))]
    for parameter in parameters:
        parameter.grad = torch.ones(2)
    two.sum_gradients(parameters)
    assert [parameter.grad.tolist() for parameter in parameters] == [[2.0, 2.0], [1.0, 1.0]]


class Sharded(nn.Parameter):
    """Stands for a parameter whose pieces lie on several ranks."""


def test_items_reach_the_ranks_that_they_are_addressed_to(monkeypatch):
    """Rank 0 sends two items to rank 1, rank 1 one to rank 0; what a rank addresses to itself comes too."""
    meeting = threading.Barrier(2, timeout=10)
    sent: dict[int, Sequence[torch.Tensor]] = {}

    def all_to_all(out, into, out_lengths=None, into_lengths=None):
        rank = int(threading.current_thread().name)
        sent[rank] = into.split(into_lengths or 1)
        meeting.wait()
        out.copy_(torch.cat([sent[sender][rank] for sender in range(2)]))
        meeting.wait()

    monkeypatch.setattr(distributed, "all_to_all_single", all_to_all)
    parcels = [{1: ["a", "b"]}, {0: [torch.ones(3)], 1: ["c"]}]
    worlds = [world(monkeypatch, 2, rank) for rank in range(2)]
    received: dict[int, list] = {}

    def take(rank: int) -> None:
        received[rank] = worlds[rank].exchange(parcels[rank])

    threads = [threading.Thread(target=take, args=(rank,), name=str(rank)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert received[1] == ["a", "b", "c"]
    assert [item.tolist() for item in received[0]] == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (CheckpointError("half a file"), CheckpointError),
        (EngineError("no server"), EngineError),
        (ConfigError("no such key"), ConfigError),
        (DataError("no picture"), DataError),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "page"), FileNotFoundError),
        (HTTPError("http://there", 404, "not there", Message(), BytesIO()), OSError),
    ],
)
def test_what_stops_the_main_process_stops_all(monkeypatch, raised, kind):
    """A rank that was not told would wait for ever in the next collective."""
    box: list[Any] = []

    def act() -> None:
        raise raised

    main, other = (world(monkeypatch, 2, rank) for rank in range(2))
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda mine: box.extend(pickle.loads(pickle.dumps(mine))))
    with pytest.raises(type(raised)) as on_main:
        main.on_main(act)
    assert on_main.value is raised
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda mine: mine.__setitem__(0, box[0]))
    with pytest.raises(kind) as on_other:
        other.on_main(act)
    assert on_other.value is not raised
    assert type(on_other.value) is kind
    assert str(on_other.value) == str(raised)


def test_nothing_is_told_where_nothing_went_wrong(monkeypatch):
    box: list[Any] = []
    main, other = (world(monkeypatch, 2, rank) for rank in range(2))
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda mine: box.extend(mine))
    assert main.on_main(lambda: "made") == "made"
    monkeypatch.setattr(distributed, "broadcast_object_list", lambda mine: mine.__setitem__(0, box[0]))
    assert other.on_main(lambda: pytest.fail("only the main process acts")) == "made"


def test_a_process_that_lost_the_others_says_so(monkeypatch):
    def closed(mine):
        raise RuntimeError("[pair.cc:534] Connection closed by peer [10.0.0.2]:4711\nno use to anybody")

    two = world(monkeypatch, 2, rank=1)
    monkeypatch.setattr(distributed, "gather_object", closed)
    with pytest.raises(
        LostProcessError, match=r"rank 1 of 2 cannot reach the other processes \(.*10\.0\.0\.2.*--resume"
    ):
        two.collect([1])


def test_a_process_without_memory_has_not_lost_the_others(monkeypatch):
    def full(mine):
        raise torch.OutOfMemoryError("CUDA out of memory")

    two = world(monkeypatch, 2)
    monkeypatch.setattr(distributed, "gather_object", full)
    with pytest.raises(torch.OutOfMemoryError):
        two.collect([1])
