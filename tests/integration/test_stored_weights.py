"""Runs whose weights are stored in bf16, on a CPU: from the recipe to the checkpoint, and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import run_files
import torch
from colours import ignore
from safetensors.torch import load_file

from mm_agrae.cli.jobs import run_evaluate, run_sft, run_train
from mm_agrae.errors import CheckpointError
from mm_agrae.store.run_dir import RunDir

IN_BF16 = {"precision": "bf16", "stored_weights": "bf16_with_fp32_masters", "layout": "shared"}
BF16 = ["model.precision=bf16", "model.stored_weights=bf16_with_fp32_masters"]


def forget_the_end(run: RunDir) -> None:
    """As if the run had been killed after step 2."""
    (run.checkpoints / "step_000004" / "COMPLETE").unlink()


def environment_of(run: RunDir) -> dict[str, str]:
    facts = json.loads(run.environment.read_text(encoding="utf-8"))
    return {key: facts[key] for key in ("precision", "stored_weights", "layout")}


def test_training_in_bf16_resumes_exactly(recipe: Path, tmp_path: Path) -> None:
    """Also with a reference model and small steps, which bf16 weights alone would not hold."""
    settings = [*BF16, "algorithm.beta=0.04", "train.optim.lr=1e-6", "evaluate.every=2"]
    straight = run_train(recipe, settings, tmp_path / "straight", False, ignore)
    run = run_train(recipe, settings, tmp_path / "run", False, ignore)
    forget_the_end(run)
    resumed = run_train(recipe, settings, run.path, True, ignore)
    run_files.check_same(resumed, straight)
    assert environment_of(resumed) == IN_BF16
    start, end = (
        load_file(run.checkpoints / step / "model" / "model.safetensors") for step in ("step_000002", "step_000004")
    )
    assert {tensor.dtype for tensor in end.values()} == {torch.float32}
    moved = [name for name in end if not torch.equal(start[name], end[name])]
    assert len(moved) > len(end) / 2
    assert any(torch.equal(start[name].bfloat16(), end[name].bfloat16()) for name in moved), "steps were not small"


def test_a_run_does_not_go_on_in_another_precision(recipe: Path, tmp_path: Path) -> None:
    run = run_train(recipe, [], tmp_path / "run", False, ignore)
    assert environment_of(run) == {"precision": "fp32", "stored_weights": "fp32", "layout": "shared"}
    forget_the_end(run)
    saved = json.loads((run.checkpoints / "step_000002" / "state.json").read_text(encoding="utf-8"))["arithmetic"]
    # What a recipe that leaves both settings to the machine would have saved on a GPU.
    run_files.write_state(run, arithmetic={"precision": "bf16", "stored_weights": "bf16_with_fp32_masters"})
    with pytest.raises(CheckpointError, match=r"with precision bf16, .*go on with precision fp32, stored_weights fp32"):
        run_train(recipe, [], run.path, True, ignore)
    # A library of another version may have shared no prompts.
    assert saved["layout"] == "shared"
    run_files.write_state(run, arithmetic={**saved, "layout": "repeated"})
    with pytest.raises(CheckpointError, match=r"fp32, layout repeated, but here it would go on with .* layout shared"):
        run_train(recipe, [], run.path, True, ignore)


def test_a_warm_start_and_an_evaluation_in_bf16(recipe: Path, tmp_path: Path) -> None:
    said: list[str] = []
    idle = "train.micro_batch_targets=99999"
    run = run_sft(recipe, [*BF16, "sft.num_steps=2", idle], tmp_path / "sft", False, said.append)
    assert sum(line.startswith("warning: train.micro_batch_targets 99999 ") for line in said) == 1
    model = run.checkpoints / "step_000002" / "model"
    measured = run_evaluate(recipe, [*BF16, f"model.path={model}"], tmp_path / "eval", ignore)
    assert environment_of(measured) == IN_BF16
    assert run_files.metrics(measured)[0]["eval/held_out/truncated"] >= 0
