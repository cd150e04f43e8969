from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, Image, List, Value
from PIL import Image as Pillow

from data_processors import PROCESSORS
from data_processors.math_text import last_box
from mm_agrae.data.images import encode_png
from mm_agrae.errors import DataError
from mm_agrae.records import Sample

PICTURE = {"bytes": encode_png(Pillow.new("RGB", (9, 9), "red")), "path": None}
GEOMETRY = {"images": [PICTURE], "problem": "<image>Find x.", "answer": "2 \\sqrt { 221 } "}
MATH = {"problem": "1+1?", "level": "Level 5", "type": "Algebra", "solution": "It is \\boxed{2}."}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def geometry(path: Path, *rows: dict[str, Any]) -> str:
    texts = [name for name in rows[0] if name not in ("images", "id", "choices")]
    kinds: dict[str, Any] = {name: Value("string") for name in texts} | {"images": List(Image())}
    kinds |= {"id": Value("int64")} if "id" in rows[0] else {}
    kinds |= {"choices": List(Value("string"))} if "choices" in rows[0] else {}
    Dataset.from_list(list(rows), features=Features(kinds)).to_parquet(path)
    return str(path)


def math(path: Path, *rows: dict[str, Any]) -> str:
    Dataset.from_list(list(rows)).to_parquet(path)
    return str(path)


def read(name: str, source: str, split: str = "train") -> list[Sample]:
    return list(PROCESSORS[name](source, split))


def test_geometry_with_old_columns(tmp_path: Path) -> None:
    (sample,) = read("geometry3k", geometry(tmp_path / "a.parquet", GEOMETRY))
    assert (sample.question, sample.target, sample.images) == (
        "<image>Find x.",
        "2 \\sqrt { 221 }",
        (PICTURE["bytes"],),
    )
    assert (sample.source, sample.metadata) == ("geometry3k", {})


def test_geometry_with_new_columns_from_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    row = {**GEOMETRY, "id": 12, "choices": ["60", "61"], "ground_truth": "A"}
    geometry(tmp_path / "data" / "test-00000-of-00001.parquet", row)
    (sample,) = read("geometry3k", str(tmp_path), "test")
    assert sample.metadata == {"id": 12, "choices": ["60", "61"], "ground_truth": "A"}
    with pytest.raises(DataError, match=r"no file train.*its parquet files are \['data/test-00000-of-00001.parquet'\]"):
        read("geometry3k", str(tmp_path), "train")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": []}, "row 1 .* has 0 images and 1 marks"),
        ({"images": [PICTURE, PICTURE]}, "row 1 .* has 2 images and 1 marks"),
        ({"answer": ""}, "row 1 .* has no answer"),
        ({"images": [{"bytes": b"", "path": "gone.png"}]}, "row 1 .* without content \\(path: gone.png\\)"),
    ],
)
def test_geometry_rows_that_cannot_be_used(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read("geometry3k", geometry(tmp_path / "a.parquet", GEOMETRY, {**GEOMETRY, **change}))


def test_a_missing_answer_column_is_named(tmp_path: Path) -> None:
    row = {"images": [PICTURE], "problem": "<image>Find x."}
    with pytest.raises(DataError, match="columns \\['images', 'problem'\\], but \\['answer'\\]"):
        read("geometry3k", geometry(tmp_path / "a.parquet", row))


def test_math_reads_the_last_box(tmp_path: Path) -> None:
    rows = [MATH, {**MATH, "level": "Level ?", "solution": "\\boxed{1} then \\boxed{\\frac{1}{2}}"}]
    first, second = read("math", math(tmp_path / "m.parquet", *rows))
    assert (first.target, first.difficulty, first.family, first.images) == ("2", 5, "Algebra", ())
    assert (second.target, second.difficulty) == ("\\frac{1}{2}", None)


def test_math_without_a_box_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"row 1 .* no answer in a box"):
        read("math", math(tmp_path / "m.parquet", MATH, {**MATH, "solution": "It is 2."}))


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("\\boxed{a{b}c} x", "a{b}c"),
        ("so \\boxed 5.", "5"),
        ("\\fbox{7}", "7"),
        ("\\boxed{3} and \\boxed{un", "3"),
        ("\\boxed{\\{1,2\\}}", "\\{1,2\\}"),
        ("none", None),
    ],
)
def test_boxes(text: str, content: str | None) -> None:
    assert last_box(text) == content


def test_a_source_that_is_no_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("no parquet")
    with pytest.raises(DataError, match="cannot be loaded"):
        read("math", str(tmp_path / "x.parquet"))
