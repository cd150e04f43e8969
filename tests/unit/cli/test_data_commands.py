"""`mm-agrae data list | convert | rows`, and a recipe's data source read through the same conversion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from data_processors import PROCESSORS
from mm_agrae.cli.load import load_samples
from mm_agrae.cli.main import app
from mm_agrae.config.schema import DataSource
from mm_agrae.data.dataset import open_dataset
from mm_agrae.errors import ConfigError, DataError
from mm_agrae.records import Sample
from tests.fixtures import FIXTURES


@pytest.fixture
def geometry(tmp_path: Path) -> Path:
    FIXTURES["geometry3k"].draw(tmp_path / "raw")
    return tmp_path / "raw"


def run(*arguments: Any) -> str:
    ended = CliRunner().invoke(app, ["data", *map(str, arguments)], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_every_data_set_is_listed() -> None:
    lines = run("list").splitlines()
    assert [line.split()[0] for line in lines[1 : 1 + len(PROCESSORS)]] == list(PROCESSORS)
    (geometry,) = [line for line in lines if line.startswith("geometry3k ")]
    for cell in ("hiyouga/geometry3k", "train, validation, test", "MIT", "training, benchmark", "mathruler"):
        assert cell in geometry
    table = run("list", "--markdown").splitlines()
    assert len(table) == 2 + len(PROCESSORS)
    assert {line.count("|") for line in table} == {9}


def test_a_data_set_is_not_written_into_its_source(geometry: Path) -> None:
    with pytest.raises(ConfigError, match=r"--out is .*, inside the source"):
        run("convert", "geometry3k", "--source", geometry, "--split", "train", "--out", geometry / "set")


def test_a_data_set_is_converted_and_shown(geometry: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    told = run("convert", "geometry3k", "--source", geometry, "--split", "train,test", "--out", out)
    assert "train: 3 rows in, 2 samples out\n  1 dropped: number of image marks" in told
    assert "test: 3 rows in, 2 samples out\n  1 dropped: no answer" in told
    assert "licence MIT" in told
    assert len(open_dataset(out, "train")) == 2

    told = run("rows", out, "--out", tmp_path / "sheet.png", "--num", "5")
    assert "(4 rows)" in told
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * 400
        assert len(sheet.convert("L").getcolors()) > 2


def test_a_layout_of_users_files_needs_a_source(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'chat' has no place on the hub. Name a file or folder with --source"):
        run("convert", "chat", "--split", "train", "--out", tmp_path / "set")


def test_a_recipe_reads_what_a_conversion_writes(
    geometry: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("convert", "geometry3k", "--source", geometry, "--split", "test", "--out", tmp_path / "set")
    direct = load_samples(DataSource(format="geometry3k", path=str(geometry), split="test"))
    told = capsys.readouterr().err
    assert list(direct) == list(open_dataset(tmp_path / "set", "test"))
    assert "split 'test': 1 rows dropped (1 no answer)" in told


def test_an_unknown_format_is_told_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no data processor is called 'geometry'. Did you mean 'geometry3k'"):
        load_samples(DataSource(format="geometry", path=str(tmp_path)))


def test_a_benchmark_is_not_trained_on(tmp_path: Path) -> None:
    FIXTURES["mathvista"].draw(tmp_path / "raw")
    raw = DataSource(format="mathvista", path=str(tmp_path / "raw"), split="testmini")
    assert len(load_samples(raw)) > 0
    with pytest.raises(DataError, match="a data set for benchmark only"):
        load_samples(raw, training=True)
    run("convert", "mathvista", "--source", tmp_path / "raw", "--split", "testmini", "--out", tmp_path / "set")
    canonical = DataSource(path=str(tmp_path / "set"), split="testmini")
    samples: list[Sample] = list(load_samples(canonical))
    assert samples
    with pytest.raises(DataError, match="a data set for benchmark only"):
        load_samples(canonical, training=True)
