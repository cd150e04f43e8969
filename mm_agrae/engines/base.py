"""What a rollout engine is: rendered prompts in, completions out, weights kept in step with the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mm_agrae.records import Completion, RenderedPrompt, Sampling


class Engine(Protocol):
    """A source of completions.

    Attributes:
        weights_version: Updates behind the weights that it samples from.
    """

    weights_version: int

    def generate(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        """Sample completions.

        Args:
            prompts: P prompts.
            sampling: How to draw; G = sampling.num_completions.
            seeds: [P][G], one seed per completion. They decide all random choices; whether a completion depends
                on its own seed alone, or on those of its whole prompt, is the engine's affair.

        Returns:
            [P][G] completions.

        Raises:
            EngineError: The engine as a whole failed.
        """
        ...

    def sync_weights(self, policy: Any, *, version: int) -> None:
        """Sample from the policy's present weights from now on."""
        ...

    def close(self) -> None:
        """Free what the engine holds."""
        ...


def check_request(prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]) -> None:
    """Refuse requests whose seeds do not fit.

    Raises:
        ValueError: Not one row of seeds per prompt, or not one seed per completion.
    """
    if len(seeds) != len(prompts) or any(len(row) != sampling.num_completions for row in seeds):
        raise ValueError(
            f"there are {len(prompts)} prompts with {sampling.num_completions} completions each, but the seeds have "
            f"the shape {[len(row) for row in seeds]}. Give one seed per completion."
        )
