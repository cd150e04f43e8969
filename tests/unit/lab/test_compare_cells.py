"""Which cells are finished, begun, absent or foreign, and what a finished one measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_cells import RECIPE, finish, matrix, save

from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.lab.compare.cells import Cell, cells, read_result, state, steps_done


@pytest.fixture
def cell(tmp_path: Path) -> Cell:
    return cells(matrix(tmp_path), tmp_path / "out")[0]


def drop_lines(cell: Cell, step: int) -> None:
    kept = [line for line in cell.run.metrics.read_text().splitlines() if json.loads(line)["step"] != step]
    cell.run.metrics.write_text("".join(f"{line}\n" for line in kept))


def test_cells_come_seed_by_seed_in_folders_of_their_own(tmp_path: Path) -> None:
    found = cells(matrix(tmp_path, seeds=(4, 2)), tmp_path / "out")
    assert [cell.run.path.relative_to(tmp_path / "out").as_posix() for cell in found] == [
        "GRPO/seed_4",
        "GRPO+A-GRAE/seed_4",
        "GRPO/seed_2",
        "GRPO+A-GRAE/seed_2",
    ]
    assert [cell.config.seed for cell in found] == [4, 4, 2, 2]
    assert found[0].config.algorithm.weighting == ()
    assert found[1].config.algorithm.weighting == ("agrae",)


def test_a_cell_is_absent_then_begun_then_finished(cell: Cell) -> None:
    assert state(cell) == "absent"
    finish(cell, after=0.5)
    assert state(cell) == "finished"
    (cell.run.checkpoints / "step_000002" / "COMPLETE").unlink()
    assert state(cell) == "begun"
    save(cell, 1)
    assert state(cell) == "begun"


@pytest.mark.parametrize("step", [0, 2])
def test_without_its_evaluations_a_cell_is_not_finished(cell: Cell, step: int) -> None:
    finish(cell, after=0.5)
    drop_lines(cell, step)
    assert state(cell) == "begun"
    with pytest.raises(CheckpointError, match=f"lacks eval/held_out/truncated of step {step}"):
        read_result(cell)


def test_steps_done_counts_lines(cell: Cell) -> None:
    assert steps_done(cell) == 0
    finish(cell, after=0.5)
    drop_lines(cell, 2)
    assert steps_done(cell) == 1


def test_a_cell_of_another_configuration_is_refused_with_what_differs(tmp_path: Path) -> None:
    first = cells(matrix(tmp_path), tmp_path / "out")[0]
    finish(first, after=0.5)
    longer = matrix(tmp_path, recipe=RECIPE.replace("num_steps: 2", "num_steps: 3"))
    changed = cells(longer, tmp_path / "out")[0]
    with pytest.raises(CheckpointError, match=r"GRPO.seed_0 was made under another(?s:.*)train.num_steps: 2 -> 3"):
        state(changed)


def test_a_configuration_of_another_version_is_refused(cell: Cell) -> None:
    finish(cell, after=0.5)
    cell.run.config.write_text('{"sed": 1}')
    with pytest.raises(CheckpointError, match="no configuration of this version"):
        state(cell)


def test_a_folder_that_is_no_run_is_refused_and_one_that_never_began_is_absent(cell: Cell) -> None:
    cell.run.rollouts.mkdir(parents=True)
    cell.run.recipe.write_text("name: fake")
    assert state(cell) == "absent"
    (cell.run.path / "thesis.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="is no run of this comparison"):
        state(cell)


def test_what_a_finished_cell_measured(cell: Cell) -> None:
    finish(cell, before=0.25, after=0.75, correct=(2, 0, 1))
    result = read_result(cell)
    assert (result.algorithm, result.seed) == ("GRPO", 0)
    assert result.before["eval/held_out/pass@1"] == 0.25
    assert result.after["eval/held_out/pass@1"] == 0.75
    assert result.num_correct == {"held_out": {"p0": 2, "p1": 0, "p2": 1}}
    # A value that was not finite is a gap.
    assert result.curves["policy/entropy_nats"] == {2: 0.3}
    assert result.curves["reward/batch_accuracy"] == {1: 0.5, 2: 0.75}
    # 10 s + 20 s of steps and 4 s of measuring before them.
    assert result.seconds == 34.0


def test_without_completions_there_are_no_problems_to_pair(cell: Cell) -> None:
    finish(cell, after=0.5)
    (cell.run.eval_at(2) / "held_out.jsonl").unlink()
    assert read_result(cell).num_correct == {"held_out": {}}


@pytest.mark.parametrize(
    ("old", "new"),
    [("held_out:", "other:"), ("ks: [1, 2]", "ks: [2]"), ("eval: {held_out: {path: data, split: test}}", "eval: {}")],
)
def test_a_metric_that_no_cell_measures_is_refused(tmp_path: Path, old: str, new: str) -> None:
    assert old in RECIPE
    with pytest.raises(ConfigError, match="metric eval/held_out/pass@1 is not measured"):
        cells(matrix(tmp_path, recipe=RECIPE.replace(old, new)), tmp_path / "out")


def test_settings_that_do_not_fit_name_the_algorithm(tmp_path: Path) -> None:
    asked = matrix(tmp_path).model_copy(update={"algorithms": {"GRPO": {"train.num_stpes": 3}}})
    with pytest.raises(ConfigError, match=r"algorithm GRPO: .*unknown key 'train.num_stpes'"):
        cells(asked, tmp_path / "out")
