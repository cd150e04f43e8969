"""A run with a frozen vision tower: what the cache of its features changes, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import run_files
from colours import ignore
from torch import Tensor

from mm_agrae.cli.jobs import run_train
from mm_agrae.policy import vision
from mm_agrae.policy.load import Policy
from mm_agrae.policy.vision_cache import PictureFeatures

SETTINGS = [
    "model.freeze=[vision, connector]",
    "algorithm.beta=0.05",
    "train.num_steps=2",
    "train.optim.lr=1e-2",
    "evaluate.every=1",
    "evaluate.greedy=true",
]


def test_a_run_encodes_every_picture_once_and_ends_with_the_same_bits(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, pictures = vision._encode, []

    def watched(policy: Policy, *, pixel_values: Tensor, image_grid_thw: Tensor) -> list[PictureFeatures]:
        pictures.append(pixel_values.numpy().tobytes())
        return encode(policy, pixel_values=pixel_values, image_grid_thw=image_grid_thw)

    monkeypatch.setattr(vision, "_encode", watched)
    cached = run_train(recipe, SETTINGS, tmp_path / "cached", False, ignore)
    assert len(pictures) == len(set(pictures))
    once = len(pictures)
    plain = run_train(recipe, [*SETTINGS, "model.vision_cache_gib=0"], tmp_path / "plain", False, ignore)
    assert set(pictures[once:]) == set(pictures[:once])
    # Rollout, update and reference of two steps; three measurements with a greedy answer beside the samples.
    assert len(pictures) - once > 4 * once
    for files in (run_files.metrics, run_files.weights, run_files.groups):
        assert files(cached) == files(plain)
