"""Each fault in small data sets is found, in the row where it is; a clean set has none."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from check_sets import CLEAN, chart, ids, jpeg, png, report_on, sample, write
from PIL import Image

from data_processors import PROCESSORS
from mm_agrae.cli.data_check import check as check_command
from mm_agrae.data.images import encode_png
from mm_agrae.data.manifest import Origin
from mm_agrae.errors import ConfigError
from mm_agrae.preflight.check import count_rows
from mm_agrae.preflight.licences import SHARED_SOURCES
from mm_agrae.records import Sample

ONE, TWO, THREE = (120, 40, 90), (30, 110, 60, 80), (20, 50, 140)
ASKED = "How much higher is the tallest bar than the lowest one?"


def clean_rows() -> list[Sample]:
    return [
        sample("a", ASKED, "80", images=[png(ONE)]),
        sample("b", ASKED, "3/4", images=[png(TWO)]),
        sample("c", "How many bars are there?", images=[png(ONE)]),
        sample("d", "What is $\\sqrt{12}$?", "2\\sqrt{3}"),
        sample("e", "Which bar is red?", "B", kind="choice", options=("left", "right"), images=[png(THREE)]),
        sample("f", "Which are even?", "A,C", kind="choices", options=("2", "3", "4")),
        sample("g", "Is 7 prime?", "yes", kind="yes_no"),
    ]


def test_a_clean_set_has_no_finding(tmp_path: Path) -> None:
    training = write(tmp_path / "train", train=clean_rows())
    benchmark = write(tmp_path / "bench", test=[sample("z", "How many bars?", images=[png((60, 60))])])
    report = report_on(training, against=[benchmark])
    assert not +report.findings.counts
    assert not report.findings.refused
    assert [(one.name, one.role, one.num_rows, one.num_pictures) for one in report.sets] == [
        ("train", "training", 7, 4),
        ("bench", "benchmark", 1, 1),
    ]
    assert count_rows([training, benchmark, tmp_path]) == 8


def test_answer_keys_that_no_completion_can_match(tmp_path: Path) -> None:
    rows = [
        sample("none", "q1", "None"),
        sample("blank", "q2", "  "),
        sample("unclosed", "q3", "\\left\\{\\frac{1"),
        sample("boxed", "q4", "\\boxed{4}"),
        sample("words", "q5", "three apples", kind="integer"),
        sample("perhaps", "q6", "maybe", kind="yes_no"),
        sample("brace", "q7", "} 5"),
        sample("fine", "q8", "\\left\\{\\frac{1}{2}\\right\\}"),
        sample("unit", "q9", "12 cm", kind="quantity"),
    ]
    report = report_on(write(tmp_path / "train", train=rows))
    assert ids(report, "placeholder_target") == [("none", ()), ("blank", ())]
    assert ids(report, "unverified_target") == [("unclosed", ()), ("boxed", ()), ("brace", ())]
    notes = [found.note for found in report.findings.of("unverified_target")]
    assert notes[1] == f"target {rows[3].target!r}, kind math: \\boxed{{...}} around it does not close where it should"
    assert notes[2] == "target '} 5', kind math: unparsed by rule no_answer"
    assert ids(report, "kind_mismatch") == [("words", ()), ("perhaps", ())]
    assert sum(report.findings.counts.values()) == 7


def test_options_that_do_not_fit_the_letter(tmp_path: Path) -> None:
    rows = [
        sample("beyond", "q1", "D", kind="choice", options=("1", "2", "3")),
        sample("words", "q2", "two", kind="choice", options=("1", "2", "3")),
        sample("twice", "q3", "A", kind="choice", options=("5  cm", "7 cm", "5 cm")),
        sample("wrong twice", "q4", "B", kind="choice", options=("5", "7", "5")),
        sample("both right", "q5", "A,C", kind="choices", options=("5", "7", "5")),
        sample("case", "q6", "A", kind="choice", options=("Aa", "AA", "x²", "x2")),
        sample("pictured", "q7", "D", kind="choice"),
    ]
    report = report_on(write(tmp_path / "train", train=rows))
    assert ids(report, "letter_beyond_options") == [("beyond", ()), ("words", ())]
    assert report.findings.of("letter_beyond_options")[0].note == "target 'D', options A to C"
    assert ids(report, "ambiguous_target") == [("twice", ())]
    assert ids(report, "duplicate_options") == [("wrong twice", ()), ("both right", ())]
    assert sum(report.findings.counts.values()) == 5


def test_duplicates_within_a_split_and_across_splits(tmp_path: Path) -> None:
    picture = chart(ONE)
    train = [
        sample("first", ASKED, "80", images=[encode_png(picture)]),
        sample("copy", f"{ASKED.upper()}  ", "80", images=[encode_png(picture)]),
        sample("near", ASKED, "80", images=[jpeg(picture, 60)]),
        sample("other question", "How many bars?", "3", images=[encode_png(picture)]),
        sample("other picture", ASKED, "80", images=[png(TWO)]),
        sample("text", "What is 3 + 4?"),
        sample("contradiction", "what is $3+4$", "8"),
        sample("minus", "What is 3 - 4?", "-1"),
        sample("other options", "Which one is it?", "A", kind="choice", options=("x", "y")),
        sample("options", "Which one is it?", "A", kind="choice", options=("x", "z")),
    ]
    test = [sample("overlap", ASKED, "80", images=[encode_png(picture.resize((400, 320)))])]
    report = report_on(write(tmp_path / "train", train=train, test=test))
    assert ids(report, "duplicate") == [("copy", ("first",)), ("contradiction", ("text",))]
    assert ids(report, "near_duplicate") == [("near", ("first",))]
    assert report.findings.of("near_duplicate")[0].note.startswith("pictures differ in ")
    assert ids(report, "split_overlap") == [("overlap", ("first", "near"))]
    assert ids(report, "contradiction") == [("contradiction", ("text",))]
    assert sum(report.findings.counts.values()) == 5


def test_leaks_are_told_from_shared_pictures_and_shared_texts(tmp_path: Path) -> None:
    picture = chart(ONE)
    training = write(
        tmp_path / "train",
        train=[
            sample("t1", ASKED, "80", images=[encode_png(picture)]),
            sample("t2", "How many bars?", "3", images=[encode_png(picture)]),
            sample("t3", "What is the sum of all primes below 10, minus one?", "16"),
            sample("t4", "Find x.", "5"),
        ],
    )
    benchmark = write(
        tmp_path / "bench",
        test=[
            sample("leak", f"{ASKED}\nChoices:\nA: 80\nB: 60", "A", images=[jpeg(picture, 50)]),
            sample("picture", "What is the colour of the bars?", "blue", images=[encode_png(picture)]),
            sample("text leak", "What is the sum of all primes below 10 - minus one".replace(" -", ","), "16"),
            sample("described", ASKED, "80"),
            sample("redrawn", ASKED, "60", images=[png(TWO)]),
            sample("free", "Find y.", "5", images=[png(THREE)]),
        ],
    )
    report = report_on(training, against=[benchmark])
    assert ids(report, "leak") == [("leak", ("t1",)), ("text leak", ("t3",))]
    assert ids(report, "shared_picture") == [("leak", ("t2",)), ("picture", ("t1", "t2"))]
    assert ids(report, "shared_text") == [("described", ("t1",)), ("redrawn", ("t1",))]
    assert sum(report.findings.counts.values()) == 6
    leak = report.findings.of("leak")[0]
    assert (leak.place.dataset, leak.place.split, leak.partners[0].dataset) == ("bench", "test", "train")
    assert not report.findings.refused


def test_blank_pictures_and_templates_do_not_match_everything(tmp_path: Path) -> None:
    blanks = [encode_png(Image.new("RGB", (100, 80 + index), "white")) for index in range(3)]
    asked = "How many items are there in the image?"
    train = [sample(f"t{i}", asked, images=[png((30 + 5 * i, 150 - 5 * i, 90))]) for i in range(21)]
    training = write(tmp_path / "train", train=[*train, sample("blank", asked, images=[blanks[0]])])
    benchmark = write(
        tmp_path / "bench",
        test=[
            sample("other blank", asked, images=[blanks[1]]),
            sample("same blank", asked, images=[blanks[0]]),
        ],
    )
    report = report_on(training, against=[benchmark])
    assert ids(report, "leak") == [("same blank", ("blank",))]
    assert not report.findings.counts["shared_text"]
    assert not report.findings.counts["shared_picture"]


def test_bad_images(tmp_path: Path) -> None:
    whole = png(ONE)
    rows = [
        sample("cut", ASKED, images=[whole[:300]]),
        sample("none", ASKED, images=[b"no image"]),
        sample("tiny", "Find x.", images=[encode_png(Image.new("RGB", (20, 20)))]),
        sample("thin", "Find y.", images=[encode_png(Image.new("RGB", (10, 2001)))]),
        sample("fine", ASKED, images=[whole]),
    ]
    report = report_on(write(tmp_path / "train", train=rows))
    assert ids(report, "unreadable_image") == [("cut", ()), ("none", ())]
    assert ids(report, "tiny_image") == [("tiny", ()), ("thin", ())]
    assert ids(report, "extreme_aspect") == [("thin", ())]
    assert sum(report.findings.counts.values()) == 5


def test_a_row_that_breaks_the_format_is_a_finding_and_the_rest_is_checked(tmp_path: Path) -> None:
    folder = write(tmp_path / "train", train=[sample("a", "q"), sample("b", "r", "None")])
    file = folder / "train.parquet"
    table = pq.read_table(file)
    index = table.schema.get_field_index("target")
    broken = table.set_column(index, table.schema.field(index), pa.array(["", "None"], pa.string()))
    pq.write_table(broken, file)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["splits"]["train"]["num_bytes"] = file.stat().st_size
    (folder / "manifest.json").write_text(json.dumps(manifest))
    report = report_on(folder)
    assert ids(report, "unusable_row") == [("row 0", ())]
    assert "has no target" in report.findings.of("unusable_row")[0].note
    assert ids(report, "placeholder_target") == [("b", ())]


def test_what_may_not_be_trained_on_is_refused(tmp_path: Path) -> None:
    barred = Origin(processor="mathvista", licence="CC BY-SA 4.0", uses=("benchmark",))
    rows = [sample("a", "q")]
    benchmark = write(tmp_path / "vista", origin=barred, test=rows)
    report = report_on(benchmark)
    assert report.findings.refused
    assert report.findings.of("benchmark_only")[0].note == "for benchmark only (licence: CC BY-SA 4.0)"
    terms = report.findings.of("licence_terms")[0].note
    assert terms == "CC BY-SA 4.0: adapted versions carry the same licence"
    training = write(tmp_path / "geo", origin=Origin(processor="geometry3k"), train=[sample("b", "r")])
    report = report_on(training, against=[benchmark])
    assert not report.findings.refused
    assert ids(report, "unknown_licence") == [("", ())]
    shared = report.findings.of("shared_sources")[0]
    assert (shared.place.dataset, [other.dataset for other in shared.partners]) == ("vista", ["geo"])
    (tmp_path / "bare").mkdir()
    report = report_on(tmp_path / "bare", training)
    assert report.findings.refused
    assert "holds no manifest.json" in report.findings.of("no_manifest")[0].note
    assert [one.num_rows for one in report.sets] == [0, 1]


def test_a_folder_is_given_once_and_equal_names_are_told_apart(tmp_path: Path) -> None:
    one = write(tmp_path / "x" / "data", train=[sample("a", "q")])
    other = write(tmp_path / "y" / "data", train=[sample("b", "r")])
    with pytest.raises(ConfigError, match="is given twice"):
        report_on(one, against=[one])
    names = [checked.name for checked in report_on(one, other).sets]
    assert names == [str(one), str(other)]


def test_the_profile_of_the_set_decides(tmp_path: Path) -> None:
    rows = [sample("a", "q", "18")]
    for profile in ("gsm8k_strict", "chartqa", "generic"):
        origin = Origin(processor=CLEAN.processor, licence="MIT", profile=profile)
        assert not +report_on(write(tmp_path / profile, origin=origin, train=rows)).findings.counts


def test_sets_with_shared_sources_are_sets_that_are_known() -> None:
    assert {
        benchmark for benchmark in SHARED_SOURCES if "benchmark" not in PROCESSORS[benchmark].description.uses
    } == set()
    training = {name for related in SHARED_SOURCES.values() for name in related}
    assert {name for name in training if "training" not in PROCESSORS[name].description.uses} == set()
    assert "math12k" in SHARED_SOURCES["math500"]
    assert "we_math2" in SHARED_SOURCES["we_math"]


@pytest.mark.parametrize("option", ["max_prompt_tokens", "min_pixels", "max_pixels"])
def test_a_token_budget_needs_a_model(tmp_path: Path, option: str) -> None:
    with pytest.raises(ConfigError, match=f"--{option.replace('_', '-')}.* without --processor"):
        check_command([tmp_path], tmp_path / "out", **{option: 100})
