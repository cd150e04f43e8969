"""Rows of a public data set, from the hub or from files on disk, with images left encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mm_agrae.errors import DataError


def load_rows(source: str, split: str, *, required: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of one split, in order.

    Args:
        source: A parquet file (taken as the split), a folder that holds `<split>*.parquet` or
            `data/<split>*.parquet`, or the id of a data set on the Hugging Face hub.
        split: "train", "test", ...
        required: Columns that must be there.

    Raises:
        DataError: If nothing is found, or a required column is missing; the message says what there is.
    """
    # Imported here: it takes a second, which no command that converts nothing should pay.
    import datasets

    files = _files(source, split)
    try:
        if files is None:
            rows = datasets.load_dataset(source, split=split)
        else:
            rows = datasets.load_dataset("parquet", data_files={split: files}, split=split)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(
            f"split {split!r} of {source!r} cannot be loaded ({error}). Give a hub id that exists, a parquet file, or "
            "a folder with <split>*.parquet files."
        ) from error
    missing = [name for name in required if name not in rows.column_names]
    if missing:
        raise DataError(
            f"{source!r} has the columns {rows.column_names}, but {missing} must be there too. "
            "Rename the columns, or give another data set."
        )
    for name, feature in rows.features.items():
        if isinstance(feature, datasets.Image):
            rows = rows.cast_column(name, datasets.Image(decode=False))
        elif isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image):
            rows = rows.cast_column(name, datasets.List(datasets.Image(decode=False)))
    yield from rows


def image_bytes(image: Mapping[str, Any] | None, row: str) -> bytes:
    """The encoded file of an image that was not decoded.

    Raises:
        DataError: If the row has neither bytes nor a file that can be read.
    """
    if image and image.get("bytes"):
        return bytes(image["bytes"])
    path = Path(image["path"]) if image and image.get("path") else None
    if path and path.is_file():
        return path.read_bytes()
    raise DataError(
        f"{row} has an image without content (path: {path}), but every image must hold a file or point at one. "
        "Restore the image, or remove the row."
    )


def _files(source: str, split: str) -> list[str] | None:
    """Parquet files on disk; None when the source is no place on disk and so must be a hub id."""
    place = Path(source)
    if place.is_file():
        return [str(place)]
    if not place.is_dir():
        return None
    found = sorted([*place.glob(f"{split}*.parquet"), *place.glob(f"data/{split}*.parquet")])
    if not found:
        there = sorted(str(path.relative_to(place)) for path in place.rglob("*.parquet"))
        raise DataError(
            f"{source} has no file {split}*.parquet, on its top or under data/; its parquet files are {there}. "
            "Name another split, or another folder."
        )
    return [str(path) for path in found]
