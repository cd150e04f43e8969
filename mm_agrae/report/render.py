"""A run directory -> one self-contained HTML file: no scripts, no requests, model text escaped."""

from __future__ import annotations

import base64
from pathlib import Path

from markupsafe import Markup

from mm_agrae.report.curves import charts
from mm_agrae.report.gallery import Group, held_out_pairs, question_text, segments, training_groups
from mm_agrae.report.page import environment, storable
from mm_agrae.report.read import Run, read_run
from mm_agrae.report.tables import comparison, durations, flattened
from mm_agrae.store.atomic import write_text
from mm_agrae.store.run_dir import RunDir

PAIRS_PER_SET = 4
MIXED_FIRST_STEP, MIXED_LAST_STEP = 2, 4
SHOWN_WIDTH = 200


def write_report(run_dir: Path) -> Path:
    """Render the report of a run, finished or not, into its folder.

    Args:
        run_dir: A run directory; whatever it lacks is named on the page.

    Returns:
        The path of report.html; an older one is replaced.

    Raises:
        CheckpointError: If the folder does not exist.
    """
    target = RunDir(Path(run_dir)).report
    write_text(target, render(read_run(run_dir)))
    return target


def render(run: Run) -> str:
    """The page of a run."""
    templates = environment()
    templates.filters |= {
        "percent": percent,
        "points": points,
        "seconds": seconds,
        "number": number,
        "data_uri": data_uri,
        "is_small": is_small,
        "question": question_text,
    }
    templates.globals |= {"segments": segments}
    page = templates.get_template("report.html.j2").render(
        run=run,
        comparisons=[comparison(found) for found in run.evaluations.values()],
        charts=[(chart, Markup(chart.svg)) for chart in charts(run)],
        held_out=_held_out(run),
        training=_training(run),
        durations=durations(run.metrics),
        settings=flattened(run.config),
        surroundings=flattened(run.environment),
    )
    return storable(page)


def _held_out(run: Run) -> list[tuple[str, tuple]]:
    found = []
    for name, evaluations in run.evaluations.items():
        first, last = evaluations[0].step, evaluations[-1].step
        if first != last:
            before, after = run.completions[name, first], run.completions[name, last]
            found.append((name, held_out_pairs(before, after, num_pairs=PAIRS_PER_SET)))
    return [(name, pairs) for name, pairs in found if pairs]


def _training(run: Run) -> list[tuple[int, tuple[Group, ...]]]:
    """(step, groups to show), the last step first."""
    found = []
    for step in sorted(run.rollouts, reverse=True):
        num_mixed = MIXED_LAST_STEP if step == max(run.rollouts) else MIXED_FIRST_STEP
        found.append((step, training_groups(run.rollouts[step], num_mixed=num_mixed)))
    return [(step, groups) for step, groups in found if groups]


def percent(value: float) -> str:
    """0.9414 -> "94.1 %", with a space that does not break."""
    return f"{100 * value:.1f}\u00a0%"


def points(change: float) -> str:
    """0.771 -> "+77.1", in percentage points."""
    return f"{100 * change:+.1f}".replace("-", "\u2212")


def number(value: float | None) -> str:
    """A reward or an advantage with two decimals and a true minus sign; a dash for None."""
    return "\u2013" if value is None else f"{value:.2f}".replace("-", "\u2212")


def seconds(value: float) -> str:
    """73.4 -> "1 min 13 s"."""
    if value < 60:
        return f"{value:.1f} s" if value >= 0.1 else f"{1000 * value:.0f} ms"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def data_uri(picture: Path) -> str:
    """A PNG file as a data address, so that the page needs no other file."""
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")


def is_small(picture: Path) -> bool:
    """Whether a PNG is narrower than the page shows pictures, which then enlarges it with hard edges."""
    with picture.open("rb") as file:
        header = file.read(24)
    return int.from_bytes(header[16:20], "big") < SHOWN_WIDTH
