"""Rows that ask the same: within a split, across splits, and between training sets and benchmarks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mm_agrae.preflight.findings import Findings, Place
from mm_agrae.preflight.pictures import PictureTable
from mm_agrae.preflight.texts import TextKey

# A question that more training rows ask ("How many items are there in the image?") is a template: it names no problem.
MAX_TEMPLATE = 20


@dataclass(frozen=True, slots=True)
class RowKey:
    """What is kept of a row: where it stands, its text, the numbers of its pictures, a hash of its target.

    `pictures` is None when one cannot be decoded; such a row is compared with no other.
    """

    place: Place
    text: TextKey
    pictures: tuple[int, ...] | None
    target: bytes


class Shelf:
    """Rows that can be looked up by their text together with their first picture, in constant time per candidate."""

    def __init__(self, pictures: PictureTable) -> None:
        self._pictures = pictures
        self._rows: dict[tuple[bytes, int | None], list[RowKey]] = defaultdict(list)
        self._with_picture: dict[int, list[RowKey]] = defaultdict(list)
        self._with_text: dict[bytes, list[RowKey]] = defaultdict(list)

    def add(self, row: RowKey) -> None:
        """Put a row on the shelf."""
        for first in row.pictures[:1] if row.pictures else (None,):
            self._rows[row.text.stem, first].append(row)
        for number in dict.fromkeys(row.pictures or ()):
            self._with_picture[number].append(row)
        # One more than allowed is kept, so that a template is known as one.
        if row.text.is_long and len(self._with_text[row.text.stem]) <= MAX_TEMPLATE:
            self._with_text[row.text.stem].append(row)

    def same_problem(self, row: RowKey) -> Iterator[RowKey]:
        """Rows with the same question and alike pictures; without pictures, the options decide too."""
        if not row.pictures:
            candidates = self._rows.get((row.text.stem, None), ())
            yield from (other for other in candidates if row.text.same_problem(other.text))
            return
        for number in self._pictures.like(row.pictures[0]):
            for other in self._rows.get((row.text.stem, number), ()):
                if other.pictures and self._pictures.alike(row.pictures, other.pictures):
                    yield other

    def same_picture(self, row: RowKey) -> Iterator[RowKey]:
        """Rows that show one of the pictures of this row, or one that looks like it."""
        numbers = dict.fromkeys(near for number in row.pictures or () for near in self._pictures.like(number))
        yield from dict.fromkeys(other for number in numbers for other in self._with_picture.get(number, ()))

    def same_text(self, row: RowKey) -> Sequence[RowKey]:
        """Rows with the same long question, whatever their pictures; none if it is a template."""
        rows = self._with_text.get(row.text.stem, ()) if row.text.is_long else ()
        return rows if len(rows) <= MAX_TEMPLATE else ()


def find_duplicates(rows: Sequence[RowKey], pictures: PictureTable, findings: Findings) -> None:
    """Compare the rows of one data set with each other.

    Every row is compared with the different rows before it. Within a split it is a duplicate or a near duplicate; a
    match in another split is a split overlap. Options must be equal here.
    """
    shelf = Shelf(pictures)
    for row in rows:
        if row.pictures is None:
            continue
        matches = [other for other in shelf.same_problem(row) if other.text.options == row.text.options]
        copies = [other for other in matches if other.pictures == row.pictures]
        near = [other for other in matches if other.pictures != row.pictures]
        repeated = [other for other in copies if other.place.split == row.place.split]
        # A copy adds nothing to compare with; without it a row that stands there a thousand times costs no more.
        if not any(other.target == row.target for other in repeated):
            shelf.add(row)
        if repeated:
            _add(findings, "duplicate", row, repeated, pictures)
        elif inside := [other for other in near if other.place.split == row.place.split]:
            _add(findings, "near_duplicate", row, inside, pictures)
        if outside := [other for other in (*copies, *near) if other.place.split != row.place.split]:
            _add(findings, "split_overlap", row, outside, pictures)
        if differing := [other for other in copies if other.target != row.target]:
            _add(findings, "contradiction", row, differing, pictures)


def find_leaks(
    training: Sequence[RowKey], benchmarks: Sequence[RowKey], pictures: PictureTable, findings: Findings
) -> None:
    """Look for every benchmark row among the training rows: a leak, else a shared picture or a shared text."""
    shelf = Shelf(pictures)
    for row in training:
        if row.pictures is not None:
            shelf.add(row)
    for row in benchmarks:
        if row.pictures is None:
            continue
        leaks = list(shelf.same_problem(row))
        leaked = {other.place for other in leaks}
        if leaks:
            _add(findings, "leak", row, leaks, pictures)
        shared = [other for other in shelf.same_picture(row) if other.place not in leaked]
        if shared:
            findings.add("shared_picture", row.place, partners=[other.place for other in shared])
        seen = leaked | {other.place for other in shared}
        asked = [other.place for other in shelf.same_text(row) if other.place not in seen]
        if asked:
            findings.add("shared_text", row.place, partners=asked)


def _add(findings: Findings, kind: str, row: RowKey, others: Sequence[RowKey], pictures: PictureTable) -> None:
    note = pictures.described(row.pictures or (), others[0].pictures or ())
    findings.add(kind, row.place, note, partners=[other.place for other in others])
