"""Pie charts and tables."""

from __future__ import annotations

import random
from fractions import Fraction
from math import cos, pi, sin

from PIL import Image

from data_processors.visual_gym.answers import decimal, integer, rational
from data_processors.visual_gym.axes import MIN_SIZE, TEXT, listing, names
from data_processors.visual_gym.drawing import COLOURS, FAINT, INK, MUTED, WHITE, Canvas, Colour
from data_processors.visual_gym.problem import Family, Problem

SLICE_COLOURS: tuple[Colour, ...] = tuple(
    COLOURS[name] for name in ("blue", "orange", "green", "purple", "red", "grey")
)


# --- pie charts -------------------------------------------------------------------------------------------------------


def pie_share(rng: random.Random, difficulty: int, size: int) -> Problem:
    """A missing share, an amount, an angle, a fraction, and the whole from a part. Harder ones have more slices."""
    labels = names(rng, (3, 4, 4, 5, 5)[difficulty - 1])
    shares = _percentages(rng, len(labels))
    asked = rng.randrange(len(labels))
    shown = [f"{share}%" for share in shares]
    name, share = labels[asked], shares[asked]
    whole = 20 * rng.randint(2, 20)
    mistakes: tuple[str, ...] = ()
    if difficulty in (1, 3):
        shown[asked] = "?"
    if difficulty == 1:
        question, answer = f"What percentage is {name}?", integer(share)
        working = f"100 - {' - '.join(str(s) for i, s in enumerate(shares) if i != asked)} = {share}."
    elif difficulty == 2:
        question = f"{whole} people were asked. How many chose {name}?"
        answer, working = integer(whole * share // 100), f"{share}% of {whole} is {whole * share // 100}."
    elif difficulty == 3:
        question, answer = f"How many degrees is the angle of the slice {name}?", rational(Fraction(share * 360, 100))
        working = f"The slice is {share}%: {share}/100 · 360 = {answer.text}."
        mistakes = (str(share), str(2 * share), str(360 - share * 360 // 100))
    elif difficulty == 4:
        other = (asked + rng.randrange(1, len(labels))) % len(labels)
        pair = Fraction(share + shares[other], 100)
        question = f"What fraction of the whole are {name} and {labels[other]} together? Give it in lowest terms."
        answer, working = rational(pair), f"{share}% + {shares[other]}% = {share + shares[other]}%."
    else:
        other = (asked + rng.randrange(1, len(labels))) % len(labels)
        part = whole * share // 100
        question = f"{part} people chose {name}. How many chose {labels[other]}?"
        answer = integer(whole * shares[other] // 100)
        working = f"All are {part} / {share}% = {whole}; {shares[other]}% of {whole} is {answer.text}."
    return Problem(
        question=question,
        answer=answer,
        working=working,
        picture=_pie(labels, shares, shown, size),
        description=f"A pie chart shows: {', '.join(f'{n} {s}' for n, s in zip(labels, shown, strict=True))}.",
        facts={"labels": list(labels), "shares": shares, "shown": shown},
        mistakes=mistakes,
    )


def _percentages(rng: random.Random, count: int) -> list[int]:
    """Multiples of 5 from 10 on that add up to 100."""
    while True:
        shares = [5 * rng.randint(2, 10) for _ in range(count - 1)]
        shares.append(100 - sum(shares))
        if shares[-1] >= 10:
            return shares


def _pie(labels: tuple[str, ...], shares: list[int], shown: list[str], size: int) -> Image.Image:
    canvas = Canvas(size, scale=2)
    centre, radius, start = (size / 2, size / 2), 0.33 * size, -90.0
    for label, share, words, colour in zip(labels, shares, shown, SLICE_COLOURS, strict=False):
        end = start + 3.6 * share
        canvas.sector(centre, radius, (start, end), fill=colour)
        middle = (start + end) / 2 * pi / 180
        inside = (centre[0] + cos(middle) * radius * 0.66, centre[1] + sin(middle) * radius * 0.66)
        outside = (centre[0] + cos(middle) * radius * 1.24, centre[1] + sin(middle) * radius * 1.17)
        canvas.plain_text(inside, words, size=1.1 * TEXT * size, fill=WHITE)
        canvas.text(outside, label, size=1.1 * TEXT * size)
        start = end
    return canvas.picture()


# --- tables -----------------------------------------------------------------------------------------------------------


def table_lookup(rng: random.Random, difficulty: int, size: int) -> Problem:
    """One cell, a difference, a column sum, a rounded mean, and a cost of several things."""
    rows = names(rng, (3, 4, 5, 6, 5)[difficulty - 1])
    columns = ("Price", "Count") if difficulty == 5 else ("2021", "2022", "2023")[: 2 if difficulty == 1 else 3]
    low, high = ((1, 20), (10, 60), (10, 99), (10, 99), (2, 15))[difficulty - 1]
    table = [[rng.randint(low, high) for _ in columns] for _ in rows]
    row, column = rng.randrange(len(rows)), rng.randrange(len(columns))
    cells = [line[column] for line in table]
    if difficulty == 1:
        question, answer = f"What is the value of {rows[row]} in {columns[column]}?", integer(table[row][column])
        working = f"Row {rows[row]}, column {columns[column]}: {answer.text}."
    elif difficulty == 2:
        a, b = table[row][0], table[row][2]
        question = f"By how much does {rows[row]} change from 2021 to 2023? A fall is negative."
        answer, working = integer(b - a), f"{b} - {a} = {b - a}."
    elif difficulty == 3:
        question, answer = f"What is the sum of the column {columns[column]}?", integer(sum(cells))
        working = f"{' + '.join(map(str, cells))} = {sum(cells)}."
    elif difficulty == 4:
        mean = Fraction(sum(cells), len(cells))
        question = f"What is the mean of the column {columns[column]}? Round to 1 decimal."
        answer, working = decimal(mean, decimals=1), f"{sum(cells)} / {len(cells)} = {decimal(mean, decimals=1).text}."
    else:
        other = (row + rng.randrange(1, len(rows))) % len(rows)
        (p, n), (q, m) = table[row], table[other]
        question = f"What is the cost of all {rows[row]} and all {rows[other]} together?"
        answer, working = integer(p * n + q * m), f"{p} · {n} + {q} · {m} = {p * n} + {q * m} = {p * n + q * m}."
    return Problem(
        question=question,
        answer=answer,
        working=working,
        picture=_table(rows, columns, table, size),
        description="A table shows: "
        + "; ".join(f"{name}: {listing(columns, line)}" for name, line in zip(rows, table, strict=True))
        + ".",
        facts={"rows": list(rows), "columns": list(columns), "table": table},
    )


def _table(rows: tuple[str, ...], columns: tuple[str, ...], table: list[list[int]], size: int) -> Image.Image:
    canvas = Canvas(size, scale=2)
    margin, height = 0.07 * size, min(0.14 * size, 0.86 * size / (len(rows) + 1))
    width = (size - 2 * margin) / (len(columns) + 1)
    top = (size - height * (len(rows) + 1)) / 2
    canvas.rectangle((margin, top), (size - margin, top + height), fill=FAINT)
    lines = [("", *columns), *((name, *map(str, line)) for name, line in zip(rows, table, strict=True))]
    for row, cells in enumerate(lines):
        y = top + row * height
        canvas.line([(margin, y), (size - margin, y)], fill=MUTED, width=1)
        for column, words in enumerate(cells):
            at = margin + (column + 0.5) * width, y + height / 2
            canvas.plain_text(at, words, size=1.15 * TEXT * size, fill=INK)
    bottom = top + height * len(lines)
    canvas.line([(margin, bottom), (size - margin, bottom)], fill=MUTED, width=1)
    for column in range(len(columns) + 2):
        x = margin + column * width
        canvas.line([(x, top), (x, bottom)], fill=MUTED, width=1)
    return canvas.picture()


FAMILIES = {
    "charts/pie_share": Family(make=pie_share, min_size=MIN_SIZE),
    "charts/table_lookup": Family(make=table_lookup, min_size=MIN_SIZE),
}
