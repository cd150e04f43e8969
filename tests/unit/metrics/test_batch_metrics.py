import math

import pytest
import torch

from mm_agrae.metrics.batch import group_metrics, verdict_metrics
from mm_agrae.metrics.catalogue import check_keys

BATCH = {
    "rewards": torch.tensor([[1.0, 0.1], [0.9, 1.0], [0.0, 0.1], [math.nan, 1.0]]),
    "correct": torch.tensor([[True, False], [True, True], [False, False], [False, True]]),
    "formatted": torch.tensor([[True, True], [False, True], [False, True], [True, True]]),
    "advantages": torch.tensor([[0.5, -1.0], [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]]),
    "lengths": torch.tensor([[3, 5], [2, 2], [9, 0], [1, 2]]),
    "truncated": torch.tensor([[False, False], [False, False], [True, False], [False, False]]),
}


def test_worked_example():
    figures = group_metrics(**BATCH)
    rewards = [1.0, 0.1, 0.9, 1.0, 0.0, 0.1, 1.0]  # the NaN is left out
    mean = sum(rewards) / 7
    expected = {
        "reward/mean": mean,
        "reward/std": math.sqrt(sum((r - mean) ** 2 for r in rewards) / 7),
        "reward/batch_accuracy": 4 / 7,
        "reward/formatted_frac": 6 / 8,
        "group/mixed_frac": 1 / 4,
        "group/all_correct_frac": 2 / 4,
        "group/all_wrong_frac": 1 / 4,
        "advantage/sum_per_rollout": -0.5 / 8,
        "advantage/abs_mean": 1.5 / 8,
        "rollout/length_mean_tokens": 24 / 8,
        "rollout/length_max_tokens": 9,
        "rollout/truncated_frac": 1 / 8,
    }
    assert figures == pytest.approx(expected, abs=1e-6)
    check_keys(figures)


def test_group_and_rollout_order_do_not_matter():
    shuffled = {name: values.flip(0).flip(1) for name, values in BATCH.items()}
    assert group_metrics(**shuffled) == pytest.approx(group_metrics(**BATCH), abs=1e-12)


def test_no_scored_rollout_is_nan_not_zero():
    figures = group_metrics(**{**BATCH, "rewards": torch.full((4, 2), math.nan)})
    assert math.isnan(figures["reward/mean"])
    assert math.isnan(figures["reward/batch_accuracy"])
    assert figures["group/mixed_frac"] == figures["group/all_wrong_frac"] == 0


def test_the_flag_of_an_unscored_rollout_does_not_make_a_group_mixed():
    correct = BATCH["correct"].clone()
    rewards = BATCH["rewards"].clone()
    correct[2, 0], rewards[2, 0] = True, math.nan
    assert group_metrics(**{**BATCH, "correct": correct, "rewards": rewards})["group/all_wrong_frac"] == 1 / 4


def test_shapes_must_agree_and_hold_something():
    with pytest.raises(ValueError, match=r"shapes are \[\(4, 1\), \(4, 2\)\]"):
        group_metrics(**{**BATCH, "lengths": torch.zeros(4, 1, dtype=torch.long)})
    with pytest.raises(ValueError, match="at least one rollout"):
        group_metrics(**{name: values[:0] for name, values in BATCH.items()})


def test_verdicts():
    figures = verdict_metrics(["correct", "unparsed", "timeout", "unparsed"])
    assert figures == {"verify/unparsed_frac": 0.5, "verify/timeout_frac": 0.25}
    check_keys(figures)
    with pytest.raises(ValueError, match="there are 0 verdicts"):
        verdict_metrics([])
