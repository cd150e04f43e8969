"""Samples -> rendered prompts that fit the token budget. What does not is refused, counted, named; nothing is cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mm_agrae.config.schema import RunConfig
from mm_agrae.data.sampler import PromptSampler
from mm_agrae.errors import DataError
from mm_agrae.policy.load import Policy
from mm_agrae.policy.render import count_tokens, render
from mm_agrae.prompts import make_prompt
from mm_agrae.records import Prompt, RenderedPrompt, Sample


@dataclass(frozen=True)
class Cursor:
    """Where a run stands in its data: the state that a checkpoint keeps."""

    position: int = 0
    refused: int = 0


@dataclass(frozen=True, kw_only=True)
class Feed:
    """Turns samples into prompts for one policy.

    Attributes:
        policy: Whose tokenizer and image processor render.
        config: Pixel budget, texts around the question, token budget.
        log: Receives one line per refused sample.
    """

    policy: Policy
    config: RunConfig
    log: Callable[[str], None]

    def admit(self, sample: Sample) -> Prompt | None:
        """The prompt of a sample, or None, logged, when it is over rollout.max_prompt_tokens."""
        prompt = make_prompt(sample, system=self.config.prompt.system, instruction=self.config.prompt.instruction)
        length, budget = count_tokens(self.policy, prompt, self.config.images), self.config.rollout.max_prompt_tokens
        if length <= budget:
            return prompt
        self.log(
            f"refused sample {sample.id!r}: its prompt has {length} tokens, over rollout.max_prompt_tokens {budget}"
        )
        return None

    def render(self, prompt: Prompt) -> RenderedPrompt:
        """The prompt as the model sees it."""
        return render(self.policy, prompt, self.config.images)

    def take(
        self, samples: Sequence[Sample], sampler: PromptSampler, count: int, cursor: Cursor
    ) -> tuple[list[Prompt], Cursor]:
        """The next `count` admitted prompts of the endless order, and where it goes on.

        Raises:
            DataError: Every sample is refused.
        """
        prompts: list[Prompt] = []
        in_a_row = 0
        while len(prompts) < count:
            (index,) = sampler.indices(cursor.position, 1)
            prompt = self.admit(samples[index])
            in_a_row = 0 if prompt else in_a_row + 1
            cursor = Cursor(cursor.position + 1, cursor.refused + (prompt is None))
            if prompt:
                prompts.append(prompt)
            # One that fits may come first in an epoch and last in the next, with 2n - 2 refusals in between.
            elif in_a_row >= 2 * len(samples) - 1:
                raise DataError(
                    f"all {len(samples)} samples are over rollout.max_prompt_tokens "
                    f"{self.config.rollout.max_prompt_tokens}. Raise it, or lower images.max_pixels."
                )
        return prompts, cursor
