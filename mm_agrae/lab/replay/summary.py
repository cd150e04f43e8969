"""All figures of a replay as one record, which is what replay.json holds.

Shapes: P groups of all steps, G completions per group, B bins, S logged steps.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor

from mm_agrae.algorithms.groups import scored_flags
from mm_agrae.lab.replay.algorithms import RUN, Replayed, step_accuracies
from mm_agrae.lab.replay.figures import (
    SUCCESS_BINS,
    Signs,
    against_flag_frac,
    clip_budgets,
    compare_signs,
    disagreement,
    effective_frac,
    equal_flag_share,
    form_share,
    most_telling,
    success_bins,
    sum_per_rollout,
    weight_shares,
)
from mm_agrae.lab.replay.read import Log, read_line
from mm_agrae.report.page import storable
from mm_agrae.store.atomic import finite_or_none


@dataclass(frozen=True, kw_only=True)
class Kinds:
    """One way to sort groups into bins: the bins' names, and the share of the rollouts in each."""

    names: tuple[str, ...]
    rollout_shares: list[float]


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One algorithm on the whole log. What each field means stands in MEANINGS."""

    settings: Mapping[str, Any]
    effective_frac: float
    sum_per_rollout: float
    sum_per_rollout_by_step: list[float]
    against_flag_frac: float
    signs: Signs
    form_share: float
    base_form_share: float
    unguarded_form_share: float
    unguarded_equal_flag_share: float
    weight_shares: Mapping[str, list[float]]
    clip_low: list[float]
    clip_high: list[float]
    anchor_by_step: list[float] | None


@dataclass(frozen=True, kw_only=True)
class Opinion:
    """What one algorithm makes of one group: [G] advantages and bounds of the ratio."""

    advantages: list[float]
    low: list[float]
    high: list[float]


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """One group that algorithms judge differently, with what the log says of it."""

    step: int
    sample_id: str
    family: str
    difficulty: int | None
    question: str
    target: str
    answers: list[str | None]
    verdicts: list[str]
    formatted: list[bool]
    lengths: list[int]
    rewards: list[float]
    disagreement: float
    opinions: Mapping[str, Opinion]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """A replay. What each field means stands in MEANINGS."""

    name: str
    num_groups: int
    group_size: int
    num_unscored: int
    equal_flag_groups: int
    told_apart_by_form: int
    notes: tuple[str, ...]
    steps: list[int]
    batch_accuracy: list[float]
    recorded_difference: float | None
    kinds: Mapping[str, Kinds]
    algorithms: Mapping[str, Figures]
    groups: list[GroupView]


MEANINGS = {
    # Summary
    "name": "run or file that was replayed",
    "num_groups": "groups in the log",
    "group_size": "G, rollouts per group",
    "num_unscored": "rollouts without a reward; they count in no figure",
    "equal_flag_groups": "groups whose scored rollouts are all correct or all wrong",
    "told_apart_by_form": "of these, groups whose rewards differ all the same",
    "notes": "what is missing from the log or was left out",
    "steps": "logged steps",
    "batch_accuracy": "fraction of correct rollouts of each logged step, as the run measured it where it did",
    "recorded_difference": "largest difference between the advantages in the log and the run's own algorithm replayed; "
    "null where either is missing",
    "kinds": "bins of groups by success rate, difficulty and family",
    "algorithms": "figures of each algorithm",
    "groups": "groups that the algorithms judge most differently; lists have one entry per rollout",
    # Kinds
    "names": "the bins",
    "rollout_shares": "share of the scored rollouts in each bin",
    # Figures
    "settings": "the algorithm section, resolved",
    "effective_frac": "(Σ|A|)² / (n ΣA²): effective sample size of the weights as a fraction of the n scored rollouts",
    "sum_per_rollout": "ΣA / n over the n scored rollouts: below 0 the logits of answers that were not sampled rise, "
    "above 0 they fall",
    "sum_per_rollout_by_step": "the same for each logged step",
    "against_flag_frac": "of the rollouts with an advantage, those that are correct with A < 0 or wrong with A > 0",
    "signs": "signs of the advantages against those of grpo",
    "form_share": "part of ΣA² that tells apart rollouts of one group with the same flag: what the form (or a price on "
    "length) moves and correctness does not",
    "base_form_share": "the same before the weightings",
    "unguarded_form_share": "the same before the weightings if groups of equal flags and unequal rewards were compared "
    "too; null where no rewards are compared",
    "unguarded_equal_flag_share": "part of Σ|A| that these groups would then get; null where no rewards are compared",
    "weight_shares": "part of Σ|A| in each bin, by kind",
    "clip_low": "mean 1 - lower bound of the ratio over A < 0, by success rate; 1 is no bound, null no such rollout",
    "clip_high": "mean upper bound - 1 over A > 0, by success rate; null for no bound or no such rollout",
    "anchor_by_step": "C of HA-DW in each logged step; null without it",
    # Signs
    "flipped_frac": "of the rollouts with an advantage in both, those whose signs differ",
    "only_here_frac": "of the scored rollouts, those with an advantage here and none with grpo",
    "only_there_frac": "of the scored rollouts, those with an advantage with grpo and none here",
    # GroupView and Opinion
    "step": "step of the group",
    "sample_id": "problem",
    "family": "kind of problem; empty for none",
    "difficulty": "level of the problem; null for none",
    "question": "text of the problem",
    "target": "reference answer",
    "answers": "extracted answers; null for none",
    "verdicts": "correct, wrong, unparsed or timeout",
    "formatted": "whether the completion has the form that was asked for",
    "lengths": "completion tokens",
    "rewards": "rewards; null for none",
    "disagreement": "standard deviation over the algorithms of A / mean|A|, mean over the rollouts",
    "opinions": "what each algorithm makes of the group",
    "advantages": "A",
    "low": "lower bound of the ratio; 0 is no bound",
    "high": "upper bound of the ratio; null is no bound",
}


def summarise(log: Log, replayed: Mapping[str, Replayed], reference: Replayed, *, num_groups: int) -> Summary:
    """All figures of a replay.

    Args:
        log: What was recorded.
        replayed: The algorithms to compare, by name.
        reference: GRPO on the same log, for the signs.
        num_groups: Groups to show one by one, at most.
    """
    flags = scored_flags(log.correct, log.rewards)
    bins = _bins(log, flags)
    accuracies = step_accuracies(log)
    scored = (~flags.isnan()).double()
    equal = success_bins(flags)
    is_equal = (equal == 0) | (equal == len(SUCCESS_BINS) - 1)
    low, high = log.rewards.nan_to_num(torch.inf).amin(dim=1), log.rewards.nan_to_num(-torch.inf).amax(dim=1)
    return Summary(
        name=log.name,
        num_groups=len(log.sample_ids),
        group_size=log.rewards.shape[1],
        num_unscored=int(log.rewards.isnan().sum()),
        equal_flag_groups=int(is_equal.sum()),
        told_apart_by_form=int((is_equal & (high > low)).sum()),
        notes=log.notes,
        steps=[step.number for step in log.steps],
        batch_accuracy=[accuracies[step.number] for step in log.steps],
        recorded_difference=_recorded_difference(log, replayed.get(RUN)),
        kinds={
            name: Kinds(names=names, rollout_shares=weight_shares(scored, rows, num_bins=len(names)))
            for name, (names, rows) in bins.items()
        },
        algorithms={name: _figures(log, flags, bins, one, reference) for name, one in replayed.items()},
        groups=_groups(log, replayed, num=num_groups),
    )


def to_json(value: Any) -> Any:
    """Records as plain JSON values; numbers that are not finite become null, lone surrogates a question mark."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(one) for one in value]
    if isinstance(value, str):
        return storable(value)
    return finite_or_none(value) if isinstance(value, float) else value


Bins = Mapping[str, tuple[tuple[str, ...], Tensor]]


def _bins(log: Log, flags: Tensor) -> Bins:
    """Kind -> (names, bin of each group); kinds that tell nothing apart are left out."""
    found: dict[str, tuple[tuple[str, ...], Tensor]] = {"success rate": (SUCCESS_BINS, success_bins(flags))}
    levels = ["none" if level is None else str(level) for level in log.difficulties]
    known = sorted({level for level in log.difficulties if level is not None})
    for kind, labels, order in (
        ("difficulty", levels, [*map(str, known), "none"]),
        ("family", [name or "none" for name in log.families], sorted({name or "none" for name in log.families})),
    ):
        names = tuple(name for name in order if name in set(labels))
        if len(names) > 1:
            places = {name: place for place, name in enumerate(names)}
            found[kind] = (names, torch.tensor([places[label] for label in labels]))
    return found


def _figures(log: Log, flags: Tensor, bins: Bins, one: Replayed, reference: Replayed) -> Figures:
    names, rows = bins["success rate"]
    low, high = clip_budgets(one.advantages, one.bounds, rows, num_bins=len(names))
    unguarded = one.unguarded
    return Figures(
        settings=one.config.model_dump(mode="json"),
        effective_frac=effective_frac(one.advantages, flags),
        sum_per_rollout=sum_per_rollout(one.advantages, flags),
        sum_per_rollout_by_step=[sum_per_rollout(one.advantages[s.rows], flags[s.rows]) for s in log.steps],
        against_flag_frac=against_flag_frac(one.advantages, flags),
        signs=compare_signs(one.advantages, reference.advantages, flags),
        form_share=form_share(one.advantages, flags),
        base_form_share=form_share(one.base, flags),
        unguarded_form_share=math.nan if unguarded is None else form_share(unguarded, flags),
        unguarded_equal_flag_share=math.nan if unguarded is None else equal_flag_share(unguarded, flags),
        weight_shares={
            kind: weight_shares(one.advantages, where, num_bins=len(labels)) for kind, (labels, where) in bins.items()
        },
        clip_low=low,
        clip_high=high,
        anchor_by_step=None if one.anchors is None else list(one.anchors),
    )


def _recorded_difference(log: Log, run: Replayed | None) -> float | None:
    if run is None:
        return None
    known = ~log.recorded.isnan() & run.kept
    return float((run.advantages.double() - log.recorded)[known].abs().max()) if bool(known.any()) else None


def _groups(log: Log, replayed: Mapping[str, Replayed], *, num: int) -> list[GroupView]:
    scores = disagreement([one.advantages for one in replayed.values()])
    # One case is a composition of rewards and flags, whatever the order of the rollouts.
    kinds = [
        tuple(sorted(zip(rewards, flags, strict=True)))
        for rewards, flags in zip(log.rewards.nan_to_num(-1e9).tolist(), log.correct.tolist(), strict=True)
    ]
    return [_view(log, replayed, row, float(scores[row])) for row in most_telling(scores, kinds, num=num)]


def _view(log: Log, replayed: Mapping[str, Replayed], row: int, score: float) -> GroupView:
    line = read_line(log.places[row])
    return GroupView(
        step=line["step"],
        sample_id=log.sample_ids[row],
        family=log.families[row],
        difficulty=log.difficulties[row],
        question=line["question"],
        target=line["target"],
        answers=[rollout["verdict"]["answer"] for rollout in line["rollouts"]],
        verdicts=[rollout["verdict"]["status"] for rollout in line["rollouts"]],
        formatted=log.formatted[row].tolist(),
        lengths=log.lengths[row].tolist(),
        rewards=log.rewards[row].tolist(),
        disagreement=score,
        opinions={
            name: Opinion(
                advantages=one.advantages[row].tolist(),
                low=one.bounds.low[row].tolist(),
                high=one.bounds.high[row].tolist(),
            )
            for name, one in replayed.items()
        },
    )
