"""MATH: competition problems in text (hub ids with the columns problem, level, type and solution).

There is no answer column: the target is the content of the last box of the solution.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from data_processors.loading import load_rows
from mm_agrae.errors import DataError
from mm_agrae.records import Sample

SOURCE = "math"
REQUIRED = ("problem", "level", "type", "solution")
# "\boxed 5" and "\fbox{5}" stand in the solutions beside the usual "\boxed{5}".
BOX = re.compile(r"\\(?:boxed|fbox)\s*(?:(?P<brace>\{)|(?P<bare>[^\s{}$.,]+))")


def read(source: str, split: str) -> Iterator[Sample]:
    """The problems of one split, in order.

    Args:
        source: Hub id, parquet file, or folder with parquet files.
        split: "train" or "test".

    Raises:
        DataError: If a column is missing, or a solution has no closed box.
    """
    for index, row in enumerate(load_rows(source, split, required=REQUIRED)):
        target = last_box(row["solution"])
        if not target:
            raise DataError(
                f"row {index} of split {split!r} has no answer in a box in its solution, but the answer is read from "
                "the last \\boxed{...}. Mend the row, or remove it."
            )
        yield Sample(
            id=f"{SOURCE}/{split}/{index}",
            question=row["problem"],
            target=target,
            solution=row["solution"],
            family=row["type"],
            difficulty=_level(row["level"]),
            source=SOURCE,
        )


def last_box(solution: str) -> str | None:
    """The content of the last closed box, braces inside it included; None when there is none."""
    for match in reversed(list(BOX.finditer(solution))):
        content = match["bare"] if match["bare"] else _braced(solution, match.end())
        if content is not None:
            return content.strip()
    return None


def _braced(text: str, start: int) -> str | None:
    """From `start`, just inside an open brace, up to the brace that closes it."""
    depth = 1
    for place in range(start, len(text)):
        is_escaped = text[place - 1] == "\\"
        depth += 0 if is_escaped else (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[start:place]
    return None


def _level(level: str | int) -> int | None:
    """ "Level 5" is 5; the rare "Level ?" is None."""
    digits = re.search(r"\d+", str(level))
    return int(digits[0]) if digits else None
