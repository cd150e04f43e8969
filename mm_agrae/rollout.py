"""Rendered prompts -> judged groups. Training and evaluation get their numbers here, from the same code."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from mm_agrae.config.supervision import Phase
from mm_agrae.engines.base import Engine
from mm_agrae.records import Completion, RenderedPrompt, Rollout, RolloutGroup, Sampling, Verdict
from mm_agrae.rewards import reward
from mm_agrae.verify import Question, VerifierPool

# Called with the name of a phase as it begins; the context is left as it ends.
Phases = Callable[[Phase], AbstractContextManager[None]]


def unwatched(phase: Phase) -> AbstractContextManager[None]:
    """No supervision, or that of a phase around this one."""
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Judge:
    """The verifier, the scoring profile by which it judges, and what its verdicts are worth."""

    verifier: VerifierPool
    correct_weight: float
    format_weight: float
    profile: str = "generic"

    def __call__(self, completions: Sequence[Completion], questions: Sequence[Question]) -> list[Rollout]:
        verdicts = self.verifier.verify_all([completion.text for completion in completions], questions)
        return [
            Rollout(completion=completion, verdict=verdict, reward=self._reward(verdict))
            for completion, verdict in zip(completions, verdicts, strict=True)
        ]

    def _reward(self, verdict: Verdict) -> float:
        return reward(verdict, correct_weight=self.correct_weight, format_weight=self.format_weight)


@dataclass(frozen=True, kw_only=True)
class Harvest:
    """Groups, and the seconds that sampling and judging took."""

    groups: list[RolloutGroup]
    rollout_s: float
    verify_s: float


def rollout(
    engine: Engine,
    judge: Judge,
    prompts: Sequence[RenderedPrompt],
    sampling: Sampling,
    seeds: Sequence[Sequence[int]],
    *,
    phases: Phases = unwatched,
) -> Harvest:
    """Sample and judge the completions of every prompt.

    Args:
        engine: Samples.
        judge: Verifies and rewards; an answer that cannot be judged is a verdict, not an error.
        prompts: P prompts.
        sampling: Settings; G = sampling.num_completions.
        seeds: [P][G], one per completion.
        phases: Told of "rollout" and "verify".
    """
    started = time.perf_counter()
    with phases("rollout"):
        completions = engine.generate(prompts, sampling, seeds)
    sampled = time.perf_counter()
    flat = [completion for group in completions for completion in group]
    questions = [
        Question.of(prompt.sample, profile=judge.profile) for prompt in prompts for _ in range(sampling.num_completions)
    ]
    with phases("verify"):
        judged = judge(flat, questions)
    size = sampling.num_completions
    groups = [
        RolloutGroup(
            prompt=prompt,
            rollouts=tuple(judged[index * size : (index + 1) * size]),
            weights_version=engine.weights_version,
        )
        for index, prompt in enumerate(prompts)
    ]
    return Harvest(groups=groups, rollout_s=sampled - started, verify_s=time.perf_counter() - sampled)
