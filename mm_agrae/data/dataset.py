"""The canonical data set: a folder with one parquet file per split, images embedded, and a manifest.

`datasets.load_dataset("parquet", data_files=...)` reads the same files, with the images as images.
"""

from __future__ import annotations

import hashlib
import shutil
import uuid
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import mm_agrae
from mm_agrae.data.columns import COLUMNS, arrow_schema, content_hash, from_row, to_row
from mm_agrae.data.manifest import (
    FORMAT_VERSION,
    Manifest,
    Origin,
    SplitManifest,
    read_manifest,
    sorted_counts,
    write_manifest,
)
from mm_agrae.errors import DataError
from mm_agrae.records import Sample

# Reading one sample reads its row group, so a group is small; 64 pictures of 20 kB are 1.3 MB.
ROW_GROUP = 64
NO_ORIGIN = Origin()


class OutputExistsError(DataError, FileExistsError):
    """The place where a data set should be written is taken."""


def refuse_taken(out: Path) -> None:
    """Raise OutputExistsError if `out` is a file or a folder that is not empty."""
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputExistsError(
            f"{out} exists and is not empty, but a data set is only written to a new or empty folder. "
            "Name another folder, or remove this one yourself."
        )


def write_dataset(
    splits: Mapping[str, Iterable[Sample]],
    out: Path,
    *,
    source: str,
    seed: int,
    origin: Origin = NO_ORIGIN,
    notes: Mapping[str, str] | None = None,
    on_sample: Callable[[], None] | None = None,
) -> Manifest:
    """Write a data set under a temporary name beside `out`, and rename it when it is whole.

    Memory stays constant but for one short hash per sample.

    Args:
        splits: Samples by the name of their split; read once, in the order given.
        out: The folder to make. It may exist if it is empty.
        source: Where the samples came from.
        seed: The seed they were made with; 0 when they were not made from one.
        origin: What a conversion knows of them beyond the source.
        notes: Text files to put beside the data, by name.
        on_sample: Called after each sample, for a progress bar.

    Raises:
        OutputExistsError: If `out` is a file or a folder that is not empty; nothing is touched.
        DataError: If a sample has no target or not one mark per image, or two samples have one id.
    """
    refuse_taken(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    partial.mkdir()
    try:
        ledger = _Ledger(on_sample or (lambda: None))
        written = {name: _write_split(partial, name, ledger.count(name, samples)) for name, samples in splits.items()}
        manifest = Manifest(
            format_version=FORMAT_VERSION,
            package_version=mm_agrae.__version__,
            source=source,
            origin=origin,
            seed=seed,
            splits={name: ledger.manifest(name, file) for name, file in written.items()},
            split_overlap=ledger.overlap,
        )
        for name, text in (notes or {}).items():
            (partial / name).write_text(text, encoding="utf-8")
        write_manifest(partial, manifest)
        partial.rename(out)
    except BaseException:  # an interrupt must not leave a half-written folder behind either
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return manifest


class Dataset:
    """The samples of one split, read from disk one row group at a time. Images stay encoded."""

    def __init__(self, file: pq.ParquetFile, sha256: str) -> None:
        self.sha256 = sha256  # of the file, as the manifest has it
        self._file = file
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
        self._starts = [0, *accumulate(sizes)]
        self._cached: tuple[int, list[dict[str, Any]]] = (-1, [])

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        """Sample number `index`, 0 <= index < len.

        Raises:
            IndexError: If there is none.
            DataError: If the row has no target or not one mark per image.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} was asked for, but the split has samples 0 to {len(self) - 1}.")
        group = bisect_right(self._starts, index) - 1
        if self._cached[0] != group:
            self._cached = group, self._file.read_row_group(group, columns=list(COLUMNS)).to_pylist()
        return from_row(self._cached[1][index - self._starts[group]])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


def open_dataset(path: Path, split: str) -> Dataset:
    """Open one split of a data set; rows are read when they are asked for.

    Raises:
        DataError: If the manifest, the split, its file or a column is missing, or the file has not as many rows and
            bytes as the manifest says. The hash is not compared.
    """
    manifest = read_manifest(path)
    if split not in manifest.splits:
        raise DataError(
            f"{path} has no split {split!r}; it has {sorted(manifest.splits)}. Name one of these, or write the split."
        )
    described = manifest.splits[split]
    try:
        file = pq.ParquetFile(path / described.file)
    except (OSError, pa.ArrowInvalid) as error:
        raise DataError(
            f"{path / described.file} cannot be read ({error}), but the manifest names it as split {split!r}. "
            "Restore the file, or write the data set again."
        ) from error
    missing = [name for name in COLUMNS if name not in file.schema_arrow.names]
    if missing:
        raise DataError(
            f"{path / described.file} lacks the columns {missing}; it has {file.schema_arrow.names}. "
            "Convert the data with `mm-agrae data`, which fills every column."
        )
    if file.metadata.num_rows != described.num_samples:
        raise DataError(
            f"{path / described.file} has {file.metadata.num_rows} rows, but the manifest says "
            f"{described.num_samples}. The file was changed after it was written: write the data set again."
        )
    num_bytes = (path / described.file).stat().st_size
    if num_bytes != described.num_bytes:
        raise DataError(
            f"{path / described.file} has {num_bytes} bytes, but the manifest says {described.num_bytes}. The file was "
            "changed after it was written: restore it, or write the data set again."
        )
    return Dataset(file, described.sha256)


def content_mark(samples: Dataset | Sequence[Sample]) -> str:
    """A mark of everything that samples hold, in their order.

    Of a whole split it is the hash of its file that the manifest has, and nothing is read; a list is read through.

    Returns:
        16 hexadecimal digits.
    """
    if isinstance(samples, Dataset):
        return samples.sha256[:16]
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(f"{content_hash(sample)} {replace(sample, images=())}\x1e".encode())
    return digest.hexdigest()[:16]


class _Ledger:
    """Counts what passes: families, difficulties, ids, and problems that stand in more than one split."""

    def __init__(self, on_sample: Callable[[], None]) -> None:
        self.overlap = 0
        self._on_sample = on_sample
        self._ids: set[str] = set()
        self._split_of: dict[str, str] = {}
        self._families: dict[str, Counter[str]] = {}
        self._difficulties: dict[str, Counter[str]] = {}

    def count(self, split: str, samples: Iterable[Sample]) -> Iterator[Sample]:
        families = self._families[split] = Counter()
        difficulties = self._difficulties[split] = Counter()
        for sample in samples:
            if sample.id in self._ids:
                raise DataError(
                    f"two samples have the id {sample.id!r}, but an id names one sample. Give each its own."
                )
            self._ids.add(sample.id)
            self.overlap += self._split_of.setdefault(content_hash(sample), split) != split
            families[sample.family] += 1
            difficulties["none" if sample.difficulty is None else str(sample.difficulty)] += 1
            yield sample
            self._on_sample()

    def manifest(self, split: str, file: Path) -> SplitManifest:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return SplitManifest(
            file=file.name,
            num_samples=self._families[split].total(),
            families=sorted_counts(self._families[split]),
            difficulties=sorted_counts(self._difficulties[split]),
            num_bytes=file.stat().st_size,
            sha256=digest,
        )


def _write_split(folder: Path, name: str, samples: Iterator[Sample]) -> Path:
    file = folder / f"{name}.parquet"
    schema = arrow_schema()
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while rows := [to_row(sample) for sample in islice(samples, ROW_GROUP)]:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return file
