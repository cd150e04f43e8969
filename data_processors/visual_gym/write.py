"""Many problems of the gym as a data set: drawn on all cores, the same whatever their number."""

from __future__ import annotations

import multiprocessing
import multiprocessing.pool
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from data_processors.visual_gym.families import (
    ALL,
    DEFAULT_SIZE,
    SOURCE,
    as_text,
    check_request,
    expand_families,
    make_problem,
)
from data_processors.visual_gym.problem import DIFFICULTIES
from mm_agrae.data.columns import content_hash
from mm_agrae.data.dataset import write_dataset
from mm_agrae.data.manifest import Manifest, Origin
from mm_agrae.errors import DataError
from mm_agrae.records import Sample
from mm_agrae.seeding import seed_for

# Every problem is drawn here: nobody else has a right in it.
OWN = Origin(licence="own work")
CHUNK = 32
# A cell that repeats itself this often in a row is taken to have no more distinct problems.
MAX_REPEATS = 40

Cell = tuple[str, int]
Draw = Callable[[Callable[[int], Sample], range], Iterator[Sample]]


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is drawn; everything a worker needs to draw item number `index` of a split."""

    seed: int
    cells: tuple[Cell, ...]
    size: int
    text_only: bool

    def cell(self, index: int, shift: int = 0) -> Cell:
        """Every round of len(cells) items holds each cell once, in an order of its own."""
        turn, place = divmod(index, len(self.cells))
        order = list(self.cells)
        random.Random(seed_for(self.seed, "gym cells", turn)).shuffle(order)
        return order[(place + shift) % len(order)]

    def draw(self, split: str, cell: Cell, index: int, attempt: int) -> Sample:
        family, difficulty = cell
        seed = seed_for(self.seed, "gym", split, index, attempt)
        sample = make_problem(family, difficulty, seed, size=self.size)
        return as_text(sample) if self.text_only else sample

    def first(self, split: str, index: int) -> Sample:
        return self.draw(split, self.cell(index), index, 0)


@dataclass(kw_only=True)
class _Seen:
    """The problems taken so far over all splits, and the cells that have no more."""

    hashes: set[str] = field(default_factory=set)
    empty: set[Cell] = field(default_factory=set)

    def take(self, sample: Sample) -> bool:
        """Whether the problem is new; it is taken if so."""
        key = content_hash(sample)
        is_new = key not in self.hashes
        self.hashes.add(key)
        return is_new


def write_gym(
    out: Path,
    *,
    num: int,
    seed: int,
    families: Sequence[str] = ALL,
    difficulties: Sequence[int] = DIFFICULTIES,
    size: int = DEFAULT_SIZE,
    held_out: int = 256,
    num_processes: int | None = None,
    text_only: bool = False,
    on_sample: Callable[[], None] | None = None,
) -> Manifest:
    """Write `num` problems as split "train" and `held_out` others as split "test".

    Families and difficulties are drawn evenly; a family that has no more distinct problems at a difficulty leaves its
    turn to another, and the manifest counts what was drawn. The number of processes changes nothing, and `num` does
    not change the test split.

    Args:
        out: The folder to make; it may exist if it is empty.
        num: Training problems.
        seed: Another seed gives other problems.
        families: Names of families or groups ("counting").
        difficulties: Levels, 1 to 5.
        size: Side of the pictures in pixels.
        held_out: Test problems, none of which is a training problem.
        num_processes: Processes that draw; None takes one per core.
        text_only: Put a description in place of each picture.
        on_sample: Called after each sample, for a progress bar.

    Raises:
        DataError: If a family or difficulty is unknown, the size is below a family's minimum, `out` is taken, or
            there are not enough distinct problems.
    """
    names = expand_families(families)
    check_request(names, difficulties, size=size)
    if num < 0 or held_out < 0 or not names or not difficulties:
        raise DataError(
            f"num is {num}, held_out {held_out}, families {list(families)} and difficulties {list(difficulties)}, "
            "but the numbers cannot be negative and the lists cannot be empty. Mend the request."
        )
    cells = tuple((name, difficulty) for name in names for difficulty in dict.fromkeys(difficulties))
    plan = _Plan(seed=seed, cells=cells, size=size, text_only=text_only)
    seen = _Seen()
    with _drawer(num_processes or _num_cores(), num + held_out) as draw:
        splits = {name: _split(plan, name, count, seen, draw) for name, count in (("test", held_out), ("train", num))}
        return write_dataset(splits, out, source=SOURCE, seed=seed, origin=OWN, on_sample=on_sample)


def _split(plan: _Plan, split: str, count: int, seen: _Seen, draw: Draw) -> Iterator[Sample]:
    """First draws come from the workers in order; repeats are replaced here, where all problems so far are known."""
    for index, sample in enumerate(draw(partial(plan.first, split), range(count))):
        yield sample if seen.take(sample) else _replacement(plan, split, index, seen)


def _replacement(plan: _Plan, split: str, index: int, seen: _Seen) -> Sample:
    for shift in range(len(plan.cells)):
        cell = plan.cell(index, shift)
        if cell in seen.empty:
            continue
        for attempt in range(1, MAX_REPEATS + 1):
            sample = plan.draw(split, cell, index, attempt)
            if seen.take(sample):
                return sample
        seen.empty.add(cell)
    raise DataError(
        f"{len(seen.hashes)} distinct problems were found and there are no more, but more were asked for. "
        "Ask for fewer, or for more families or difficulties."
    )


def _num_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _drawer(num_processes: int, num_items: int) -> Iterator[Draw]:
    """Draws items in order: in this process, or in a pool when there is work for one."""
    if num_processes == 1 or num_items <= CHUNK:
        yield map
        return
    # Forking a process that holds threads (a progress bar, torch) can deadlock, so workers start afresh.
    with multiprocessing.get_context("spawn").Pool(num_processes) as pool:
        yield partial(_in_order, pool)


def _in_order(pool: multiprocessing.pool.Pool, work: Callable[[int], Sample], items: range) -> Iterator[Sample]:
    return pool.imap(work, items, chunksize=CHUNK)
