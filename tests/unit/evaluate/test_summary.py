from dataclasses import replace
from pathlib import Path

import pytest

from mm_agrae.errors import DataError
from mm_agrae.evaluate.diff import diff_sets
from mm_agrae.evaluate.diff import lines_of as diff_lines
from mm_agrae.evaluate.rescore import measured_again
from mm_agrae.evaluate.results import with_classes
from mm_agrae.evaluate.saved import SavedSet, saved_sets
from mm_agrae.evaluate.summary import Measured, ScoredProblems, check_measurable, lines_of, measured_from
from mm_agrae.metrics.catalogue import check_keys
from mm_agrae.records import Sample
from mm_agrae.store.atomic import write_json, write_stream
from mm_agrae.store.rollout_log import json_line
from mm_agrae.verify import VerifierPool

MEASURED = Measured(
    seed=0, profile="generic", ks=(1, 2), correct_weight=0.9, format_weight=0.1, aggregate="chartqa",
    categories=("type",), protocol="chartqa", protocol_hash="h", departures=("num_samples 3 instead of 4",),
    settings={"evaluate": {"temperature": 1.0}}, data={"path": "data"},
)  # fmt: skip


def record(number, statuses, answers=None, *, family="human", metadata=None):
    return {
        "sample_id": f"s{number}", "family": family, "difficulty": None, "group": "", "target": "1/2",
        "answer_kind": "math", "options": [], "tolerance": None,
        "metadata": {"type": "bar"} if metadata is None else metadata,
        "rollouts": [
            {"verdict": {"status": status, "answer": answer, "formatted": True}, "stop_reason": "eos", "text": ""}
            for status, answer in zip(statuses, answers or [None] * len(statuses), strict=True)
        ],
    }  # fmt: skip


def classified(*records):
    with VerifierPool(num_workers=1) as pool:
        return with_classes(list(records), pool, "generic")


def saved(folder: Path, records, measured=MEASURED) -> SavedSet:
    scored = ScoredProblems(measured)
    for one in records:
        scored.add(one, None)
    write_json(folder / "charts.json", scored.summary("charts", step=0) | {"refused": 0})
    write_stream(folder / "charts.jsonl", map(json_line, records))
    return saved_sets(folder)["charts"]


def test_equal_wrong_answers_vote_together():
    (one,) = classified(record(0, ["correct", "wrong", "wrong", "wrong"], ["1/2", "0.75", "3/4", None]))
    classes = one["answer_classes"]
    assert sorted(zip(classes["sizes"], classes["correct"], strict=True)) == [(1, True), (2, False)]
    assert classes["num_unanswered"] == 1


def test_figures_votes_groups_and_categories():
    records = classified(
        record(0, ["correct", "correct", "wrong"], ["1/2", "0.5", "7"]),
        record(1, ["wrong", "wrong", "correct"], ["7", "7", "1/2"], family="augmented", metadata={"type": "pie"}),
        record(2, ["wrong", "wrong", "wrong"], ["7", "8", None], family="augmented", metadata={}),
    )
    scored = ScoredProblems(MEASURED)
    for one in records:
        scored.add(one, None)
    summary = scored.summary("charts", step=3)
    values = {name: figure["value"] for name, figure in summary["overall"].items()}
    assert values["pass@1"] == pytest.approx((2 / 3 + 1 / 3) / 3)
    assert values["cons@3"] == pytest.approx(1 / 3)
    groups = {name: figure["value"] for name, figure in summary["aggregate"]["figures"].items()}
    assert groups == pytest.approx({"accuracy": 1 / 3, "human": 2 / 3, "augmented": 1 / 6, "macro": 5 / 12})
    assert {kind: row["num_problems"] for kind, row in summary["by_category"]["type"].items()} == {"bar": 1, "pie": 1}
    check_keys(f"eval/charts/{name}" for name in (*values, *groups))
    assert measured_from(summary["measured"], Path("x.json")) == MEASURED
    said = lines_of(summary | {"refused": 2})
    assert said[0].startswith("eval charts after step 3 (3 problems, protocol chartqa): pass@1 0.333 [")
    assert said[-2:] == [
        "  2 problems were refused: their prompts are over the token budget",
        "  departs from protocol chartqa: num_samples 3 instead of 4",
    ]


def test_one_sample_holds_no_vote():
    (one,) = classified(record(0, ["correct"], ["1/2"]))
    scored = ScoredProblems(replace(MEASURED, ks=(1,)))
    scored.add(one, None)
    assert list(scored.summary("charts", step=0)["overall"]) == ["pass@1", "avg@1", "formatted", "truncated"]


def variant(number, variant, seed="q"):
    return Sample(id=f"{seed}{number}", question="?", target="1", group=seed, metadata={"variant": variant})


@pytest.mark.parametrize(
    ("measured", "all_samples", "num_kept", "message"),
    [
        (replace(MEASURED, aggregate=None), [Sample(id="a", question="?", target="1")], 1, "figures by 'type'"),
        (MEASURED, [Sample(id="a", question="?", target="1", metadata={"type": "x"}, family="robot")], 1, "robot"),
        (
            replace(MEASURED, aggregate="dynamath", categories=()),
            [variant(number, str(number + 1)) for number in range(10)],
            9,
            "q9",
        ),
        (
            replace(MEASURED, aggregate="dynamath", categories=()),
            [Sample(id="a", question="?", target="1", group="q")],
            1,
            "'a' has no metadata 'variant'",
        ),
    ],
)
def test_what_could_not_be_summarised_is_refused_before_it_is_sampled(measured, all_samples, num_kept, message):
    with pytest.raises(DataError, match=message):
        check_measurable(measured, all_samples, all_samples[:num_kept])


def test_whole_groups_are_measurable():
    samples = [variant(number, str(number + 1)) for number in range(10)]
    check_measurable(replace(MEASURED, aggregate="dynamath", categories=()), samples, samples)


def test_two_results_are_compared_problem_by_problem(tmp_path):
    before = classified(*(record(n, ["wrong"] * 3, ["7"] * 3) for n in range(8)))
    after = classified(*(record(n, ["correct"] * 3, ["1/2"] * 3) for n in range(1, 9)))
    other = replace(MEASURED, settings={"evaluate": {"temperature": 0.6}})
    diff = diff_sets(saved(tmp_path / "a", before), saved(tmp_path / "b", after, other), seed=0)
    paired = diff.metrics["pass@1"]
    assert (paired.num_shared, paired.first, paired.second, paired.num_higher) == (7, 0, 1, 7)
    assert paired.p_value == pytest.approx(2 / 2**7)  # all seven moved one way
    assert diff.aggregate["human"].difference.value == 1
    assert diff.aggregate["augmented"] is None
    assert diff.otherwise == ("settings.evaluate.temperature is 1.0 and 0.6",)
    said = diff_lines(diff)
    assert said[1] == "  measured otherwise: settings.evaluate.temperature is 1.0 and 0.6"
    assert "0.000 -> 1.000  difference +1.000" in said[2]
    assert said[-2].split() == ["augmented", "undefined"]


def test_folders_without_an_evaluation_are_refused(tmp_path):
    with pytest.raises(DataError, match="holds no evaluated set"):
        saved_sets(tmp_path)
    (tmp_path / "old.json").write_text("{}", encoding="utf-8")
    (tmp_path / "old.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match=r"old\.json is no summary of this version"):
        saved_sets(tmp_path)


def greedy_too(folder: Path, records, best) -> SavedSet:
    scored = ScoredProblems(MEASURED)
    for one in records:
        scored.add(one, record(0, ["wrong"]))
    write_json(folder / "charts.json", scored.summary("charts", step=0) | {"refused": 0})
    write_stream(folder / "charts.jsonl", map(json_line, records))
    write_stream(folder / "charts.greedy.jsonl", map(json_line, best))
    return saved_sets(folder)["charts"]


def test_a_greedy_file_of_another_evaluation_is_refused(tmp_path):
    one = greedy_too(tmp_path, classified(record(0, ["wrong", "wrong"])), [record(5, ["wrong"])])
    with pytest.raises(DataError, match=r"does not hold the problems of charts\.jsonl in the same order"):
        list(one.groups())


def test_lines_and_files_that_are_gone_are_told(tmp_path):
    records = classified(*(record(number, ["wrong", "wrong"]) for number in range(3)))
    one = greedy_too(tmp_path, records, [record(number, ["wrong"]) for number in range(3)])
    assert len(list(one.groups())) == 3
    write_json(tmp_path / "diff.json", {"charts": {}})  # a comparison that was put here is no set
    assert list(saved_sets(tmp_path)) == ["charts"]
    lines = one.sampled_file.read_text(encoding="utf-8").splitlines(keepends=True)
    one.sampled_file.write_text("".join(lines[:2]), encoding="utf-8")
    with pytest.raises(DataError, match=r"charts\.jsonl holds 2 problems, but its summary is of 3"):
        list(one.groups())
    (tmp_path / "charts.greedy.jsonl").unlink()
    with pytest.raises(DataError, match=r"charts\.json is there and .*charts\.greedy\.jsonl is not"):
        saved_sets(tmp_path)
    one.sampled_file.unlink()
    with pytest.raises(DataError, match=r"charts\.json is there and .*charts\.jsonl is not"):
        saved_sets(tmp_path)


def test_the_form_is_counted_where_one_was_asked_for():
    (one,) = classified(record(0, ["correct"], ["1/2"]))
    scored = ScoredProblems(replace(MEASURED, ks=(1,), boxed=False))
    scored.add(one, None)
    assert list(scored.summary("charts", step=0)["overall"]) == ["pass@1", "avg@1", "truncated"]


def test_scoring_again_and_again_departs_once():
    carded = replace(MEASURED, protocol_profile="generic", timeout_s=2.0)
    other = measured_again(carded, profile="chartqa", timeout_s=None)
    assert other.departures == (*carded.departures, "scoring profile chartqa instead of generic")
    assert (other.profile, other.timeout_s) == ("chartqa", 2.0)
    third = measured_again(other, profile="mmmu", timeout_s=9.0)
    assert third.departures == (*carded.departures, "scoring profile mmmu instead of generic")
    assert third.timeout_s == 9.0
    assert measured_again(third, profile=None, timeout_s=None) == third
    assert measured_again(third, profile="generic", timeout_s=2.0) == carded
    bare = replace(MEASURED, protocol=None, departures=())
    assert measured_again(bare, profile="mmmu", timeout_s=None).departures == ()
