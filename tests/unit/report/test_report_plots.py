import math
import re
from xml.etree import ElementTree

import matplotlib
import pytest

from mm_agrae.metrics.catalogue import CATALOGUE
from mm_agrae.report.curves import PANELS, held_out_chart, panel_chart
from mm_agrae.report.plots import (
    SMOOTH_FROM,
    Bars,
    Series,
    bar_chart,
    line_chart,
    running_mean,
    smoothing_window,
    stacked_chart,
)
from mm_agrae.report.read import Evaluation, Interval, Scores


def series(values, colour=0, label="reward/mean"):
    return Series(label=label, steps=range(len(values)), values=values, colour=colour)


@pytest.mark.parametrize("draw", [line_chart, stacked_chart])
@pytest.mark.parametrize("values", [[0.5], [0.1, math.nan, 0.3], [0.0] * 100])
def test_charts_are_deterministic_well_formed_and_leave_no_trace(draw, values):
    before = dict(matplotlib.rcParams)
    first, second = (draw([series(values), series(values, 1)], slug="a", title="t") for _ in range(2))
    assert first == second
    assert ElementTree.fromstring(first).tag == "svg"
    assert dict(matplotlib.rcParams) == before
    assert "http" not in first
    assert "<script" not in first


def test_ids_of_two_charts_never_meet_and_every_reference_resolves():
    pages = [line_chart([series([0.1, 0.2])], slug=slug, title="t") for slug in ("one", "two")]
    ids = [set(re.findall(r'\bid="([^"]+)"', page)) for page in pages]
    assert not ids[0] & ids[1]
    for page, known in zip(pages, ids, strict=True):
        references = re.findall(r'(?:url\(#|href="#)([^")]+)', page)
        assert references
        assert set(references) <= known


def test_colours_come_from_the_page():
    page = line_chart([series([0.1, 0.2]), series([0.3, 0.4], 4)], slug="a", title="t")
    assert "var(--series-1)" in page
    assert "var(--series-5)" in page
    assert "var(--series-2)" not in page
    assert not re.findall(r"#0[ab]0\d0\d", page)


def test_title_is_escaped():
    page = line_chart([series([0.1, 0.2])], slug="a", title='<script>"&')
    assert ElementTree.fromstring(page).get("aria-label") == '<script>"&'


def texts(page):
    return [element.text for element in ElementTree.fromstring(page).iter("text")]


def test_axes_are_named_and_ticks_whole_only_for_whole_steps():
    steps = texts(line_chart([series([10.0, 20.0, 30.0, 40.0])], slug="a", title="t"))
    assert "step" in steps
    assert not [text for text in steps if "." in text]
    rates = Series(label="b", steps=[0.0, 1.5, 3.0], values=[10.0, 20.0, 30.0], colour=0)
    named = texts(line_chart([rates], slug="a", title="t", x_label="success rate", y_label="weight"))
    assert {"success rate", "weight"} < set(named)
    assert "step" not in named
    assert "0.6" in named


def test_bars_are_well_formed_grouped_and_carry_their_intervals():
    first = Bars(label="GRPO", values=[0.2, 0.4], colour=0, low=[0.1, 0.3], high=[0.3, 0.5])
    second = Bars(label="A-GRAE", values=[0.6, math.nan], colour=1)
    pages = [bar_chart(["a & b", "$x$"], [first, second], slug="a", title="t", value_label="pass@1") for _ in "ab"]
    assert pages[0] == pages[1]
    page = pages[0]
    assert ElementTree.fromstring(page).tag == "svg"
    assert {"a & b", "$x$", "pass@1"} < set(texts(page))
    assert "nan" not in page
    # Three bars that are there, and one missing.
    assert page.count("fill: var(--series-1)") == 2
    assert page.count("fill: var(--series-2)") == 1
    assert "LineCollection" in page
    assert "LineCollection" not in bar_chart(["a", "b"], [second], slug="a", title="t")
    assert not re.findall(r"#0[ab]0\d0\d", page)


def test_bars_without_a_value_for_every_category_are_refused():
    with pytest.raises(ValueError, match=r'bars "GRPO" have 1 values, but there are 2 categories'):
        bar_chart(["a", "b"], [Bars(label="GRPO", values=[0.2], colour=0)], slug="a", title="t")


def test_running_mean_by_hand():
    # Window 3: (1+2)/2, (1+2+6)/3, (2+6)/2; a NaN is left out of its neighbours' means.
    assert running_mean([1.0, 2.0, 6.0], 3) == [1.5, 3.0, 4.0]
    assert running_mean([1.0, math.nan, 5.0], 3) == [1.0, 3.0, 5.0]
    assert math.isnan(running_mean([math.nan], 3)[0])
    assert smoothing_window(SMOOTH_FROM - 1) == 1
    assert all(smoothing_window(count) % 2 == 1 for count in range(SMOOTH_FROM, 500))


def test_every_panel_draws_catalogued_metrics():
    keys = [key for panel in PANELS for key in panel.keys]
    assert set(keys) <= set(CATALOGUE)
    assert len(keys) == len(set(keys))


def test_panel_leaves_out_absent_metrics_and_steps_without_any():
    panel = next(panel for panel in PANELS if panel.title == "Completion length")
    metrics = {
        0: {"rollout/length_mean_tokens": 10.0}, 1: {"reward/mean": 1.0}, 2: {"rollout/length_mean_tokens": 20.0}
    }  # fmt: skip
    chart = panel_chart(panel, metrics)
    assert [entry.key for entry in chart.legend] == ["rollout/length_mean_tokens"]
    assert "10 at step 0, 20 at step 2" in chart.svg
    assert panel_chart(panel, {0: {"reward/mean": 1.0}}) is None
    assert panel_chart(panel, {}) is None


def test_stacked_legend_reads_from_the_top():
    panel = next(panel for panel in PANELS if panel.title == "Group mix")
    chart = panel_chart(panel, {0: dict.fromkeys(panel.keys, 1 / 3)})
    assert [entry.key for entry in chart.legend] == list(panel.keys)[::-1]


def test_held_out_curve_needs_two_evaluations_of_a_set():
    def at(step):
        figure = Interval(value=0.5, low=0.4, high=0.6)
        overall = Scores(num_problems=8, figures={"pass@1": figure})
        return Evaluation(name="s", step=step, num_samples=1, overall=overall, by_family={}, by_difficulty={})

    assert held_out_chart({"s": [at(0)]}) is None
    assert "0.5 at step 0, 0.5 at step 9" in held_out_chart({"s<b>": [at(0), at(9)]}).svg
