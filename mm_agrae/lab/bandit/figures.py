"""What the softmax bandit showed: figures over seeds, and how they compare with what the papers report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mm_agrae.lab.bandit.run import COLLAPSED, CONTESTANTS, PASS_K, Contestant, Measured, make_world, run_bandit
from mm_agrae.lab.seed_statistics import Estimate, estimate
from mm_agrae.report.page import Badge, Chart, Table, legend_of
from mm_agrae.report.plots import Series, line_chart

REFERENCE = "GRPO"
# Field of `Measured` -> heading.
FIGURES = {
    "pass_1": "pass@1",
    "pass_k": f"pass@{PASS_K}",
    "entropy": "entropy, nats",
    "discovered": "discovered",
    "unseen": "unseen correct mass",
    "collapsed": "collapsed",
}
DECIMALS = {"unseen": 6, "steps": 1}
CHARTED = ("pass_1", "pass_k", "entropy", "discovered")


@dataclass(frozen=True)
class Expectation:
    """What a source leads one to expect: `figure` of `method` above (sign +1) or below (-1) that of `other`."""

    source: str
    method: str
    figure: str
    sign: int
    other: str = REFERENCE


EXPECTATIONS = (
    Expectation("T1", "positive dominance", "discovered", -1),
    Expectation("T1", "positive dominance", "entropy", -1),
    Expectation("T1", "negative dominance", "discovered", +1),
    Expectation("T1", "negative dominance", "entropy", +1),
    Expectation("A-GRAE paper", "negative dominance", "collapsed", +1),
    Expectation("A-GRAE paper", "A-GRAE, α = 1", "pass_1", +1),
    Expectation("A-GRAE paper", "A-GRAE, α = 1", "pass_k", +1),
    Expectation("A-GRAE paper", "A-GRAE, α = 0.5", "pass_1", +1),
    Expectation("A-GRAE paper", "A-GRAE, α = 0.5", "pass_k", +1),
    Expectation("A-GRAE paper", "sample level only", "pass_1", +1),
    Expectation("A-GRAE paper", "group level only, α = 1", "pass_k", +1),
    Expectation("HA-DW paper", "HA-DW", "pass_1", +1),
    Expectation("ETR paper, of another form", "ETR (reconstructed), 4 updates", "pass_1", +1, "GRPO, 4 updates"),
    Expectation("ETR paper, of another form", "ETR (reconstructed), 4 updates", "entropy", +1, "GRPO, 4 updates"),
)


@dataclass(frozen=True)
class Race:
    """Contestant -> steps taken -> measurements, all on the same worlds and random numbers."""

    courses: Mapping[str, Mapping[int, Measured]]

    def last(self, name: str, figure: str) -> list[float]:
        """The figure at the end, one per seed."""
        course = self.courses[name]
        return values_of(course[max(course)], figure)

    def final(self, name: str, figure: str) -> Estimate:
        """Mean over seeds at the end."""
        return estimate(self.last(name, figure))

    def difference(self, name: str, figure: str, other: str) -> Estimate:
        """Mean over seeds of this minus the other, at the end, seed by seed."""
        pairs = zip(self.last(name, figure), self.last(other, figure), strict=True)
        return estimate([mine - theirs for mine, theirs in pairs])


def run_race(
    *, seed: int, num_seeds: int, num_steps: int, equal_weight: bool, contestants: Sequence[Contestant] = CONTESTANTS
) -> Race:
    """Every contestant on the same `num_seeds` worlds; `equal_weight` as in `run_bandit`."""
    world = make_world(seed=seed, num_seeds=num_seeds)
    return Race(
        {
            one.name: run_bandit(one, world, seed=seed, num_steps=num_steps, equal_weight=equal_weight)
            for one in contestants
        }
    )


def values_of(measured: Measured, figure: str) -> list[float]:
    """One figure of a measurement, one per seed."""
    values: dict[str, Tensor] = vars(measured)
    return values[figure].tolist()


def outcome(race: Race, expected: Expectation) -> str:
    """In words, whether the 95 % interval of the difference at the end excludes 0, and on which side it lies."""
    found = race.difference(expected.method, expected.figure, expected.other)
    if found.half_width is None:
        return "one seed: no interval"
    if found.mean == 0 == found.half_width:
        return "equal"
    if not found.excludes_zero:
        return "not separated"
    return "as expected" if found.mean * expected.sign > 0 else "opposite"


def written(found: Estimate, figure: str, *, signed: bool = False) -> str:
    """ "0.953 ± 0.012"; the figure sets the decimals, and a difference shows its sign."""
    decimals = DECIMALS.get(figure, 3)
    # Adding 0 takes the sign off what rounds to -0.
    mean = f"{round(found.mean, decimals) + 0.0:{'+' if signed else ''}.{decimals}f}".replace("-", "\u2212")
    return mean if found.half_width is None else f"{mean} ± {found.half_width:.{decimals}f}"


def final_table(race: Race, *, caption: str) -> Table:
    """Figures at the end, one row per method."""
    rows = [(name, *(written(race.final(name, figure), figure) for figure in FIGURES)) for name in race.courses]
    return Table(("Method", *FIGURES.values()), rows, caption=caption, numeric=range(1, 1 + len(FIGURES)))


def difference_table(race: Race, *, caption: str) -> Table:
    """Paired differences at the end; in bold letters of a badge where the interval excludes 0."""

    def cell(name: str, figure: str) -> str | Badge:
        found = race.difference(name, figure, REFERENCE)
        text = written(found, figure, signed=True)
        return Badge(text) if found.excludes_zero else text

    names = [name for name in race.courses if name != REFERENCE]
    rows = [(name, *(cell(name, figure) for figure in FIGURES)) for name in names]
    return Table((f"Minus {REFERENCE}", *FIGURES.values()), rows, caption=caption, numeric=range(1, 1 + len(FIGURES)))


def expectation_table(plain: Race, leveled: Race) -> Table:
    """What the sources lead one to expect against what came out, in both races."""
    kinds = {"as expected": "good", "opposite": "bad"}
    rows = []
    for expected in EXPECTATIONS:
        side = "above" if expected.sign > 0 else "below"
        name = f"{FIGURES[expected.figure]}: {expected.method} {side} {expected.other}"
        row: list[str | Badge] = [name, expected.source]
        for race in (plain, leveled):
            found = outcome(race, expected)
            difference = race.difference(expected.method, expected.figure, expected.other)
            row.append(written(difference, expected.figure, signed=True))
            row.append(Badge(found, kinds.get(found, "neutral")))  # type: ignore[arg-type]
        rows.append(row)
    headers = ("Expected", "From", "Same rate", "Outcome", "Equal weight", "Outcome")
    return Table(headers, rows, caption="Differences at the end, mean ± 95 % t-interval over seeds", numeric={2, 4})


def findings(plain: Race, leveled: Race) -> list[str]:
    """The results in sentences, written from the numbers."""
    # Four updates go further than one: those two methods are compared with each other only.
    single = [one.name for one in CONTESTANTS if one.num_updates == 1 and one.name in plain.courses]
    sentences = []
    for race, mode in ((plain, "With the same learning rate"), (leveled, "With equal weight")):
        parts = []
        for figure in ("pass_1", "pass_k", "discovered"):
            ranked = sorted(single, key=lambda one: race.final(one, figure).mean)
            best, worst = (f"{name} ({race.final(name, figure).mean:.3f})" for name in (ranked[-1], ranked[0]))
            parts.append(f"{FIGURES[figure]} ends highest with {best} and lowest with {worst}")
        outcomes = [outcome(race, expected) for expected in EXPECTATIONS]
        counts = ", ".join(f"{outcomes.count(kind)} {kind}" for kind in sorted(set(outcomes)))
        sentences.append(f"{mode} and one update, {'; '.join(parts)}. Of {len(outcomes)} expected orderings: {counts}.")
    fallen = [
        name for name in plain.courses if max(plain.last(name, "collapsed") + leveled.last(name, "collapsed")) > 0
    ]
    sentences.append(
        f"Some prompts collapsed (more than {COLLAPSED} on one wrong trajectory) with: {', '.join(fallen)}."
        if fallen
        else f"No prompt of any method collapsed (more than {COLLAPSED} on one wrong trajectory) at the end."
    )
    return sentences


def charts(race: Race, *, slug: str, num_updates: Sequence[int]) -> list[Chart]:
    """Means over seeds along training: one chart per figure and number of updates per rollout."""
    drawn = []
    for number in num_updates:
        members = [one for one in CONTESTANTS if one.num_updates == number and one.name in race.courses]
        heading = "one update per rollout" if number == 1 else f"{number} updates per rollout"
        # Bands of many methods would hide each other.
        banded = len(members) < 4
        for figure in CHARTED:
            series = [_series(race, one.name, figure, index, banded=banded) for index, one in enumerate(members)]
            ends = ", ".join(f"{one.label} {one.values[-1]:.3f}" for one in series)
            drawn.append(
                Chart(
                    line_chart(
                        series,
                        slug=f"{slug}-{figure.replace('_', '-')}-{number}",
                        title=f"{FIGURES[figure]}, {heading}, at the end: {ends}",
                        fraction=figure != "entropy",
                    ),
                    "Mean over seeds" + (", band: 95 % t-interval." if banded else "."),
                    title=f"{FIGURES[figure]}, {heading}",
                    legend=legend_of(series),
                )
            )
    return drawn


def _series(race: Race, name: str, figure: str, colour: int, *, banded: bool) -> Series:
    course = race.courses[name]
    found = [estimate(values_of(measured, figure)) for measured in course.values()]
    half_widths = [one.half_width or 0.0 for one in found]
    return Series(
        label=name,
        steps=list(course),
        values=[one.mean for one in found],
        colour=colour,
        low=[one.mean - half for one, half in zip(found, half_widths, strict=True)] if banded else None,
        high=[one.mean + half for one, half in zip(found, half_widths, strict=True)] if banded else None,
    )


def race_json(race: Race) -> dict[str, Any]:
    """JSON values: per method the final figures per seed, means with half-widths, differences and mean courses."""
    return {
        name: {
            "final": {figure: _estimate_json(race.final(name, figure)) for figure in FIGURES},
            f"minus {REFERENCE}": {
                figure: _estimate_json(race.difference(name, figure, REFERENCE)) for figure in FIGURES
            },
            "final_by_seed": {figure: race.last(name, figure) for figure in FIGURES},
            "mean_by_step": {
                figure: {str(step): estimate(values_of(measured, figure)).mean for step, measured in course.items()}
                for figure in FIGURES
            },
        }
        for name, course in race.courses.items()
    }


def expectations_json(plain: Race, leveled: Race) -> list[dict[str, Any]]:
    """JSON values of `expectation_table`."""
    return [
        {
            "source": one.source,
            "method": one.method,
            "figure": one.figure,
            "expected": "above" if one.sign > 0 else "below",
            "other": one.other,
        }
        | {
            mode: _estimate_json(race.difference(one.method, one.figure, one.other)) | {"outcome": outcome(race, one)}
            for mode, race in (("same_rate", plain), ("equal_weight", leveled))
        }
        for one in EXPECTATIONS
    ]


def _estimate_json(found: Estimate) -> dict[str, Any]:
    return {"mean": found.mean, "half_width": found.half_width}
