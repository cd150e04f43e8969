"""What the step benchmarks share: embedded models, prompts of a chosen size, completions, and what a layout costs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from mm_agrae.config.schema import ImageConfig, ModelConfig
from mm_agrae.data.images import encode_png
from mm_agrae.policy import tiny
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


def rendered(policy: Policy, sample: Sample) -> RenderedPrompt:
    return render(policy, make_prompt(sample, system="none", instruction="none"), ANY_SIZE)


def make_completions(policy: Policy, point: Point, rng: np.random.Generator, *, ragged: bool) -> list[tuple[int, ...]]:
    """Random ids that end in nothing special; ragged ones have 1 to `completion` tokens, the longest all of them."""
    first = len(SPECIAL_TOKENS)
    lengths = rng.integers(1, point.completion + 1, point.group) if ragged else np.full(point.group, point.completion)
    lengths[0] = point.completion
    high = len(policy.tokenizer)
    return [tuple(int(token) for token in rng.integers(first, high, length)) for length in lengths]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Multiply-adds of one forward pass over the point, in three parts."""

    language: float
    head: float
    vision: float

    @property
    def total(self) -> float:
        return self.language + self.head + self.vision


def cost(policy: Policy, point: Point, *, shared: bool) -> Cost:
    """What a forward pass must compute, by the formulas 2·N·tokens (linear) and 4·heads·width·pairs (attention).

    Repeated: G rows of P + C tokens and G passes of the vision tower. Shared: P + G·C tokens and one pass. Attention
    pairs are causal. The head sees completion tokens only, the same number either way.
    """
    text = policy.inner.config.get_text_config()
    prompt, length, group = point.visual + point.text, point.completion, point.group
    copies = 1 if shared else group
    tokens = copies * prompt + group * length
    pairs = copies * prompt**2 / 2 + group * (length * prompt + length**2 / 2)
    width = text.num_attention_heads * (text.hidden_size // text.num_attention_heads)
    layers = policy.inner.get_decoder().layers
    linear = sum(parameter.numel() for parameter in layers.parameters() if parameter.dim() == 2)
    vision = 0.0
    if point.visual:
        tower = policy.backbone.visual
        weights = {id(p): p for p in tower.parameters() if p.dim() >= 2}
        merger = sum(p.numel() for p in tower.merger.parameters() if p.dim() == 2)
        patches = 4 * point.visual
        blocks = sum(p.numel() for p in weights.values()) - merger
        vision = 2.0 * (blocks * patches + merger * point.visual)
        vision += 4.0 * len(tower.blocks) * policy.inner.config.vision_config.hidden_size * patches**2
    return Cost(
        language=point.prompts * (2.0 * linear * tokens + 4.0 * text.num_hidden_layers * width * pairs),
        head=point.prompts * 2.0 * text.hidden_size * text.vocab_size * group * length,
        vision=point.prompts * copies * vision,
    )


def theory(policy: Policy, point: Point) -> float:
    """How many times more the repeated layout must compute; backward passes cost twice the forward in every part."""
    return cost(policy, point, shared=False).total / cost(policy, point, shared=True).total


def temporary_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="mm-agrae-bench-")) / "model"


def close(found: torch.Tensor, expected: torch.Tensor, *, relative: float, floor: float) -> bool:
    return float((found - expected).norm()) <= relative * float(expected.norm()) + floor
