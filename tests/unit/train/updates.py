"""Groups of made-up completions, an update that learns from them, and how two updates are compared."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.config.schema import TrainConfig
from mm_agrae.estimator import START, assemble
from mm_agrae.policy.feed import Cursor
from mm_agrae.policy.load import Policy
from mm_agrae.policy.optim import make_optimizer
from mm_agrae.records import Completion, RenderedPrompt, Rollout, RolloutGroup, Verdict
from mm_agrae.rollout import Harvest
from mm_agrae.train.distributed import World
from mm_agrae.train.experience import Experience, experience
from mm_agrae.train.sampling import sample_groups
from mm_agrae.train.update import Learner

# Correct completions of each of 4 groups of 3; groups 1 and 3 have no advantage.
CORRECT = [[1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 1, 1]]
LENGTHS = [[2, 5, 3], [1, 4, 2], [6, 1, 2], [3, 3, 3]]


def group(prompt: RenderedPrompt, correct: Sequence[int], lengths: Sequence[int]) -> RolloutGroup:
    return RolloutGroup(prompt=prompt, rollouts=tuple(map(rollout, correct, lengths)), weights_version=0)


def rollout(correct: int, length: int) -> Rollout:
    ids = tuple((37 * length + 11 * place + 5 * correct) % 300 + 20 for place in range(length))
    return judged(Completion(token_ids=ids, logprobs=(-1.0,) * length, text="1", stop_reason="eos"), bool(correct))


def judged(completion: Completion, correct: bool) -> Rollout:
    verdict = Verdict(
        status="correct" if correct else "wrong",
        answer="1",
        span=None,
        answer_form=None,
        target_form=None,
        kind="integer",
        rule="test",
        formatted=True,
        seconds=0.0,
    )
    return Rollout(completion=completion, verdict=verdict, reward=0.9 * correct + 0.1)


def learner(policy: Policy, world: World, *, train: dict | None = None, algorithm: dict | None = None) -> Learner:
    settings = TrainConfig.model_validate(
        {"num_steps": 10, "optim": {"lr": 1e-3, "max_grad_norm": 1e6}} | (train or {})
    )
    bound = assemble(AlgorithmConfig.model_validate(algorithm or {}), max_completion_tokens=8)
    reference = None
    if bound.beta:
        reference = replace(policy, model=copy.deepcopy(policy.model).requires_grad_(False))
    return Learner(
        policy=policy,
        reference=reference,
        optimizer=make_optimizer(policy.trainable(), settings.optim),
        algorithm=bound,
        config=settings,
        temperature=0.7,
        max_completion_tokens=8,
        world=world,
    )


def batch_of(of: Learner, prompts: Sequence[RenderedPrompt], order: Sequence[int] = (0, 1, 2, 3)) -> Experience:
    groups = [group(prompts[index], CORRECT[index], LENGTHS[index]) for index in order]
    return experienced(of, groups)


def experienced(of: Learner, groups: list[RolloutGroup]) -> Experience:
    def harvest(number: int, cursor: Cursor) -> tuple[Harvest, Cursor]:
        return Harvest(groups=groups, rollout_s=0.0, verify_s=0.0), cursor

    sampled = sample_groups(harvest, of.world, count=len(groups), max_rounds=1, cursor=Cursor())
    return experience(sampled, of.algorithm, START)[0]


def close(actual: Sequence[Tensor], expected: Sequence[Tensor]) -> None:
    scale = max(float(tensor.abs().max()) for tensor in expected)
    assert scale > 0
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * scale)


def fresh(policy: Policy) -> Policy:
    return replace(policy, model=copy.deepcopy(policy.model))


def numbers(metrics: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in metrics.items() if not key.startswith("time/")}


def facts(index: int) -> tuple[list[int], list[int]]:
    return CORRECT[index], LENGTHS[index]
