"""What a report shows of benchmarks: votes, figures over groups, tables by category, protocol and departures."""

import json

from mm_agrae.report.read import read_run
from mm_agrae.report.render import write_report
from mm_agrae.report.tables import comparison


def interval(value):
    return {"value": value, "low": value / 2, "high": (value + 1) / 2}


def test_a_benchmark_is_shown_with_its_protocol(tmp_path):
    names = ("pass@1", "avg@4", "pass@4", "maj@2", "cons@4", "g_pass_50@4", "formatted")
    figures = {name: interval(0.25) for name in names}
    summary = {
        "set": "dynamath", "step": 0, "num_problems": 20, "num_samples": 4, "overall": figures, "by_family": {},
        "by_difficulty": {},
        "by_category": {"answer_type": {"float": {"num_problems": 12, "pass@1": interval(0.125)}}},
        "aggregate": {"name": "dynamath", "figures": {"worst_case": interval(0.0625), "robustness": None}},
        "measured": {"protocol": "dynamath", "departures": ["num_samples 4 instead of 8"]},
    }  # fmt: skip
    folder = tmp_path / "eval" / "step_000000"
    folder.mkdir(parents=True)
    (folder / "dynamath.json").write_text(json.dumps(summary), encoding="utf-8")
    shown = comparison(read_run(tmp_path).evaluations["dynamath"])
    assert [row.label for row in shown.headline] == ["pass@1", "pass@4", "maj@2", "cons@4", "g_pass_50@4"]
    assert [row.label for row in shown.details] == ["formatted"]
    assert [(row.label, row.before.value) for row in shown.aggregate] == [("worst_case", 0.0625)]
    assert all(row.meaning for row in (*shown.headline, *shown.aggregate))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Protocol dynamath, with departures: num_samples 4 instead of 8." in page
    for words in ("worst_case", "by answer_type", "12.5", "6.2", "cons@4"):
        assert words in page


def test_what_pictures_are_worth_is_shown(tmp_path):
    row = {
        "num_problems": 40, "seen": 0.5, "blind": 0.375, "difference": interval(0.125), "p_value": 0.03125,
        "needs_image_frac": 0.25,
    }  # fmt: skip
    harmed = row | {"blind": 0.75, "needs_image_frac": -0.5}
    report = {"mode": "grey", "sets": {"charts": {"pass@1": row, "greedy": harmed}}}
    (tmp_path / "blind_grey.json").write_text(json.dumps(report), encoding="utf-8")
    (tmp_path / "blind_swap.json").write_text("{}", encoding="utf-8")
    run = read_run(tmp_path)
    assert [(row.name, row.mode, row.figure, row.blind) for row in run.blind] == [
        ("charts", "grey", "pass@1", 0.375),
        ("charts", "grey", "greedy", 0.75),
    ]
    assert any(note.startswith("blind_swap.json cannot be read") for note in run.notes)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "Without pictures" in page
    for words in ("37.5\u00a0%", "+12.5", "0.0312", "25.0\u00a0%"):
        assert words in page
    assert "-50" not in page
