"""The tables of a replay, for the page and for the log. Only words and layout; every number is made elsewhere."""

from __future__ import annotations

import math
from typing import Any

from mm_agrae.lab.replay.algorithms import REFERENCE
from mm_agrae.lab.replay.summary import GroupView, Opinion, Summary
from mm_agrae.report.page import Table

LONGEST_ANSWER = 60


def main_table(summary: Summary) -> Table:
    """One row per algorithm."""
    columns = ("Effective size", "C / n", "Flips", "Only here", f"Only {REFERENCE}", "Against flag", "Form share")
    return Table(
        headers=["Algorithm", *columns],
        rows=[
            [
                name,
                percent(one.effective_frac),
                signed(one.sum_per_rollout),
                percent(one.signs.flipped_frac),
                percent(one.signs.only_here_frac),
                percent(one.signs.only_there_frac),
                percent(one.against_flag_frac),
                percent(one.form_share),
            ]
            for name, one in summary.algorithms.items()
        ],
        caption=f"Signs are compared with {REFERENCE}.",
        numeric=range(1, 1 + len(columns)),
    )


def text_lines(table: Table) -> list[str]:
    """A table as lines of fixed columns, for the log."""
    rows = [[str(cell) for cell in row] for row in (table.headers, *table.rows)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.headers))]
    aligned = [
        [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        for row in rows
    ]
    return ["  ".join(row) for row in aligned]


def settings_table(summary: Summary) -> Table:
    """What the names of the algorithms stand for."""

    def bound(value: float | None) -> str:
        return "none" if value is None else f"{value:.4g}"

    def region(settings: Any) -> str:
        clip = f"{settings['trust_region']}, ε {bound(settings['clip_low'])} / {bound(settings['clip_high'])}"
        return clip + (" (ETR, reconstructed)" if settings["trust_region"] == "elastic" else "")

    def weighting(settings: Any) -> str:
        hadw = settings["hadw"]
        told = {
            "agrae": f"agrae (α {settings['agrae']['alpha']:g})",
            "hadw": f"hadw (λ {hadw['scale']:g}, anchor {hadw['anchor']})",
        }
        return ", then ".join(told.get(name, name) for name in settings["weighting"]) or "none"

    return Table(
        headers=["Algorithm", "Baseline", "Divided by std", "Weighting", "Trust region, low / high", "Long answers"],
        rows=[
            [
                name,
                one.settings["baseline"].replace("_", " "),
                one.settings["std"],
                weighting(one.settings),
                region(one.settings),
                one.settings["overlong"],
            ]
            for name, one in summary.algorithms.items()
        ],
        caption="The algorithms up to the loss. Every setting stands in replay.json.",
    )


def share_table(summary: Summary, kind: str) -> Table:
    """Share of Σ|A| in each bin of one kind, a column per algorithm."""
    bins, names = summary.kinds[kind], list(summary.algorithms)
    return Table(
        headers=[kind.capitalize(), "Rollouts", *names],
        rows=[
            [
                label,
                percent(bins.rollout_shares[place]),
                *(percent(summary.algorithms[name].weight_shares[kind][place]) for name in names),
            ]
            for place, label in enumerate(bins.names)
        ],
        caption=f"Share of Σ|A| by {kind} of the group.",
        numeric=range(1, 2 + len(names)),
    )


def form_table(summary: Summary) -> Table:
    """What the form moves, with the guard of equal flags and without."""
    columns = ("Form share", "Before weightings", "Without the guard", "Σ|A| of equal flags then")
    return Table(
        headers=["Algorithm", *columns],
        rows=[
            [
                name,
                percent(one.form_share),
                percent(one.base_form_share),
                percent(one.unguarded_form_share),
                percent(one.unguarded_equal_flag_share),
            ]
            for name, one in summary.algorithms.items()
        ],
        caption="The last two columns: the same baseline without the guard, before weightings; – where no rewards are "
        "compared.",
        numeric=range(1, 1 + len(columns)),
    )


def clip_table(summary: Summary) -> Table:
    """Room of the ratio by success rate."""
    labels = summary.kinds["success rate"].names
    return Table(
        headers=["Algorithm", *labels],
        rows=[
            [name, *(f"{_room(low)} / {_room(high)}" for low, high in zip(one.clip_low, one.clip_high, strict=True))]
            for name, one in summary.algorithms.items()
        ],
        caption="ε low / ε high by success rate of the group.",
        numeric=range(1, 1 + len(labels)),
    )


def advantage_table(view: GroupView) -> Table:
    """The rollouts of a group, and what each algorithm gives them."""
    names = list(view.opinions)
    return Table(
        headers=["Rollout", "Answer", "Verdict", "In form", "Tokens", "Reward", *names],
        rows=[
            [
                str(index + 1),
                "–" if (answer := view.answers[index]) is None else shortened(answer, LONGEST_ANSWER),
                view.verdicts[index],
                "yes" if view.formatted[index] else "no",
                str(view.lengths[index]),
                signed(view.rewards[index]).removeprefix("+"),
                *(signed(view.opinions[name].advantages[index]) for name in names),
            ]
            for index in range(len(view.verdicts))
        ],
        caption="Advantages.",
        numeric=range(4, 6 + len(names)),
    )


def bound_table(view: GroupView) -> Table:
    """The bound of the ratio that acts on each rollout."""
    names = list(view.opinions)
    return Table(
        headers=["Rollout", *names],
        rows=[
            [str(index + 1), *(_bound(view.opinions[name], index) for name in names)]
            for index in range(len(view.verdicts))
        ],
        caption="The bound of the ratio that acts on the rollout: from above where A > 0, from below where A < 0.",
        numeric=range(1, 1 + len(names)),
    )


def percent(value: float) -> str:
    """0.9414 -> "94.1 %"; what is there is never shown as nothing, and a dash stands for NaN."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return "0 %"
    return "< 0.1 %" if value < 0.001 else f"{100 * value:.1f} %"


def signed(value: float) -> str:
    """0.5 -> "+0.500", with a true minus sign; a dash for NaN."""
    # Sums of zero-sum groups leave rounding of 1e-9: shown as the 0 that they are.
    return "–" if math.isnan(value) else "0" if abs(value) < 5e-7 else f"{value:+.3f}".replace("-", "−")


def shortened(text: str, limit: int) -> str:
    """The text, or as much of its start as fits, with an ellipsis."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _bound(opinion: Opinion, index: int) -> str:
    advantage, low, high = opinion.advantages[index], opinion.low[index], opinion.high[index]
    if advantage > 0 and math.isfinite(high):
        return f"≤ {high:.4g}"
    return f"≥ {low:.4g}" if advantage < 0 and low > 0 else "–"


def _room(value: float) -> str:
    return "–" if not math.isfinite(value) or value == 1 else f"{value:.3g}"
