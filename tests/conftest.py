"""Small real things that many tests share: embedded models, a little gym, a recipe that joins them.

Everything is made once per test process, in its own temporary folder, and only when a test asks for it.
"""

from __future__ import annotations

import os

# Before torch, transformers and wandb are imported: all of them read the environment then.
os.environ["OMP_WAIT_POLICY"] = "passive"  # a spinning thread takes the core of the neighbouring worker
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "disabled"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import settings
from PIL import Image

from data_processors.visual_gym.write import write_gym
from mm_agrae.config.schema import ImageConfig, ModelConfig
from mm_agrae.data.dataset import open_dataset
from mm_agrae.data.images import encode_png
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.render import render
from mm_agrae.policy.tiny import build_model_folder, corpus_of
from mm_agrae.prompts import make_prompt
from mm_agrae.records import RenderedPrompt, Sample

torch.set_num_threads(1)
settings.register_profile("untimed", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("untimed")

GYM_FAMILIES = ("counting/circles", "charts/tallest_bar")

RECIPE = """\
name: tiny
seed: 0
model: {{path: {model}, device: cpu}}
data:
  train: {{path: {data}}}
  eval: {{held_out: {{path: {data}, split: test}}}}
images: {{min_pixels: 1024, max_pixels: 4096}}
prompt: {{instruction: none}}
rollout: {{num_prompts: 4, group_size: 4, max_prompt_tokens: 128, max_completion_tokens: 8, batch_rows: 64}}
train: {{num_steps: 2, checkpoint_every: 1, rollout_log_every: 1, optim: {{lr: 1e-3}}}}
sft: {{num_steps: 2, batch_size: 4, optim: {{lr: 1e-3}}}}
evaluate: {{num_samples: 2, ks: [1, 2]}}
"""


@pytest.fixture(scope="session")
def gym_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Canonical data set of 64 px pictures: 64 problems in split "train", 16 in "test"."""
    folder = tmp_path_factory.mktemp("gym") / "data"
    write_gym(folder, num=64, held_out=16, seed=0, families=GYM_FAMILIES, size=64, num_processes=1)
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory, gym_folder: Path) -> Callable[[str], Path]:
    """model_folder(architecture): an embedded model, size "tiny", that knows the gym's words. Treat it as read-only."""
    root = tmp_path_factory.mktemp("models")

    def build(architecture: str) -> Path:
        folder = root / architecture
        if not folder.exists():
            corpus = corpus_of(open_dataset(gym_folder, "train"))
            build_model_folder(folder, architecture=architecture, size="tiny", corpus=corpus, seed=0)
        return folder

    return build


@pytest.fixture(scope="session")
def recipe_text() -> Callable[[Path, Path], str]:
    """recipe_text(model, data): YAML of a run with 4 prompts and 4 completions of up to 8 tokens, for two steps."""
    return lambda model, data: RECIPE.format(model=model, data=data)


@pytest.fixture(scope="session")
def policy_of(model_folder: Callable[[str], Path]) -> Callable[[str], Policy]:
    """policy_of(architecture): that embedded model, loaded once. Tests share it: change only copies of it."""

    @functools.cache
    def load(architecture: str) -> Policy:
        return load_policy(ModelConfig(path=str(model_folder(architecture)), device="cpu"))

    return load


@pytest.fixture(scope="session")
def make_sample() -> Callable[..., Sample]:
    """make_sample((width, height), ..., question=..., seed=...): a problem with pictures of noise of these sizes."""

    def make(*sizes: tuple[int, int], question: str = "How many red circles are there?", seed: int = 0) -> Sample:
        draw = np.random.Generator(np.random.PCG64(seed))
        pictures = [Image.fromarray(draw.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in sizes]
        return Sample(
            id=f"noise-{seed}",
            question="<image>" * len(sizes) + question,
            target="1",
            images=tuple(encode_png(picture) for picture in pictures),
        )

    return make


@pytest.fixture(scope="session")
def rendered(make_sample: Callable[..., Sample]) -> Callable[..., RenderedPrompt]:
    """rendered(policy, (width, height), ..., question=..., seed=...): the same, as that model sees it."""

    def make(
        policy: Policy, *sizes: tuple[int, int], question: str = "How many red circles are there?", seed: int = 0
    ) -> RenderedPrompt:
        prompt = make_prompt(make_sample(*sizes, question=question, seed=seed), system="none", instruction="none")
        return render(policy, prompt, ImageConfig(min_pixels=256, max_pixels=4096))

    return make
