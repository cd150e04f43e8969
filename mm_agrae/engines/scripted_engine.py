"""An engine that answers from a script: for tests of everything around an engine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mm_agrae.engines.base import check_request
from mm_agrae.records import Completion, RenderedPrompt, Sampling


class ScriptedEngine:
    """Answers with script(prompt, seed); token ids come from `encode`, and every log-probability is 0."""

    def __init__(self, script: Callable[[RenderedPrompt, int], str], encode: Callable[[str], Sequence[int]]) -> None:
        self.script = script
        self.encode = encode
        self.weights_version = 0

    def generate(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        check_request(prompts, sampling, seeds)
        return [
            [self._complete(self.script(prompt, seed), sampling.max_new_tokens) for seed in row]
            for prompt, row in zip(prompts, seeds, strict=True)
        ]

    def sync_weights(self, policy: Any, *, version: int) -> None:
        self.weights_version = version

    def close(self) -> None:
        """Nothing is held."""

    def _complete(self, text: str, limit: int) -> Completion:
        ids = tuple(self.encode(text))
        return Completion(
            token_ids=ids[:limit],
            logprobs=(0.0,) * min(len(ids), limit),
            text=text,
            stop_reason="eos" if len(ids) <= limit else "length",
        )
