"""Public data sets and the visual gym, as canonical samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mm_agrae.records import Sample

Reader = Callable[[str, str], Iterator[Sample]]


def _geometry3k(source: str, split: str) -> Iterator[Sample]:
    from data_processors import geometry3k

    return geometry3k.read(source, split)


def _math(source: str, split: str) -> Iterator[Sample]:
    from data_processors import math_text

    return math_text.read(source, split)


# A reader takes a hub id, a parquet file or a folder, and the name of a split. Its module is imported on its first use.
PROCESSORS: dict[str, Reader] = {"geometry3k": _geometry3k, "math": _math}
