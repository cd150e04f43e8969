"""The scaling benchmark: what it makes of measured times, and what it counts as time in meetings."""

from __future__ import annotations

from typing import Any

import bench_scaling as scaling
import pytest

CASE = {"architecture": "qwen2_5_vl", "size": "tiny", "visual": 64, "steps": 2}
SECONDS = {"one": [4.0, 6.0], "two": [2.0, 3.0], "beside": [5.0, 5.0]}


def measured(case: dict[str, Any]) -> dict[str, Any]:
    """Every visit of a way finds one step of its seconds, a second visit the other."""
    seconds = SECONDS[case["way"]][case["visit"]]
    return {"seconds": [seconds], "phases": {"update": seconds / 2}, "gradient_bytes": 8}


def test_a_row_takes_all_visits_together() -> None:
    row = scaling.row_of(measured, CASE, visits=2)
    assert row["seconds"] == {"one": 5.0, "two": 2.5, "beside": 5.0}
    assert row["speedup"] == pytest.approx(5.0 / 2.5)
    assert row["ceiling"] == pytest.approx(2 * 5.0 / 5.0)
    assert row["phases"] == {"one": {"update": 2.5}, "two": {"update": 1.25}}
    assert "speed-up 2.00 of at most 2.00" in scaling.line_of(row)


def test_one_visit_is_one_visit() -> None:
    row = scaling.row_of(measured, CASE, visits=1)
    assert row["seconds"] == {"one": 4.0, "two": 2.0, "beside": 5.0}
    assert row["ceiling"] == pytest.approx(2 * 4.0 / 5.0)


def test_meetings_count_in_the_step_in_which_they_end() -> None:
    # The step that ends at 10 warms up; those that end at 20 and 30 count.
    meetings = [(9.0, 5.0), (10.5, 1.0), (20.0, 2.0), (20.5, 4.0), (31.0, 7.0)]
    assert scaling.seconds_met(meetings, [10.0, 20.0, 30.0]) == [3.0, 4.0]


class World:
    """Of so many processes, each method a meeting."""

    def __init__(self, size: int) -> None:
        self.size = size

    def collect(self, mine: list[int]) -> list[int]:
        return mine * self.size

    broadcast = exchange = sum = collect

    def barrier(self) -> None:
        pass


@pytest.mark.parametrize(("size", "expected"), [(1, 0), (2, 3)])
def test_meetings_are_watched_where_there_is_somebody_to_meet(size: int, expected: int) -> None:
    world = World(size)
    meetings = scaling.watch(world)
    assert world.collect([1]) == [1] * size
    world.barrier()
    world.sum([1])
    assert len(meetings) == expected
    assert all(seconds >= 0 for _, seconds in meetings)
