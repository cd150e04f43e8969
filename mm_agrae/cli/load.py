"""A data source of the config -> samples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from data_processors import PROCESSORS
from mm_agrae.config.schema import DataSource
from mm_agrae.data.dataset import open_dataset
from mm_agrae.errors import DataError
from mm_agrae.records import Sample


def load_samples(source: DataSource) -> Sequence[Sample]:
    """Read a source, keep what it asks for.

    Raises:
        DataError: Nothing is left.
    """
    samples = _open(source)
    if source.families or source.difficulties or source.limit:
        kept = [sample for sample in samples if _wanted(sample, source)]
        samples = kept[: source.limit]
    if not len(samples):
        raise DataError(
            f"{source.path} split {source.split!r} has no problem of families {list(source.families) or 'any'} and "
            f"difficulties {list(source.difficulties) or 'any'}. Ask for others."
        )
    return samples


def _open(source: DataSource) -> Sequence[Sample]:
    if source.format == "canonical":
        # A Dataset has the length, the items and the iteration that readers use of a sequence, and no slices.
        return cast(Sequence[Sample], open_dataset(Path(source.path), source.split))
    return list(PROCESSORS[source.format](source.path, source.split))


def _wanted(sample: Sample, source: DataSource) -> bool:
    in_family = not source.families or any(
        sample.family == name or sample.family.startswith(f"{name}/") for name in source.families
    )
    return in_family and (not source.difficulties or sample.difficulty in source.difficulties)
