"""Ranks of a run that are threads: what they tell each other is real, and a test sees all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mm_agrae.train.distributed import World

T = TypeVar("T")


@dataclass
class Meeting:
    """Where the threads of one world exchange what they have."""

    size: int
    parts: dict[int, list[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.barrier = threading.Barrier(self.size, timeout=60)


@dataclass
class Rank:
    """One thread's view of a world of threads."""

    rank: int
    meeting: Meeting

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def size(self) -> int:
        return self.meeting.size

    def share(self, items: Sequence[T]) -> list[T]:
        return list(items[self.rank :: self.size])

    def collect(self, mine: Sequence[T]) -> list[T]:
        self.meeting.parts[self.rank] = list(mine)
        self.meeting.barrier.wait()
        parts = [self.meeting.parts[rank] for rank in range(self.size)]
        self.meeting.barrier.wait()
        total = sum(map(len, parts))
        return [parts[index % self.size][index // self.size] for index in range(total)]

    def broadcast(self, value: T) -> T:
        return self.collect([value])[0]

    on_main = World.on_main
    everywhere = World.everywhere


def alone() -> Rank:
    return Rank(0, Meeting(1))


def on_ranks(size: int, act: Callable[[Any], T], *, stops: tuple[type[Exception], ...] = ()) -> list[Any]:
    """What each rank makes, or the error that stops it, if it is one of these."""
    meeting = Meeting(size)

    def run(rank: int) -> T | Exception:
        try:
            return act(Rank(rank, meeting))
        except stops as error:
            return error

    with ThreadPoolExecutor(size) as threads:
        return list(threads.map(run, range(size)))
