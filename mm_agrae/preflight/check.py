"""One pass over every data set: each row is read once, looked at, and reduced to hashes; the hashes are compared."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from mm_agrae.data.dataset import Dataset, open_dataset
from mm_agrae.data.manifest import Manifest, read_manifest
from mm_agrae.errors import ConfigError, DataError
from mm_agrae.preflight.answers import check_answers
from mm_agrae.preflight.findings import Findings, Place
from mm_agrae.preflight.lengths import Budget, Lengths
from mm_agrae.preflight.licences import SHARED_SOURCES, licence_notes, may_train
from mm_agrae.preflight.pictures import Inspection, PictureTable, inspect
from mm_agrae.preflight.repeats import RowKey, find_duplicates, find_leaks
from mm_agrae.preflight.texts import text_key
from mm_agrae.records import Sample
from mm_agrae.verify import VerifierPool

Role = Literal["training", "benchmark"]
_BATCH = 64


@dataclass(kw_only=True)
class Checked:
    """One data set and what was counted in it; without a manifest it was not read."""

    name: str
    folder: Path
    role: Role
    manifest: Manifest | None = None
    num_rows: int = 0
    num_pictures: int = 0
    keys: list[RowKey] = field(default_factory=list)
    lengths: Lengths = field(default_factory=Lengths)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that a check saw."""

    sets: Sequence[Checked]
    findings: Findings
    budget: Budget | None


def check(
    training: Sequence[Path],
    benchmarks: Sequence[Path],
    *,
    budget: Budget | None,
    pool: VerifierPool,
    on_rows: Callable[[int], None] = lambda count: None,
) -> Report:
    """Check data sets by themselves, and training sets against benchmarks.

    Memory is constant but for a few hundred bytes of hashes per row.

    Args:
        training: Folders of data sets that are to be trained on.
        benchmarks: Folders of data sets that are to be measured on.
        budget: Counts tokens; None counts none.
        pool: Judges the answer keys.
        on_rows: Called with the number of rows done since the last call.

    Raises:
        ConfigError: A folder is given twice, or holds images that the model of the budget does not take.
        DataError: A manifest is fine and its file is not.
    """
    findings, pictures = Findings(), PictureTable()
    sets = name_sets(training, benchmarks)
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as threads:
        for one in sets:
            _admit(one, findings)
            if one.manifest is not None:
                for split in one.manifest.splits:
                    reader = _Reader(one, split, findings, pictures, budget, pool, threads)
                    reader.read(open_dataset(one.folder, split), on_rows)
    _find_shared_sources(sets, findings)
    pictures.compare()
    for one in sets:
        find_duplicates(one.keys, pictures, findings)
    rows = {role: [key for one in sets if one.role == role for key in one.keys] for role in ("training", "benchmark")}
    find_leaks(rows["training"], rows["benchmark"], pictures, findings)
    return Report(sets=sets, findings=findings, budget=budget)


def count_rows(folders: Sequence[Path]) -> int:
    """Rows of the data sets that have a manifest, for a progress bar."""
    total = 0
    for folder in folders:
        with suppress(DataError):  # a set without a manifest is a finding of the check itself
            total += sum(split.num_samples for split in read_manifest(folder).splits.values())
    return total


def name_sets(training: Sequence[Path], benchmarks: Sequence[Path]) -> list[Checked]:
    """The data sets by the name of their folder, or by their path where two folders have one name.

    Raises:
        ConfigError: A folder is given twice.
    """
    folders = [*training, *benchmarks]
    resolved = [folder.resolve() for folder in folders]
    for folder in folders:
        if resolved.count(folder.resolve()) > 1:
            raise ConfigError(
                f"{folder} is given twice, but a data set is checked once, as a training set or, after --against, as a "
                "benchmark. The splits of one set are compared with each other either way."
            )
    names = [folder.name for folder in resolved]
    return [
        Checked(
            name=name if names.count(name) == 1 else str(folder),
            folder=folder,
            role="training" if index < len(training) else "benchmark",
        )
        for index, (name, folder) in enumerate(zip(names, folders, strict=True))
    ]


def _admit(one: Checked, findings: Findings) -> None:
    """Read the manifest and refuse what it does not allow; a refused benchmark is read all the same."""
    place = Place(dataset=one.name)
    try:
        one.manifest = read_manifest(one.folder)
    except DataError as error:
        findings.add("no_manifest", place, str(error))
        return
    origin = one.manifest.origin
    if one.role == "training" and not may_train(origin):
        note = f"for {' and '.join(origin.uses)} only (licence: {origin.licence})"
        findings.add("benchmark_only", place, note)
    for kind, note in licence_notes(origin.licence):
        findings.add(kind, place, note)


def _find_shared_sources(sets: Sequence[Checked], findings: Findings) -> None:
    """Training sets that draw on the sources of a benchmark that they are checked against."""
    known = [(one, one.manifest.origin.processor) for one in sets if one.manifest]
    for benchmark, name in known:
        related = SHARED_SOURCES.get(name, ())
        partners = [one for one, processor in known if one.role == "training" and processor in related]
        if benchmark.role == "benchmark" and partners:
            findings.add(
                "shared_sources", Place(dataset=benchmark.name), partners=[Place(dataset=one.name) for one in partners]
            )


@dataclass(frozen=True)
class _Reader:
    """Reads one split in batches: pictures in threads, answers in the pool."""

    checked: Checked
    split: str
    findings: Findings
    pictures: PictureTable
    budget: Budget | None
    pool: VerifierPool
    threads: ThreadPoolExecutor

    def read(self, dataset: Dataset, on_rows: Callable[[int], None]) -> None:
        for start in range(0, len(dataset), _BATCH):
            indices = range(start, min(start + _BATCH, len(dataset)))
            rows = list(self._usable(dataset, indices))
            jobs = [(data, sample.id) for _, sample in rows for data in sample.images]
            inspections = self.threads.map(lambda job: inspect(*job), jobs)
            for place, sample in rows:
                self._keep(place, sample, [next(inspections) for _ in sample.images])
            origin = self.checked.manifest.origin if self.checked.manifest else None
            profile = origin.profile if origin else "generic"
            check_answers(rows, profile=profile, pool=self.pool, findings=self.findings)
            on_rows(len(indices))

    def _usable(self, dataset: Dataset, indices: Sequence[int]) -> Iterator[tuple[Place, Sample]]:
        for index in indices:
            self.checked.num_rows += 1
            try:
                sample = dataset[index]
            except DataError as error:
                self.findings.add("unusable_row", self._place(f"row {index}"), str(error))
                continue
            yield self._place(sample.id), sample

    def _keep(self, place: Place, sample: Sample, inspections: Sequence[Inspection]) -> None:
        self.checked.num_pictures += len(inspections)
        faults = [fault for inspection in inspections for fault in inspection.faults]
        for kind, note in faults:
            self.findings.add(kind, place, note)
        prints = [inspection.fingerprint for inspection in inspections]
        self.checked.keys.append(
            RowKey(
                place=place,
                text=text_key(sample),
                pictures=None if None in prints else tuple(self.pictures.add(one) for one in prints if one),
                target=hashlib.blake2b(sample.target.strip().encode(), digest_size=8).digest(),
            )
        )
        if not {"unreadable_image", "extreme_aspect"} & {kind for kind, _ in faults}:
            self._count_tokens(place, sample)

    def _count_tokens(self, place: Place, sample: Sample) -> None:
        if self.budget is None:
            return
        try:
            text, visual = self.budget.count(sample)
        except DataError as error:
            self.findings.add("unusable_row", place, str(error))
            return
        limit = self.budget.max_prompt_tokens
        if self.checked.lengths.add(text, visual, limit=limit):
            note = f"{text + visual} tokens, {visual} of them visual; the budget is {limit}"
            self.findings.add("over_budget", place, note)

    def _place(self, row: str) -> Place:
        return Place(dataset=self.checked.name, split=self.split, id=row)
