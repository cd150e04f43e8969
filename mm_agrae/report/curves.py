"""Which curves a report shows, from which metrics. A metric that a run did not log is left out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mm_agrae.metrics.catalogue import lookup
from mm_agrae.report.plots import STROKES, Series, Stroke, line_chart, smoothing_window, stacked_chart
from mm_agrae.report.read import Evaluation, Run


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One chart to draw: its metrics with their colours."""

    title: str
    keys: Mapping[str, int]
    stacked: bool = False
    fraction: bool = False


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """What one colour and stroke stand for; `colour` counts from 1 as in the style sheet."""

    colour: int
    drawn: Stroke | Literal["area"]
    key: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One drawn chart with its legend; `note` says how it is drawn where that is not plain."""

    title: str
    svg: str
    legend: tuple[LegendEntry, ...]
    note: str


STEP_PHASES = {
    "time/rollout_s": 0,
    "time/update_s": 1,
    "time/old_logprobs_s": 2,
    "time/verify_s": 3,
    "time/sync_s": 4,
}
# Their rare spikes would flatten every other phase in the chart; the table of totals has them.
PHASES = {**STEP_PHASES, "time/evaluate_s": 5, "time/checkpoint_s": 6}
PANELS = (
    Panel(title="Reward", keys={"reward/mean": 0}),
    Panel(
        title="Correct and well-formed", keys={"reward/batch_accuracy": 2, "reward/formatted_frac": 0}, fraction=True
    ),
    Panel(
        title="Group mix",
        keys={"group/all_correct_frac": 2, "group/mixed_frac": 0, "group/all_wrong_frac": 1},
        stacked=True,
        fraction=True,
    ),
    Panel(title="Entropy", keys={"policy/entropy_nats": 0}),
    Panel(title="Completion length", keys={"rollout/length_mean_tokens": 0, "rollout/length_max_tokens": 1}),
    Panel(title="Truncated and unparsed", keys={"rollout/truncated_frac": 1, "verify/unparsed_frac": 3}),
    Panel(title="Advantage", keys={"advantage/sum_per_rollout": 0, "advantage/abs_mean": 1}),
    Panel(title="Clipped tokens", keys={"policy/clip_low_frac": 0, "policy/clip_high_frac": 1}),
    Panel(title="Gradient norm", keys={"policy/grad_norm": 0}),
    Panel(
        title="Gap between engine and trainer",
        keys={"rollout/logprob_gap_mean_nats": 0, "rollout/logprob_gap_max_nats": 1},
    ),
    Panel(title="Divergence from the reference", keys={"policy/kl_nats": 0}),
    Panel(title="Seconds per phase of a step", keys=STEP_PHASES, stacked=True),
    Panel(title="Tokens per second", keys={"throughput/rollout_tokens_per_s": 0, "throughput/update_tokens_per_s": 1}),
    Panel(title="Warm start: loss", keys={"sft/loss_nats": 0}),
)


def charts(run: Run) -> tuple[Chart, ...]:
    """All charts that the run has data for: held-out accuracy first, then one per panel."""
    drawn = [held_out_chart(run.evaluations), *(panel_chart(panel, run.metrics) for panel in PANELS)]
    return tuple(chart for chart in drawn if chart is not None)


def panel_chart(panel: Panel, metrics: Mapping[int, Mapping[str, float]]) -> Chart | None:
    """The chart of one panel; None when none of its metrics was logged."""
    keys = [key for key in panel.keys if any(key in line for line in metrics.values())]
    # Only steps that know one of the metrics: a line that holds an evaluation alone would cut the curve.
    steps = [step for step, line in metrics.items() if any(key in line for key in keys)]
    if not steps:
        return None
    series = [
        Series(
            label=key,
            steps=steps,
            values=[metrics[step].get(key, math.nan) for step in steps],
            colour=panel.keys[key],
        )
        for key in keys
    ]
    draw = stacked_chart if panel.stacked else line_chart
    window = 1 if panel.stacked else smoothing_window(len(steps))
    return Chart(
        title=panel.title,
        svg=draw(series, slug=_slug(panel.title), title=_spoken(panel.title, series), fraction=panel.fraction),
        # A stack is read from the top down.
        legend=_legend(keys, panel)[:: -1 if panel.stacked else 1],
        note=f"Thin: each step. Thick: mean over {window} steps." if window > 1 else "",
    )


def held_out_chart(evaluations: Mapping[str, Sequence[Evaluation]]) -> Chart | None:
    """Accuracy on held-out problems with its interval; None unless a set was evaluated twice."""
    series = []
    for index, (name, found) in enumerate(evaluations.items()):
        scored = [(one.step, one.overall.figures[key]) for one in found if (key := primary_figure(one)) is not None]
        if len(scored) > 1:
            series.append(
                Series(
                    label=name,
                    steps=[step for step, _ in scored],
                    values=[figure.value for _, figure in scored],
                    low=[figure.low for _, figure in scored],
                    high=[figure.high for _, figure in scored],
                    colour=index,
                )
            )
    if not series:
        return None
    return Chart(
        title="Held-out accuracy",
        svg=line_chart(series, slug="held-out", title=_spoken("Held-out accuracy", series), fraction=True),
        legend=tuple(
            LegendEntry(
                colour=one.colour + 1,
                drawn=STROKES[index % len(STROKES)],
                key=one.label,
                meaning="accuracy of one sampled completion",
            )
            for index, one in enumerate(series)
        ),
        note="Band: 95 % interval over problems.",
    )


def primary_figure(evaluation: Evaluation) -> str | None:
    """The figure that stands for sampled accuracy: pass@1, else the first avg@n (its equal), else none."""
    figures = evaluation.overall.figures
    return "pass@1" if "pass@1" in figures else next((name for name in figures if name.startswith("avg@")), None)


def _legend(keys: Sequence[str], panel: Panel) -> tuple[LegendEntry, ...]:
    entries = []
    for index, key in enumerate(keys):
        metric = lookup(key)
        unit = f" ({metric.unit})" if metric.unit and metric.unit != "fraction" else ""
        entries.append(
            LegendEntry(
                colour=panel.keys[key] + 1,
                drawn="area" if panel.stacked else STROKES[index % len(STROKES)],
                key=key,
                meaning=metric.meaning + unit,
            )
        )
    return tuple(entries)


def _slug(title: str) -> str:
    return "-".join(word.strip(":").lower() for word in title.split())


def _spoken(title: str, series: Sequence[Series]) -> str:
    """The chart in words: where each curve starts and ends."""
    parts = []
    for one in series:
        known = [(s, v) for s, v in zip(one.steps, one.values, strict=True) if not math.isnan(v)]
        (first, start), (last, end) = known[0], known[-1]
        parts.append(f"{one.label} {start:.3g} at step {first}, {end:.3g} at step {last}")
    return f"{title} by step: " + "; ".join(parts)
