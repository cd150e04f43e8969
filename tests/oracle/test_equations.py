"""The library agrees with the equations on drawn inputs, rollouts without a reward among them."""

import json
import math

import pytest
import torch
from equations import (
    agrae_authors,
    agrae_paper,
    dominant,
    focused,
    grpo_lead,
    hadw_authors,
    hadw_paper,
    soft_anchors,
    window_anchors,
    with_baseline,
    without_baseline,
)
from equations import batch_accuracy as accuracy_of
from equations import success_rate as rate_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms import ADVANTAGES, ANCHORS, WEIGHTINGS, AnchorState
from mm_agrae.algorithms.groups import batch_accuracy, is_mixed, success_rate
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.estimator import START, EstimatorState, Outcomes, assemble, estimate

DRAWN = settings(max_examples=60)
REWARDS = st.one_of(st.sampled_from([0.0, 0.1, 0.9, 1.0]), st.floats(-5, 5, width=32), st.none())
FLAGS = st.one_of(st.booleans(), st.none())
VALUES = st.one_of(st.just(0.0), st.floats(-3, 3, width=32))
FRACTIONS = st.floats(0, 1)
STDS = ["biased", "unbiased", "batch", "none"]


def matrices(elements):
    """[P][G] lists with 1-5 groups of 2-9."""
    return st.integers(2, 9).flatmap(
        lambda size: st.lists(st.lists(elements, min_size=size, max_size=size), min_size=1, max_size=5)
    )


def columns(rows):
    """[P][G] tuples -> one [P][G] matrix per place of the tuple."""
    return [[list(column) for column in group] for group in zip(*(zip(*row, strict=True) for row in rows), strict=True)]


def with_nan(rows):
    return torch.tensor([[math.nan if x is None else float(x) for x in row] for row in rows], dtype=torch.float64)


def assert_rows_close(actual, expected, tolerance=2e-6):
    assert actual.dtype == torch.float32
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(actual.double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("baseline", ["group", "leave_one_out"])
@pytest.mark.parametrize("std", STDS)
@DRAWN
@given(rows=matrices(st.tuples(REWARDS, st.booleans())), std_eps=st.one_of(st.just(0.0), st.floats(0, 1e-2)))
def test_baselines_and_scales(baseline, std, rows, std_eps):
    rewards, correct = columns(rows)
    actual = ADVANTAGES[baseline](with_nan(rewards).float(), torch.tensor(correct), std=std, std_eps=std_eps)
    # Without a division there is nothing to add the epsilon to.
    expected = with_baseline(rewards, correct, baseline=baseline, std=std, std_eps=0.0 if std == "none" else std_eps)
    assert_rows_close(actual, expected)


@DRAWN
@given(matrices(st.tuples(REWARDS, st.booleans())), st.floats(0, 3), st.floats(0, 3))
def test_no_baseline(rows, positive_weight, negative_weight):
    rewards, correct = columns(rows)
    numbers = {"positive_weight": positive_weight, "negative_weight": negative_weight}
    actual = ADVANTAGES["none"](with_nan(rewards), torch.tensor(correct), **numbers)
    assert_rows_close(actual, without_baseline(rewards, correct, **numbers))


@DRAWN
@given(matrices(FLAGS))
def test_rates(flags):
    given_flags, rates = with_nan(flags), [rate_of(group) for group in flags]
    torch.testing.assert_close(success_rate(given_flags), with_nan([rates])[0], equal_nan=True, atol=1e-12, rtol=0)
    assert is_mixed(given_flags).tolist() == [rate is not None and 0 < rate < 1 for rate in rates]
    assume(any(rate is not None for rate in rates))
    assert batch_accuracy(given_flags) == pytest.approx(accuracy_of(flags), abs=1e-12)


@DRAWN
@given(matrices(st.tuples(VALUES, FLAGS)), FRACTIONS, st.floats(0.1, 2), st.booleans(), st.booleans())
def test_agrae_paper_form(rows, omega, alpha, sample_level, group_level):
    advantages, flags = columns(rows)
    levels = {"alpha": alpha, "sample_level": sample_level, "group_level": group_level}
    expected = [agrae_paper(a, f, omega=omega, **levels) for a, f in zip(advantages, flags, strict=True)]
    matrix = torch.tensor(advantages)
    assert_rows_close(WEIGHTINGS["agrae"](matrix, with_nan(flags), batch_accuracy=omega, **levels), expected)
    single = {
        (True, False): lambda: WEIGHTINGS["agrae_sample_level"](matrix, with_nan(flags), batch_accuracy=omega),
        (False, True): lambda: WEIGHTINGS["agrae_group_level"](
            matrix, with_nan(flags), batch_accuracy=omega, alpha=alpha
        ),
    }.get((sample_level, group_level))
    if single is not None:
        assert_rows_close(single(), expected)


@DRAWN
@given(matrices(st.booleans()), st.booleans())
def test_agrae_code_form_is_the_authors_function(correct, divide_by_std):
    flags = torch.tensor(correct)
    scale = {"std": "unbiased", "std_eps": 1e-6} if divide_by_std else {"std": "none"}
    base = ADVANTAGES["group"](flags.float(), flags, **scale)
    actual = WEIGHTINGS["agrae"](base, flags, batch_accuracy=batch_accuracy(flags), alpha=1.0, variant="code")
    expected = agrae_authors([[float(c) for c in row] for row in correct], divide_by_std=divide_by_std)
    assert_rows_close(actual, expected, tolerance=1e-6)


@DRAWN
@given(matrices(st.tuples(VALUES, FLAGS)), FRACTIONS, st.floats(0.1, 3))
def test_hadw_is_its_branches(rows, anchor, scale):
    advantages, flags = columns(rows)
    actual = WEIGHTINGS["hadw"](torch.tensor(advantages), with_nan(flags), anchor=anchor, scale=scale)
    expected = [hadw_paper(a, f, anchor=anchor, scale=scale) for a, f in zip(advantages, flags, strict=True)]
    assert_rows_close(actual, expected)


def drawn_run(size):
    group = st.lists(st.booleans(), min_size=size, max_size=size)
    return st.lists(st.lists(group, min_size=1, max_size=3), min_size=1, max_size=14)


@DRAWN
@given(st.integers(2, 9).flatmap(drawn_run))
def test_hadw_code_form_is_the_authors_function(batches):
    state = AnchorState()
    expected = hadw_authors([[[float(c) for c in group] for group in batch] for batch in batches])
    for batch, rows in zip(batches, expected, strict=True):
        flags = torch.tensor(batch)
        anchor, state = ANCHORS["window"](state, batch_accuracy(flags), window=10, include_current=True)
        base = ADVANTAGES["group"](flags.float(), flags, std="unbiased", std_eps=1e-6)
        assert_rows_close(WEIGHTINGS["hadw"](base, flags, anchor=anchor, scale=1.5), rows, tolerance=1e-6)


@pytest.mark.parametrize("name", ["agrae", "hadw"])
@DRAWN
@given(st.integers(2, 9).flatmap(drawn_run))
def test_recipes_of_the_code_are_the_authors_functions(name, batches):
    """By way of names and numbers, with the state going through a file between the batches."""
    config = AlgorithmConfig.model_validate({"weighting": [name], name: {"variant": "code"}})
    algorithm, state = assemble(config, max_completion_tokens=8), START
    runs = [[[float(c) for c in group] for group in batch] for batch in batches]
    expected = hadw_authors(runs) if name == "hadw" else [agrae_authors(batch, divide_by_std=True) for batch in runs]
    for batch, rows in zip(batches, expected, strict=True):
        flags = torch.tensor(batch)
        outcomes = Outcomes(
            rewards=flags.float(), correct=flags, lengths=flags.long(), truncated=torch.zeros_like(flags)
        )
        found, state = estimate(algorithm, state, outcomes, batch_accuracy=batch_accuracy(flags))
        state = EstimatorState.from_json(json.loads(json.dumps(state.to_json())))
        assert_rows_close(found.advantages, rows, tolerance=1e-6)


def anchors_of_run(name, accuracies, **numbers):
    state, anchors = AnchorState(), []
    for accuracy in accuracies:
        anchor, state = ANCHORS[name](state, accuracy, **numbers)
        anchors.append(anchor)
    return anchors


RUNS = st.lists(FRACTIONS, min_size=1, max_size=30)


@DRAWN
@given(RUNS, st.integers(1, 12), st.booleans())
def test_window_anchor(accuracies, window, include_current):
    numbers = {"window": window, "include_current": include_current}
    expected = window_anchors(accuracies, **numbers)
    assert anchors_of_run("window", accuracies, **numbers) == pytest.approx(expected, abs=1e-12)


@DRAWN
@given(RUNS, st.floats(0, 50), FRACTIONS, st.integers(2, 12))
def test_soft_anchor(accuracies, eta, eta_min, memory):
    numbers = {"eta": eta, "eta_min": eta_min, "memory": memory}
    expected = soft_anchors(accuracies, **numbers)
    assert anchors_of_run("soft", accuracies, **numbers) == pytest.approx(expected, abs=1e-12)


@DRAWN
@given(RUNS, FRACTIONS)
def test_anchors_without_memory(accuracies, value):
    assert anchors_of_run("fixed", accuracies, value=value) == [value] * len(accuracies)
    assert anchors_of_run("batch", accuracies) == accuracies


@DRAWN
@given(matrices(st.tuples(VALUES, FLAGS)))
def test_grpo_lead(rows):
    advantages, flags = columns(rows)
    actual = WEIGHTINGS["grpo_lead"](torch.tensor(advantages), with_nan(flags))
    assert_rows_close(actual, [grpo_lead(a, f) for a, f in zip(advantages, flags, strict=True)])


@DRAWN
@given(matrices(st.tuples(VALUES, FLAGS)), st.floats(0.1, 20))
def test_dominance(rows, dominance):
    advantages, flags = columns(rows)
    for name, factor in (("positive_dominant", dominance), ("negative_dominant", 1 / dominance)):
        actual = WEIGHTINGS[name](torch.tensor(advantages), with_nan(flags), dominance=dominance)
        assert_rows_close(actual, [dominant(a, factor=factor) for a in advantages])


@DRAWN
@given(matrices(st.tuples(VALUES, FLAGS)), st.floats(0.1, 3))
def test_focus(rows, focus):
    advantages, flags = columns(rows)
    for name, hard in (("hard_focused", True), ("easy_focused", False)):
        actual = WEIGHTINGS[name](torch.tensor(advantages), with_nan(flags), focus=focus)
        assert_rows_close(
            actual, [focused(a, f, focus=focus, hard=hard) for a, f in zip(advantages, flags, strict=True)]
        )
