"""Before anything is timed: the same mathematics, our two layouts and TRL's GRPOTrainer on the same tensors.

Two updates of one rollout batch. The first starts from the policy that sampled; then all weights make one move, the
same on every side; the second update is off-policy, with ratios that are clipped. Compared are log-probabilities,
entropies, losses, the gradient of every tensor in both updates, its global norm, and the weights after an AdamW step.
Completions have uneven lengths, the shortest of 1 token.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench_inputs
import torch
from torch import Tensor

from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.config.schema import TrainConfig
from mm_agrae.estimator import START, assemble
from mm_agrae.policy.feed import Cursor
from mm_agrae.policy.forward import lay_out, score
from mm_agrae.policy.layout import Row, one_by_one
from mm_agrae.policy.load import Policy
from mm_agrae.records import Completion, RenderedPrompt, Rollout, RolloutGroup, Verdict
from mm_agrae.rollout import Harvest
from mm_agrae.train.distributed import World
from mm_agrae.train.experience import Experience, experience
from mm_agrae.train.sampling import sample_groups
from mm_agrae.train.update import Learner, update

LR = 1e-4
# Of a tensor's own scale. Together with narrow bounds, enough that some ratios are clipped under every loss.
MOVE = 0.1
NO_CLIPPING = 1e9
LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"clip_low": 0.05, "clip_high": 0.05},
    "dr_grpo": {"clip_low": 0.05, "clip_high": 0.05, "aggregation": "token_sum"},
    "dapo": {"clip_low": 0.05, "clip_high": 0.07, "aggregation": "token_mean"},
    "cispo": {"loss": "cispo", "clip_low": None, "clip_high": 0.05, "aggregation": "token_mean"},
}

Entries = dict[str, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One loss of LOSSES, the weight of the divergence from a reference, and the temperature."""

    loss: str = "grpo"
    beta: float = 0.0
    temperature: float = 1.0

    def __str__(self) -> str:
        return f"{self.loss}, beta {self.beta:g}, temperature {self.temperature:g}"


ALL_SETTINGS = tuple(
    Setting(loss=loss, beta=beta, temperature=temperature)
    for loss, beta, temperature in itertools.product(LOSSES, (0.0, 0.04), (1.0, 0.7))
)


@dataclass(frozen=True, kw_only=True)
class Updated:
    """What one side computed in one or several updates: sum of losses, mean of norms, gradients of each."""

    loss: float
    grad_norm: float
    gradients: list[list[Tensor]]


@dataclass(frozen=True, kw_only=True)
class Found(Updated):
    """What one side computed over two updates; log-probabilities from before, weights at the end."""

    logprobs: Tensor
    entropy: Tensor
    weights: list[Tensor]
    clipped: float


class Recorder(torch.optim.AdamW):
    """Keeps the gradients of every step; the first step is the common move, those that follow are AdamW's."""

    def __init__(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        super().__init__(parameters, lr=LR, weight_decay=0.0)
        self.recorded: list[list[Tensor]] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        parameters = [parameter for group in self.param_groups for parameter in group["params"]]
        self.recorded.append([parameter.grad.clone() for parameter in parameters])
        if len(self.recorded) == 1:
            draw = torch.Generator().manual_seed(7)
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=draw)
                parameter += MOVE * float(parameter.std(correction=0)) * noise
            return
        super().step()


def learner_of(policy: Policy, setting: Setting, *, length: int, sharing: bool, recorded: bool = False) -> Learner:
    """Our defaults; `recorded`, for two updates whose gradients are kept, else for one, with a plain AdamW."""
    parameters = policy.trainable()
    config = TrainConfig.model_validate(
        {
            "num_steps": 1000,
            "updates_per_rollout": 2 if recorded else 1,
            "share_prompts": sharing,
            "optim": {"lr": LR, "max_grad_norm": NO_CLIPPING},
        }
    )
    section = {**LOSSES[setting.loss], "beta": setting.beta}
    return Learner(
        policy=policy,
        reference=None,
        optimizer=Recorder(parameters) if recorded else torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0),
        algorithm=assemble(AlgorithmConfig.model_validate(section), max_completion_tokens=length),
        config=config,
        temperature=setting.temperature,
        max_completion_tokens=length,
        world=World(device="cpu"),
    )


def groups_of(
    prompts: Sequence[RenderedPrompt], completions: Iterable[Sequence[tuple[int, ...]]]
) -> list[RolloutGroup]:
    """Every second completion is correct, so every group has a gradient."""
    return [
        RolloutGroup(
            prompt=prompt,
            rollouts=tuple(_rollout(ids, correct=place % 2 == 0) for place, ids in enumerate(group)),
            weights_version=0,
        )
        for prompt, group in zip(prompts, completions, strict=True)
    ]


def _rollout(ids: tuple[int, ...], *, correct: bool) -> Rollout:
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


def compare(
    folder: Path,
    groups: list[RolloutGroup],
    settings: Sequence[Setting],
    *,
    length: int,
    reference: Path,
    with_peer: bool,
) -> Entries:
    """The difference of every kind that is nearest to its limit over all settings: {"value", "limit"} by name.

    Args:
        folder: The model.
        groups: An even number, which two updates share.
        settings: What to compare under.
        length: Bound on completion tokens, a divisor of one of the losses.
        reference: The model to stay close to, where beta is not 0.
        with_peer: Whether TRL is there.
    """
    found: Entries = {}
    for setting in settings:
        ours, batch = our_side(folder, groups, setting, length=length, reference=reference, sharing=True)
        others = {"repeated": our_side(folder, groups, setting, length=length, reference=reference, sharing=False)[0]}
        if with_peer:
            import bench_peer

            others["trl"] = bench_peer.two_updates(folder, batch, setting, length=length, reference=reference)
        for name, other in others.items():
            found = merged(found, {f"{key}, {name}": entry for key, entry in differences(ours, other).items()})
        if ours.clipped == 0:
            found[f"nothing clipped, {setting}"] = _entry(1.0, 0.0)
    return found


def equal(entries: Entries) -> bool:
    return all(entry["value"] <= entry["limit"] for entry in entries.values())


def merged(found: Entries, more: Entries) -> Entries:
    """Of every name the entry that is nearest to its limit; one beyond its limit, or that is no number, stays."""
    return found | {
        name: entry for name, entry in more.items() if name not in found or _used(entry) > _used(found[name])
    }


def _used(entry: dict[str, float]) -> float:
    """Share of the limit; infinite beyond it."""
    if not entry["value"] <= entry["limit"]:
        return math.inf
    return entry["value"] / entry["limit"] if entry["limit"] else 0.0


def our_side(
    folder: Path, groups: list[RolloutGroup], setting: Setting, *, length: int, reference: Path, sharing: bool
) -> tuple[Found, Experience]:
    policy = bench_inputs.policy_of(folder)
    learner = learner_of(policy, setting, length=length, sharing=sharing, recorded=True)
    if setting.beta:
        other = bench_inputs.policy_of(reference)
        other.model.requires_grad_(False)
        learner = replace(learner, reference=other)
    batch = experienced(learner, groups)
    rows = [Row(prompt=g.prompt, completions=tuple(r.completion.token_ids for r in g.rollouts)) for g in groups]
    lines = [rows] if sharing else [[one] for row in rows for one in one_by_one(row)]
    with torch.no_grad():
        scores = [score(policy, lay_out(policy, line), temperature=setting.temperature) for line in lines]
    metrics = update(learner, batch, step=0)
    recorder: Any = learner.optimizer
    return Found(
        logprobs=torch.cat([one.logprobs for one in scores]),
        entropy=torch.cat([one.entropy for one in scores]),
        loss=metrics["policy/loss"],
        grad_norm=metrics["policy/grad_norm"],
        gradients=recorder.recorded,
        weights=[parameter.detach().clone() for parameter in policy.trainable()],
        clipped=metrics["policy/clip_low_frac"] + metrics["policy/clip_high_frac"],
    ), batch


def differences(ours: Found, other: Found) -> Entries:
    """Log-probabilities and entropies absolute, weights in learning rates, the rest as in `updates_apart`.

    Weights are compared where the last gradient is `steady`.
    """
    moved = [
        float((a - b)[steady(gradient)].abs().max()) / LR
        for a, b, gradient in zip(ours.weights, other.weights, other.gradients[-1], strict=True)
        if steady(gradient).any()
    ]
    return {
        "logprobs": _entry(float((ours.logprobs - other.logprobs).abs().max()), 5e-6),
        "entropy": _entry(float((ours.entropy - other.entropy).abs().max()), 5e-6),
        "weights after a step": _entry(_largest(moved), 1e-2),
        **updates_apart(ours, other),
    }


def updates_apart(ours: Updated, other: Updated) -> Entries:
    """Losses absolute up to 1 and relative beyond, gradients relative per tensor, their norm relative."""
    updates = zip(ours.gradients, other.gradients, strict=True)
    return {
        "loss": _entry(abs(ours.loss - other.loss), 1e-6 * max(1.0, abs(other.loss))),
        "gradients": _entry(_largest([_apart(mine, theirs) for mine, theirs in updates]), 1e-5),
        "gradient norm": _entry(abs(ours.grad_norm / other.grad_norm - 1), 1e-5),
    }


def _apart(ours: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest relative difference of the gradients of a tensor; NaN where a gradient is.

    A tensor whose gradient has less than 1e-2 of the global norm counts as having that much: a gradient that is 0 but
    for rounding has no relative accuracy.
    """
    floor = 1e-2 * float(torch.stack([gradient.norm() for gradient in other]).norm())
    return _largest([float((a - b).norm()) / max(float(b.norm()), floor) for a, b in zip(ours, other, strict=True)])


def _largest(values: Sequence[float]) -> float:
    """Unlike max, NaN if one of them is; NaN of none, for then nothing was compared."""
    return float(torch.tensor(values, dtype=torch.float64).max()) if values else math.nan


def steady(gradient: Tensor) -> Tensor:
    """Where rounding cannot turn a gradient around: AdamW's first step is lr times its sign, however small it is."""
    return gradient.abs() > 1e-3 * gradient.abs().max()


def _entry(value: float, limit: float) -> dict[str, float]:
    return {"value": value, "limit": limit}


def lines_of(entries: Entries) -> list[str]:
    return [f"{name}: {entry['value']:.2e}, at most {entry['limit']:.0e}" for name, entry in entries.items()]
