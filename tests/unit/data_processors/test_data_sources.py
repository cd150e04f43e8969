"""Files of a data set found and read: by their names, by the data card, in every format, from the hub."""

import importlib
import json
import random
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import HfHubHTTPError

from data_processors import PROCESSORS, processor_named
from data_processors.conversion.description import Description, Part
from data_processors.conversion.layout import card_configs, row_files
from data_processors.conversion.rows import READ_CHARS, read_rows
from data_processors.conversion.sources import open_source
from mm_agrae.errors import ConfigError, DataError
from tests.fixtures.tables import write_json, write_json_lines, write_parquet, write_zip

TWO_PARTS = Description(
    name="two",
    title="Two",
    hub_id="somebody/two",
    licence="MIT",
    splits={"train": (Part(split="train"),), "test": (Part(split="a"), Part(split="b", files=("extra/*.jsonl",)))},
    uses=("training",),
    profile="generic",
    rows="",
    required=("q",),
    archives=("*.zip",),
    images=("pictures/*.png",),
)
ROWS = [{"q": "1"}, {"q": "2"}, {"q": "3"}]


@pytest.mark.parametrize(
    ("part", "found"),
    [
        (Part(split="test"), ["data/test-00000-of-00002.parquet", "data/test-00001-of-00002.parquet"]),
        (Part(split="testmini"), ["data/testmini.parquet"]),
        (Part(split="dev"), ["dev.jsonl"]),
        (Part(split="train", config="main"), ["main/train-0.parquet"]),
        (Part(split="train", config="socratic"), ["socratic/train/0000.parquet"]),
        (Part(split="train", files=("39K*.parquet",)), ["39Krelease.parquet"]),
        (Part(split="x", files=("**/*.jsonl",)), ["dev.jsonl"]),
        (Part(split="x", files=("*.parquet",)), ["39Krelease.parquet"]),
        (Part(split="x", files=("**/train*/*",)), ["socratic/train/0000.parquet"]),
        (Part(split="x", files=("socratic/**",)), ["socratic/train/0000.parquet"]),
        (Part(split="dev", config="dev"), ["dev.jsonl"]),
    ],
)
def test_files_are_told_from_their_names(part: Part, found: list[str]) -> None:
    names = [
        "39Krelease.parquet",
        "README.md",
        "data/test-00000-of-00002.parquet",
        "data/test-00001-of-00002.parquet",
        "data/test_extra.parquet",
        "data/testmini.parquet",
        "dev.jsonl",
        "dev.png",
        "main/train-0.parquet",
        "socratic/train/0000.parquet",
    ]
    assert row_files(names, part, {}) == found


def test_a_part_that_is_not_there_is_told_with_what_there_is() -> None:
    with pytest.raises(DataError, match=r"no file of split 'train' of configuration 'en'; .*\['data/a.parquet'\]"):
        row_files(["data/a.parquet", "README.md"], Part(split="train", config="en"), {})


@pytest.mark.parametrize(
    ("head", "part", "found"),
    [
        ("configs:\n- config_name: default\n  data_files:\n  - {split: train, path: x/*}", Part(split="train"), "x/1"),
        ("configs:\n- config_name: all\n  data_files:\n  - {split: train, path: [x/1*]}", Part(split="train"), "x/1"),
        (
            "configs:\n- {config_name: a, data_files: x/1.json}\n- {config_name: b, default: true, data_dir: y, "
            "data_files: '*'}",
            Part(split="train"),
            "y/2",
        ),
        (
            "configs:\n- {config_name: a, data_files: x/1.json}\n- {config_name: b, data_dir: y, data_files: '*'}",
            Part(split="train", config="a"),
            "x/1",
        ),
    ],
)
def test_the_data_card_decides_before_names(tmp_path: Path, head: str, part: Part, found: str) -> None:
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n# A set\n", encoding="utf-8")
    names = ["train.json", "x/1.json", "y/2.json"]
    assert row_files(names, part, card_configs(tmp_path / "README.md")) == [f"{found}.json"]


@pytest.mark.parametrize(
    "text", ["# no head", "---\n: [\n---\n", "---\nlicense: mit\n---\n", "---\nconfigs: [a, b]\n---\n"]
)
def test_a_card_that_lists_no_files(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert card_configs(tmp_path / "README.md") == {}
    assert card_configs(tmp_path / "none.md") == {}


def test_a_card_that_is_not_utf8(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes("---\nconfigs: [{data_files: x.json}]\n---\nMünchen".encode("latin-1"))
    assert card_configs(tmp_path / "README.md") == {"default": {"train": ("x.json",)}}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    {".parquet": write_parquet, ".json": write_json, ".jsonl": write_json_lines}[path.suffix](path, rows)
    return path


@pytest.mark.parametrize("name", ["a.parquet", "a.json", "a.jsonl"])
def test_rows_of_every_format(tmp_path: Path, name: str) -> None:
    rows = [{"q": f"größe {index}\n", "list": [1, 2], "none": None} for index in range(40)]
    assert list(read_rows(written(tmp_path / name, rows))) == rows


def test_a_json_array_longer_than_what_is_read_at_once(tmp_path: Path) -> None:
    rows = [{"q": '"],[{' * 50_000, "n": index} for index in range(3 * READ_CHARS // 250_000)]
    assert list(read_rows(written(tmp_path / "a.json", rows))) == rows


def test_memory_does_not_grow_with_a_parquet_file(tmp_path: Path) -> None:
    rows = [{"q": random.Random(index).randbytes(50_000)} for index in range(400)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=16)
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in read_rows(tmp_path / "a.parquet"))
    assert most < 8_000_000, f"{most} bytes are held of a file of 20,000,000 with row groups of 800,000"


def test_json_lines_under_the_name_of_json(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl", ROWS).rename(tmp_path / "a.json")
    assert list(read_rows(tmp_path / "a.json")) == ROWS
    written(tmp_path / "one.jsonl", ROWS[:1]).rename(tmp_path / "one.json")
    assert list(read_rows(tmp_path / "one.json")) == ROWS[:1]


@pytest.mark.parametrize("indent", [None, 1])
def test_rows_by_their_key(tmp_path: Path, indent: int | None) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"v1": {"q": "1"}, "v2": {"q": "2"}}, indent=indent), encoding="utf-8")
    assert list(read_rows(tmp_path / "a.json")) == [{"key": "v1", "q": "1"}, {"key": "v2", "q": "2"}]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.json", '[{"q": 1}, {"q"', "no whole JSON array"),
        ("a.json", "[1, 2]", "'1' where a row"),
        ("a.json", "nothing", r"starts with 'n', but JSON of rows starts with \[ or {"),
        ("a.jsonl", '{"q": 1}\n{"q": \n', "line 2 of .* is no JSON"),
        ("a.json", '{"a": {"q": 1}, "b": ', "neither JSON lines nor one JSON value"),
        ("a.json", '[{"q": 1}, {"q": ' + "[" * 100_000, "nested too deeply at character 11"),
        ("a.jsonl", '{"q": 1}\n{"q": ' + "[" * 100_000, "line 2 of .* is no JSON"),
        ("a.csv", "q\n1\n", "must end in .parquet, .json or .jsonl"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        list(read_rows(tmp_path / name))


def test_a_broken_row_is_not_looked_for_in_the_whole_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_processors.conversion.rows.MAX_ROW_CHARS", 2 * READ_CHARS)
    (tmp_path / "a.json").write_text('[{"q": 1}, {"q": "' + "x" * 9 * READ_CHARS + '"}]', encoding="utf-8")
    with pytest.raises(DataError, match=r"at character 11 is no whole row within (2|3)\d{6} characters \(Unterminated"):
        list(read_rows(tmp_path / "a.json"))


def draw_two(folder: Path) -> Path:
    write_parquet(folder / "a.parquet", ROWS)
    write_json_lines(folder / "extra" / "more.jsonl", [{"q": "4"}, {}])
    write_json(folder / ".cache" / "a.json", [{"q": "hidden"}])
    (folder / "pictures").mkdir()
    (folder / "pictures" / "x.png").write_bytes(b"x")
    return folder


def test_parts_follow_each_other_and_missing_cells_are_none(tmp_path: Path) -> None:
    source = open_source(TWO_PARTS, str(draw_two(tmp_path)), ["test"])
    rows = list(source.rows("test"))
    assert [(row.index, row.values["q"], row.part.split) for row in rows] == [
        (0, "1", "a"),
        (1, "2", "a"),
        (2, "3", "a"),
        (3, "4", "b"),
        (4, None, "b"),
    ]
    assert rows[0].files.read("pictures/x.png") == b"x"
    assert list(source.hashes()) == ["a.parquet", "extra/more.jsonl"]
    assert source.revision == "local"


def test_a_file_is_the_split_that_is_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path / "anything.parquet", ROWS)
    assert [row.values["q"] for row in open_source(TWO_PARTS, str(path), ["train"]).rows("train")] == ["1", "2", "3"]
    with pytest.raises(ConfigError, match=r"one file, but the splits \['train', 'test'\] were asked for"):
        open_source(TWO_PARTS, str(path), ["train", "test"])


@pytest.mark.parametrize(
    ("place", "splits", "revision", "words"),
    [
        ("", ["tets"], None, "no split 'tets'. Did you mean 'test'"),
        ("", ["zzz"], None, "Its splits: train, test"),
        ("", [], None, "no split of 'two' was named. Name one or more of train, test"),
        ("", ["test"], "main", "a revision .main. was given"),
    ],
)
def test_requests_that_make_no_sense(
    tmp_path: Path, place: str, splits: list[str], revision: str | None, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        open_source(TWO_PARTS, str(draw_two(tmp_path) / place), splits, revision=revision)


def test_a_file_is_not_taken_for_a_split_of_several_parts(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", ROWS)
    with pytest.raises(ConfigError, match=r"one file, but the split 'test' is made of \['a', 'b'\]"):
        open_source(TWO_PARTS, str(path), ["test"])


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", [{"question": "1"}])
    with pytest.raises(DataError, match=r"columns \['question'\], but \['q'\] must be there"):
        open_source(TWO_PARTS, str(path), ["train"])


@pytest.mark.parametrize("place", ["/no/such/place", "../nothing", "./nothing", "a/b/c"])
def test_a_place_that_is_none(place: str) -> None:
    with pytest.raises(DataError, match="neither a file, a folder nor a hub id"):
        open_source(TWO_PARTS, place, ["train"])


def test_a_place_that_the_hub_takes_for_no_id() -> None:
    with pytest.raises(DataError, match="cannot be fetched from the hub"):
        open_source(TWO_PARTS, "some--body/two..", ["train"])


def test_a_split_that_cannot_name_a_file(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", [{"problem": "q", "answer": "1", "images": []}])
    with pytest.raises(ConfigError, match=r"split is 'x/train'.* without '/'"):
        open_source(PROCESSORS["easyr1"].description, str(path), ["x/train"])


def test_archives_below_other_folders_are_not_opened(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", ROWS)
    for place in ("a.zip", "other/b.zip"):
        write_zip(tmp_path / place, {"x.png": b"x"})
    assert open_source(TWO_PARTS, str(tmp_path / "a.parquet"), ["train"]).files.archives == (tmp_path / "a.zip",)


def test_the_hub_is_read_as_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is needed is fetched, at the commit that the manifest names."""
    folder = draw_two(tmp_path / "snapshot")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    names = ["README.md", "a.parquet", "train.parquet", "extra/more.jsonl", "i[1].zip", "pictures/x.png", "notes.txt"]
    asked: dict[str, Any] = {}

    def info(self: Any, place: str, *, revision: str | None = None) -> SimpleNamespace:
        asked["info"] = (place, revision)
        return SimpleNamespace(sha="abc123", siblings=[SimpleNamespace(rfilename=name) for name in names])

    def snapshot(place: str, *, repo_type: str, revision: str, allow_patterns: list[str]) -> str:
        asked["snapshot"] = (place, repo_type, revision, allow_patterns)
        return str(folder)

    def readme(place: str, name: str, *, repo_type: str, revision: str) -> str:
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", readme)
    source = open_source(TWO_PARTS, "somebody/two", ["test"], revision="v1")
    assert asked["info"] == ("somebody/two", "v1")
    needed = ["a.parquet", "extra/more.jsonl", "i[[]1].zip", "pictures/x.png", "README.md"]
    assert asked["snapshot"] == ("somebody/two", "dataset", "abc123", needed)
    assert (source.revision, source.place, len(list(source.rows("test")))) == ("abc123", "somebody/two", 5)


def test_a_hub_id_without_a_connection() -> None:
    with pytest.raises(DataError, match="nothing on disk, and cannot be fetched from the hub"):
        open_source(TWO_PARTS, "somebody/two", ["train"])


def test_a_connection_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    library = importlib.import_module(HfHubHTTPError.__bases__[0].__module__.split(".")[0])

    def info(self: Any, place: str, *, revision: str | None = None) -> None:
        raise library.ConnectError("no route to host")

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", info)
    with pytest.raises(DataError, match=r"cannot be fetched from the hub \(no route to host\)"):
        open_source(TWO_PARTS, "somebody/two", ["train"])


def test_an_unknown_processor_is_told_with_the_nearest() -> None:
    assert processor_named("math") is PROCESSORS["math"]
    with pytest.raises(ConfigError, match="Did you mean 'geometry3k'"):
        processor_named("geometry")
    with pytest.raises(ConfigError, match=re.escape(f"There are {next(iter(PROCESSORS))}")):
        processor_named("zzzzzzz")


def test_rows_come_one_by_one(tmp_path: Path) -> None:
    """Rows come while the rest of the file is unread: what lies behind the first ones may be broken."""
    path = written(tmp_path / "a.jsonl", ROWS)
    path.write_text(path.read_text(encoding="utf-8") + "broken\n", encoding="utf-8")
    rows = read_rows(path)
    assert [next(rows) for _ in ROWS] == ROWS
    with pytest.raises(DataError, match="line 4"):
        next(rows)
