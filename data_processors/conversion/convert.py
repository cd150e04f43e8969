"""A whole data set to a canonical folder: on all cores, in constant memory, going on where it was interrupted.

The main process reads raw rows and hands them out in pieces; workers convert them, decode every image once, and write
part files into a hidden folder beside the result. At the end the parts become one file per split. Pieces have a fixed
size and keep their order, so that neither the number of workers nor an interruption changes a byte of the result.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from glob import escape
from itertools import chain, islice
from pathlib import Path

import mm_agrae
from data_processors.conversion.description import Processor, Row
from data_processors.conversion.parts import Run, is_whole, joined, read_notes, read_part, write_part
from data_processors.conversion.samples import REPEATED_ID, REPEATED_ROW, Repeats, is_repeat
from data_processors.conversion.sources import Source
from mm_agrae.data.columns import arrow_schema
from mm_agrae.data.dataset import ROW_GROUP, refuse_taken, write_dataset
from mm_agrae.data.manifest import FORMAT_VERSION, Manifest, Origin
from mm_agrae.errors import DataError, EngineError
from mm_agrae.records import Sample

PIECE = ROW_GROUP
# Pieces handed out per worker: one that it works on and one that waits.
IN_FLIGHT = 2
NUM_DIGITS = 12
DROPS_NAME = "drops.jsonl"

Job = tuple[tuple[Row, ...], Path]
Work = Callable[[tuple[Row, ...], Path], int]


def convert(
    processor: Processor,
    source: Source,
    out: Path,
    *,
    workers: int | None = None,
    on_rows: Callable[[int], None] | None = None,
) -> Manifest:
    """Convert all splits of a source into the folder `out`.

    Interrupted at any moment, the same call goes on with the parts that are whole and ends in the same bytes. Parts
    are only taken up when the raw files, the processors and the package are the same.

    Args:
        processor: The data set.
        source: Its files; all splits that it was opened with are converted.
        out: The folder to make; it may exist if it is empty.
        workers: Processes that convert; None takes one per core. 1 converts in this process.
        on_rows: Called with the number of rows that are done, copies and parts of an earlier call included; for a
            progress bar.

    Returns:
        The manifest of the folder. Beside it stands drops.jsonl, with a line for every run of dropped rows.

    Raises:
        OutputExistsError: If `out` is taken; nothing is touched.
        DataError: If a file cannot be read, a split has no usable row, or another process converts into `out`.
        EngineError: If a worker dies.
    """
    refuse_taken(out)
    hashes = source.hashes()
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.parent / f".{out.name}.{_fingerprint(processor, source, hashes)}.conversion"
    with _locked(unfinished, out):
        parts = _Parts(unfinished / "parts")
        work = partial(write_part, processor, arrow_schema())
        on_rows = on_rows or (lambda _: None)
        _convert_parts(work, parts.missing(processor, source, on_rows), workers or num_cores(), on_rows)
        manifest = _merge(processor, source, hashes, parts, unfinished / "whole")
        refuse_taken(out)  # another conversion, of other files, may have ended here meanwhile
        (unfinished / "whole").rename(out)
        shutil.rmtree(unfinished)
    _remove_leftovers(out)
    return manifest


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(kw_only=True)
class _Split:
    """What reading a split has shown: its parts, rows, and the copies of earlier rows among them."""

    files: list[Path] = field(default_factory=list)
    num_rows: int = 0
    repeats: list[Run] = field(default_factory=list)


class _Parts:
    """The part files of a conversion. Reading the source fills in what each split has."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.splits: dict[str, _Split] = {}
        folder.mkdir(exist_ok=True)

    def missing(self, processor: Processor, source: Source, on_rows: Callable[[int], None]) -> Iterator[Job]:
        """Rows of the parts that are not there yet, and the file to make of them; other rows are counted as done."""
        for number, split in enumerate(source.parts):
            found = self.splits[split] = _Split()
            rows = self._new_rows(processor, source.rows(split), found, on_rows)
            while piece := tuple(islice(rows, PIECE)):
                file = self.folder / f"{number}-{len(found.files):07d}.parquet"
                found.files.append(file)
                if is_whole(file):
                    on_rows(len(piece))
                else:
                    yield piece, file

    @staticmethod
    def _new_rows(
        processor: Processor, rows: Iterator[Row], found: _Split, on_rows: Callable[[int], None]
    ) -> Iterator[Row]:
        seen = Repeats()
        for row in rows:
            found.num_rows += 1
            if is_repeat(processor, row, seen):
                on_rows(1)
                last = found.repeats[-1] if found.repeats else None
                if last and last.last + 1 == row.index:
                    found.repeats[-1] = Run(last.first, row.index, REPEATED_ROW)
                else:
                    found.repeats.append(Run(row.index, row.index, REPEATED_ROW))
            else:
                yield row


def _convert_parts(work: Work, jobs: Iterator[Job], workers: int, on_rows: Callable[[int], None]) -> None:
    limit = IN_FLIGHT * workers
    # A handful of pieces is done before the workers have started.
    first = deque(islice(jobs, limit) if workers > 1 else [])
    is_small = len(first) < limit
    # Taken out one by one: what is done must not stay in memory.
    all_jobs = chain((first.popleft() for _ in range(len(first))), jobs)
    if is_small:
        for rows, file in all_jobs:
            on_rows(work(rows, file))
        return
    # Forking a process that holds threads (a progress bar, torch) can deadlock, so workers start afresh.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker) as executor:
        try:
            for count in in_flight(executor, work, all_jobs, limit=limit):
                on_rows(count)
        except BrokenProcessPool as error:
            raise EngineError(
                "a conversion worker died, most likely for want of memory. Run the same command again to go on, with "
                "fewer workers if it dies again."
            ) from error
        finally:
            executor.shutdown(cancel_futures=True)


def in_flight(executor: Executor, work: Work, jobs: Iterator[Job], *, limit: int) -> Iterator[int]:
    """Have parts written, at most `limit` at a time; the next rows are read when a part is done.

    Returns:
        The number of rows of each part, as parts are done.
    """
    waiting: set[Future[int]] = set()
    for rows, file in jobs:
        waiting.add(executor.submit(work, rows, file))
        if len(waiting) == limit:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    yield from (future.result() for future in waiting)


def _start_worker() -> None:
    # The main process is told of an interrupt too, and stops its workers; two tracebacks help nobody.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed main process cannot stop its workers, which would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _merge(processor: Processor, source: Source, hashes: Mapping[str, str], parts: _Parts, out: Path) -> Manifest:
    """The parts as one file per split, with drops and manifest."""
    for leftover in (out, *out.parent.glob(f".{out.name}.*")):
        shutil.rmtree(leftover, ignore_errors=True)  # of a merge that was interrupted
    ids = Repeats()
    drops = {split: _drops(found, ids) for split, found in parts.splits.items()}
    counts = {split: _counted(runs) for split, runs in drops.items()}
    for split, found in parts.splits.items():
        if found.num_rows == counts[split].total():
            raise DataError(
                f"split {split!r} of {source.place} has {found.num_rows} rows, but none can be used: "
                f"{dict(counts[split])}. Leave the split out, or check that this is the data set "
                f"{processor.description.name!r}."
            )
    lines = (
        json.dumps({"split": split, "rows": [run.first, run.last], "reason": run.reason}, ensure_ascii=False) + "\n"
        for split, runs in drops.items()
        for run in runs
    )
    description = processor.description
    return write_dataset(
        {split: _samples(found, drops[split]) for split, found in parts.splits.items()},
        out,
        source=source.place,
        seed=0,
        origin=Origin(
            processor=description.name,
            revision=source.revision,
            licence=description.licence,
            uses=description.uses,
            profile=description.profile,
            files=dict(hashes),
            rows_in={split: found.num_rows for split, found in parts.splits.items()},
            drops={split: dict(sorted(count.items())) for split, count in counts.items()},
        ),
        notes={DROPS_NAME: "".join(lines)},
    )


def _drops(found: _Split, ids: Repeats) -> list[Run]:
    """All dropped rows of a split; an id that an earlier row has, in any split, drops the later one."""
    runs = list(found.repeats)
    for file in found.files:
        notes = read_notes(file)
        runs += notes.drops
        runs += [
            Run(row, row, REPEATED_ID) for row, name in zip(notes.rows, notes.ids, strict=True) if not ids.is_new(name)
        ]
    return joined(runs)


def _counted(runs: list[Run]) -> Counter[str]:
    counts: Counter[str] = Counter()
    for run in runs:
        counts[run.reason] += run.last - run.first + 1
    return counts


def _samples(found: _Split, drops: list[Run]) -> Iterator[Sample]:
    repeated = {row for run in drops if run.reason == REPEATED_ID for row in range(run.first, run.last + 1)}
    for file in found.files:
        yield from (sample for row, sample in read_part(file) if row not in repeated)


def _fingerprint(processor: Processor, source: Source, hashes: Mapping[str, str]) -> str:
    """What finished parts depend on: raw files, archives, pictures, what is asked for, and the code that converts."""
    beside = [
        (path.relative_to(source.root).as_posix(), path.stat().st_size, path.stat().st_mtime_ns)
        for path in (*source.files.archives, *source.pictures())
    ]
    code = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(__file__).parent.glob("*.py"))]
    asked = [processor.description.name, list(source.parts), FORMAT_VERSION, mm_agrae.__version__, PIECE]
    words = json.dumps([dict(hashes), beside, code, asked])
    return hashlib.sha256(words.encode()).hexdigest()[:NUM_DIGITS]


def _remove_leftovers(out: Path) -> None:
    """Parts of other conversions into `out` (of changed files, say) that nobody works on: `out` is taken now."""
    for folder in out.parent.glob(f".{escape(out.name)}.{'[0-9a-f]' * NUM_DIGITS}.conversion"):
        with suppress(DataError), _locked(folder, out):
            shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, out: Path) -> Iterator[None]:
    """The folder, for this process alone."""
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"another process converts into {out}. Wait until it is done, or name another folder."
            ) from error
        yield
