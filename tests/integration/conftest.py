"""A data set and a model that is right about half the time, so that a few steps have something to learn."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mm_agrae.cli.jobs import run_sft
from mm_agrae.data.dataset import write_dataset
from mm_agrae.data.images import encode_png
from mm_agrae.policy.tiny import build_model_folder
from mm_agrae.records import Sample

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}

RECIPE = """\
name: colours
seed: 0
model: {{path: {model}, device: cpu}}
data:
  train: {{path: {data}}}
  eval: {{held_out: {{path: {data}, split: test}}}}
images: {{min_pixels: 1024, max_pixels: 1024}}
prompt: {{instruction: none}}
rollout: {{num_prompts: 3, group_size: 4, max_prompt_tokens: 48, max_completion_tokens: 7}}
verifier: {{num_workers: 1}}
algorithm: {{weighting: [agrae]}}
train: {{num_steps: 4, checkpoint_every: 2, rollout_log_every: 1, optim: {{lr: 1e-4}}}}
sft: {{num_steps: 4, batch_size: 3, optim: {{lr: 1e-2}}}}
evaluate: {{num_samples: 2, ks: [1, 2]}}
"""


def colour_sample(index: int, *, image: bool = True) -> Sample:
    """The colour of a square, shown or, without image, told. Solutions are right by a coin that no picture shows."""
    name = list(COLOURS)[index % 2]
    shade = tuple(min(255, value + index) for value in COLOURS[name])
    return Sample(
        id=f"colour{index}",
        question=f"<image>Which colour is square {index}?" if image else f"Square {index} is {name}. Which colour?",
        target=name,
        answer_kind="text",
        images=(encode_png(Image.new("RGB", (32, 32), shade)),) if image else (),
        solution=f"\\boxed{{{list(COLOURS)[index // 2 % 2]}}}",
        family="shown" if image else "told",
        difficulty=index % 2 + 1,
    )


def write_colours(out: Path, samples: Sequence[Sample]) -> Path:
    """These samples to learn from, and six pictures to measure on (texts, if the samples are)."""
    image = any(sample.images for sample in samples)
    held_out = [colour_sample(100 + index, image=image) for index in range(6)]
    write_dataset({"train": samples, "test": held_out}, out, source="test", seed=0)
    return out


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


def told(index: int) -> Sample:
    return replace(colour_sample(index, image=False), id=f"told{index}")


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory, warm_model: Callable[[str], Path], mixed_data: Path) -> Path:
    """Recipe of a four-step run on pictures and texts, checkpoints after steps 2 and 4."""
    path = tmp_path_factory.mktemp("recipe") / "colours.yaml"
    path.write_text(RECIPE.format(model=warm_model("qwen2_5_vl"), data=mixed_data), encoding="utf-8")
    return path


def environment() -> dict[str, str]:
    """Of a real process: one thread, no network, no launcher around it."""
    ours = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
    theirs = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "WANDB_MODE"}
    return {name: value for name, value in os.environ.items() if name not in theirs} | ours


def mm_agrae(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own."""
    command = [sys.executable, "-m", "mm_agrae.cli.main", *map(str, words)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120, check=False)
