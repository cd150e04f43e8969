"""A data set and a model that is right about half the time, so that a few steps have something to learn."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import colours
import pytest
from colours import RECIPE, colour_sample, ignore, write_colours

from mm_agrae.cli.jobs import run_train
from mm_agrae.store.run_dir import RunDir


@pytest.fixture(scope="session")
def mixed_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 problems, two in three with a picture."""
    samples = [colour_sample(index, image=index % 3 > 0) for index in range(24)]
    return write_colours(tmp_path_factory.mktemp("colours") / "mixed", samples)


@pytest.fixture(scope="session")
def text_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    samples = [colour_sample(index, image=False) for index in range(24)]
    return write_colours(tmp_path_factory.mktemp("colours") / "text", samples)


@pytest.fixture(scope="session")
def warm_model(tmp_path_factory: pytest.TempPathFactory, mixed_data: Path, text_data: Path) -> Callable[[str], Path]:
    """warm_model(architecture): a model that answers with a boxed colour, the right one about half the time."""
    root = tmp_path_factory.mktemp("warm")

    @functools.cache
    def build(architecture: str) -> Path:
        data = mixed_data if architecture.endswith("vl") else text_data
        return colours.warm_model(root / architecture, architecture, data)

    return build


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory, warm_model: Callable[[str], Path], mixed_data: Path) -> Path:
    """Recipe of a four-step run on pictures and texts, checkpoints after steps 2 and 4."""
    path = tmp_path_factory.mktemp("recipe") / "colours.yaml"
    path.write_text(RECIPE.format(model=warm_model("qwen2_5_vl"), data=mixed_data), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def straight(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """That run, from its first step to its last. Copy it before you change anything."""
    return run_train(recipe, [], tmp_path_factory.mktemp("straight") / "run", False, ignore)
