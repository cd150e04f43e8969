"""Drawn benchmarks carry what their group scores ask for, and hold whole groups."""

from dataclasses import replace
from pathlib import Path

import pytest

from mm_agrae.errors import DataError
from mm_agrae.metrics.group_scores import Scored, aggregate_named, figures, tally
from tests.unit.data_processors.drawn import drawn_samples

GROUPED = {"dynamath": "test", "we_math": "testmini", "hallusionbench": "test", "mmmu": "validation"}


def scored(name: str, split: str, folder: Path) -> list[Scored]:
    """Every question answered rightly."""
    keys = aggregate_named(name).keys
    return [
        Scored(
            sample_id=sample.id,
            group=sample.group,
            keys={key: sample.metadata[key] for key in keys},
            correct=(True,),
        )
        for sample in drawn_samples(name, split, folder)
    ]


@pytest.mark.parametrize(("name", "split"), GROUPED.items())
def test_all_right_is_a_full_score(name: str, split: str, tmp_path: Path) -> None:
    values = figures(name, tally(name, scored(name, split, tmp_path)))
    losses = {"ik", "ig", "rm_strict", "rm_loose", "rm_rate_strict", "rm_rate_loose"}
    assert values == {figure: 0.0 if figure in losses else 1.0 for figure in values}


def test_a_wrong_variant_costs_its_seed_the_worst_case(tmp_path: Path) -> None:
    first, *others = scored("dynamath", "test", tmp_path)
    values = figures("dynamath", tally("dynamath", [replace(first, correct=(False,)), *others]))
    assert (values["average"], values["worst_case"]) == (pytest.approx(49 / 50), pytest.approx(4 / 5))


def test_a_wrong_answer_costs_its_figure_and_its_question(tmp_path: Path) -> None:
    first, *others = scored("hallusionbench", "test", tmp_path)
    values = figures("hallusionbench", tally("hallusionbench", [replace(first, correct=(False,)), *others]))
    # 10 questions; 4 figures with pictures; 2 questions on each of 2 sets.
    assert values == {"a_acc": pytest.approx(9 / 10), "f_acc": 3 / 4, "q_acc": 3 / 4}


@pytest.mark.parametrize("name", ["dynamath", "we_math"])
def test_a_part_of_a_group_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="lacks"):
        tally(name, scored(name, GROUPED[name], tmp_path)[1:])
