"""A softmax bandit: prompts with a table of trajectories, learnt from by the library's estimators and losses.

Shapes: S seeds, P prompts, K trajectories per prompt, G rollouts per prompt. Every seed is a run of its own, with its
own logits, draws, batch accuracy and anchor; seeds are computed side by side only to be fast. All algorithms start from
the same logits and turn the same random numbers into rollouts.

One step: draw G trajectories per prompt, reward 1 if correct else 0, estimate advantages and bounds, then take
gradient steps on the logits with the mean loss of each prompt's rollouts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mm_agrae.algorithms.groups import batch_accuracy
from mm_agrae.algorithms.losses import Tokens
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.estimator import START, Algorithm, Estimate, EstimatorState, Outcomes, assemble, estimate
from mm_agrae.seeding import seed_for

# One prompt for every pair: initial probability that an answer is correct, and the share of the wrong mass that one
# confident wrong trajectory has.
SUCCESS = (0.6, 0.3, 0.1, 0.03, 0.01, 0.003)
CONFIDENT = (0.3, 0.95)
NUM_TRAJECTORIES = 64
NUM_CORRECT = 6
# Each correct trajectory is this much rarer than the one before.
RARER = 3.0
NOISE = 0.3
GROUP_SIZE = 8
LEARNING_RATE = 0.5
MEASURE_EVERY = 10
PASS_K = 16
COLLAPSED = 0.99


@dataclass(frozen=True)
class Contestant:
    """A method: its algorithm section, and how many updates it takes per rollout."""

    name: str
    settings: dict[str, object]
    num_updates: int = 1


CONTESTANTS = (
    Contestant("GRPO", {}),
    Contestant("positive dominance", {"weighting": ["positive_dominant"]}),
    Contestant("negative dominance", {"weighting": ["negative_dominant"]}),
    Contestant("A-GRAE, α = 1", {"weighting": ["agrae"], "agrae": {"alpha": 1.0}}),
    Contestant("A-GRAE, α = 0.5", {"weighting": ["agrae"], "agrae": {"alpha": 0.5}}),
    Contestant("group level only, α = 1", {"weighting": ["agrae_group_level"], "agrae": {"alpha": 1.0}}),
    Contestant("sample level only", {"weighting": ["agrae_sample_level"]}),
    Contestant("HA-DW", {"weighting": ["hadw"]}),
    Contestant("GRPO, 4 updates", {}, 4),
    Contestant("ETR (reconstructed), 4 updates", {"trust_region": "elastic"}, 4),
)


@dataclass(frozen=True)
class World:
    """`logits` [S, P, K] that every algorithm starts from, and `correct` [P, K]."""

    logits: Tensor
    correct: Tensor


@dataclass(frozen=True)
class Measured:
    """One number per seed at one step, each [S]; the fields say of what.

    Attributes:
        entropy: Of the policy, mean over prompts, nats.
        discovered: Fraction of all correct trajectories that were sampled at least once so far.
        unseen: Probability of the correct trajectories that never were, mean over prompts.
        pass_1: Probability that one sample is correct, mean over prompts.
        pass_k: Probability that one of PASS_K is, mean over prompts.
        collapsed: Fraction of prompts with more than COLLAPSED of the mass on one wrong trajectory.
    """

    entropy: Tensor
    discovered: Tensor
    unseen: Tensor
    pass_1: Tensor
    pass_k: Tensor
    collapsed: Tensor


def make_world(*, seed: int, num_seeds: int) -> World:
    """Prompts from easy to hard; noise on the logits makes every seed's differ."""
    num_wrong = NUM_TRAJECTORIES - NUM_CORRECT
    of_correct = RARER ** -torch.arange(NUM_CORRECT, dtype=torch.float64)
    others = 1 / torch.arange(1, num_wrong, dtype=torch.float64)
    of_correct, others = of_correct / of_correct.sum(), others / others.sum()
    table = torch.stack(
        [
            torch.cat(
                [
                    rate * of_correct,
                    torch.tensor([(1 - rate) * share], dtype=torch.float64),
                    (1 - rate) * (1 - share) * others,
                ]
            )
            for rate in SUCCESS
            for share in CONFIDENT
        ]
    )
    noise = [
        torch.randn(table.shape, generator=_generator(seed, "noise", index), dtype=torch.float64)
        for index in range(num_seeds)
    ]
    correct = (torch.arange(NUM_TRAJECTORIES) < NUM_CORRECT).expand(len(table), -1)
    return World(logits=table.log() + NOISE * torch.stack(noise), correct=correct)


def run_bandit(
    contestant: Contestant, world: World, *, seed: int, num_steps: int, equal_weight: bool = False
) -> dict[int, Measured]:
    """Train every seed.

    Args:
        contestant: The method.
        world: Where all methods start.
        seed: Of the rollouts; every run derives its own from it.
        num_steps: Rollouts of the whole batch of prompts.
        equal_weight: Scale every batch's advantages to the Σ|A| that they had before the weightings, so that methods
            differ in where they put weight and not in how far they step.

    Returns:
        Number of steps taken -> measurements, ascending, from 0 to `num_steps`.
    """
    algorithm = assemble(AlgorithmConfig.model_validate(contestant.settings), max_completion_tokens=1)
    num_seeds = len(world.logits)
    generators = [_generator(seed, "rollout", index) for index in range(num_seeds)]
    states = [START] * num_seeds
    logits = world.logits.clone()
    seen = torch.zeros(logits.shape, dtype=torch.bool)
    found = {0: measure(logits, seen, world.correct)}
    for step in range(1, num_steps + 1):
        trajectories = sample(logits, generators)
        seen |= torch.zeros_like(seen).scatter(2, trajectories, True)
        batches = []
        for index in range(num_seeds):
            batch, states[index] = _estimate(algorithm, states[index], world.correct, trajectories[index])
            batches.append(_leveled(batch) if equal_weight else batch)
        logits = _learn(algorithm, logits, trajectories, batches, num_updates=contestant.num_updates)
        if step % MEASURE_EVERY == 0 or step == num_steps:
            found[step] = measure(logits, seen, world.correct)
    return found


def sample(logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Trajectories [S, P, G]; each seed turns its own uniform numbers into them by inverting its distributions."""
    num_prompts = logits.shape[1]
    uniform = [torch.rand(num_prompts, GROUP_SIZE, generator=one, dtype=torch.float64) for one in generators]
    edges = logits.softmax(dim=2).cumsum(dim=2)
    # Rounding can leave the last edge below 1.
    return torch.searchsorted(edges, torch.stack(uniform), right=True).clamp(max=logits.shape[2] - 1)


def measure(logits: Tensor, seen: Tensor, correct: Tensor) -> Measured:
    """Exact figures of the policies, no samples; `seen` [S, P, K] says what was sampled so far."""
    logprobs = logits.log_softmax(dim=2)
    mass = logprobs.exp()
    success = (mass * correct).sum(dim=2)
    return Measured(
        entropy=-(mass * logprobs).sum(dim=2).mean(dim=1),
        discovered=(seen & correct).sum(dim=(1, 2)) / correct.sum(),
        unseen=(mass * (correct & ~seen)).sum(dim=2).mean(dim=1),
        pass_1=success.mean(dim=1),
        pass_k=(1 - (1 - success) ** PASS_K).mean(dim=1),
        collapsed=((mass * ~correct).amax(dim=2) > COLLAPSED).to(torch.float64).mean(dim=1),
    )


def _estimate(
    algorithm: Algorithm, state: EstimatorState, correct: Tensor, trajectories: Tensor
) -> tuple[Estimate, EstimatorState]:
    """One seed's batch [P, G]."""
    flags = correct.gather(1, trajectories)
    outcomes = Outcomes(
        rewards=flags.to(torch.float64),
        correct=flags,
        lengths=torch.ones_like(trajectories),
        truncated=torch.zeros_like(flags),
    )
    return estimate(algorithm, state, outcomes, batch_accuracy=batch_accuracy(flags))


def _leveled(batch: Estimate) -> Estimate:
    """The same batch with the Σ|A| of its base advantages."""
    weight = float(batch.advantages.abs().sum())
    factor = float(batch.base.abs().sum()) / weight if weight > 0 else 1.0
    return replace(batch, advantages=batch.advantages * factor)


def _learn(
    algorithm: Algorithm, logits: Tensor, trajectories: Tensor, batches: Sequence[Estimate], *, num_updates: int
) -> Tensor:
    """Logits after gradient steps upon the same rollouts."""

    def flat(parts: list[Tensor]) -> Tensor:
        return torch.stack(parts).to(torch.float64).flatten()

    advantages = flat([batch.advantages for batch in batches])
    low, high = flat([batch.bounds.low for batch in batches]), flat([batch.bounds.high for batch in batches])
    sequences = torch.arange(len(advantages))
    old = logits.log_softmax(dim=2).gather(2, trajectories).flatten()
    for _ in range(num_updates):
        moving = logits.clone().requires_grad_()
        tokens = Tokens(
            logprobs=moving.log_softmax(dim=2).gather(2, trajectories).flatten(),
            old_logprobs=old,
            advantages=advantages,
            low=low,
            high=high,
            sequences=sequences,
        )
        # The mean over a prompt's rollouts: prompts share no logits, so their number does not matter.
        (gradient,) = torch.autograd.grad(algorithm.loss(tokens).loss.sum() / GROUP_SIZE, moving)
        logits = logits - LEARNING_RATE * gradient
    return logits


def _generator(seed: int, purpose: str, index: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(seed, "bandit", purpose, index))
