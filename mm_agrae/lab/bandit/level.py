"""Bandit methods compared at equal success in place of equal time: what was spent to get there."""

from __future__ import annotations

from collections.abc import Mapping

from mm_agrae.lab.bandit.figures import FIGURES, Race, values_of, written
from mm_agrae.lab.bandit.run import Measured
from mm_agrae.lab.seed_statistics import estimate
from mm_agrae.report.page import Table

SHOWN = ("entropy", "discovered")


def level_table(race: Race, *, level: float) -> Table:
    """Steps, entropy and discoveries when pass@1 first reaches `level`, over the seeds that reach it."""
    rows = []
    for name, course in race.courses.items():
        num_seeds = len(next(iter(course.values())).pass_1)
        found = [one for index in range(num_seeds) if (one := reaching(course, index, level=level)) is not None]
        figures = [written(estimate([one[key] for one in found]), key) if found else "–" for key in ("steps", *SHOWN)]
        rows.append((name, f"{len(found)} of {num_seeds}", *figures))
    headers = ("Method", "Seeds that reach it", "Steps", *(FIGURES[figure] for figure in SHOWN))
    caption = f"When pass@1 first reaches {level}: mean ± 95 % t-interval over the seeds that reach it"
    return Table(headers, rows, caption=caption, numeric={1, 2, 3, 4})


def reaching(course: Mapping[int, Measured], index: int, *, level: float) -> dict[str, float] | None:
    """Steps and `SHOWN` figures of one seed when pass@1 first reaches `level`, linear between measurements.

    Returns:
        None if it never does.
    """
    before: dict[str, float] | None = None
    for step, measured in course.items():
        now = {figure: values_of(measured, figure)[index] for figure in (*SHOWN, "pass_1")} | {"steps": float(step)}
        if now["pass_1"] >= level:
            if before is None:
                return now
            part = (level - before["pass_1"]) / (now["pass_1"] - before["pass_1"])
            return {key: before[key] + part * (now[key] - before[key]) for key in now}
        before = now
    return None
