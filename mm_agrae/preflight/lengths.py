"""How many tokens the prompts have under a given model: what the prompt budget has to hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mm_agrae.config.schema import ImageConfig, PromptConfig
from mm_agrae.prompts import make_prompt
from mm_agrae.records import Sample

if TYPE_CHECKING:
    from mm_agrae.policy.load import Policy

MAX_BINS = 24


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Under what prompts are counted: the model (its weights are not needed), wording, pixels, and the limit."""

    policy: Policy
    prompt: PromptConfig
    images: ImageConfig
    max_prompt_tokens: int

    def count(self, sample: Sample) -> tuple[int, int]:
        """Text tokens (wording of the chat template included) and visual tokens of the sample's prompt.

        Raises:
            DataError: The prompt cannot be rendered.
            ConfigError: The sample has images and the model takes none.
        """
        # Imported here because it brings torch, which a check without a model does not need.
        from mm_agrae.policy.render import count_text_and_visual

        prompt = make_prompt(sample, system=self.prompt.system, instruction=self.prompt.instruction)
        return count_text_and_visual(self.policy, prompt, self.images)


@dataclass(kw_only=True)
class Lengths:
    """Token counts of one data set; memory is one number per different length."""

    total: Counter[int] = field(default_factory=Counter)
    num_text: int = 0
    num_visual: int = 0
    max_visual: int = 0
    num_over: int = 0

    def add(self, text: int, visual: int, *, limit: int) -> bool:
        """Count one prompt; True when it is longer than the limit."""
        self.total[text + visual] += 1
        self.num_text += text
        self.num_visual += visual
        self.max_visual = max(self.max_visual, visual)
        self.num_over += text + visual > limit
        return text + visual > limit

    def quantile(self, share: float) -> int:
        """The smallest length that at least this share of the prompts does not exceed; 0 without prompts."""
        reached = 0
        for length in sorted(self.total):
            reached += self.total[length]
            if reached >= share * self.total.total():
                return length
        return 0

    def as_json(self) -> dict[str, Any]:
        """Counts, sums, quantiles in tokens, and the whole distribution as [length, prompts] pairs."""
        return {
            "prompts": self.total.total(),
            "text_tokens": self.num_text,
            "visual_tokens": self.num_visual,
            "max_visual_tokens": self.max_visual,
            "over_budget": self.num_over,
            "median": self.quantile(0.5),
            "p95": self.quantile(0.95),
            "max": max(self.total, default=0),
            "histogram": [[length, self.total[length]] for length in sorted(self.total)],
        }


def bin_width(longest: int) -> int:
    """Width of the bins of a histogram in tokens: 1, 2 or 5 times a power of ten, so that MAX_BINS bins suffice."""
    width = 1
    for factor in (2, 5, 10) * 9:
        if longest < width * MAX_BINS:
            break
        width = factor * 10 ** (len(str(width)) - 1)
    return width


def binned(lengths: Counter[int], width: int, num_bins: int) -> list[int]:
    """Prompts per bin; bin i holds the lengths from i * width to (i + 1) * width - 1."""
    bins = [0] * num_bins
    for length, count in lengths.items():
        bins[length // width] += count
    return bins
