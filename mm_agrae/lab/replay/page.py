"""The page of a replay: what the tables and charts mean, in words."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mm_agrae.lab.replay.algorithms import REFERENCE
from mm_agrae.lab.replay.summary import MEANINGS, Summary
from mm_agrae.lab.replay.tables import (
    advantage_table,
    bound_table,
    clip_table,
    form_table,
    main_table,
    settings_table,
    share_table,
    shortened,
)
from mm_agrae.report.page import Chart, Section, legend_of
from mm_agrae.report.plots import Bars, Series, bar_chart, line_chart

# Beyond rounding: advantages are logged with all their digits.
SAME_ADVANTAGE = 1e-5
LONGEST_QUESTION = 600
GREY = 7  # of the page's series colours


def lead(summary: Summary) -> str:
    """What was replayed, in a sentence."""
    return (
        f"{summary.num_groups * summary.group_size} recorded rollouts ({summary.num_groups} groups of "
        f"{summary.group_size}, {len(summary.steps)} steps) through {len(summary.algorithms)} algorithms side by side. "
        "No model was run."
    )


def sections(summary: Summary) -> list[Section]:
    """The page's sections, the groups last and collapsed."""
    found = [
        _read_section(summary),
        _main_section(summary),
        _weight_section(summary),
        _sum_section(summary),
        _form_section(summary),
        _clip_section(summary),
    ]
    if any(one.anchor_by_step is not None for one in summary.algorithms.values()):
        found.append(_anchor_section(summary))
    return [*found, *_group_sections(summary)]


def _read_section(summary: Summary) -> Section:
    paragraphs = [
        "The figures show what each algorithm makes of the rollouts that were recorded. What the policy would have "
        "become under it, and so what it would have sampled later, is not in them.",
        "An advantage multiplies the gradient of every token of its rollout. The figures are of the advantages alone: "
        "the ratio, its clipping and the aggregation over tokens come after them.",
        *summary.notes,
    ]
    if summary.num_unscored:
        paragraphs.append(
            f"{summary.num_unscored} rollouts have no reward: they get advantage 0 and count in no figure."
        )
    if summary.recorded_difference is not None:
        paragraphs.append(_check(summary.recorded_difference))
    return Section(title="What was replayed", paragraphs=paragraphs, tables=[settings_table(summary)])


def _check(difference: float) -> str:
    """What it means that the run's own algorithm, replayed, is so far from what was recorded."""
    if difference <= SAME_ADVANTAGE:
        within = f"to within {difference:.1g}" if difference else "exactly"
        return f"Check: the run's own algorithm, replayed, gives the advantages in the log {within}."
    return (
        f"The run's own algorithm, replayed, differs from the advantages in the log by up to {difference:.3g}: the log "
        "does not hold all that the run saw, or another version wrote it."
    )


def _main_section(summary: Summary) -> Section:
    told = (
        ("Effective size", "effective_frac"),
        ("C / n", "sum_per_rollout"),
        ("Flips", "flipped_frac"),
        ("Only here", "only_here_frac"),
        (f"Only {REFERENCE}", "only_there_frac"),
        ("Against flag", "against_flag_frac"),
        ("Form share", "form_share"),
    )
    return Section(
        title="Side by side",
        paragraphs=[f"{title}: {MEANINGS[key]}." for title, key in told],
        tables=[main_table(summary)],
    )


def _weight_section(summary: Summary) -> Section:
    charts = []
    for kind in [kind for kind in summary.kinds if kind != "family"]:
        bins = summary.kinds[kind]
        shares = _distinct({name: one.weight_shares[kind] for name, one in summary.algorithms.items()})
        series = [Bars(label="rollouts", values=bins.rollout_shares, colour=GREY)]
        series += [Bars(label=label, values=values, colour=index) for index, (label, values) in enumerate(shares)]
        title = f"Share of Σ|A| by {kind}"
        drawn = bar_chart(bins.names, series, slug=f"share-{kind.split()[0]}", title=title)
        charts.append(Chart(svg=drawn, caption="", title=title, legend=legend_of(series)))
    return Section(
        title="Where the weight goes",
        paragraphs=[
            "The share of the whole weight Σ|A| that groups of each kind get, beside their share of the rollouts. The "
            "success rate is that of the group in its step.",
        ],
        tables=[share_table(summary, kind) for kind in summary.kinds],
        charts=charts,
    )


def _sum_section(summary: Summary) -> Section:
    sums = _distinct({name: one.sum_per_rollout_by_step for name, one in summary.algorithms.items()})
    series = [
        Series(label=label, steps=summary.steps, values=values, colour=index)
        for index, (label, values) in enumerate(sums)
    ]
    return Section(
        title="Sum of the advantages",
        paragraphs=[
            "In a softmax over whole answers the logit of an answer b that was not sampled moves by −η · C · π(b) with "
            "C = ΣA: up where C < 0, down where C > 0, and not at all for the zero sum of group-relative advantages.",
        ],
        charts=[_trace(series, "C / n by step", "sum")],
    )


def _form_section(summary: Summary) -> Section:
    size, figures = summary.group_size, summary.algorithms.values()
    series = [
        Bars(label="as here, before weightings", values=[one.base_form_share for one in figures], colour=0),
        Bars(label="without the guard", values=[one.unguarded_form_share for one in figures], colour=1),
    ]
    title = "Part of ΣA² that correctness does not explain"
    drawn = bar_chart(list(summary.algorithms), series, slug="form", title=title, fraction=True)
    return Section(
        title="What the form alone moves",
        paragraphs=[
            "A reward of correctness and form can differ inside a group whose rollouts are all correct or all wrong. "
            "Dividing by the standard deviation of the group blows such a difference up, whatever its size: with k of "
            "G rollouts in the form that was asked for, those get +sqrt((G − k) / k) and the others "
            "−sqrt(k / (G − k)), although none was more right than another. Half of the group in the form gives ±1; "
            f"with the standard deviation over G − 1 it is ±{math.sqrt((size - 1) / size):.3f} for G = {size}.",
            "Here such a group gets 0: equal flags have nothing to tell. An implementation that compares rewards alone "
            f"has no such guard. In this log {summary.equal_flag_groups} of {summary.num_groups} groups have equal "
            f"flags, and in {summary.told_apart_by_form} of these the rewards differ all the same.",
        ],
        tables=[form_table(summary)],
        charts=[Chart(svg=drawn, caption="", title=title, legend=legend_of(series))],
    )


def _clip_section(summary: Summary) -> Section:
    return Section(
        title="Room before clipping",
        paragraphs=[
            "How far the ratio may fall where A < 0 (ε low), and rise where A > 0 (ε high), on average over the "
            "rollouts that the bound can act on. Bounds act from the second update of a rollout on: at ratio 1 there "
            "is nothing to clip. – stands for no such rollout, or no bound.",
        ],
        tables=[clip_table(summary)],
    )


def _anchor_section(summary: Summary) -> Section:
    known = {name: one.anchor_by_step for name, one in summary.algorithms.items() if one.anchor_by_step is not None}
    series = [Series(label="batch accuracy", steps=summary.steps, values=summary.batch_accuracy, colour=GREY)]
    series += [
        Series(label=f"C of {label}", steps=summary.steps, values=values, colour=index)
        for index, (label, values) in enumerate(_distinct(known))
    ]
    return Section(
        title="Anchor",
        paragraphs=["HA-DW compares each group with C, what earlier steps let one expect; the first step is its own."],
        charts=[_trace(series, "Anchor and batch accuracy by step", "anchor")],
    )


def _group_sections(summary: Summary) -> list[Section]:
    if not summary.groups:
        return [Section(title="Groups", paragraphs=["No group is shown: none was asked for, or none is judged apart."])]
    intro = Section(
        title="Groups judged most differently",
        paragraphs=[
            "By the standard deviation of a rollout's advantage over the algorithms, each scaled to mean |A| = 1, on "
            "average over the group. Groups of the same rewards are one case, and every case comes once before any "
            "comes again.",
        ],
    )
    shown = [
        Section(
            title=f"Group {number}: step {view.step}, {view.verdicts.count('correct')} of {len(view.verdicts)} correct",
            paragraphs=[
                f"Question: {shortened(view.question, LONGEST_QUESTION)}",
                f"Target: {shortened(view.target, LONGEST_QUESTION)}",
                f"{view.sample_id}, family {view.family or 'none'}, "
                f"difficulty {'none' if view.difficulty is None else view.difficulty}. "
                f"Disagreement {view.disagreement:.3g}.",
            ],
            tables=[advantage_table(view), bound_table(view)],
            collapsed=True,
        )
        for number, view in enumerate(summary.groups, start=1)
    ]
    return [intro, *shown]


def _distinct(curves: Mapping[str, Sequence[float]]) -> list[tuple[str, Sequence[float]]]:
    """(names, values), algorithms with the same values together: their curves would hide each other."""
    found: list[tuple[str, Sequence[float]]] = []
    for name, values in curves.items():
        twin = next((index for index, (_, known) in enumerate(found) if _same(known, values)), None)
        if twin is None:
            found.append((name, values))
        else:
            found[twin] = (f"{found[twin][0]}, {name}", values)
    return found


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = zip(one, other, strict=True)
    return all(math.isclose(a, b, abs_tol=1e-6) or (math.isnan(a) and math.isnan(b)) for a, b in pairs)


def _trace(series: Sequence[Series], title: str, slug: str) -> Chart:
    return Chart(svg=line_chart(series, slug=slug, title=title), caption="", title=title, legend=legend_of(series))
