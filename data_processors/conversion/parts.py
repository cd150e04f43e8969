"""Finished pieces of a conversion: canonical rows of a few raw rows, with what was dropped among them.

A part appears under its name only when it is whole, so an interrupted conversion goes on behind the last whole part.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_processors.conversion.description import Drop, Processor, Row
from data_processors.conversion.samples import convert_row
from mm_agrae.data.columns import from_row, to_row
from mm_agrae.records import Sample

_ROWS, _DROPS = b"rows", b"drops"


@dataclass(frozen=True)
class Run:
    """Neighbouring raw rows of a split that were dropped for one reason.

    Attributes:
        first: Place of the first one in the split, from 0.
        last: Place of the last one.
        reason: Why they were dropped.
    """

    first: int
    last: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class PartNotes:
    """What a part says of its rows, without their images.

    Attributes:
        rows: Raw row of every sample.
        ids: Id of every sample.
        drops: The dropped rows.
    """

    rows: tuple[int, ...]
    ids: tuple[str, ...]
    drops: tuple[Run, ...]


def write_part(processor: Processor, schema: pa.Schema, rows: Sequence[Row], file: Path) -> int:
    """Convert rows into a part, and return their number.

    The schema is that of a canonical data set; making it takes seconds, which a worker should not pay.
    """
    samples: list[Sample] = []
    places: list[int] = []
    drops: list[Run] = []
    for row in rows:
        result = convert_row(processor, row)
        if isinstance(result, Drop):
            drops.append(Run(row.index, row.index, result.reason))
        else:
            samples.append(result)
            places.append(row.index)
    notes = {
        _ROWS: json.dumps(places).encode(),
        _DROPS: json.dumps([[run.first, run.last, run.reason] for run in drops]).encode(),
    }
    schema = schema.with_metadata({**schema.metadata, **notes})
    unfinished = file.with_suffix(".unfinished")
    pq.write_table(pa.Table.from_pylist([to_row(sample) for sample in samples], schema=schema), unfinished)
    os.replace(unfinished, file)
    return len(rows)


def is_whole(file: Path) -> bool:
    """Whether a part is there and can be read."""
    try:
        return file.is_file() and _ROWS in (pq.read_schema(file).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def read_notes(file: Path) -> PartNotes:
    """What a part says of its rows."""
    ids = pq.read_table(file, columns=["id"])
    metadata = ids.schema.metadata
    return PartNotes(
        rows=tuple(json.loads(metadata[_ROWS])),
        ids=tuple(ids["id"].to_pylist()),
        drops=tuple(Run(*drop) for drop in json.loads(metadata[_DROPS])),
    )


def read_part(file: Path) -> Iterator[tuple[int, Sample]]:
    """The samples of a part with the raw rows they came from."""
    table = pq.read_table(file)
    places = json.loads(table.schema.metadata[_ROWS])
    return zip(places, map(from_row, table.to_pylist()), strict=True)


def joined(runs: Iterable[Run]) -> list[Run]:
    """The runs in the order of their rows, neighbours with one reason made one."""
    result: list[Run] = []
    for run in sorted(runs, key=lambda run: run.first):
        if result and (result[-1].last + 1, result[-1].reason) == (run.first, run.reason):
            result[-1] = Run(result[-1].first, run.last, run.reason)
        else:
            result.append(run)
    return result
