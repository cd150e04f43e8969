"""Raw rows of one file, a few in memory at a time: parquet, JSON lines, or a JSON array."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from mm_agrae.errors import DataError

# Rows with pictures take megabytes: few are read at a time.
BATCH = 16
READ_CHARS = 1 << 20
# A row that does not end before is broken: reading on would only cost time, and more with every piece.
MAX_ROW_CHARS = 64 << 20
_BETWEEN = re.compile(r"[\s,]*")
# The column of a JSON object's keys, where the rows are its values.
KEY_COLUMN = "key"

RawRow = dict[str, Any]


def read_rows(path: Path) -> Iterator[RawRow]:
    """The rows of a file, in order.

    Raises:
        DataError: If the file cannot be read as what its name says.
    """
    try:
        if path.suffix == ".parquet":
            yield from _parquet_rows(path)
        elif path.suffix in (".json", ".jsonl"):
            with path.open(encoding="utf-8-sig", newline=None) as stream:
                yield from _json_rows(stream, path)
        else:
            raise DataError(f"{path} is no file of rows: its name must end in .parquet, .json or .jsonl.")
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}). Restore the file, or give another.") from error


def column_names(path: Path) -> list[str]:
    """The columns of a file; for JSON, those of its first row.

    Raises:
        DataError: If the file cannot be read, or is JSON without a row.
    """
    if path.suffix == ".parquet":
        try:
            return list(pq.read_schema(path).names)
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path} cannot be read ({error}). Restore the file, or give another.") from error
    first = next(read_rows(path), None)
    if first is None:
        raise DataError(f"{path} holds no row. Give a file with rows.")
    return list(first)


def num_rows(path: Path) -> int | None:
    """The rows of a parquet file, from its footer; None for JSON, which would have to be read."""
    return pq.read_metadata(path).num_rows if path.suffix == ".parquet" else None


def _parquet_rows(path: Path) -> Iterator[RawRow]:
    # By default pyarrow keeps every row group that it has read: the whole file, at the end.
    with pq.ParquetFile(path, buffer_size=READ_CHARS, pre_buffer=False) as file:
        for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
            yield from batch.to_pylist()


def _json_rows(stream: TextIO, path: Path) -> Iterator[RawRow]:
    opening = stream.read(1)
    while opening.isspace():
        opening = stream.read(1)
    stream.seek(0)
    if opening == "[":
        yield from _array_rows(stream, path)
    elif opening == "{":
        yield from _object_rows(stream, path)
    elif opening:
        raise DataError(f"{path} starts with {opening!r}, but JSON of rows starts with [ or {{. Give such a file.")


def _array_rows(stream: TextIO, path: Path) -> Iterator[RawRow]:
    """The objects of an array, read piece by piece."""
    decoder, offset = json.JSONDecoder(), 0
    buffer = stream.read(READ_CHARS)
    place = buffer.index("[") + 1
    while True:
        place = _BETWEEN.match(buffer, place).end()  # type: ignore[union-attr]  # it matches the empty text
        if buffer[place : place + 1] == "]":
            return
        try:
            row, end = decoder.raw_decode(buffer, place)
        except RecursionError as error:
            raise DataError(f"{path} is nested too deeply at character {offset + place}. Mend the file.") from error
        except json.JSONDecodeError as error:
            more = stream.read(READ_CHARS) if len(buffer) - place < MAX_ROW_CHARS else ""
            if not more:
                raise DataError(
                    f"{path} is no whole JSON array: what starts at character {offset + place} is no whole row within "
                    f"{len(buffer) - place} characters ({error.msg}). Restore the file."
                ) from error
            buffer, place, offset = buffer[place:] + more, 0, offset + place
            continue
        yield _checked(row, path)
        place = end


def _object_rows(stream: TextIO, path: Path) -> Iterator[RawRow]:
    """JSON lines; or one object that holds the rows by their keys, which is read whole, as only small sets do so."""
    first = stream.readline()
    try:
        row = json.loads(first)
    except (json.JSONDecodeError, RecursionError):
        row = None
    rest = stream.readline() if row is not None else ""
    stream.seek(0)
    if row is not None and (rest.strip() or not all(isinstance(value, dict) for value in row.values())):
        for number, line in enumerate(stream, start=1):
            if line.strip():
                yield _line(line, number, path)
        return
    try:
        rows = json.load(stream)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{path} is neither JSON lines nor one JSON value ({error}). Restore the file.") from error
    for key, values in rows.items():
        yield {KEY_COLUMN: key, **_checked(values, path)}


def _line(line: str, number: int, path: Path) -> RawRow:
    try:
        return _checked(json.loads(line), path)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"line {number} of {path} is no JSON ({error}). Mend or remove it.") from error


def _checked(row: Any, path: Path) -> RawRow:
    if not isinstance(row, dict):
        raise DataError(f"{path} holds {str(row)[:40]!r} where a row (a JSON object) must be. Mend the file.")
    return row
