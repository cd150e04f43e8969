"""Every key that a run logs, with its meaning, unit and direction. A key that is not here is an error.

Keys read `stage/quantity_unit`; a key without a unit suffix is a pure number or is in the unit that its entry states.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One logged quantity.

    Attributes:
        name: The key.
        meaning: What it is, over what it is taken.
        unit: Unit, or "" for a pure number.
        direction: "up" if larger is better, "down" if smaller is, "none" if neither.
    """

    name: str
    meaning: str
    unit: str
    direction: Literal["up", "down", "none"]


class UncataloguedMetricError(KeyError):
    """A metric was logged that the catalogue does not know."""

    def __str__(self) -> str:
        return str(self.args[0])


_METRICS = (
    Metric("reward/mean", "mean reward over the step's rollouts", "reward", "up"),
    Metric("reward/std", "standard deviation (biased) of the reward over the step's rollouts", "reward", "none"),
    Metric("reward/batch_accuracy", "fraction of rollouts with a correct answer; ω of A-GRAE", "fraction", "up"),
    Metric("reward/formatted_frac", "fraction of rollouts in the form that was asked for", "fraction", "up"),
    Metric("reward/overlong_mean", "mean price of long answers, over the rollouts learnt from", "reward", "none"),
    Metric("verify/unparsed_frac", "fraction of rollouts in which no answer was found", "fraction", "down"),
    Metric("verify/timeout_frac", "fraction of rollouts whose comparison was killed", "fraction", "down"),
    Metric("group/mixed_frac", "fraction of groups with both correct and wrong rollouts", "fraction", "up"),
    Metric("group/all_correct_frac", "fraction of groups in which every rollout is correct", "fraction", "none"),
    Metric("group/all_wrong_frac", "fraction of groups in which every rollout is wrong", "fraction", "down"),
    Metric(
        "group/skipped_frac", "fraction of groups without any advantage, left out of the update", "fraction", "down"
    ),
    Metric("advantage/sum_per_rollout", "C = ΣA over the step, divided by its rollouts", "", "none"),
    Metric("advantage/abs_mean", "mean |A| over the step's rollouts", "", "none"),
    Metric("advantage/anchor", "accuracy that HA-DW expects of the batch", "fraction", "none"),
    Metric("rollout/sampling_rounds", "rounds of sampling until the step had its groups", "rounds", "down"),
    Metric("rollout/missing_groups", "groups of the update without both correct and wrong rollouts", "groups", "down"),
    Metric("rollout/importance_mean", "mean weight per token for the engine's other probabilities", "", "none"),
    Metric("rollout/length_mean_tokens", "mean completion length", "tokens", "none"),
    Metric("rollout/length_max_tokens", "longest completion", "tokens", "none"),
    Metric("rollout/truncated_frac", "fraction of completions cut off at the length limit", "fraction", "down"),
    Metric("rollout/refused_samples", "samples refused so far for a prompt over its token budget", "samples", "down"),
    Metric(
        "rollout/logprob_gap_mean_nats", "mean |engine - trainer| log-probability of a sampled token", "nats", "down"
    ),
    Metric(
        "rollout/logprob_gap_max_nats", "largest |engine - trainer| log-probability of a sampled token", "nats", "down"
    ),
    Metric("policy/learnt_tokens", "sampled tokens of the groups that were learnt from", "tokens", "none"),
    Metric("policy/loss", "loss of the step's updates, divergence term included", "", "none"),
    Metric(
        "policy/entropy_nats",
        "mean entropy of the next-token distribution, over the tokens of groups with an advantage",
        "nats",
        "none",
    ),
    Metric("policy/clip_low_frac", "fraction of tokens whose gradient the lower bound cut", "fraction", "none"),
    Metric(
        "policy/clip_high_frac",
        "fraction of tokens whose gradient the upper bound cut, or capped (cispo)",
        "fraction",
        "none",
    ),
    Metric("policy/clip_dual_frac", "fraction of tokens whose gradient the dual clip cut", "fraction", "none"),
    Metric("policy/clip_width_low_mean", "mean 1 - lower bound, over rollouts with a negative advantage", "", "none"),
    Metric("policy/clip_width_high_mean", "mean upper bound - 1, over rollouts with a positive advantage", "", "none"),
    Metric("policy/ratio_mean", "mean policy ratio that a completion token is judged by", "", "none"),
    Metric("policy/ratio_max", "largest policy ratio that a completion token is judged by", "", "none"),
    Metric("policy/kl_nats", "k3 divergence from the reference per completion token", "nats", "none"),
    Metric("policy/grad_norm", "global gradient norm before clipping, mean over the updates taken", "", "none"),
    Metric("policy/learning_rate", "learning rate of the last update", "", "none"),
    Metric("policy/skipped_updates", "updates left out because loss or gradient was not finite", "updates", "down"),
    Metric("time/step_s", "whole step", "s", "down"),
    Metric("time/rollout_s", "sampling completions", "s", "down"),
    Metric("time/verify_s", "judging completions", "s", "down"),
    Metric("time/balance_s", "dealing groups out to the ranks that learn from them", "s", "down"),
    Metric("time/old_logprobs_s", "log-probabilities kept for the later updates of a step", "s", "down"),
    Metric("time/update_s", "forward, backward and optimiser", "s", "down"),
    Metric("time/sync_s", "handing new weights to the engine", "s", "down"),
    Metric("time/evaluate_s", "measuring on held-out problems", "s", "down"),
    Metric("time/checkpoint_s", "saving a checkpoint", "s", "down"),
    Metric("throughput/rollout_tokens_per_s", "completion tokens sampled per second of rollout", "tokens/s", "up"),
    Metric(
        "throughput/update_tokens_per_s",
        "completion tokens of the step, skipped groups included, per second of update",
        "tokens/s",
        "up",
    ),
    Metric(
        "throughput/update_useful_flops_per_s",
        "floating-point operations that the updates need at least (nothing recomputed, no picture whose features are "
        "kept), over all ranks, per second of update",
        "FLOP/s",
        "up",
    ),
    Metric("memory/gpu_peak_bytes", "peak allocated GPU memory of the step, largest over ranks", "bytes", "down"),
    Metric("sft/loss_nats", "mean negative log-probability per completion token", "nats", "down"),
    Metric("sft/grad_norm", "global gradient norm before clipping", "", "none"),
    Metric("sft/learning_rate", "learning rate of the update", "", "none"),
    Metric(
        "sft/skipped_updates",
        "1 where the update was left out because loss or gradient was not finite",
        "updates",
        "down",
    ),
    Metric("sft/tokens_per_s", "tokens trained on per second", "tokens/s", "up"),
    Metric("sft/step_s", "whole step", "s", "down"),
    Metric("eval/pass@k", "probability that one of k samples is correct, mean over problems", "fraction", "up"),
    Metric("eval/avg@k", "fraction of correct ones among k samples, mean over problems", "fraction", "up"),
    Metric("eval/maj@k", "credit of a majority vote among k samples, mean over problems", "fraction", "up"),
    Metric("eval/cons@k", "credit of a majority vote among all k samples, mean over problems", "fraction", "up"),
    Metric("eval/g_pass_50@k", "probability that half of k samples or more are correct", "fraction", "up"),
    Metric("eval/g_pass_75@k", "probability that three quarters of k samples or more are correct", "fraction", "up"),
    Metric("eval/g_pass_100@k", "probability that all of k samples are correct", "fraction", "up"),
    Metric("eval/mg_pass@k", "mean of G-Pass@k over the shares above one half", "fraction", "up"),
    Metric("eval/greedy", "fraction of problems whose most probable completion is correct", "fraction", "up"),
    Metric("eval/formatted", "fraction of sampled completions in the form that was asked for", "fraction", "up"),
    Metric("eval/truncated", "fraction of sampled completions cut off at the length limit", "fraction", "down"),
    Metric("eval/average", "fraction of variants answered correctly", "fraction", "up"),
    Metric("eval/worst_case", "fraction of questions with every variant correct", "fraction", "up"),
    Metric("eval/robustness", "worst case over average", "fraction", "up"),
    Metric(
        "eval/score_strict", "complete mastery and half of insufficient generalisation, over problems", "fraction", "up"
    ),
    Metric("eval/score_loose", "the same where one correct step is enough for mastery", "fraction", "up"),
    Metric("eval/ik", "insufficient knowledge: a step and the problem wrong, over problems", "fraction", "down"),
    Metric(
        "eval/ig",
        "insufficient generalisation: all steps correct, the problem wrong, over problems",
        "fraction",
        "none",
    ),
    Metric("eval/cm_strict", "complete mastery: all steps and the problem correct, over problems", "fraction", "up"),
    Metric("eval/cm_loose", "a step and the problem correct, over problems", "fraction", "up"),
    Metric("eval/rm_strict", "rote memorisation: a step wrong, the problem correct, over problems", "fraction", "down"),
    Metric("eval/rm_loose", "all steps wrong, the problem correct, over problems", "fraction", "down"),
    Metric("eval/rm_rate_strict", "rote memorisation over problems answered correctly", "fraction", "down"),
    Metric("eval/rm_rate_loose", "the same in the loose reading", "fraction", "down"),
    Metric("eval/a_acc", "fraction of questions answered correctly", "fraction", "up"),
    Metric("eval/f_acc", "fraction of figures with every question correct", "fraction", "up"),
    Metric("eval/q_acc", "fraction of questions that are correct on every figure", "fraction", "up"),
    Metric("eval/accuracy", "fraction of questions answered correctly", "fraction", "up"),
    Metric("eval/human", "fraction correct of the questions that people wrote", "fraction", "up"),
    Metric("eval/augmented", "fraction correct of the questions that a model wrote", "fraction", "up"),
    Metric("eval/macro", "mean over both kinds of questions", "fraction", "up"),
    Metric("eval/art_and_design", "fraction correct of the questions of this discipline", "fraction", "up"),
    Metric("eval/business", "fraction correct of the questions of this discipline", "fraction", "up"),
    Metric("eval/science", "fraction correct of the questions of this discipline", "fraction", "up"),
    Metric("eval/health_and_medicine", "fraction correct of the questions of this discipline", "fraction", "up"),
    Metric(
        "eval/humanities_and_social_science", "fraction correct of the questions of this discipline", "fraction", "up"
    ),
    Metric("eval/technology_and_engineering", "fraction correct of the questions of this discipline", "fraction", "up"),
)

# Of what depends on the machine and its load, and is never the same twice.
MACHINE_UNITS = frozenset({"s", "tokens/s", "FLOP/s", "bytes"})

CATALOGUE: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


def lookup(key: str) -> Metric:
    """The entry of a logged key.

    Evaluation keys name a set and a number of samples ("eval/geometry/pass@4"); their entry does not ("eval/pass@k").

    Raises:
        UncataloguedMetricError: If there is no entry; the message names the nearest key.
    """
    general = re.sub(r"^eval/[^/]+/", "eval/", key)
    general = re.sub(r"@[1-9]\d*$", "@k", general)
    if key.endswith("@k") or general not in CATALOGUE:
        nearest = get_close_matches(general, CATALOGUE, n=1, cutoff=0.0)[0]
        raise UncataloguedMetricError(
            f'metric "{key}" is not in the catalogue; the nearest is "{nearest}". '
            "Log under a catalogued key, or add an entry to mm_agrae/metrics/catalogue.py."
        )
    return CATALOGUE[general]


def check_keys(keys: Iterable[str]) -> None:
    """Refuse a mapping (or any iterable of keys) that holds a key without an entry.

    Raises:
        UncataloguedMetricError: At the first such key.
    """
    for key in keys:
        lookup(key)
