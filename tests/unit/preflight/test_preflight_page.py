"""check.html, check.json, the printed lines and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from check_sets import png, report_on, sample, write
from typer.testing import CliRunner

from mm_agrae.cli.load import load_samples
from mm_agrae.cli.main import app
from mm_agrae.config.schema import DataSource
from mm_agrae.data.manifest import Origin
from mm_agrae.errors import DataError
from mm_agrae.preflight.findings import KINDS, MAX_KEPT, MAX_PARTNERS, Findings, Place
from mm_agrae.preflight.page import MAX_SHOWN, as_json, write_check

BENCHMARK = Origin(processor="mathvista", licence="CC BY-SA 4.0", uses=("benchmark",), profile="mathvista")


def run(*arguments: object) -> tuple[int, str]:
    ended = CliRunner().invoke(app, ["data", "check", *map(str, arguments)])
    if ended.exception and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return ended.exit_code, ended.output


def test_the_command_writes_page_and_json_and_counts_tokens(
    tmp_path: Path, model_folder: Callable[[str], Path]
) -> None:
    asked = "How many bars <b>stand</b> there in the middle?"
    training = write(tmp_path / "train", train=[sample("t", asked, images=[png((50, 90))]), sample("u", "3 + 4 = ?")])
    benchmark = write(tmp_path / "vista", origin=BENCHMARK, test=[sample("v", asked, images=[png((50, 90))])])
    out = tmp_path / "out"
    options = ("--processor", model_folder("qwen2_5_vl"), "--max-prompt-tokens", 100, "--max-pixels", 50000)
    code, printed = run(training, "--against", benchmark, *options, "--out", out)
    assert code == 0
    assert "fault: Leak: 1 (first: vista / test / v)" in printed
    assert "training train: 2 rows, 1 images, licence MIT" in printed
    saved = json.loads((out / "check.json").read_text(encoding="utf-8"))
    assert set(saved) == {"format_version", "refused", "sets", "findings", "thresholds"}
    assert set(saved["findings"]) == set(KINDS)
    leak = saved["findings"]["leak"]
    assert leak["count"] == leak["rows"][0]["num_partners"] == 1
    assert leak["rows"][0]["place"] == {"dataset": "vista", "split": "test", "id": "v"}
    assert leak["rows"][0]["partners"] == [{"dataset": "train", "split": "train", "id": "t"}]
    tokens = saved["sets"][0]["tokens"]
    assert tokens["prompts"] == 2
    # One visual token of the small model is 16 x 16 pixels; 200 x 160 are rounded to 192 x 160.
    assert tokens["visual_tokens"] == tokens["max_visual_tokens"] == 12 * 10
    assert tokens["over_budget"] == 1
    assert saved["findings"]["over_budget"]["count"] == 2
    page = (out / "check.html").read_text(encoding="utf-8")
    assert "<svg" in page
    assert "vista / test / v" in page
    assert "Prompt lengths" in page


def test_a_benchmark_among_the_training_sets_ends_with_code_1(tmp_path: Path) -> None:
    benchmark = write(tmp_path / "vista", origin=BENCHMARK, test=[sample("v", "What is 3 + 4?")])
    code, printed = run(benchmark, "--out", tmp_path / "out")
    assert code == 1
    assert "refused: Benchmark among the training sets: 1 (first: vista)" in printed
    assert json.loads((tmp_path / "out/check.json").read_text())["refused"] is True
    code, _ = run("--against", benchmark, "--out", tmp_path / "again")
    assert code == 0


def test_a_folder_without_a_manifest_ends_with_code_1(tmp_path: Path) -> None:
    code, printed = run(tmp_path, "--out", tmp_path / "out")
    assert code == 1
    assert "refused: No manifest: 1" in printed


def test_training_on_a_benchmark_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    benchmark = write(tmp_path / "vista", origin=BENCHMARK, train=[sample("v", "What is 3 + 4?")])
    assert len(load_samples(DataSource(path=str(benchmark)))) == 1
    with pytest.raises(DataError, match=r"data\.train\.path is .*vista, a data set for benchmark only"):
        load_samples(DataSource(path=str(benchmark)), training=True)
    open_set = write(tmp_path / "own", train=[sample("v", "What is 3 + 4?")])
    assert len(load_samples(DataSource(path=str(open_set)), training=True)) == 1


def test_findings_are_counted_beyond_what_is_kept() -> None:
    findings = Findings()
    for index in range(MAX_KEPT + 3):
        findings.add("tiny_image", Place(dataset="d", split="s", id=str(index)))
    partners = [Place(dataset="d", split="s", id=str(index)) for index in range(MAX_PARTNERS + 2)]
    findings.add("duplicate", Place(dataset="d"), partners=partners)
    assert findings.counts["tiny_image"] == MAX_KEPT + 3
    assert len(findings.of("tiny_image")) == MAX_KEPT
    assert findings.of("duplicate")[0].num_partners == MAX_PARTNERS + 2
    assert len(findings.of("duplicate")[0].partners) == MAX_PARTNERS


def test_the_page_says_how_much_it_leaves_out_and_escapes_what_rows_say(tmp_path: Path) -> None:
    rows = [sample(f"<i>{index}</i>", f"What is {index} + 1?", "None") for index in range(MAX_SHOWN + 2)]
    report = report_on(write(tmp_path / "train", train=rows))
    write_check(tmp_path / "out", report)
    page = (tmp_path / "out/check.html").read_text(encoding="utf-8")
    assert f"The first {MAX_SHOWN} of {MAX_SHOWN + 2}; all are in check.json." in page
    assert "<i>0</i>" not in page
    assert "&lt;i&gt;0&lt;/i&gt;" in page
    assert len(as_json(report)["findings"]["placeholder_target"]["rows"]) == MAX_SHOWN + 2
