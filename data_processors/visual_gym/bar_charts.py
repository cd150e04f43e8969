"""Bar charts with labels: reading one bar, two bars, all bars, and groups of bars."""

from __future__ import annotations

import random
from collections.abc import Sequence

from data_processors.visual_gym.answers import Answer, integer
from data_processors.visual_gym.axes import (
    MIN_SIZE,
    NUM_BARS,
    SCALES,
    Axes,
    any_colour,
    distinct,
    listing,
    names,
    series_colour,
)
from data_processors.visual_gym.problem import Family, Problem, offer_choices

RANKS = ("highest", "lowest", "second highest", "second lowest")

Chart = tuple[tuple[str, ...], list[int], Axes]  # labels, values, the drawn chart


def _chart(rng: random.Random, difficulty: int, size: int) -> Chart:
    scale, labels = SCALES[difficulty - 1], names(rng, NUM_BARS[difficulty - 1])
    values = distinct(rng, scale, len(labels))
    axes = Axes(size, scale, labels)
    axes.bars(values, [any_colour(rng)] * len(values))
    return labels, values, axes


def _problem(
    question: str,
    answer: Answer,
    working: str,
    *,
    chart: Chart,
    asked: object,
    mistakes: Sequence[str] = (),
) -> Problem:
    labels, values, axes = chart
    return Problem(
        question=question,
        answer=answer,
        working=working,
        picture=axes.canvas.picture(),
        description=f"A bar chart shows: {listing(labels, values)}.",
        facts={"labels": list(labels), "values": list(values), "asked": asked},
        mistakes=tuple(mistakes),
    )


def value(rng: random.Random, difficulty: int, size: int) -> Problem:
    """One bar. Harder: more bars, wider steps, then values between the grid lines."""
    chart = _chart(rng, difficulty, size)
    labels, values, _ = chart
    asked = rng.randrange(len(labels))
    return _problem(
        f"What is the value of {labels[asked]}?",
        integer(values[asked]),
        f"The bar of {labels[asked]} reaches {values[asked]}.",
        chart=chart,
        asked=labels[asked],
    )


def difference(rng: random.Random, difficulty: int, size: int) -> Problem:
    """How much higher one bar is than another."""
    chart = _chart(rng, difficulty, size)
    labels, values, _ = chart
    low, high = sorted(rng.sample(range(len(labels)), 2), key=lambda index: values[index])
    gap = values[high] - values[low]
    return _problem(
        f"How much higher is {labels[high]} than {labels[low]}?",
        integer(gap),
        f"{values[high]} - {values[low]} = {gap}.",
        chart=chart,
        asked=[labels[high], labels[low]],
        mistakes=[str(values[high] + values[low]), str(values[high]), str(values[low])],
    )


def extremum(rng: random.Random, difficulty: int, size: int) -> Problem:
    """Which bar is the highest, the lowest, then the second of either; always a choice of four."""
    chart = _chart(rng, difficulty, size)
    labels, values, _ = chart
    rank = rng.choice(RANKS[:2] if difficulty <= 3 else RANKS[2:])
    order = sorted(range(len(labels)), key=lambda index: values[index])
    right = order[{"lowest": 0, "second lowest": 1, "second highest": -2, "highest": -1}[rank]]
    others = [labels[index] for index in order if index != right]
    # The nearest rivals stay among the options.
    others.sort(key=lambda label: abs(values[labels.index(label)] - values[right]))
    problem = _problem(
        f"Which bar is the {rank}?",
        Answer(labels[right], "text"),
        f"From low to high: {listing([labels[i] for i in order], [values[i] for i in order])}.",
        chart=chart,
        asked=rank,
    )
    return offer_choices(problem, rng, [labels[right], *others[:3]])


def total(rng: random.Random, difficulty: int, size: int) -> Problem:
    """The sum of all bars."""
    chart = _chart(rng, difficulty, size)
    _labels, values, _ = chart
    return _problem(
        "What is the sum of all values?",
        integer(sum(values)),
        f"{' + '.join(map(str, values))} = {sum(values)}.",
        chart=chart,
        asked="sum",
    )


def grouped(rng: random.Random, difficulty: int, size: int) -> Problem:
    """Groups of two or three bars: one bar, a gap in a group, the sum of a series, the group with the widest gap."""
    scale, places = SCALES[min(difficulty, 4) - 1], names(rng, (3, 4, 4, 4, 4)[difficulty - 1], ordered=True)
    series = ("North", "South", "East")[: 3 if difficulty in (2, 4) else 2]
    table = [distinct(rng, scale, len(series)) for _ in places]
    if difficulty == 5 and _widest(table).count(True) > 1:
        return grouped(rng, difficulty, size)
    axes = Axes(size, scale, places, legend=series)
    axes.groups(table, [[series_colour(k) for k in range(len(series))]] * len(places))
    place, one = rng.randrange(len(places)), rng.randrange(len(series))
    if difficulty <= 2:
        question, answer = f"What is the value of {series[one]} at {places[place]}?", integer(table[place][one])
        working = f"The bar of {series[one]} at {places[place]} reaches {table[place][one]}."
    elif difficulty == 3:
        high, low = max(table[place]), min(table[place])
        question, answer = f"What is the difference between North and South at {places[place]}?", integer(high - low)
        working = f"{high} - {low} = {high - low}."
    elif difficulty == 4:
        column = [row[one] for row in table]
        question, answer = f"What is the sum of all values of {series[one]}?", integer(sum(column))
        working = f"{' + '.join(map(str, column))} = {sum(column)}."
    else:
        question = "Where is the difference between North and South largest?"
        answer = Answer(places[_widest(table).index(True)], "text")
        gaps = [abs(a - b) for a, b in table]
        working = f"The differences are {listing(places, gaps)}."
    problem = Problem(
        question=question,
        answer=answer,
        working=working,
        picture=axes.canvas.picture(),
        description="A bar chart shows: "
        + "; ".join(f"{name}: {listing(places, [row[k] for row in table])}" for k, name in enumerate(series))
        + ".",
        facts={"places": list(places), "series": list(series), "table": table},
    )
    return offer_choices(problem, rng, places) if difficulty == 5 else problem


def _widest(table: Sequence[Sequence[int]]) -> list[bool]:
    gaps = [max(row) - min(row) for row in table]
    return [gap == max(gaps) for gap in gaps]


FAMILIES = {
    "charts/bar_value": Family(make=value, min_size=MIN_SIZE),
    "charts/bar_difference": Family(make=difference, min_size=MIN_SIZE),
    "charts/bar_extremum": Family(make=extremum, min_size=MIN_SIZE),
    "charts/bar_total": Family(make=total, min_size=MIN_SIZE),
    "charts/grouped_bars": Family(make=grouped, min_size=MIN_SIZE),
}
