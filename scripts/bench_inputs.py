"""What the step benchmarks share: embedded models, prompts of a chosen size, completions, and what a layout costs."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from mm_agrae.config.schema import ImageConfig, ModelConfig
from mm_agrae.data.images import encode_png
from mm_agrae.policy import tiny
from mm_agrae.policy.flops import forward_cost, model_shape, shape_of, update_cost
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.render import render
from mm_agrae.policy.tiny import SPECIAL_TOKENS, Size, build_model_folder
from mm_agrae.prompts import make_prompt
from mm_agrae.records import RenderedPrompt, Sample

# Vision tower and language model cost about the same per visual token, as in Qwen2.5-VL-3B.
TOY = Size(
    hidden=256, layers=6, heads=4, kv_heads=2, ffn=768,
    vision_hidden=128, vision_layers=6, vision_heads=4, patch=14, vocab=2048,
)  # fmt: skip
WORD = "bars"
ANY_SIZE = ImageConfig(min_pixels=1, max_pixels=10**8)


@dataclass(frozen=True, kw_only=True)
class Point:
    """One size of the table: visual and text tokens of a prompt, completion tokens, completions, prompts."""

    visual: int
    text: int
    completion: int
    group: int
    prompts: int

    @property
    def label(self) -> str:
        return f"{self.visual} + {self.text}, {self.completion}, {self.group}"


def build(folder: Path, *, architecture: str, size: str, seed: int = 0) -> Path:
    """A model folder with random weights; "toy" has the proportions of a real model."""
    tiny.SIZES["toy"] = TOY
    corpus = [f"how many {WORD} are there ?"] * 5
    build_model_folder(folder, architecture=architecture, size=size, corpus=corpus, seed=seed)
    return folder


def policy_of(folder: Path) -> Policy:
    """The model, with every token allowed: other trainers give placeholders their probability, ours takes it away."""
    return replace(load_policy(ModelConfig(path=str(folder), device="cpu")), banned_token_ids=())


def make_image(policy: Policy, visual: int, rng: np.random.Generator) -> bytes:
    """A random picture that becomes `visual` tokens (a square number)."""
    side = round(visual**0.5)
    if side * side != visual:
        raise ValueError(f"{visual} visual tokens are no square; take 64, 256, 1024 ...")
    pixels = side * policy.image_processor.patch_size * policy.image_processor.merge_size  # type: ignore[union-attr]
    return encode_png(Image.fromarray(rng.integers(0, 255, (pixels, pixels, 3), dtype=np.uint8)))


def make_sample(policy: Policy, point: Point, number: int, rng: np.random.Generator) -> Sample:
    """A sample whose rendered prompt has exactly the text tokens of the point beside its visual ones."""
    images = (make_image(policy, point.visual, rng),) if point.visual else ()
    empty = Sample(id=str(number), question="<image>" * len(images), target="1", images=images)
    frame = len(rendered(policy, empty).token_ids) - point.visual
    words = point.text - frame
    if words < 0:
        raise ValueError(f"a prompt has {frame} tokens before its question, so text must be at least that.")
    return replace(empty, question=empty.question + f" {WORD}" * words)


def rendered(policy: Policy, sample: Sample, *, instruction: str = "none") -> RenderedPrompt:
    return render(policy, make_prompt(sample, system="none", instruction=instruction), ANY_SIZE)


def make_completions(policy: Policy, point: Point, rng: np.random.Generator, *, ragged: bool) -> list[tuple[int, ...]]:
    """Random ids that end in nothing special; ragged ones have 1 to `completion` tokens, the longest all of them."""
    first = len(SPECIAL_TOKENS)
    lengths = rng.integers(1, point.completion + 1, point.group) if ragged else np.full(point.group, point.completion)
    lengths[0] = point.completion
    lengths[1:2] = 1 if ragged else point.completion
    high = len(policy.tokenizer)
    return [tuple(int(token) for token in rng.integers(first, high, length)) for length in lengths]


def theory(
    policy: Policy, groups: Sequence[tuple[RenderedPrompt, Sequence[Sequence[int]]]], *, with_rollout: bool = False
) -> float:
    """How many times more an update must compute where every completion has a prompt and a picture of its own.

    Args:
        policy: Its model decides what a token costs.
        groups: Prompts with the token ids of their completions.
        with_rollout: Count the sampling of these completions too.
    """
    model = model_shape(policy)
    shapes = [shape_of(prompt, completions) for prompt, completions in groups]

    def operations(*, shared: bool) -> float:
        updates = sum(update_cost(model, shape, shared=shared).total for shape in shapes)
        rollouts = sum(forward_cost(model, shape, shared=shared).total for shape in shapes)
        return updates + with_rollout * rollouts

    return operations(shared=False) / operations(shared=True)


def temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="mm-agrae-bench-")) / "model"
