"""A run goes on only with what it was made from, even where no checkpoint holds it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import run_files
import torch
from colours import colour_sample, write_colours

from mm_agrae.cli.jobs import run_train
from mm_agrae.config.schema import ModelConfig
from mm_agrae.errors import CheckpointError
from mm_agrae.policy.load import load_policy
from mm_agrae.policy.snapshot import save_weights
from mm_agrae.store.run_dir import RunDir

SHORT = ["train.num_steps=2", "train.checkpoint_every=1", "evaluate.every=9"]


@pytest.fixture
def model(tmp_path: Path, warm_model: Callable[[str], Path]) -> Path:
    return Path(shutil.copytree(warm_model("qwen2_5_vl"), tmp_path / "model"))


def half_done(recipe: Path, words: list[str], out: Path) -> RunDir:
    """A run that was killed after its first checkpoint."""
    run = run_train(recipe, words, out, False, lambda line: None)
    shutil.rmtree(run.checkpoints / "step_000002")
    return run


def move_a_weight(model: Path) -> None:
    policy = load_policy(ModelConfig(path=str(model), device="cpu"))
    with torch.no_grad():
        next(policy.inner.parameters()).view(-1)[0] += 1
    save_weights(policy, model)


@pytest.mark.parametrize(
    ("settings", "what"),
    [(["model.lora.rank=2"], "weights that are not trained"), (["algorithm.beta=0.1"], "weights of the reference")],
    ids=["adapters", "reference"],
)
def test_another_model_under_the_same_path(
    recipe: Path, model: Path, tmp_path: Path, settings: list[str], what: str
) -> None:
    """A checkpoint holds adapters alone, and never the reference."""
    words = [*SHORT, *settings, f"model.path={model}"]
    run = half_done(recipe, words, tmp_path / "run")
    move_a_weight(model)
    with pytest.raises(CheckpointError, match=rf"was not made from what is there now:\n  {what} \w+ -> \w+\nPut back"):
        run_train(recipe, words, run.path, True, lambda line: None)


def test_another_chat_template_is_refused_and_mended_problems_are_told(
    recipe: Path, model: Path, tmp_path: Path
) -> None:
    samples = [colour_sample(index) for index in range(12)]
    data = write_colours(tmp_path / "data", samples)
    words = [*SHORT, f"model.path={model}", f"data.train.path={data}"]
    run = half_done(recipe, words, tmp_path / "run")
    template = model / "chat_template.jinja"
    kept = template.read_text(encoding="utf-8")
    template.write_text(kept + "{# #}", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"now:\n  processor of model\.path, as .* has it \w+ -> \w+\n"):
        run_train(recipe, words, run.path, True, lambda line: None)
    template.write_text(kept, encoding="utf-8")
    shutil.rmtree(data)
    write_colours(data, [*samples[:5], replace(samples[5], target="none of them"), *samples[6:]])
    told: list[str] = []
    began = run_files.state(run)["made_from"]["content of data.train"]
    run_train(recipe, words, run.path, True, told.append)
    now = run_files.state(run)["made_from"]["content of data.train"]
    assert any(
        line.startswith(f"content of data.train {began} -> {now}: the file or problems in it were changed")
        for line in told
    )
