"""A checkpoint's model as a folder for other programs: whole, by the book, and never over anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import run_files
import torch
import transformers
from safetensors.torch import load_file
from typer.testing import CliRunner

from mm_agrae.cli.jobs import run_train
from mm_agrae.cli.main import app
from mm_agrae.config.schema import ModelConfig
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.policy.load import load_policy
from mm_agrae.policy.snapshot import named_weights
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.export import choose_checkpoint, export


def check_loads(folder: Path) -> dict[str, torch.Tensor]:
    """What another program makes of it."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    assert processor.tokenizer.encode("1")
    assert processor.image_processor.patch_size == model.config.vision_config.patch_size
    return dict(model.named_parameters())


def test_a_whole_model(straight: RunDir, tmp_path: Path) -> None:
    out = tmp_path / "made" / "model"
    ended = CliRunner().invoke(app, ["export", str(straight.path), "--out", str(out)])
    assert ended.exit_code == 0, ended.output
    assert "step_000004" in ended.output
    saved = load_file(straight.checkpoints / "step_000004" / "model" / "model.safetensors")
    assert load_file(out / "model.safetensors").keys() == saved.keys()
    policy = load_policy(ModelConfig(path=str(straight.checkpoints / "step_000004" / "model"), device="cpu"))
    loaded = check_loads(out)
    assert loaded.keys() == dict(named_weights(policy)).keys()
    assert all(torch.equal(weight, loaded[name]) for name, weight in named_weights(policy))
    # The digest tells folders apart by what is in them, and is the same for the same.
    other, again = (export(straight.checkpoints / f"step_{n:06d}", tmp_path / f"{n}", merge=False) for n in (2, 4))
    assert again in ended.output
    assert other != again
    assert not list(tmp_path.glob("**/.*"))


def test_nothing_is_overwritten(straight: RunDir, tmp_path: Path) -> None:
    checkpoint = straight.checkpoints / "step_000004"
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    for name in ("file", "folder"):
        with pytest.raises(CheckpointError, match=f"{name} exists, and an export overwrites nothing"):
            export(checkpoint, tmp_path / name, merge=False)
    assert (tmp_path / "folder" / "file").read_text() == (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ConfigError, match="whole model without adapters"):
        export(checkpoint, tmp_path / "merged", merge=True)
    assert not (tmp_path / "merged").exists()


def test_which_checkpoint(straight: RunDir, tmp_path: Path) -> None:
    assert choose_checkpoint(straight, None, best=False).name == "step_000004"
    assert choose_checkpoint(straight, 2, best=False).name == "step_000002"
    with pytest.raises(CheckpointError, match="no checkpoint after step 3; it has those after 2, 4"):
        choose_checkpoint(straight, 3, best=False)
    with pytest.raises(ConfigError, match="--best and --step 2"):
        choose_checkpoint(straight, 2, best=True)
    with pytest.raises(CheckpointError, match="keep_best is not set"):
        choose_checkpoint(straight, None, best=True)
    run = run_files.copied(straight, tmp_path / "run")
    run.best.write_text(json.dumps({"step": 2}))
    assert choose_checkpoint(run, None, best=True).name == "step_000002"
    with pytest.raises(CheckpointError, match="has no checkpoint"):
        choose_checkpoint(RunDir.create_at(tmp_path / "empty"), None, best=False)


def test_a_damaged_checkpoint_is_not_exported(straight: RunDir, tmp_path: Path) -> None:
    run = run_files.copied(straight, tmp_path / "run")
    weights = run.checkpoints / "step_000004" / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match="is damaged"):
        export(run.checkpoints / "step_000004", tmp_path / "out", merge=False)
    assert not (tmp_path / "out").exists()


def test_adapters_alone_and_merged(recipe: Path, tmp_path: Path) -> None:
    settings = ["model.lora.rank=2", "train.num_steps=2", "train.optim.lr=1e-2"]
    run = run_train(recipe, settings, tmp_path / "run", False, lambda line: None)
    checkpoint = choose_checkpoint(run, None, best=False)
    export(checkpoint, tmp_path / "adapters", merge=False)
    assert all("lora_" in name for name in load_file(tmp_path / "adapters" / "adapter_model.safetensors"))
    export(checkpoint, tmp_path / "merged", merge=True)
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    base = ModelConfig.model_validate(json.loads(run.config.read_text())["model"])
    adapted = dict(named_weights(load_policy(base, weights=checkpoint / "model")))
    start = dict(named_weights(load_policy(base.model_copy(update={"lora": None}))))
    loaded = check_loads(tmp_path / "merged")
    assert loaded.keys() == adapted.keys()
    for name, weight in adapted.items():
        torch.testing.assert_close(loaded[name].detach(), weight, rtol=0, atol=1e-6)
    assert any(not torch.equal(start[name], weight) for name, weight in loaded.items())
