from pathlib import Path

import pytest

from mm_agrae.config import load_config

RECIPES = sorted((Path(__file__).parents[3] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_loads_and_is_named_like_its_file(path: Path) -> None:
    assert load_config(path).name == path.stem


def test_there_are_recipes() -> None:
    assert {"quickstart", "quickstart_text"} <= {path.stem for path in RECIPES}
