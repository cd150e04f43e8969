import math

import pytest
import torch

from mm_agrae.metrics.batch import estimate_metrics, group_metrics, verdict_metrics
from mm_agrae.metrics.catalogue import check_keys

BATCH = {
    "rewards": torch.tensor([[1.0, 0.1], [0.9, 1.0], [0.0, 0.1], [math.nan, 1.0]]),
    "correct": torch.tensor([[True, False], [True, True], [False, False], [False, True]]),
    "formatted": torch.tensor([[True, True], [False, True], [False, True], [True, True]]),
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


def test_what_the_algorithm_made():
    advantages = torch.tensor([[0.5, -1.0], [0.0, 0.0], [0.0, 0.0], [2.0, -0.5]])
    low, high = torch.full((4, 2), 0.8), torch.full((4, 2), 1.3)
    low[3, 1], high[3, 0] = 0.9, 1.5
    figures = estimate_metrics(advantages, low, high)
    # Widths count where the bound can act: below for the two negative rollouts, above for the two positive ones.
    expected = {
        "advantage/sum_per_rollout": 1.0 / 8,
        "advantage/abs_mean": 4.0 / 8,
        "policy/clip_width_low_mean": (0.2 + 0.1) / 2,
        "policy/clip_width_high_mean": (0.3 + 0.5) / 2,
    }
    assert figures == pytest.approx(expected, abs=1e-6)
    check_keys(figures)


def test_a_bound_that_is_not_there_has_no_width():
    advantages = torch.tensor([[0.5, -1.0]])
    figures = estimate_metrics(advantages, torch.zeros(1, 2), torch.full((1, 2), math.inf))
    assert set(figures) == {"advantage/sum_per_rollout", "advantage/abs_mean"}
