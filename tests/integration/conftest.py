"""A data set and a model that is right about half the time, so that a few steps have something to learn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from colours import RECIPE, colour_sample, told, write_colours

from mm_agrae.cli.jobs import run_sft, run_train
from mm_agrae.policy.tiny import build_model_folder
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

    def build(architecture: str) -> Path:
        folder = root / architecture
        if not folder.exists():
            corpus = [f"{s.question} {s.solution}" for i in range(24) for s in (colour_sample(i), told(i))] * 4
            build_model_folder(
                root / "raw" / architecture, architecture=architecture, size="tiny", corpus=corpus, seed=0
            )
            data = mixed_data if architecture.endswith("vl") else text_data
            recipe = root / f"{architecture}.yaml"
            recipe.write_text(RECIPE.format(model=root / "raw" / architecture, data=data), encoding="utf-8")
            overrides = ["sft.num_steps=20", "sft.batch_size=8", "train.checkpoint_every=0"]
            run = run_sft(recipe, overrides, root / "run" / architecture, False, lambda line: None)
            (run.checkpoints / "step_000020" / "model").rename(folder)
        return folder

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
    return run_train(recipe, [], tmp_path_factory.mktemp("straight") / "run", False, lambda line: None)
