"""One step on the same groups by one process or by several: run by torchrun, or called.

python -m torch.distributed.run --standalone --nproc_per_node 2 ranks.py OUT NAME=FOLDER[+FLAG]... ...

OUT becomes a file of what each job found, by its name. Flags: see `load`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from colours import colour_sample
from torch import Tensor, nn

import mm_agrae.train.sampling as sampling
import mm_agrae.train.update as update_module
from mm_agrae.algorithms.groups import is_mixed
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.config.model import LoraConfig
from mm_agrae.config.schema import ImageConfig, ModelConfig, TrainConfig
from mm_agrae.estimator import START, assemble
from mm_agrae.policy.feed import Cursor
from mm_agrae.policy.flops import model_shape
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.fsdp import is_piece, whole
from mm_agrae.policy.layout import Row
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.optim import make_optimizer
from mm_agrae.policy.render import render
from mm_agrae.policy.snapshot import named_weights, optimizer_tensors, restore_optimizer
from mm_agrae.prompts import make_prompt
from mm_agrae.records import Completion, Rollout, RolloutGroup, Verdict
from mm_agrae.rollout import Harvest
from mm_agrae.train.balance import balanced
from mm_agrae.train.distributed import World
from mm_agrae.train.experience import Experience, experience
from mm_agrae.train.sampling import sample_groups
from mm_agrae.train.sharding import shard_if_asked
from mm_agrae.train.update import Learner, update

# Of each group: whether it is shown, completion lengths, which completions are correct. Two updates of four groups.
# Rank 1 of two samples the odd ones. The third group moves no weight; the last update has one long group and two that
# do not fit into one micro-batch, so ranks have different numbers of micro-batches, the one with pictures fewer.
GROUPS = (
    (True, (1, 2), (1, 0)),
    (False, (24, 30), (0, 1)),
    (True, (9, 9), (1, 1)),
    (True, (2, 17), (1, 0)),
    (False, (14, 15), (0, 1)),
    (True, (30, 28), (0, 1)),
    (False, (16, 14), (1, 0)),
    (False, (3, 3), (0, 0)),
)

MAX_GRAD_NORM = 0.1  # below the norms of both updates


def make_group(policy: Policy, number: int) -> RolloutGroup:
    image, lengths, correct = GROUPS[number]
    prompt = make_prompt(colour_sample(number, image=image and policy.sees), system="none", instruction="none")
    draw = np.random.default_rng(number)
    rollouts = tuple(
        make_rollout(tuple(map(int, draw.integers(20, 60, length))), right)
        for length, right in zip(lengths, correct, strict=True)
    )
    prompt_seen = render(policy, prompt, ImageConfig(min_pixels=256, max_pixels=4096))
    return RolloutGroup(prompt=prompt_seen, rollouts=rollouts, weights_version=0)


def row_of(group: RolloutGroup) -> Row:
    return Row(prompt=group.prompt, completions=tuple(rollout.completion.token_ids for rollout in group.rollouts))


def make_rollout(ids: tuple[int, ...], correct: int) -> Rollout:
    verdict = Verdict(
        status="correct" if correct else "wrong", answer="1", span=None, answer_form=None, target_form=None,
        kind="integer", rule="test", formatted=True, seconds=0.0,
    )  # fmt: skip
    completion = Completion(token_ids=ids, logprobs=(-4.0,) * len(ids), text="1", stop_reason="eos")
    return Rollout(completion=completion, verdict=verdict, reward=float(correct))


def settings_of(flags: Sequence[str] = (), *, micro_batch_tokens: int = 90) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "num_steps": 10,
            "updates_per_rollout": 2,
            "micro_batch_tokens": micro_batch_tokens,
            "optim": {"lr": 1e-4, "max_grad_norm": MAX_GRAD_NORM},
            "sharding": "fsdp2" if "sharded" in flags else "none",
            "reshard_after_forward": "gathered" not in flags,
        }
    )


def count_of(flags: Sequence[str]) -> int:
    """Groups that are learnt from: all, or (again) two of those that are sampled again until they are mixed."""
    return 2 if "again" in flags else len(GROUPS)


def make_learner(policy: Policy, world: World, settings: TrainConfig) -> Learner:
    return Learner(
        policy=policy,
        reference=None,
        optimizer=make_optimizer(policy.trainable(), settings.optim, masters=policy.masters),
        algorithm=assemble(AlgorithmConfig.model_validate({"weighting": ["agrae"]}), max_completion_tokens=30),
        config=settings,
        temperature=0.7,
        max_completion_tokens=30,
        world=world,
    )


def experienced(learner: Learner, *, count: int = len(GROUPS)) -> Experience:
    """All groups; or the first `count` that rank 0 of two samples and that are mixed, from rounds of so many."""

    def harvest(number: int, cursor: Cursor) -> tuple[Harvest, Cursor]:
        these = range(number * count, (number + 1) * count)
        groups = learner.world.share([make_group(learner.policy, index) for index in these])
        return Harvest(groups=groups, rollout_s=0.0, verify_s=0.0), cursor

    def of_first_rank(flags: Tensor) -> Tensor:
        return is_mixed(flags) & (torch.arange(len(flags)) % 2 == 0)

    with patch.object(sampling, "is_mixed", of_first_rank):
        sampled = sample_groups(harvest, learner.world, count=count, max_rounds=len(GROUPS) // count, cursor=Cursor())
    return experience(sampled, learner.algorithm, START)[0]


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Gradients of each update as the optimiser gets them, whose of them World added up, and calls of the model.

    Of each pass through the model, `passes` has the number of weights that are pieces when it ends.
    """

    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    summed: set[str] = field(default_factory=set)
    passes: list[int] = field(default_factory=list)
    towers: list[int] = field(default_factory=list)


@contextmanager
def watched(policy: Policy, world: World) -> Iterator[Seen]:
    """See `learn`."""
    seen = Seen()
    names = [name for name, parameter in policy.model.named_parameters() if parameter.requires_grad]
    real_step, real_sum = update_module.optimizer_step, world._sum_bucket

    def step(optimizer: Any, parameters: Sequence[Any], *, loss: float, lr: float, max_grad_norm: float) -> float:
        seen.gradients.append({name: whole(p.grad).clone() for name, p in zip(names, parameters, strict=True)})
        return real_step(optimizer, parameters, loss=loss, lr=lr, max_grad_norm=max_grad_norm)

    def add_up(bucket: Sequence[Tensor]) -> None:
        there = {id(gradient) for gradient in bucket}
        seen.summed.update(n for n, p in zip(names, policy.trainable(), strict=True) if id(p.grad) in there)
        real_sum(bucket)

    def count(module: nn.Module, given: Any, out: Any) -> None:
        seen.passes.append(sum(is_piece(weight) for weight in policy.model.parameters()))

    hooks = [policy.backbone.register_forward_hook(count)]
    if policy.sees:
        hooks.append(policy.backbone.visual.register_forward_hook(lambda module, given, out: seen.towers.append(1)))
    with patch.object(update_module, "optimizer_step", step), patch.object(world, "_sum_bucket", add_up):
        yield seen
    for hook in hooks:
        hook.remove()


def learn(policy: Policy, world: World, settings: TrainConfig, *, count: int = len(GROUPS)) -> dict[str, Any]:
    """What one step finds.

    Args:
        policy: The model, whole or sharded.
        world: The processes.
        settings: See `settings_of`.
        count: See `experienced`.

    Returns:
        metrics: Of the updates, over all ranks.
        logprobs: Of the completions of all groups, before the step.
        rows: Of each rank, the groups that it sampled and those that it learnt from.
        num_passes, num_towers: Of each rank, its passes through the model and its vision tower during the updates.
        pieces: Of each pass of this rank, how many weights are in pieces when it ends.
        gradients: Of each update, by parameter, as the optimiser gets them.
        moves: Of each weight, by both updates.
        moments: What the optimiser remembers.
        again: The same, after it was given to a new optimiser.
        in_parts: Parameters that no rank holds whole.
        summed: Parameters whose gradients World added up.
    """
    learner = make_learner(policy, world, settings)
    with torch.no_grad(), policy.whole():
        rows = [row_of(make_group(policy, number)) for number in range(len(GROUPS))]
        logprobs = score(policy, lay_out(policy, rows), temperature=learner.temperature).logprobs
    before = {name: weight.clone() for name, weight in named_weights(policy)}
    with watched(policy, world) as seen:
        sampled = experienced(learner, count=count)
        batch = balanced(learner, sampled, model_shape(policy))
        metrics = update(learner, batch, step=0)
    moments = optimizer_tensors(policy, learner.optimizer)
    new = make_optimizer(policy.trainable(), settings.optim, masters=policy.masters)
    restore_optimizer(policy, new, moments)
    return {
        "metrics": metrics,
        "logprobs": logprobs,
        "rows": world.collect([(sampled.rows, batch.rows)]),
        "num_passes": world.collect([len(seen.passes)]),
        "pieces": seen.passes,
        "num_towers": world.collect([len(seen.towers)]),
        "gradients": seen.gradients,
        "moves": {name: weight - before[name] for name, weight in named_weights(policy)},
        "moments": moments,
        "again": optimizer_tensors(policy, new),
        "in_parts": {name for name, parameter in policy.model.named_parameters() if is_piece(parameter)},
        "summed": seen.summed,
    }


def load(folder: str, flags: Sequence[str] = ()) -> Policy:
    """A whole policy. Flags: recomputing, lora, frozen (the tower), bf16 (with masters), untied (a head of its own)."""
    policy = load_policy(
        ModelConfig(
            path=folder,
            device="cpu",
            gradient_checkpointing="recomputing" in flags,
            lora=LoraConfig(rank=4, alpha=8.0) if "lora" in flags else None,
            freeze=("vision", "connector") if "frozen" in flags else (),
            precision="bf16" if "bf16" in flags else "fp32",
            stored_weights="bf16_with_fp32_masters" if "bf16" in flags else "fp32",
        )
    )
    if "untied" in flags:
        policy.head.weight = nn.Parameter(policy.head.weight.detach().clone())
    return policy


def main(out: str, *jobs: str) -> None:
    torch.set_num_threads(1)
    world = World(device="cpu")
    found = {}
    for job in jobs:
        name, _, what = job.partition("=")
        folder, *flags = what.split("+")
        torch.manual_seed(0)  # adapters
        settings = settings_of(flags)
        policy = shard_if_asked(load(folder, flags), settings, world, print)
        found[name] = learn(policy, world, settings, count=count_of(flags))
    if world.is_main:
        torch.save(found, Path(out))


if __name__ == "__main__":
    main(*sys.argv[1:])
