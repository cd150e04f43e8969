"""A comparison as tables and curves: Markdown for a README, a page, and a file of figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mm_agrae.lab.compare.cells import CURVES
from mm_agrae.lab.compare.results import Comparison, Difference, Row
from mm_agrae.lab.compare.spec import SEED_MARK
from mm_agrae.lab.seed_statistics import LEVEL, Estimate, Wins
from mm_agrae.metrics.catalogue import lookup
from mm_agrae.report.page import Badge, Cell, Chart, Section, Table, legend_of, write_page
from mm_agrae.report.plots import Bars, Series, bar_chart, line_chart
from mm_agrae.store.atomic import write_json, write_text

NOT_MEASURED = "–"
PERCENT = f"{100 * LEVEL:.0f} %"


def write_comparison(comparison: Comparison, out: Path) -> list[Path]:
    """Write comparison.md, comparison.html and comparison.json into a folder; older ones are replaced.

    Returns:
        The three paths, in this order.

    Raises:
        OSError: If the disk does not take them.
    """
    paths = [Path(out) / f"comparison.{kind}" for kind in ("md", "html", "json")]
    write_text(paths[0], markdown(comparison))
    write_page(paths[1], comparison.title, _lead(comparison), sections(comparison, drawn=True))
    write_json(paths[2], comparison.to_json())
    return paths


def markdown(comparison: Comparison) -> str:
    """The tables with their notes, ready for a README."""
    parts = [f"# {comparison.title}", _lead(comparison)]
    for section in sections(comparison, drawn=False):
        parts += [f"## {section.title}", *section.paragraphs, *map(_markdown_table, section.tables)]
    return "\n\n".join(parts) + "\n"


def sections(comparison: Comparison, *, drawn: bool) -> list[Section]:
    """What the Markdown and the page both show; `drawn` adds the charts."""
    found = [
        Section("Missing", paragraphs=comparison.missing),
        Section(
            "After training",
            paragraphs=[_interval_note(comparison), *comparison.notes],
            tables=[after_table(comparison)],
            charts=_bars(comparison) if drawn else (),
        ),
        Section("Differences", paragraphs=_difference_notes(comparison), tables=[difference_table(comparison)]),
        Section("Curves", charts=_curves(comparison) if drawn else ()),
        Section("Settings", tables=[_settings_table(comparison)]),
    ]
    return [section for section in found if section.paragraphs or section.tables or section.charts]


def after_table(comparison: Comparison) -> Table:
    """One row per algorithm; the figures before training first, once where all algorithms share them."""
    metrics = comparison.metrics
    headers = ["algorithm", "seeds", *(_label(metric, metrics) for metric in metrics), "time per run"]
    rows: list[list[Cell]] = []
    if comparison.start:
        num = next(iter(comparison.start.values())).num
        rows.append(["before training", str(num), *_figures(comparison.start, metrics), ""])
    for row in comparison.rows:
        seconds = NOT_MEASURED if row.seconds is None else f"{row.seconds:.0f} s"
        if row.seeds and not comparison.start:
            before = _figures(row.before, metrics)
            rows.append([f"{row.algorithm}, before", str(len(row.seeds)), *before, ""])
        rows.append([row.algorithm, str(len(row.seeds)), *_figures(row.after, metrics), seconds])
    return Table(headers, rows, caption="Mean over seeds", numeric=range(1, len(headers)))


def difference_table(comparison: Comparison) -> Table:
    """One row per pair; where the interval excludes 0 the figure is a badge."""
    metrics = comparison.metrics
    sets = sorted({name for each in comparison.differences for name in each.problem_wins})
    headers = ["pair", "seeds", *(_label(metric, metrics) for metric in metrics)]
    headers += [f"problems ({name})" if len(sets) > 1 else "problems" for name in sets]
    rows: list[list[Cell]] = [
        [
            f"{each.algorithm} − {each.other}",
            str(len(each.seeds)),
            *(_difference(each, metric) for metric in metrics),
            *(_wins(each.problem_wins[name]) if name in each.problem_wins else NOT_MEASURED for name in sets),
        ]
        for each in comparison.differences
    ]
    return Table(headers, rows, caption="Paired differences", numeric=range(1, len(headers)))


def _lead(comparison: Comparison) -> str:
    num = len(comparison.seeds)
    seeds = ", ".join(map(str, comparison.seeds))
    return (
        f"{len(comparison.settings)} algorithms, {num} {'seed' if num == 1 else 'seeds'} each ({seeds}), one recipe. "
        f"Baseline: {comparison.baseline}."
    )


def _interval_note(comparison: Comparison) -> str:
    if len(comparison.seeds) == 1:
        return "One seed: there is no interval over seeds, and a difference may be chance."
    by_seed = [key for key, value in comparison.common.items() if SEED_MARK in str(value)]
    differs = ", ".join(["the random numbers of the run", *by_seed])
    return (
        f"Mean over seeds ± half the width of its {PERCENT} t-interval. Seeds differ in: {differs}. The interval of a "
        "single row holds their variation; the paired differences are free of what the runs of a seed share."
    )


def _difference_notes(comparison: Comparison) -> list[str]:
    notes = [
        "Mean over seeds of the difference after training, runs of one seed paired: they share every setting but those "
        "of their algorithms. In brackets: seeds better / equal / worse. The last column counts problems, once a seed, "
        "solved more often / as often / less often; problems of one run rise and fall together, so these counts "
        "describe and the intervals decide."
    ]
    if len(comparison.arithmetic) > 1:
        notes.append(
            f"The runs were computed in {len(comparison.arithmetic)} ways: {', '.join(comparison.arithmetic)}. What "
            "weights are stored in decides what a learning rate does, so a difference may come from that alone."
        )
    if len(comparison.code) > 1:
        notes.append(
            f"The runs were made by {len(comparison.code)} versions of the code: {', '.join(comparison.code)}."
        )
    looks = comparison.num_intervals
    if looks:
        notes.append(
            f"{comparison.num_excluding_zero} of {looks} intervals exclude 0; if nothing differed, about "
            f"{(1 - LEVEL) * looks:.1f} would by chance. No interval is widened for the number of looks."
        )
    return notes


def _label(metric: str, metrics: Sequence[str]) -> str:
    """ "pass@1"; with its set where the table has several."""
    _, name, figure = metric.split("/")
    return figure if len({other.split("/")[1] for other in metrics}) == 1 else f"{name} {figure}"


def _figures(estimates: Mapping[str, Estimate], metrics: Sequence[str]) -> list[Cell]:
    return [_estimate(estimates[metric]) if metric in estimates else NOT_MEASURED for metric in metrics]


def _estimate(found: Estimate, *, sign: str = "") -> str:
    around = "" if found.half_width is None else f" ± {found.half_width:.3f}"
    return f"{found.mean:{sign}.3f}{around}"


def _difference(each: Difference, metric: str) -> Cell:
    if metric not in each.metrics:
        return NOT_MEASURED
    found = each.metrics[metric]
    text = f"{_estimate(found, sign='+')} ({_wins(each.seed_wins[metric])})"
    if not found.excludes_zero:
        return text
    return Badge(text, "good" if (found.mean > 0) == (lookup(metric).direction == "up") else "bad")


def _wins(found: Wins) -> str:
    return f"{found.wins}/{found.ties}/{found.losses}"


def _settings_table(comparison: Comparison) -> Table:
    rows = [[name, _words(settings)] for name, settings in comparison.settings.items()]
    return Table(["algorithm", "settings over the recipe's"], rows, caption="Settings")


def _words(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items()) or "none"


def _markdown_table(table: Table) -> str:
    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"

    rule = ["---:" if column in table.numeric else "---" for column in range(len(table.headers))]
    rows = [[f"**{cell.text}**" if isinstance(cell, Badge) else cell for cell in row] for row in table.rows]
    return "\n".join([line(table.headers), line(rule), *map(line, rows)])


def _bars(comparison: Comparison) -> list[Chart]:
    rows = [row for row in comparison.rows if row.seeds]
    if not rows:
        return []
    bars = []
    for index, metric in enumerate(comparison.metrics):
        found = [row.after[metric] for row in rows]
        spread = [one.half_width or 0.0 for one in found]
        bars.append(
            Bars(
                label=_label(metric, comparison.metrics),
                values=[one.mean for one in found],
                colour=index,
                low=[one.mean - width for one, width in zip(found, spread, strict=True)],
                high=[one.mean + width for one, width in zip(found, spread, strict=True)],
            )
        )
    names = [row.algorithm for row in rows]
    svg = bar_chart(names, bars, slug="after", title="Means after training; the table has the figures", fraction=True)
    lines = f"Lines: {PERCENT} t-interval over seeds, where there are several."
    return [Chart(svg, lines, "After training", legend_of(bars))]


def _curves(comparison: Comparison) -> list[Chart]:
    """For every pair the curves of both sides."""
    rows = {row.algorithm: row for row in comparison.rows}
    pairs = [(rows[each.algorithm], rows[each.other]) for each in comparison.differences]
    found = [(key, *pair) for pair in pairs for key in CURVES if all(row.curves.get(key) for row in pair)]
    return [_curve(number, *each) for number, each in enumerate(found)]


def _curve(number: int, key: str, mine: Row, other: Row) -> Chart:
    series = [
        Series(
            label=f"{row.algorithm} ({len(row.seeds)})",
            steps=list(row.curves[key]),
            values=list(row.curves[key].values()),
            colour=index,
        )
        for index, row in enumerate((mine, other))
    ]
    ends = "; ".join(f"{one.label} ends at {one.values[-1]:.3g}" for one in series)
    metric = lookup(key)
    unit = f", {metric.unit}" if metric.unit else ""
    svg = line_chart(series, slug=f"curve-{number}", title=f"{key}: {ends}", fraction=metric.unit == "fraction")
    return Chart(svg, f"{metric.meaning}{unit}; mean over seeds, whose number is in brackets.", key, legend_of(series))
