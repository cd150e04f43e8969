"""Prompt lengths: what is counted is what a run renders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from check_sets import sample
from PIL import Image

from mm_agrae.config.schema import ImageConfig, ModelConfig, PromptConfig
from mm_agrae.data.images import encode_png
from mm_agrae.errors import ConfigError
from mm_agrae.policy.load import load_policy, load_renderer
from mm_agrae.policy.render import render
from mm_agrae.preflight.lengths import MAX_BINS, Budget, Lengths, bin_width, binned
from mm_agrae.prompts import make_prompt

IMAGES = ImageConfig(min_pixels=1024, max_pixels=8192)


def budget_of(model: Path) -> Budget:
    return Budget(policy=load_renderer(str(model)), prompt=PromptConfig(), images=IMAGES, max_prompt_tokens=64)


def test_the_parts_add_up_to_the_rendered_prompt(model_folder: Callable[[str], Path]) -> None:
    folder = model_folder("qwen2_5_vl")
    asked = sample("a", "How many red circles are there?", images=[encode_png(Image.new("RGB", (112, 56)))])
    text, visual = budget_of(folder).count(asked)
    policy = load_policy(ModelConfig(path=str(folder), device="cpu"))
    rendered = render(policy, make_prompt(asked, system="none", instruction="boxed"), IMAGES)
    assert visual == rendered.token_ids.count(policy.image_token_id)
    assert visual == 7 * 4  # one visual token of the small model is 16 x 16 pixels; 56 is rounded to 64
    assert text == len(rendered.token_ids) - visual


def test_a_text_model_is_told_that_it_takes_no_images(model_folder: Callable[[str], Path]) -> None:
    budget = budget_of(model_folder("qwen2"))
    assert budget.count(sample("a", "How many red circles are there?"))[1] == 0
    with pytest.raises(ConfigError, match="the data has images, but the model takes text only"):
        budget.count(sample("a", "How many?", images=[encode_png(Image.new("RGB", (56, 56)))]))


def test_the_renderer_needs_no_weights(model_folder: Callable[[str], Path], tmp_path: Path) -> None:
    for file in model_folder("qwen2_5_vl").iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).symlink_to(file)
    assert budget_of(tmp_path).count(sample("a", "How many red circles are there?"))[0] > 8


def test_quantiles_and_sums() -> None:
    lengths = Lengths()
    over = [lengths.add(text, visual, limit=20) for text, visual in ((5, 0), (5, 5), (10, 10), (10, 11))]
    assert over == [False, False, False, True]
    assert [lengths.quantile(share) for share in (0.25, 0.5, 0.51, 0.75, 0.95)] == [5, 10, 20, 20, 21]
    assert (lengths.num_text, lengths.num_visual, lengths.max_visual, lengths.num_over) == (30, 26, 11, 1)
    assert lengths.as_json()["histogram"] == [[5, 1], [10, 1], [20, 1], [21, 1]]
    assert Lengths().quantile(0.5) == 0


def test_bins_are_round_and_few_and_hold_every_prompt() -> None:
    # The least of 1, 2, 5, 10, ... times MAX_BINS (24) that exceeds the longest.
    assert [bin_width(longest) for longest in (1, 23, 24, 47, 48, 119, 120, 2048, 12_000)] == [
        1, 1, 2, 2, 5, 5, 10, 100, 1000,
    ]  # fmt: skip
    for longest in range(1, 5000, 7):
        assert longest // bin_width(longest) + 1 <= MAX_BINS
    assert binned(Counter({0: 1, 9: 2, 10: 4, 29: 8}), 10, 3) == [3, 4, 8]
