import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mm_agrae.data.dataset import OutputExistsError, open_dataset, write_dataset
from mm_agrae.data.images import encode_png
from mm_agrae.data.manifest import Origin, read_manifest
from mm_agrae.errors import DataError
from mm_agrae.records import Sample, Tolerance


def sample(index: int, *, images: int = 1) -> Sample:
    return Sample(
        id=f"s{index}",
        question="<image>" * images + f"What is {index}?",
        target=str(index),
        answer_kind="choice",
        images=tuple(encode_png(Image.new("RGB", (8, 8), (index % 256, k, 0))) for k in range(images)),
        options=("a", "b"),
        tolerance=Tolerance(kind="round", value=2),
        solution=f"\\boxed{{{index}}}",
        family="odd" if index % 2 else "even",
        difficulty=index % 3 or None,
        source="test",
        metadata={"seed": index, "nested": {"list": [1, 2.5, None]}},
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    out = tmp_path / "set"
    splits = {"train": [sample(i) for i in range(150)], "test": [sample(200, images=0), sample(201, images=2)]}
    write_dataset(splits, out, source="made up", seed=7)
    return out


def test_samples_come_back_equal_in_any_order(written: Path) -> None:
    train, test = open_dataset(written, "train"), open_dataset(written, "test")
    assert len(train) == 150
    assert [train[i] for i in (149, 0, 64, 63, 65)] == [sample(i) for i in (149, 0, 64, 63, 65)]
    assert list(test) == [sample(200, images=0), sample(201, images=2)]
    with pytest.raises(IndexError, match="samples 0 to 149"):
        train[150]


def test_the_datasets_library_sees_images(written: Path, tmp_path: Path) -> None:
    files = {"train": str(written / "train.parquet")}
    rows = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert rows[3]["images"][0].getpixel((0, 0)) == (3, 0, 0)


def test_the_manifest_tells_the_truth(written: Path) -> None:
    manifest = read_manifest(written)
    train = manifest.splits["train"]
    assert (manifest.source, manifest.seed, manifest.split_overlap) == ("made up", 7, 0)
    assert train.families == {"even": 75, "odd": 75}
    assert train.difficulties == {"1": 50, "2": 50, "none": 50}
    for split in manifest.splits.values():
        data = (written / split.file).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (split.sha256, split.num_bytes)


def test_origin_and_notes_are_kept(tmp_path: Path) -> None:
    origin = Origin(
        processor="geometry3k",
        revision="abc",
        licence="MIT",
        uses=("benchmark",),
        profile="mathruler",
        files={"a.parquet": "00"},
        rows_in={"train": 2},
        drops={"train": {"no answer": 1}},
    )
    splits = {"train": [sample(0)]}
    written = write_dataset(splits, tmp_path / "x", source="", seed=0, origin=origin, notes={"n.txt": "é"})
    assert read_manifest(tmp_path / "x") == written
    assert written.origin == origin
    assert (tmp_path / "x" / "n.txt").read_text(encoding="utf-8") == "é"


def test_problems_in_two_splits_are_counted(tmp_path: Path) -> None:
    test = [replace(sample(i), id=f"other{i}") for i in (3, 4)] + [sample(90)]
    manifest = write_dataset({"train": [sample(i) for i in range(5)], "test": test}, tmp_path / "x", source="", seed=0)
    assert manifest.split_overlap == 2


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "keep.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="not empty") as error:
        write_dataset({"train": [sample(1)]}, tmp_path, source="", seed=0)
    assert isinstance(error.value, DataError)
    assert isinstance(error.value, FileExistsError)
    assert [path.name for path in tmp_path.iterdir()] == ["keep.txt"]


def test_an_empty_folder_is_filled_and_samples_are_announced(tmp_path: Path) -> None:
    out, calls = tmp_path / "empty", []
    out.mkdir()
    write_dataset({"train": (sample(i) for i in range(3))}, out, source="", seed=0, on_sample=lambda: calls.append(1))
    assert len(open_dataset(out, "train")) == len(calls) == 3


def test_a_failure_midway_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing() -> Iterator[Sample]:
        yield from (sample(i) for i in range(70))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_dataset({"train": failing()}, tmp_path / "out", source="", seed=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (replace(sample(1), target=""), "'s1' has no target"),
        (replace(sample(1), question="none"), "1 images and 0 marks"),
        (replace(sample(1), question="<image><image>"), "1 images and 2 marks"),
        (replace(sample(2), id="s0"), "two samples have the id 's0'"),
    ],
)
def test_unusable_samples_are_refused(tmp_path: Path, bad: Sample, words: str) -> None:
    with pytest.raises(DataError, match=words):
        write_dataset({"train": [sample(0), bad]}, tmp_path / "out", source="", seed=0)


def test_missing_pieces_are_named(written: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no split 'dev'; it has \\['test', 'train'\\]"):
        open_dataset(written, "dev")
    with pytest.raises(DataError, match="no such folder"):
        open_dataset(tmp_path / "nowhere", "train")
    table = pq.read_table(written / "train.parquet")
    pq.write_table(table.drop_columns(["target"]), written / "train.parquet")
    with pytest.raises(DataError, match="lacks the columns \\['target'\\]; it has \\['id', 'question', 'answer_kind'"):
        open_dataset(written, "train")
    pq.write_table(table.slice(0, 9), written / "train.parquet")
    with pytest.raises(DataError, match="9 rows, but the manifest says 150"):
        open_dataset(written, "train")
    pq.write_table(table, written / "train.parquet", compression="none")
    with pytest.raises(DataError, match=r"has \d+ bytes, but the manifest says \d+"):
        open_dataset(written, "train")
    (written / "train.parquet").write_bytes(b"broken")
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(written, "train")


def test_a_manifest_of_another_format_is_refused(written: Path) -> None:
    path = written / "manifest.json"
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "format_version": 99}))
    with pytest.raises(DataError, match="format version 99"):
        open_dataset(written, "train")
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read as a manifest"):
        open_dataset(written, "train")
