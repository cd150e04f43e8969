"""Line charts: one value, the change between two places, and where the line rises or falls most."""

from __future__ import annotations

import random
from itertools import pairwise

from data_processors.visual_gym.answers import Answer, integer
from data_processors.visual_gym.axes import MIN_SIZE, NUM_BARS, SCALES, Axes, any_colour, listing, names
from data_processors.visual_gym.problem import Family, Problem, offer_choices


def _chart(rng: random.Random, difficulty: int, size: int) -> tuple[tuple[str, ...], list[int], Axes]:
    scale, places = SCALES[difficulty - 1], names(rng, NUM_BARS[difficulty - 1], ordered=True)
    values = scale.values(rng, len(places))
    axes = Axes(size, scale, places)
    axes.curve(values, any_colour(rng))
    return places, values, axes


def value(rng: random.Random, difficulty: int, size: int) -> Problem:
    """One value; from level 4 on the change between two places, with its sign."""
    places, values, axes = _chart(rng, difficulty, size)
    first, second = sorted(rng.sample(range(len(places)), 2))
    if difficulty <= 3:
        question, answer = f"What is the value at {places[first]}?", integer(values[first])
        working, asked = f"The point above {places[first]} is at {values[first]}.", [places[first]]
    else:
        change = values[second] - values[first]
        question = f"By how much does the value change from {places[first]} to {places[second]}? A fall is negative."
        answer, asked = integer(change), [places[first], places[second]]
        working = f"{values[second]} - {values[first]} = {change}."
    return Problem(
        question=question,
        answer=answer,
        working=working,
        picture=axes.canvas.picture(),
        description=f"A line chart shows: {listing(places, values)}.",
        facts={"labels": list(places), "values": values, "asked": asked},
    )


def trend(rng: random.Random, difficulty: int, size: int) -> Problem:
    """Between which neighbours the line rises or falls most, or (level 1 and 2) how often it rises."""
    places, values, axes = _chart(rng, difficulty, size)
    steps = [after - before for before, after in pairwise(values)]
    rises = rng.random() < 0.5
    description = f"A line chart shows: {listing(places, values)}."
    facts = {"labels": list(places), "values": values, "rises": rises}
    word = "rise" if rises else "fall"
    if difficulty <= 2:
        count = sum(step > 0 if rises else step < 0 for step in steps)
        return Problem(
            question=f"How many times does the line {word} from one point to the next?",
            answer=integer(count),
            working=f"The changes are {', '.join(f'{step:+d}' for step in steps)}: {count} times.",
            picture=axes.canvas.picture(),
            description=description,
            facts=facts,
        )
    best = max(steps) if rises else min(steps)
    if steps.count(best) > 1 or (best > 0) != rises or best == 0:
        return trend(rng, difficulty, size)
    spans = [f"{a} to {b}" for a, b in pairwise(places)]
    right = spans[steps.index(best)]
    others = sorted((s for s in range(len(spans)) if spans[s] != right), key=lambda s: abs(steps[s] - best))
    problem = Problem(
        question=f"Where does the line {word} most?",
        answer=Answer(right, "text"),
        working=f"The changes are {', '.join(f'{span}: {step:+d}' for span, step in zip(spans, steps, strict=True))}.",
        picture=axes.canvas.picture(),
        description=description,
        facts=facts,
    )
    return offer_choices(problem, rng, [right, *(spans[s] for s in others[:3])])


FAMILIES = {
    "charts/line_value": Family(make=value, min_size=MIN_SIZE),
    "charts/line_trend": Family(make=trend, min_size=MIN_SIZE),
}
