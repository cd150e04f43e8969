"""The matrix file: what it means, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_cells import RECIPE

from mm_agrae.config import load_config
from mm_agrae.config.load import parse_config
from mm_agrae.errors import ConfigError
from mm_agrae.lab.compare.spec import comparisons, load_matrix, overrides

MATRIX = """\
title: Three of them
recipe: recipe.yaml
seeds: [3, 5]
baseline: A
common:
  model.path: work/seed{seed}/start
  data.eval: {held_out: {path: "work/seed{seed}/data", families: ["f{seed}", g]}}
algorithms:
  A: {algorithm: {preset: grpo}}
  B: {algorithm.preset: dr_grpo, train.optim.lr: 5e-5}
  C: {model.path: elsewhere}
metrics: [eval/held_out/pass@1]
pairs: [[C, B], [B, A]]
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "matrix.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_overrides_of_a_cell_reach_its_config(tmp_path: Path) -> None:
    matrix = load_matrix(write(tmp_path, MATRIX))
    config = parse_config(RECIPE, overrides(matrix, "B", 5))
    assert (config.seed, config.model.path) == (5, "work/seed5/start")
    assert config.data.eval["held_out"].path == "work/seed5/data"
    assert config.data.eval["held_out"].families == ("f5", "g")
    assert config.train.optim.lr == 5e-5
    # A dotted key changes one setting of the recipe's algorithm.
    assert (config.algorithm.preset, config.algorithm.weighting) == ("dr_grpo", ("agrae",))


def test_an_algorithm_replaces_the_whole_one_of_the_recipe(tmp_path: Path) -> None:
    matrix = load_matrix(write(tmp_path, MATRIX))
    assert parse_config(RECIPE).algorithm.weighting == ("agrae",)
    config = parse_config(RECIPE, overrides(matrix, "A", 3))
    assert (config.algorithm.preset, config.algorithm.weighting) == ("grpo", ())


def test_a_whole_algorithm_leaves_single_settings_in_place(tmp_path: Path) -> None:
    """Common to all cells, or named before the mapping: neither is undone by it."""
    text = MATRIX.replace("common:\n", "common:\n  algorithm.beta: 0.05\n")
    text = text.replace("A: {algorithm", "A: {algorithm.clip_high: 0.3, algorithm")
    config = parse_config(RECIPE, overrides(load_matrix(write(tmp_path, text)), "A", 3))
    assert (config.algorithm.preset, config.algorithm.beta, config.algorithm.clip_high) == ("grpo", 0.05, 0.3)


def test_a_mapping_would_put_the_rest_of_its_section_back(tmp_path: Path) -> None:
    text = MATRIX.replace("common:\n", "common:\n  train.optim: {lr: 3e-4}\n")
    with pytest.raises(ConfigError, match=r"Name its keys one by one: train\.optim\.lr"):
        load_matrix(write(tmp_path, text))


def test_an_algorithm_has_the_last_word(tmp_path: Path) -> None:
    matrix = load_matrix(write(tmp_path, MATRIX))
    assert parse_config(RECIPE, overrides(matrix, "C", 3)).model.path == "elsewhere"


def test_pairs_come_first_and_each_once(tmp_path: Path) -> None:
    assert comparisons(load_matrix(write(tmp_path, MATRIX))) == [("C", "B"), ("B", "A"), ("C", "A")]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("baseline: A", "base_line: A", "unknown key 'base_line'. Did you mean 'baseline'?"),
        ("baseline: A\n", "", "key 'baseline' is missing and has no default"),
        ("baseline: A", "baseline: Z", "'Z' is none of the algorithms (A, B, C)"),
        ("[B, A]]", "[B, Q]]", "'Q' is none of the algorithms"),
        ("[B, A]]", "[B, B]]", "compares an algorithm with itself"),
        ("[3, 5]", "[3, 3]", "hold one twice"),
        ("[3, 5]", "[]", "seeds"),
        ("  C:", "  b: {}\n  C:", "differ in capitals only"),
        ("  C:", "  B:", "'B' is given twice"),
        ("  C:", "  C/D:", "C/D"),
        ("eval/held_out/pass@1]", "reward/mean]", "is no evaluation metric"),
        ("eval/held_out/pass@1]", "eval/held_out/pas@1]", 'the nearest is "eval/pass@k"'),
        ("C: {model.path: elsewhere}", "C: {train: {num_steps: 4}}", "Name its keys one by one: train.num_steps"),
        ("C: {model.path: elsewhere}", "C: {seed: 4}", "Take the setting `seed` away"),
        (MATRIX, "- 1", "must hold keys and values"),
        (MATRIX, "a: [", "is no valid YAML"),
    ],
)
def test_what_a_matrix_refuses(tmp_path: Path, old: str, new: str, words: str) -> None:
    assert old in MATRIX
    with pytest.raises(ConfigError) as refusal:
        load_matrix(write(tmp_path, MATRIX.replace(old, new)))
    assert words in str(refusal.value)


def test_a_matrix_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"matrix .*nowhere.yaml cannot be read: No such file"):
        load_matrix(tmp_path / "nowhere.yaml")


ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "comparisons").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_cell_of_a_shipped_matrix_loads_and_every_setting_acts(path: Path) -> None:
    matrix = load_matrix(path)
    for algorithm in matrix.algorithms:
        config = load_config(ROOT / matrix.recipe, overrides(matrix, algorithm, matrix.seeds[0]))
        assert config.algorithm.idle_settings() == []
