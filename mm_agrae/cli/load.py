"""A data source of the config -> samples."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from data_processors import processor_named
from data_processors.conversion.samples import read_samples
from data_processors.conversion.sources import open_source
from mm_agrae.config.schema import DataSource
from mm_agrae.data.dataset import open_dataset
from mm_agrae.data.manifest import read_manifest
from mm_agrae.errors import DataError
from mm_agrae.records import Sample


def load_samples(source: DataSource, *, training: bool = False) -> Sequence[Sample]:
    """Read a source, keep what it asks for. Dropped rows are told on the error output.

    Args:
        source: Where the problems come from.
        training: Whether they will be trained on.

    Raises:
        ConfigError: No data processor has the name of the format.
        DataError: Nothing is left, or a benchmark would be trained on.
    """
    if training:
        _refuse_benchmarks(source)
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
    processor = processor_named(source.format)
    opened = open_source(processor.description, source.path, [source.split])
    drops: Counter[str] = Counter()
    samples = list(read_samples(processor, opened, source.split, drops))
    if drops:
        reasons = "; ".join(f"{count} {reason}" for reason, count in drops.most_common())
        print(f"{source.path} split {source.split!r}: {drops.total()} rows dropped ({reasons})", file=sys.stderr)
    return samples


def _refuse_benchmarks(source: DataSource) -> None:
    if source.format == "canonical":
        uses = read_manifest(Path(source.path)).origin.uses
    else:
        uses = processor_named(source.format).description.uses
    if "training" not in uses:
        raise DataError(
            f"data.train.path is {source.path}, a data set for {' and '.join(uses)} only, because its terms or "
            "its overlap with other benchmarks forbid training. Name another data set."
        )


def _wanted(sample: Sample, source: DataSource) -> bool:
    in_family = not source.families or any(
        sample.family == name or sample.family.startswith(f"{name}/") for name in source.families
    )
    return in_family and (not source.difficulties or sample.difficulty in source.difficulties)
