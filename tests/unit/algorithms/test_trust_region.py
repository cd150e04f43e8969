import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms.advantages import group
from mm_agrae.algorithms.trust_region import TRUST_REGIONS, elastic, fixed

ADVANTAGES = torch.tensor([[1.0, -2.0, 0.0], [0.5, 0.5, -1.0]])
CORRECT = ADVANTAGES > 0

CLIP_LOW = st.one_of(st.just(3e-4), st.floats(0, 1, exclude_max=True))
CLIP_HIGH = st.one_of(st.just(4e-4), st.floats(0, 10))
LAMBDA = st.floats(0, 1, exclude_max=True)


def rows(*flags):
    return torch.tensor(flags, dtype=torch.float64)


def widths(advantages, flags, **numbers):
    """How far the bounds stand from 1, in units of a base of 0.2."""
    bounds = elastic(advantages, flags, clip_low=0.2, clip_high=0.2, **numbers)
    low, high = (1 - bounds.low.double()) / 0.2, (bounds.high.double() - 1) / 0.2
    torch.testing.assert_close(low, high, atol=1e-5, rtol=0)
    return high


def test_fixed_defaults():
    bounds = fixed(ADVANTAGES, CORRECT)
    assert torch.equal(bounds.low, torch.full((2, 3), 0.8))
    assert torch.equal(bounds.high, torch.full((2, 3), 1.2))


@settings(max_examples=40)
@given(CLIP_LOW, CLIP_HIGH)
def test_fixed_bounds_enclose_one_and_take_each_setting(clip_low, clip_high):
    bounds = fixed(ADVANTAGES, CORRECT, clip_low=clip_low, clip_high=clip_high)
    assert bool((bounds.low <= 1).all())
    assert bool((bounds.high >= 1).all())
    assert float(bounds.low[0, 0]) == pytest.approx(1 - clip_low, abs=1e-7)
    assert float(bounds.high[1, 2]) == pytest.approx(1 + clip_high, rel=1e-7)


def test_elastic_worked_example():
    # p = 1/4: macro 1 + .25·(8·3/16 - 1) = 1.125. |A| = 2: micro 1 + .5·tanh(1) = 1.380797. A = 0: 1 - .380797.
    # Stretch 1.553397 and .696603, |A| = 1: 1.125; times .2 below and .28 above.
    bounds = elastic(torch.tensor([[2.0, -2.0, -1.0, 0.0]]), rows([1, 0, 0, 0]), clip_low=0.2, clip_high=0.28)
    low, high = [[0.689321, 0.689321, 0.775, 0.860679]], [[1.434951, 1.434951, 1.315, 1.195049]]
    torch.testing.assert_close(bounds.low, torch.tensor(low), atol=1e-6, rtol=0)
    torch.testing.assert_close(bounds.high, torch.tensor(high), atol=1e-6, rtol=0)


def test_an_advantage_of_one_in_an_even_group_stretches_by_macro_alone():
    # 1 + micro · tanh(0) = 1, and 1 + macro · (8/4 - 1) = 1 + macro: .2 · 1.25.
    bounds = elastic(torch.tensor([[1.0, -1.0]]), rows([1, 0]), micro=0.9, macro=0.25)
    assert torch.equal(bounds.high, torch.full((1, 2), 1.25))
    assert torch.equal(bounds.low, torch.full((1, 2), 0.75))


def test_macro_runs_from_below_one_through_one_to_above():
    # p (1 - p) = 1/8 at p = (1 - sqrt(1/2)) / 2, near 204/1393; 0 at p = 0 and 1; 1/4 at p = 1/2.
    size = 1393
    for num_correct, expected in ((0, 0.6), (204, 1.0), (size - 204, 1.0), (size, 0.6)):
        flags = (torch.arange(size) < num_correct)[None]
        assert float(widths(torch.ones(1, size), flags, macro=0.4)[0, 0]) == pytest.approx(expected, abs=1e-5)
    assert float(widths(torch.ones(1, 2), rows([1, 0]), macro=0.4)[0, 0]) == pytest.approx(1.4, abs=1e-5)


def test_micro_widens_with_the_size_of_the_advantage_of_either_sign():
    sizes = torch.tensor([[0.0, 0.5, 1.0, 2.0, 4.0, 1e30]])
    found = widths(sizes, rows([1, 1, 1, 0, 0, 0]), micro=0.5, macro=0.0)[0]
    assert (found.diff() > 0).all()
    assert float(found[0]) == pytest.approx(1 - 0.5 * math.tanh(1), abs=1e-5)
    assert float(found[-1]) == pytest.approx(1.5, abs=1e-5)
    assert torch.equal(widths(-sizes, rows([1, 1, 1, 0, 0, 0]), micro=0.5, macro=0.0)[0], found)


def test_micro_and_macro_pull_apart_as_a_prompt_gets_harder():
    """|A| of the one success is sqrt((1 - p) / p), which rises as p falls; the variance p (1 - p) falls."""
    micro, macro = [], []
    for size in (2, 4, 8, 16, 64):
        flags = (torch.arange(size) == 0)[None]
        advantages = group(flags.double(), flags)
        micro.append(float(widths(advantages, flags, micro=0.5, macro=0.0)[0, 0]))
        macro.append(float(widths(advantages, flags, micro=0.0, macro=0.25)[0, 0]))
    assert micro == sorted(micro)
    assert macro == sorted(macro, reverse=True)
    assert (micro[0], micro[-1]) == (pytest.approx(1.0, abs=1e-5), pytest.approx(1.5, abs=1e-3))
    assert (macro[0], macro[-1]) == (pytest.approx(1.25, abs=1e-5), pytest.approx(0.78, abs=0.01))


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.floats(-50, 50), st.sampled_from([0.0, 1.0, math.nan])), min_size=1, max_size=8),
    CLIP_LOW,
    CLIP_HIGH,
    LAMBDA,
    LAMBDA,
)
def test_elastic_bounds_enclose_one_and_stay_within_the_stretch(pairs, clip_low, clip_high, micro, macro):
    advantages, flags = (torch.tensor([[pair[i] for pair in pairs]]) for i in (0, 1))
    bounds = elastic(advantages, flags, clip_low=clip_low, clip_high=clip_high, micro=micro, macro=macro)
    assert bounds.low.dtype == bounds.high.dtype == torch.float32
    assert bool((bounds.low > 0).all())
    assert bool((bounds.low <= 1).all())
    assert bool((bounds.high >= 1).all())
    rounding = 1.2e-7 * (1 + 4 * clip_high)  # of a float32
    for distance, base in ((1 - bounds.low.double(), clip_low), (bounds.high.double() - 1, clip_high)):
        assert bool((distance >= base / 4 - rounding).all())
        assert bool((distance <= 4 * base + rounding).all())


def test_elastic_bounds_are_held_where_they_would_leave_the_stretch():
    # A = 0 in an all-wrong group: (1 - .99·.761594)·(1 - .99) = .0025 of the base, held at a quarter of it.
    numbers = {"micro": 0.99, "macro": 0.99}
    bounds = elastic(torch.zeros(1, 2), rows([0, 0]), clip_low=0.2, clip_high=0.28, **numbers)
    torch.testing.assert_close(bounds.low, torch.full((1, 2), 0.95))
    torch.testing.assert_close(bounds.high, torch.full((1, 2), 1.07))
    # |A| = 9 in an even group: 1.99·1.99 = 3.96 of the base; below 1 that would be a negative ratio, held at .01.
    bounds = elastic(torch.full((1, 2), 9.0), rows([1, 0]), clip_low=0.5, clip_high=0.5, **numbers)
    torch.testing.assert_close(bounds.low, torch.full((1, 2), 0.01))
    torch.testing.assert_close(bounds.high, torch.full((1, 2), 2.98005))
    # A base that is already wider than that stays where it is.
    low = elastic(torch.full((1, 2), 9.0), rows([1, 0]), clip_low=0.995).low
    torch.testing.assert_close(low, torch.full((1, 2), 0.005))


@settings(max_examples=60)
@given(st.one_of(st.none(), CLIP_LOW), st.one_of(st.none(), CLIP_HIGH))
def test_elastic_without_stretch_is_exactly_fixed(clip_low, clip_high):
    advantages = torch.tensor([[0.0, -1e30, 7.3], [0.3, -0.1, 1.0]])
    flags = torch.tensor([[1.0, 0.0, 0.0], [math.nan, math.nan, math.nan]])
    still = elastic(advantages, flags, clip_low=clip_low, clip_high=clip_high, micro=0.0, macro=0.0)
    plain = fixed(advantages, flags, clip_low=clip_low, clip_high=clip_high)
    assert torch.equal(still.low, plain.low)
    assert torch.equal(still.high, plain.high)


def test_the_scale_of_a_sequence_ratio_survives_float32():
    """Half-widths of 3e-4 and 4e-4 next to 1 keep three digits: float32 steps by 6e-8 below 1 and 1.2e-7 above."""
    advantages = torch.linspace(-3, 3, 4000).view(1, -1)
    for num_correct in (0, 1000, 2000):
        flags = (torch.arange(4000) < num_correct)[None]
        bounds = elastic(advantages, flags, clip_low=3e-4, clip_high=4e-4)
        scaled = elastic(advantages, flags, clip_low=0.15, clip_high=0.2)  # 500 times as wide
        for found, expected in (
            (1 - bounds.low.double(), (1 - scaled.low.double()) / 500),
            (bounds.high.double() - 1, (scaled.high.double() - 1) / 500),
        ):
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


@pytest.mark.parametrize("region", [fixed, elastic])
def test_absent_bounds(region):
    bounds = region(ADVANTAGES, CORRECT, clip_low=None, clip_high=None)
    assert bounds.low.tolist() == [[0.0] * 3] * 2
    assert bounds.high.tolist() == [[math.inf] * 3] * 2
    one_sided = region(ADVANTAGES, CORRECT, clip_low=None, clip_high=4.0)  # the cap of CISPO
    assert one_sided.low.tolist() == [[0.0] * 3] * 2
    assert torch.equal(one_sided.high, region(ADVANTAGES, CORRECT, clip_low=0.2, clip_high=4.0).high)
    assert one_sided.high.dtype == one_sided.low.dtype == torch.float32


def test_only_scored_rollouts_count_in_the_success_rate():
    advantages = torch.full((3, 4), 1.0)
    found = widths(advantages, rows([1, 0, 1, 0], [1, 0, math.nan, math.nan], [math.nan] * 4), macro=0.4)
    # Even groups, of four and of two; without a score the variance says nothing, and the factor is 1.
    torch.testing.assert_close(found[:, 0], torch.tensor([1.4, 1.4, 1.0]).double(), atol=1e-5, rtol=0)


def test_flags_may_be_boolean():
    for_flags, for_floats = (elastic(ADVANTAGES, flags) for flags in (CORRECT, CORRECT.double()))
    assert torch.equal(for_flags.low, for_floats.low)
    assert torch.equal(for_flags.high, for_floats.high)


def test_rollouts_and_groups_in_another_order_get_their_own_bounds():
    advantages = torch.tensor([[2.0, -0.5, -1.0, -0.5], [0.3, 0.4, -0.7, 0.0], [1.0, -1.0, 1.0, -1.0]])
    plain = elastic(advantages, advantages > 0)
    groups, rollouts = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    moved = elastic(advantages[groups][:, rollouts], (advantages > 0)[groups][:, rollouts])
    assert torch.equal(moved.low, plain.low[groups][:, rollouts])
    assert torch.equal(moved.high, plain.high[groups][:, rollouts])
    alone = elastic(advantages[1:2], advantages[1:2] > 0)
    assert torch.equal(alone.high, plain.high[1:2])


@pytest.mark.parametrize("region", [fixed, elastic])
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"clip_low": 1.0}, r"clip_low is 1\.0, but must be in \[0, 1\).* Set algorithm\.clip_low"),
        ({"clip_low": -0.1}, r"clip_low is -0\.1"),
        ({"clip_low": math.nan}, r"clip_low is nan"),
        ({"clip_high": -0.1}, r"clip_high is -0\.1, but must be finite and 0 or more.* Set algorithm\.clip_high"),
        ({"clip_high": math.inf}, r"clip_high is inf"),
        ({"clip_high": math.nan}, r"clip_high is nan"),
    ],
)
def test_half_widths_out_of_range_are_refused(region, setting, message):
    with pytest.raises(ValueError, match=message):
        region(ADVANTAGES, CORRECT, **setting)


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_stretches_out_of_range_are_refused(value):
    with pytest.raises(ValueError, match=rf"micro is {value} and macro 0\.25, but both must be in \[0, 1\)"):
        elastic(ADVANTAGES, CORRECT, micro=value)
    with pytest.raises(ValueError, match=rf"micro is 0\.5 and macro {value}, .* Set them in algorithm\.elastic"):
        elastic(ADVANTAGES, CORRECT, macro=value)


@pytest.mark.parametrize("region", [fixed, elastic])
def test_shapes_must_agree(region):
    with pytest.raises(ValueError, match=r"shapes are \[2, 3\] and \[2, 2\], but both must be \[P, G\]"):
        region(ADVANTAGES, CORRECT[:, :2])


def test_names():
    assert {"fixed": fixed, "elastic": elastic} == TRUST_REGIONS
