"""Decoding with the model's own cache, every prompt repeated for its completions: for models that cannot share.

Shapes: R rows being decoded, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.policy.cached import CachedLines
from mm_agrae.policy.load import Policy
from mm_agrae.policy.vision import image_inputs
from mm_agrae.records import RenderedPrompt


class RepeatingDecoder:
    """See Decoder."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.lines: CachedLines | None = None

    @property
    def accepts(self) -> bool:
        return self.lines is None

    def start(self, prompts: Sequence[RenderedPrompt], *, group: int) -> Float[Tensor, "R H"]:
        """The prompts are prefilled once, then their cache is repeated."""
        images = image_inputs(self.policy, [prompt for prompt in prompts if prompt.pixel_values is not None])
        self.lines = CachedLines(self.policy, prompts, images)
        self.lines.select(torch.arange(len(prompts), device=self.policy.device).repeat_interleave(group))
        return self.lines.last

    def step(self, ids: Int[Tensor, " R"], positions: Int[Tensor, " R"]) -> Float[Tensor, "R H"]:
        assert self.lines is not None
        return self.lines.step(ids, positions)

    def keep(self, rows: Sequence[int]) -> None:
        assert self.lines is not None
        if rows:
            self.lines.select(torch.tensor(rows, dtype=torch.long, device=self.policy.device))
        else:
            self.lines = None
