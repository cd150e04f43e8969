"""Curves and bars as inline SVG, the only door to matplotlib.

A chart takes its colours from the page: matplotlib draws with placeholder colours, which are then replaced by CSS
variables, so that one SVG serves the light and the dark scheme.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Stroke = Literal["solid", "dashed", "dotted"]

NUM_COLOURS = 8
SMOOTH_FROM = 40

# Placeholders that matplotlib would not choose by itself.
_INK, _GRID, _PAPER = "#0a0101", "#0a0202", "#0a0303"
_SERIES = tuple(f"#0b000{i}" for i in range(NUM_COLOURS))
# By position, so that curves can be told apart without colour.
STROKES: tuple[Stroke, ...] = ("solid", "dashed", "dotted")
_RC: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "mm-agrae", "font.size": 9.0, "path.simplify": True}


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: `values[i]` at `steps[i]`, ascending; NaN leaves a gap. `colour` indexes the page's series colours."""

    label: str
    steps: Sequence[float]
    values: Sequence[float]
    colour: int
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One bar in every category; NaN leaves a gap, `low` and `high` are the ends of the error bars."""

    label: str
    values: Sequence[float]
    colour: int
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None


def line_chart(
    series: Sequence[Series],
    *,
    slug: str,
    title: str,
    fraction: bool = False,
    x_label: str = "step",
    y_label: str = "",
) -> str:
    """Curves over steps, each with its interval where it has one.

    Long series (SMOOTH_FROM points or more) are drawn thin, with a running mean over `smoothing_window` steps on top.

    Args:
        series: At least one.
        slug: Prefix of the ids inside the SVG; unique on the page.
        title: Accessible name, with the figures a reader would take from the picture.
        fraction: Fixes the axis to [0, 1].
        x_label: What `steps` are, with their unit.
        y_label: What the values are, with their unit; "" where the heading says it.

    Returns:
        An `<svg>` element without scripts, links or fixed size; the same bytes for the same input.
    """
    with matplotlib.rc_context(_RC):
        figure, axes = _empty()
        axes.set_xlabel(x_label, color=_INK)
        axes.set_ylabel(y_label, color=_INK)
        whole = all(float(step).is_integer() for one in series for step in one.steps)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=whole))
        for index, one in enumerate(series):
            colour, dash = _SERIES[one.colour % NUM_COLOURS], STROKES[index % len(STROKES)]
            window = smoothing_window(len(one.values))
            marker = "o" if len(one.values) <= 12 else None
            if window > 1:
                axes.plot(one.steps, one.values, color=colour, linewidth=0.7, alpha=0.35)
            axes.plot(
                one.steps,
                running_mean(one.values, window),
                linestyle=dash,
                color=colour,
                linewidth=1.7,
                marker=marker,
                ms=3.5,
            )
            if one.low is not None and one.high is not None:
                axes.fill_between(one.steps, one.low, one.high, color=colour, alpha=0.18, linewidth=0)
        if fraction:
            axes.set_ylim(-0.02, 1.02)
        return _svg(figure, slug, title)


def bar_chart(
    categories: Sequence[str],
    series: Sequence[Bars],
    *,
    slug: str,
    title: str,
    fraction: bool = False,
    value_label: str = "",
) -> str:
    """Horizontal bars, grouped by category: long names stay readable, and the chart grows with the number of bars.

    Args:
        categories: At least one name, the first on top.
        series: At least one; one value per category, drawn in order from the top of each group.
        slug: As in `line_chart`, as are `title` and `fraction` and the result.
        title: See there.
        fraction: See there.
        value_label: What the values are, with their unit.

    Raises:
        ValueError: If a series has not one value per category.
    """
    for one in series:
        if len(one.values) != len(categories):
            raise ValueError(
                f'bars "{one.label}" have {len(one.values)} values, but there are {len(categories)} categories: '
                "pass one value for each, NaN where there is none."
            )
    with matplotlib.rc_context(_RC):
        figure, axes = _empty(height=0.7 + len(categories) * (0.14 + 0.14 * len(series)))
        thickness = 0.8 / len(series)
        for index, one in enumerate(series):
            shown = [place for place, value in enumerate(one.values) if not math.isnan(value)]
            centres = [place - 0.4 + (index + 0.5) * thickness for place in shown]
            colour = _SERIES[one.colour % NUM_COLOURS]
            axes.barh(centres, [one.values[place] for place in shown], height=0.92 * thickness, color=colour)
            if one.low is not None and one.high is not None:
                ends = [one.low[place] for place in shown], [one.high[place] for place in shown]
                axes.hlines(centres, *ends, colors=_INK, linewidth=1.0)
        # A name may hold a dollar sign: it is text, not mathematics.
        axes.set_yticks(range(len(categories)), list(categories), parse_math=False)
        axes.set_ylim(len(categories) - 0.45, -0.55)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.grid(False, axis="y")
        axes.set_xlabel(value_label, color=_INK)
        if fraction:
            axes.set_xlim(0, 1.02)
        return _svg(figure, slug, title)


def stacked_chart(series: Sequence[Series], *, slug: str, title: str, fraction: bool = False) -> str:
    """Curves stacked on each other over common steps; arguments and result as `line_chart`, NaN counts as 0."""
    with matplotlib.rc_context(_RC):
        figure, axes = _empty()
        steps = list(series[0].steps)
        values = [[0.0 if math.isnan(value) else value for value in one.values] for one in series]
        if len(steps) == 1:
            # An area needs two points: a single step becomes a band one step wide.
            steps, values = [steps[0], steps[0] + 1], [row * 2 for row in values]
        colours = [_SERIES[one.colour % NUM_COLOURS] for one in series]
        axes.stackplot(steps, values, colors=colours, edgecolor=_PAPER, linewidth=0.6)
        axes.set_xlim(steps[0], steps[-1])
        axes.set_ylim(0, 1 if fraction else None)
        return _svg(figure, slug, title)


def smoothing_window(num_points: int) -> int:
    """Width of the running mean in points; 1 for series too short to need one."""
    return 1 if num_points < SMOOTH_FROM else max(3, num_points // 15 | 1)


def running_mean(values: Sequence[float], window: int) -> list[float]:
    """Mean over up to `window` points around each; NaNs are left out, and a point without neighbours is NaN."""
    half = window // 2
    around = [[v for v in values[max(0, i - half) : i + half + 1] if not math.isnan(v)] for i in range(len(values))]
    return [sum(near) / len(near) if near else math.nan for near in around]


def _empty(*, height: float = 2.5) -> tuple[Figure, Axes]:
    # A bare Figure, not pyplot: nothing global remembers it. The SVG canvas needs no display.
    figure = Figure(figsize=(4.6, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_INK)
    axes.tick_params(colors=_INK, labelcolor=_INK)
    axes.grid(True, color=_GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlabel("step", color=_INK)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    return figure, axes


def _svg(figure: Figure, slug: str, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawn = buffer.getvalue()
    view_box = re.search(r'viewBox="([^"]+)"', drawn)
    if view_box is None:
        raise RuntimeError("matplotlib drew an SVG without a viewBox.")
    body = drawn[drawn.index(">", view_box.start()) + 1 : drawn.rindex("</svg>")]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # Every figure counts its ids from 1, and a page holds many figures.
    body = re.sub(r'\bid="', f'id="{slug}-', body)
    body = body.replace("url(#", f"url(#{slug}-").replace('xlink:href="#', f'href="#{slug}-')
    body = body.replace(_INK, "currentColor").replace(_GRID, "var(--grid)").replace(_PAPER, "var(--card)")
    for index, colour in enumerate(_SERIES):
        body = body.replace(colour, f"var(--series-{index + 1})")
    name = escape(title, quote=True)
    return f'<svg viewBox="{view_box.group(1)}" role="img" aria-label="{name}"><title>{name}</title>{body}</svg>'
