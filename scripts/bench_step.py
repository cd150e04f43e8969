"""One update, G completions per prompt: what sharing the prompt and its picture is worth.

    python scripts/bench_step.py                    the table, about 15 minutes on two cores
    python scripts/bench_step.py --quick            two small points
    python scripts/bench_step.py --json             the table as JSON, and nothing else, on standard output
    python scripts/bench_step.py --without-peer     without TRL (which needs `pip install 'trl==1.16.*'`)

Four ways of computing the same GRPO update of the same groups, fp32, each with its optimiser step:

    trl stock       GRPOTrainer with its default settings (gradient checkpointing, 8 rows at a time)
    trl best        without checkpointing, the fastest of 8, 16 and 32 rows at a time
    repeated        ours, every completion with a prompt and a picture of its own
    ours            every prompt and picture once

Before anything is timed, log-probabilities, loss, every gradient and the weights after one AdamW step are compared, on
completions of uneven length. Every time is the median over rounds in which all four take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_peer
import bench_world as world_of
import numpy as np
import torch
from bench_world import Point

import mm_agrae.train.update as update_module
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.config.schema import TrainConfig
from mm_agrae.estimator import START, assemble
from mm_agrae.policy.feed import Cursor
from mm_agrae.policy.forward import score
from mm_agrae.policy.layout import Row, make_layout, one_by_one
from mm_agrae.policy.load import Policy
from mm_agrae.policy.optim import make_optimizer
from mm_agrae.records import Completion, Rollout, RolloutGroup, Verdict
from mm_agrae.rollout import Harvest
from mm_agrae.train.distributed import World
from mm_agrae.train.experience import Experience, experience
from mm_agrae.train.sampling import sample_groups
from mm_agrae.train.update import Learner, update

POINTS = [
    Point(visual=256, text=64, completion=64, group=8, prompts=2),
    Point(visual=256, text=64, completion=64, group=16, prompts=2),
    Point(visual=256, text=64, completion=32, group=8, prompts=2),
    Point(visual=64, text=64, completion=64, group=8, prompts=4),
    Point(visual=64, text=64, completion=128, group=8, prompts=4),
    Point(visual=0, text=256, completion=64, group=8, prompts=4),
    Point(visual=0, text=128, completion=256, group=8, prompts=2),
]
QUICK = [
    Point(visual=64, text=64, completion=32, group=8, prompts=2),
    Point(visual=64, text=64, completion=32, group=16, prompts=2),
]
LR = 1e-4
MAX_TOKENS = 4096


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two small points, 3 rounds")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--without-peer", action="store_true", help="leave TRL out")
    parser.add_argument("--architecture", default="qwen2_5_vl", help="qwen2_vl, qwen2_5_vl or qwen3_vl")
    parser.add_argument("--size", default="toy", help="tiny or toy")
    parser.add_argument("--threads", type=int, default=2)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    folder = world_of.build(world_of.temporary_folder(), architecture=chosen.architecture, size=chosen.size)
    points = QUICK if chosen.quick else POINTS
    points = [point for point in points if point.visual == 0 or chosen.architecture.endswith("_vl")]
    with_peer = not chosen.without_peer
    report = (lambda line: None) if chosen.json else print
    differences = check_equality(folder, replace(points[0], prompts=2), with_peer=with_peer)
    for name, difference in differences.items():
        report(f"{name}: {difference['value']:.2e}, at most {difference['limit']:.0e}")
    equal = all(difference["value"] <= difference["limit"] for difference in differences.values())
    if not equal:
        report("The numbers differ, so timings would mean nothing.")
    rounds = 3 if chosen.quick else 7
    table = []
    for point in points if equal else []:
        table.append(measure(folder, point, with_peer=with_peer, rounds=rounds))
        report(line_of(table[-1]))
    if chosen.json:
        print(json.dumps({"equal": equal, "equality": differences, "threads": chosen.threads, "points": table}))
    return 0 if equal else 1


def learner_of(policy: Policy, *, length: int, sharing: bool) -> Learner:
    settings = TrainConfig.model_validate(
        {
            "num_steps": 1000,
            "micro_batch_tokens": MAX_TOKENS,
            "share_prompts": sharing,
            "optim": {"lr": LR, "max_grad_norm": 1e9},
        }
    )
    return Learner(
        policy=policy,
        reference=None,
        optimizer=make_optimizer(policy.trainable(), settings.optim),
        algorithm=assemble(AlgorithmConfig.model_validate({}), max_completion_tokens=length),
        config=settings,
        temperature=1.0,
        max_completion_tokens=length,
        world=World(device="cpu"),
    )


def groups_of(policy: Policy, point: Point, *, ragged: bool) -> list[RolloutGroup]:
    """Random pictures and completions; every second completion is correct, so every group has a gradient."""
    rng = np.random.default_rng(0)
    groups = []
    for number in range(point.prompts):
        prompt = world_of.rendered(policy, world_of.make_sample(policy, point, number, rng))
        completions = world_of.make_completions(policy, point, rng, ragged=ragged)
        rollouts = tuple(rollout_of(ids, correct=place % 2 == 0) for place, ids in enumerate(completions))
        groups.append(RolloutGroup(prompt=prompt, rollouts=rollouts, weights_version=0))
    return groups


def rollout_of(ids: tuple[int, ...], *, correct: bool) -> Rollout:
    verdict = Verdict(
        status="correct" if correct else "wrong", answer="1", span=None, answer_form=None, target_form=None,
        kind="integer", rule="drawn", formatted=True, seconds=0.0,
    )  # fmt: skip
    completion = Completion(token_ids=ids, logprobs=(-7.0,) * len(ids), text="1", stop_reason="eos")
    return Rollout(completion=completion, verdict=verdict, reward=float(correct))


def experienced(learner: Learner, groups: list[RolloutGroup]) -> Experience:
    def harvest(number: int, cursor: Cursor) -> tuple[Harvest, Cursor]:
        return Harvest(groups=groups, rollout_s=0.0, verify_s=0.0), cursor

    sampled = sample_groups(harvest, learner.world, count=len(groups), max_rounds=1, cursor=Cursor())
    return experience(sampled, learner.algorithm, START)[0]


def gradients_in(learner: Learner, batch: Experience) -> tuple[float, list[torch.Tensor]]:
    """Loss and gradients of one update, which then takes its step."""
    seen: list[torch.Tensor] = []
    step = update_module.optimizer_step

    def spy(optimizer: Any, parameters: Sequence[Any], *, lr: float, max_grad_norm: float) -> float:
        seen.extend(parameter.grad.clone() for parameter in parameters)
        return step(optimizer, parameters, lr=lr, max_grad_norm=max_grad_norm)

    update_module.optimizer_step = spy
    try:
        metrics = update(learner, batch, step=0)
    finally:
        update_module.optimizer_step = step
    return metrics["policy/loss"], seen


def check_equality(folder: Path, point: Point, *, with_peer: bool) -> dict[str, dict[str, float]]:
    """Largest relative differences between our layouts, and to the peer; {"value", "limit"} by name."""
    policies = {sharing: world_of.policy_of(folder) for sharing in (True, False)}
    learners = {
        sharing: learner_of(policies[sharing], length=point.completion, sharing=sharing) for sharing in policies
    }
    groups = groups_of(policies[True], point, ragged=True)
    rows = [Row(prompt=g.prompt, completions=tuple(r.completion.token_ids for r in g.rollouts)) for g in groups]
    with torch.no_grad():
        shared = score(policies[True], make_layout(rows)).logprobs
        alone = [score(policies[True], make_layout([one])).logprobs for row in rows for one in one_by_one(row)]
    batch = experienced(learners[True], groups)
    found = {"logprobs, repeated": entry(float((shared - torch.cat(alone)).abs().max()), 5e-6)}
    ours, repeated = (Step(*gradients_in(learner, batch), learner.policy.trainable()) for learner in learners.values())
    found |= compared("repeated", ours, repeated)
    if with_peer:
        peer = bench_peer.PeerUpdate(folder, batch, rows=point.group, checkpointing=False, lr=LR)
        found["logprobs, trl"] = entry(float((shared - peer.logprobs()).abs().max()), 5e-6)
        loss = peer.backward()
        gradients = [parameter.grad.clone() for parameter in peer.parameters]
        peer.step()
        found |= compared("trl", ours, Step(loss, gradients, peer.parameters))
    return found


@dataclass(frozen=True)
class Step:
    """What one update computed: its loss, its gradients, and the parameters after it."""

    loss: float
    gradients: Sequence[torch.Tensor]
    parameters: Sequence[torch.Tensor]


def compared(name: str, ours: Step, other: Step) -> dict[str, dict[str, float]]:
    """Relative differences, weights in learning rates; a gradient below 1e-2 of the global norm counts as that much."""
    total = float(torch.stack([gradient.norm() for gradient in other.gradients]).norm())
    worst = max(
        float((a - b).norm()) / max(float(b.norm()), 1e-2 * total)
        for a, b in zip(ours.gradients, other.gradients, strict=True)
    )
    moved = max(
        float((a - b).detach()[steady(gradient)].abs().max()) / LR
        for a, b, gradient in zip(ours.parameters, other.parameters, other.gradients, strict=True)
        if steady(gradient).any()
    )
    return {
        # The loss of a first update is 0 but for rounding: every ratio is 1 and advantages add up to 0.
        f"loss, {name}": entry(abs(ours.loss - other.loss), 1e-6),
        f"gradients, {name}": entry(worst, 1e-5),
        f"weights after a step, {name}": entry(moved, 1e-2),
    }


def steady(gradient: torch.Tensor) -> torch.Tensor:
    """Where rounding cannot turn a gradient around: AdamW's first step is lr times its sign, however small it is."""
    return gradient.abs() > 1e-3 * gradient.abs().max()


def entry(value: float, limit: float) -> dict[str, float]:
    return {"value": value, "limit": limit}


def measure(folder: Path, point: Point, *, with_peer: bool, rounds: int) -> dict[str, Any]:
    """Median seconds of every way, taken in turns."""
    ways: dict[str, list[Callable[[], Any]]] = {}
    for name, sharing in (("ours", True), ("repeated", False)):
        learner = learner_of(world_of.policy_of(folder), length=point.completion, sharing=sharing)
        batch = experienced(learner, groups_of(learner.policy, point, ragged=False))
        ways[name] = [partial(update, learner, batch, step=0)]
    policy = learner.policy
    if with_peer:
        rows = [count for count in (8, 16, 32) if count % point.group == 0 or point.group % count == 0]
        rows = [count for count in rows if count <= point.group * point.prompts]
        ways["trl stock"] = [bench_peer.PeerUpdate(folder, batch, rows=8, checkpointing=True, lr=LR).update]
        ways["trl best"] = [
            bench_peer.PeerUpdate(folder, batch, rows=count, checkpointing=False, lr=LR).update for count in rows
        ]
    seconds: dict[str, list[list[float]]] = {name: [[] for _ in runs] for name, runs in ways.items()}
    for number in range(rounds + 1):
        for name, runs in ways.items():
            for place, run in enumerate(runs):
                started = time.perf_counter()
                run()
                if number:  # the first round warms up
                    seconds[name][place].append(time.perf_counter() - started)
    best = {name: min(statistics.median(times) for times in of) for name, of in seconds.items()}
    return {
        "P": point.visual + point.text,
        "visual": point.visual,
        "C": point.completion,
        "G": point.group,
        "prompts": point.prompts,
        "theory": world_of.theory(policy, point),
        "seconds": best,
        "ratio_to_repeated": best["repeated"] / best["ours"],
        "ratio_to_peer": best["trl best"] / best["ours"] if with_peer else None,
        "ratio_to_peer_stock": best["trl stock"] / best["ours"] if with_peer else None,
    }


def line_of(row: dict[str, Any]) -> str:
    times = "  ".join(f"{name} {seconds:.3f} s" for name, seconds in row["seconds"].items())
    ratios = f"theory {row['theory']:.2f}  to repeated {row['ratio_to_repeated']:.2f}"
    if row["ratio_to_peer"]:
        ratios += f"  to trl best {row['ratio_to_peer']:.2f}  to trl stock {row['ratio_to_peer_stock']:.2f}"
    return f"P {row['P']:4} ({row['visual']} visual)  C {row['C']:3}  G {row['G']:2}  {ratios}  {times}"


if __name__ == "__main__":
    sys.exit(main())
