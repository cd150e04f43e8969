"""Finished cells -> means, paired differences, wins, and the texts that show them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fake_cells import finish, matrix

from mm_agrae.lab.compare.cells import cells, read_result
from mm_agrae.lab.compare.page import after_table, difference_table, markdown, write_comparison
from mm_agrae.lab.compare.results import Comparison, compare
from mm_agrae.lab.seed_statistics import Wins
from mm_agrae.report.page import Badge

PASS, TRUNCATED = "eval/held_out/pass@1", "eval/held_out/truncated"
# pass@1 by seed. The baseline varies far more than the difference does.
GRPO, AGRAE = {0: 0.2, 1: 0.4, 2: 0.6}, {0: 0.3, 1: 0.5, 2: 0.71}


def comparison(
    folder: Path, values: dict[str, dict[int, float]], *, seeds: tuple[int, ...] = (0, 1, 2), before: float = 0.25
) -> Comparison:
    asked = matrix(folder, seeds=seeds)
    done = [cell for cell in cells(asked, folder / "out") if cell.seed in values.get(cell.algorithm, {})]
    for cell in done:
        correct = (2, 1, 0) if cell.algorithm == "GRPO" else (2, 2, 1)
        start = before if cell.algorithm == "GRPO" else 0.25
        finish(cell, after=values[cell.algorithm][cell.seed], before=start, correct=correct)
    return compare(asked, [read_result(cell) for cell in done], missing=["GRPO seed 9 was not run."])


@pytest.fixture
def full(tmp_path: Path) -> Comparison:
    return comparison(tmp_path, {"GRPO": GRPO, "GRPO+A-GRAE": AGRAE})


def test_rows_are_means_over_seeds(full: Comparison) -> None:
    row = full.rows[0]
    # 0.2, 0.4, 0.6: mean 0.4, s = 0.2, half width 4.302653 · 0.2 / sqrt(3) = 0.496828.
    assert row.after[PASS].mean == pytest.approx(0.4)
    assert row.after[PASS].half_width == pytest.approx(0.496828, abs=1e-6)
    assert row.before[PASS].mean == 0.25
    assert (row.seeds, row.seconds) == ((0, 1, 2), 34.0)


def test_differences_are_paired_by_seed(full: Comparison) -> None:
    (difference,) = full.differences
    assert (difference.algorithm, difference.other) == ("GRPO+A-GRAE", "GRPO")
    # 0.1, 0.1, 0.11: mean 0.103333, s = 0.005774, half width 4.302653 · 0.005774 / sqrt(3) = 0.014342;
    # unpaired, the rows' own half widths of 0.5 would drown it.
    found = difference.metrics[PASS]
    assert found.mean == pytest.approx(0.103333, abs=1e-6)
    assert found.half_width == pytest.approx(0.014342, abs=1e-6)
    assert found.excludes_zero
    # Fewer truncated completions are better: the same three seeds win, with a negative difference.
    assert difference.seed_wins == {PASS: Wins(3, 0, 0), TRUNCATED: Wins(3, 0, 0)}
    assert difference.metrics[TRUNCATED].mean == pytest.approx(-0.103333, abs=1e-6)
    # Per seed: 2 = 2, 2 > 1, 1 > 0.
    assert difference.problem_wins == {"held_out": Wins(6, 3, 0)}
    assert (full.num_intervals, full.num_excluding_zero) == (2, 2)


def test_only_seeds_that_both_finished_are_paired(tmp_path: Path) -> None:
    part = comparison(tmp_path, {"GRPO": GRPO, "GRPO+A-GRAE": {1: 0.5}})
    (difference,) = part.differences
    assert difference.seeds == (1,)
    assert difference.metrics[PASS].mean == pytest.approx(0.1)
    assert difference.metrics[PASS].half_width is None
    assert part.num_intervals == 0
    assert [row.seeds for row in part.rows] == [(0, 1, 2), (1,)]


def test_curves_are_means_at_shared_steps(full: Comparison) -> None:
    assert full.rows[0].curves["reward/batch_accuracy"] == {1: 0.5, 2: pytest.approx(0.4)}
    assert full.rows[0].curves["policy/entropy_nats"] == {2: pytest.approx(0.3)}
    assert full.rows[0].curves["group/mixed_frac"] == {}


def test_a_step_that_one_seed_lacks_is_on_no_curve(tmp_path: Path) -> None:
    asked = matrix(tmp_path, seeds=(0, 1))
    whole, other = (cell for cell in cells(asked, tmp_path / "out") if cell.algorithm == "GRPO")
    finish(whole, after=0.25)
    finish(other, after=0.75)
    results = [read_result(cell) for cell in (whole, other)]
    torn = replace(results[1], curves={**results[1].curves, "reward/batch_accuracy": {2: 0.75}})
    # Step 1 has the first seed alone; step 2 is the mean of 0.25 and 0.75.
    assert compare(asked, [results[0], torn]).rows[0].curves["reward/batch_accuracy"] == {2: 0.5}


def test_starts_that_differ_in_one_metric_are_not_shared(tmp_path: Path) -> None:
    asked = matrix(tmp_path, seeds=(0,))
    found = cells(asked, tmp_path / "out")
    for cell in found:
        finish(cell, after=0.5)
    results = [read_result(cell) for cell in found]
    assert compare(asked, results).start[PASS].mean == 0.25
    other = replace(results[1], before={**results[1].before, TRUNCATED: 0.1})
    assert compare(asked, [results[0], other]).start == {}


def test_several_sets_are_named(full: Comparison) -> None:
    (difference,) = full.differences
    sets = {"easy": Wins(5, 0, 1), "hard": Wins(2, 0, 3)}
    both = replace(
        full,
        metrics=("eval/easy/pass@1", "eval/hard/pass@1"),
        differences=(replace(difference, metrics={}, problem_wins=sets),),
    )
    table = difference_table(both)
    assert list(table.headers) == [
        "pair",
        "seeds",
        "easy pass@1",
        "hard pass@1",
        "problems (easy)",
        "problems (hard)",
    ]
    assert table.rows[0] == ["GRPO+A-GRAE − GRPO", "3", "–", "–", "5/0/1", "2/0/3"]


def test_a_bar_in_a_setting_is_no_column_of_the_markdown(full: Comparison) -> None:
    text = markdown(replace(full, settings={"GRPO": {"model.path": "a|b"}}))
    assert '| GRPO | model.path="a\\|b" |' in text


def test_a_start_that_all_share_is_one_row(full: Comparison) -> None:
    rows = after_table(full).rows
    assert [row[0] for row in rows] == ["before training", "GRPO", "GRPO+A-GRAE"]
    assert rows[0][2] == "0.250 ± 0.000"
    assert rows[1] == ["GRPO", "3", "0.400 ± 0.497", "0.600 ± 0.497", "34 s"]


def test_a_start_is_shared_also_where_seeds_are_missing(tmp_path: Path) -> None:
    part = comparison(tmp_path, {"GRPO": GRPO, "GRPO+A-GRAE": {1: 0.5}})
    assert [row[:3] for row in after_table(part).rows] == [
        ["before training", "3", "0.250 ± 0.000"],
        ["GRPO", "3", "0.400 ± 0.497"],
        ["GRPO+A-GRAE", "1", "0.500"],
    ]


def test_starts_that_differ_have_rows_of_their_own(tmp_path: Path) -> None:
    rows = after_table(comparison(tmp_path, {"GRPO": GRPO, "GRPO+A-GRAE": AGRAE}, before=0.3)).rows
    assert [row[0] for row in rows] == ["GRPO, before", "GRPO", "GRPO+A-GRAE, before", "GRPO+A-GRAE"]
    assert (rows[0][2], rows[2][2]) == ("0.300 ± 0.000", "0.250 ± 0.000")


def test_a_difference_is_judged_only_where_its_interval_excludes_zero(full: Comparison, tmp_path: Path) -> None:
    assert difference_table(full).rows[0][2:] == [
        Badge("+0.103 ± 0.014 (3/0/0)", "good"),
        Badge("-0.103 ± 0.014 (3/0/0)", "good"),
        "6/3/0",
    ]
    (tmp_path / "worse").mkdir()
    worse = comparison(tmp_path / "worse", {"GRPO": AGRAE, "GRPO+A-GRAE": GRPO})
    assert difference_table(worse).rows[0][2] == Badge("-0.103 ± 0.014 (0/0/3)", "bad")
    (tmp_path / "noisy").mkdir()
    noisy = comparison(tmp_path / "noisy", {"GRPO": GRPO, "GRPO+A-GRAE": {0: 0.6, 1: 0.4, 2: 0.21}})
    assert difference_table(noisy).rows[0][2] == "+0.003 ± 0.981 (1/1/1)"


def test_markdown_holds_the_tables_and_says_how_often_it_looked(full: Comparison) -> None:
    text = markdown(full)
    assert "| GRPO | 3 | 0.400 ± 0.497 | 0.600 ± 0.497 | 34 s |" in text
    assert "| GRPO+A-GRAE − GRPO | 3 | **+0.103 ± 0.014 (3/0/0)** |" in text
    assert '| GRPO+A-GRAE | algorithm={"preset": "grpo", "weighting": ["agrae"]} |' in text
    assert "2 of 2 intervals exclude 0; if nothing differed, about 0.1 would by chance" in text
    assert "GRPO seed 9 was not run." in text
    assert "GRPO drew two samples." in text
    assert "2 algorithms, 3 seeds each (0, 1, 2)" in text


def test_one_seed_says_that_there_is_no_interval(tmp_path: Path) -> None:
    text = markdown(comparison(tmp_path, {"GRPO": GRPO, "GRPO+A-GRAE": AGRAE}, seeds=(0,)))
    assert "One seed: there is no interval" in text
    assert "| GRPO | 1 | 0.200 | 0.800 | 34 s |" in text
    assert "exclude 0" not in text


def test_files_are_written_also_when_nothing_is_finished(tmp_path: Path) -> None:
    paths = write_comparison(comparison(tmp_path, {}), tmp_path / "out")
    assert [path.name for path in paths] == ["comparison.md", "comparison.html", "comparison.json"]
    assert "| GRPO | 0 | – | – | – |" in paths[0].read_text(encoding="utf-8")
    assert "<svg" not in paths[1].read_text(encoding="utf-8")


def test_the_page_and_the_file_of_figures(full: Comparison, tmp_path: Path) -> None:
    _, page, figures = write_comparison(full, tmp_path / "out")
    html = page.read_text(encoding="utf-8")
    # One chart of bars; two curves of the one pair, the third metric was not logged.
    assert html.count("<svg") == 3
    assert "+0.103 ± 0.014 (3/0/0)" in html
    values = json.loads(figures.read_text(encoding="utf-8"))
    assert values["level"] == 0.95
    assert values["rows"][0]["after"][PASS]["mean"] == pytest.approx(0.4)
    assert values["differences"][0]["seed_wins"][PASS] == {"wins": 3, "ties": 0, "losses": 0}
    assert values["num_intervals"] == 2


def test_runs_of_several_versions_of_the_code_are_told(tmp_path: Path) -> None:
    asked = matrix(tmp_path)
    done = cells(asked, tmp_path / "out")
    for number, cell in enumerate(done):
        finish(cell, after=0.5)
        facts = {"version": "0.3.0", "git_revision": "abcdef0123456789", "git_dirty": number == 0}
        cell.run.write_environment(facts)
    made = compare(asked, [read_result(cell) for cell in done])
    assert made.code == ("0.3.0 abcdef012345", "0.3.0 abcdef012345+")
    told = "The runs were made by 2 versions of the code: 0.3.0 abcdef012345, 0.3.0 abcdef012345+."
    assert told in markdown(made)
    one = compare(asked, [read_result(cell) for cell in done[1:]])
    assert "versions of the code" not in markdown(one)


def test_trap_24_runs_that_store_weights_otherwise_are_not_compared_unknowingly(tmp_path: Path) -> None:
    """What weights are stored in decides what a learning rate does, and one recipe stores otherwise on another machine.

    The resolved values count, not the settings: both runs below have the same configuration.
    """
    asked = matrix(tmp_path)
    done = cells(asked, tmp_path / "out")
    for number, cell in enumerate(done):
        finish(cell, after=0.5)
        on_gpu = {"precision": "bf16", "stored_weights": "bf16_with_fp32_masters"}
        cell.run.write_environment({"precision": "fp32", "stored_weights": "fp32"} if number else on_gpu)
    made = compare(asked, [read_result(cell) for cell in done])
    ways = ("bf16 with weights stored as bf16_with_fp32_masters", "fp32 with weights stored as fp32")
    assert made.arithmetic == ways
    assert f"The runs were computed in 2 ways: {', '.join(ways)}." in markdown(made)
    one = compare(asked, [read_result(cell) for cell in done[1:]])
    assert one.arithmetic == ways[1:]
    assert "The runs were computed in" not in markdown(one)


def test_what_seeds_differ_in_is_what_the_matrix_sets_by_seed(tmp_path: Path, full: Comparison) -> None:
    assert "Seeds differ in: the random numbers of the run. The interval" in markdown(full)
    common = {"data.train.path": "work/seed{seed}/data", "train.num_steps": 5}
    by_seed = markdown(replace(full, common=common))
    assert "Seeds differ in: the random numbers of the run, data.train.path. The interval" in by_seed
