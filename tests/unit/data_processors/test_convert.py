"""A conversion: the same bytes whatever the workers and the interruptions, bounded memory, everything counted."""

import json
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_processors import PROCESSORS
from data_processors.conversion.convert import DROPS_NAME, PIECE, _convert_parts, convert, in_flight
from data_processors.conversion.description import Drop, Part, Processor, Row
from data_processors.conversion.files import Files
from data_processors.conversion.parts import Run, joined, write_part
from data_processors.conversion.samples import REPEATED_ID, REPEATED_ROW, convert_row
from data_processors.conversion.sources import Source, open_source
from data_processors.math_text import DESCRIPTION
from data_processors.math_text import convert as math_row
from mm_agrae.data.dataset import OutputExistsError, open_dataset
from mm_agrae.data.manifest import read_manifest
from mm_agrae.errors import DataError
from mm_agrae.records import Sample
from tests.fixtures.pictures import circle
from tests.fixtures.tables import image_cell, write_json_lines, write_parquet, write_zip

MATH = PROCESSORS["math"]
NUM_ROWS = 5 * PIECE + 7


def math_row_values(index: int) -> dict[str, str]:
    solution = "It is 2." if index % 50 == 3 else f"It is $\\boxed{{{index + 1}}}$."
    return {"problem": f"What is ${index}+1$?", "level": "Level 1", "type": "Algebra", "solution": solution}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    write_parquet(folder / "train.parquet", [math_row_values(index) for index in range(NUM_ROWS)])
    write_parquet(folder / "test.parquet", [math_row_values(1000)])
    return folder


def math_source(raw: Path) -> Source:
    return open_source(DESCRIPTION, str(raw), ["train", "test"])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The conversion without an interruption, in this process."""
    out = tmp_path_factory.mktemp("whole") / "math"
    convert(MATH, math_source(raw), out, workers=1)
    return out


def test_rows_samples_and_drops_are_counted(whole: Path, raw: Path) -> None:
    manifest = read_manifest(whole)
    assert {name: split.num_samples for name, split in manifest.splits.items()} == {"train": NUM_ROWS - 7, "test": 1}
    origin = manifest.origin
    assert origin.rows_in == {"train": NUM_ROWS, "test": 1}
    assert origin.drops == {"train": {"no answer in a box": 7}, "test": {}}
    assert (origin.processor, origin.revision, origin.licence, origin.profile) == ("math", "local", "MIT", "qwen_math")
    assert origin.uses == ("training", "benchmark")
    assert origin.files == math_source(raw).hashes()
    lines = [json.loads(line) for line in (whole / DROPS_NAME).read_text(encoding="utf-8").splitlines()]
    expected = [[row, row] for row in range(3, NUM_ROWS, 50)]
    assert lines == [{"split": "train", "rows": rows, "reason": "no answer in a box"} for rows in expected]
    train = open_dataset(whole, "train")
    assert [sample.id for sample in train][:4] == [f"math/train/{row}" for row in (0, 1, 2, 4)]


KILLED = """
import os, signal, sys
from pathlib import Path
from data_processors import PROCESSORS
from data_processors.conversion.convert import convert
from data_processors.conversion.sources import open_source

def die(count):
    done.append(count)
    if len(done) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    done = []
    processor = PROCESSORS["math"]
    source = open_source(processor.description, sys.argv[1], ["train", "test"])
    convert(processor, source, Path(sys.argv[2]), workers=2, on_rows=die)
"""


def test_a_killed_conversion_goes_on_and_ends_in_the_same_bytes(
    raw: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, out = tmp_path / "killed.py", tmp_path / "math"
    script.write_text(KILLED, encoding="utf-8")
    # Workers inherit the pipe: run() returns only when they have ended too.
    ended = subprocess.run([sys.executable, script, raw, out], capture_output=True, timeout=120, check=False)
    assert ended.returncode == -9, ended.stderr
    assert not out.exists()
    assert list(tmp_path.glob(".math.*.conversion/parts/*.parquet"))

    counts: list[int] = []
    made: list[int] = []

    def write(*arguments: Any) -> int:
        made.append(write_part(*arguments))
        return made[-1]

    monkeypatch.setattr("data_processors.conversion.convert.write_part", write)
    manifest = convert(MATH, math_source(raw), out, workers=1, on_rows=counts.append)
    assert sum(made) <= NUM_ROWS + 1 - 3 * PIECE, "parts that were whole are made again"
    assert sum(counts) == NUM_ROWS + 1
    # The place, told in the manifest, is the only thing that could differ, and here it is the same.
    assert contents(out) == contents(whole)
    assert manifest == read_manifest(whole)
    assert list(tmp_path.glob(".math.*")) == []


def test_parts_of_other_rows_are_not_taken_up(raw: Path, tmp_path: Path) -> None:
    source, out = math_source(raw), tmp_path / "math"

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(MATH, source, out, workers=1, on_rows=stop)
    other = tmp_path / "other"
    write_parquet(other / "test.parquet", [math_row_values(7)])
    (tmp_path / f".math.more.{'0' * 12}.conversion").mkdir()
    convert(MATH, open_source(DESCRIPTION, str(other), ["test"]), out, workers=1)
    assert [sample.target for sample in open_dataset(out, "test")] == ["8"]
    # Nobody can go on with the parts of the first; those of a folder "math.more" are none of ours.
    assert [path.name for path in tmp_path.glob(".math.*")] == [f".math.more.{'0' * 12}.conversion"]


def test_a_torn_part_is_made_again(raw: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "math"

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(MATH, math_source(raw), out, workers=1, on_rows=stop)
    (part,) = tmp_path.glob(".math.*.conversion/parts/*.parquet")
    part.write_bytes(part.read_bytes()[:100])
    convert(MATH, math_source(raw), out, workers=1)
    assert contents(out) == contents(whole)


def test_a_folder_that_is_taken_is_not_touched(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputExistsError, match="only written to a new or empty folder"):
        convert(MATH, math_source(raw), tmp_path)
    assert contents(tmp_path) == {"mine.txt": b"mine"}
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}.*"))


def test_two_conversions_into_one_folder_do_not_mix(raw: Path, tmp_path: Path) -> None:
    source, out = math_source(raw), tmp_path / "math"

    def start_another(count: int) -> None:
        with pytest.raises(DataError, match=r"another process converts into .*math"):
            convert(MATH, source, out, workers=1)

    convert(MATH, source, out, workers=1, on_rows=start_another)
    assert len(open_dataset(out, "test")) == 1


def test_a_folder_that_another_conversion_made_meanwhile_is_not_touched(raw: Path, tmp_path: Path) -> None:
    out = tmp_path / "math"

    def take(count: int) -> None:
        out.mkdir(exist_ok=True)
        (out / "theirs").write_bytes(b"theirs")

    with pytest.raises(OutputExistsError):
        convert(MATH, math_source(raw), out, workers=1, on_rows=take)
    assert contents(out) == {"theirs": b"theirs"}


class Counting(Executor):
    """Runs a job when its result is asked for, and records how many are waiting."""

    def __init__(self) -> None:
        self.waiting = self.most = 0

    def submit(self, function: Any, /, *arguments: Any, **named: Any) -> Future[Any]:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        future: Future[Any] = Future()
        future.set_result(function(*arguments, **named))
        return future


def test_only_so_many_rows_are_in_memory() -> None:
    executor = Counting()
    read: list[int] = []

    def count(rows: tuple[Row, ...], file: Path) -> int:
        return len(rows)

    def jobs() -> Iterator[tuple[tuple[Row, ...], Path]]:
        for number in range(20):
            read.append(number)
            yield (), Path(str(number))

    for done, _ in enumerate(in_flight(executor, count, jobs(), limit=4), start=1):
        executor.waiting -= 1
        assert len(read) - done <= 4
    assert (executor.most, len(read)) == (4, 20)


def test_rows_that_are_done_are_let_go() -> None:
    alive: list[weakref.ref[Row]] = []

    def jobs() -> Iterator[tuple[tuple[Row, ...], Path]]:
        for number in range(3):
            row = Row(values={}, index=number, split="train", part=Part(split="train"), files=Files())
            alive.append(weakref.ref(row))
            rows = (row,)
            del row
            yield rows, Path(str(number))

    def count(rows: tuple[Row, ...], file: Path) -> int:
        assert all(reference() is None for reference in alive[: rows[0].index])
        return 1

    counts: list[int] = []
    _convert_parts(count, jobs(), 8, counts.append)
    assert counts == [1, 1, 1]


def named_row(row: Row) -> Sample | Drop:
    return Sample(id=row.values["id"], question="q", target="1")


def lower_key(row: Row) -> str:
    return row.values["key"].lower()


def test_repeated_rows_and_ids_are_dropped(tmp_path: Path) -> None:
    keys = ["a", "b", "A", "a", "B", "c", None, None]
    ids = ["1", "2", "3", "4", "5", "1", "7", "8"]
    rows = [
        {"id": name, "key": key, "problem": "", "level": "", "type": "", "solution": ""}
        for name, key in zip(ids, keys, strict=True)
    ]
    write_parquet(tmp_path / "train.parquet", rows)
    source = open_source(DESCRIPTION, str(tmp_path), ["train"])
    processor = Processor(description=DESCRIPTION, convert=named_row, key=lower_key)
    counts: list[int] = []
    manifest = convert(processor, source, tmp_path / "out", workers=1, on_rows=counts.append)
    assert sum(counts) == len(rows)
    assert [sample.id for sample in open_dataset(tmp_path / "out", "train")] == ["1", "2", "7", "8"]
    assert manifest.origin.drops == {"train": {REPEATED_ID: 1, REPEATED_ROW: 3}}
    lines = (tmp_path / "out" / DROPS_NAME).read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["rows"] for line in lines] == [[2, 4], [5, 5]]


def test_a_split_without_a_usable_row_is_an_error(tmp_path: Path) -> None:
    write_parquet(tmp_path / "train.parquet", [math_row_values(3)])
    source = open_source(DESCRIPTION, str(tmp_path), ["train"])
    with pytest.raises(DataError, match=r"has 1 rows, but none can be used: \{'no answer in a box': 1\}"):
        convert(MATH, source, tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (image_cell(circle("7")[:200]), "image cannot be decoded"),
        (image_cell(b"", "gone.png"), "image file is missing"),
    ],
)
def test_images_that_nobody_can_see(tmp_path: Path, image: dict[str, Any], reason: str) -> None:
    good = {"images": [image_cell(circle("7"))], "problem": "<image>Radius?", "answer": "7"}
    write_parquet(tmp_path / "train.parquet", [good, {**good, "images": [image]}])
    processor = PROCESSORS["geometry3k"]
    source = open_source(processor.description, str(tmp_path), ["train"])
    manifest = convert(processor, source, tmp_path / "out", workers=1)
    assert manifest.origin.drops == {"train": {reason: 1}}


def test_pictures_that_came_later_are_seen(tmp_path: Path) -> None:
    """What was dropped for want of its picture is converted again once the picture is there."""
    rows = [{"images": [f"{name}.png"], "problem": "<image>Radius?", "answer": "7"} for name in "ab"]
    write_json_lines(tmp_path / "raw" / "train.jsonl", rows)
    (tmp_path / "raw" / "a.png").write_bytes(circle("7"))
    processor, out = PROCESSORS["easyr1"], tmp_path / "out"

    def stop(count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(processor, open_source(processor.description, str(tmp_path / "raw"), ["train"]), out, on_rows=stop)
    (tmp_path / "raw" / "b.png").write_bytes(circle("7"))
    source = open_source(processor.description, str(tmp_path / "raw"), ["train"])
    assert convert(processor, source, out, workers=1).origin.drops == {"train": {}}


def test_a_broken_member_of_an_archive_drops_its_row(tmp_path: Path) -> None:
    write_zip(tmp_path / "a.zip", {"a.png": circle("7"), "b.png": b"content"})
    archive = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(archive.replace(b"content", b"CONTENT"))
    rows = [{"images": [f"{name}.png"], "problem": "<image>Radius?", "answer": "7"} for name in "ab"]
    write_json_lines(tmp_path / "train.jsonl", rows)
    processor = PROCESSORS["easyr1"]
    manifest = convert(
        processor, open_source(processor.description, str(tmp_path), ["train"]), tmp_path / "out", workers=1
    )
    assert manifest.origin.drops == {"train": {"image cannot be read from its archive": 1}}


def test_a_row_that_a_processor_stumbles_over_is_dropped() -> None:
    row = Row(values={}, index=0, split="train", part=Part(split="train"), files=Files())
    assert convert_row(MATH, row) == Drop("not a row of this data set (KeyError)")
    assert math_row(Row(values=math_row_values(1), index=0, split="train", part=row.part, files=Files()))


def test_half_a_surrogate_pair_drops_its_row() -> None:
    row = Row(values=math_row_values(1), index=0, split="train", part=Part(split="train"), files=Files())
    broken = {**math_row_values(1), "problem": "What is \ud83d?"}
    assert convert_row(MATH, replace(row, values=broken)) == Drop("text is not valid Unicode")
    assert isinstance(convert_row(MATH, replace(row, values={**broken, "problem": "What is \U0001f600?"})), Sample)


def test_runs_are_joined() -> None:
    runs = [Run(4, 6, "b"), Run(0, 0, "a"), Run(1, 3, "a"), Run(7, 7, "a"), Run(9, 9, "a")]
    assert joined(runs) == [Run(0, 3, "a"), Run(4, 6, "b"), Run(7, 7, "a"), Run(9, 9, "a")]
