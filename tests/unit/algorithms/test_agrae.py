import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_agrae.algorithms import WEIGHTINGS
from mm_agrae.algorithms.advantages import group
from mm_agrae.algorithms.agrae import agrae, agrae_group_level, agrae_sample_level
from mm_agrae.algorithms.groups import scored_flags

DRAWN = settings(max_examples=40)
LEVELS = pytest.mark.parametrize("level", [agrae, agrae_sample_level, agrae_group_level])


def flags_of(num_correct, size):
    return torch.tensor([[True] * num_correct + [False] * (size - num_correct)])


def base(correct):
    return group(correct.float(), correct)


def test_worked_example():
    correct = flags_of(1, 4)
    # p = 1/4, ω = 1/2, A = [sqrt 3, -1/sqrt 3 ...].
    # Eq. 12 weight: 0.5/(2 · 1/2) + 0.5/(2 · sqrt(3)/2) = 1/2 + 1/(2 sqrt 3) = 0.788675.
    # Positive 1.732051 · 0.788675 = 1.366025, then Eq. 13 with α = 1 halves it: 0.683013. Negatives -0.455342.
    result = agrae(base(correct), correct, batch_accuracy=0.5, alpha=1.0)
    torch.testing.assert_close(result, torch.tensor([[0.683013, -0.455342, -0.455342, -0.455342]]), atol=1e-6, rtol=0)
    # With α = 0.5 positives keep their weight.
    assert float(agrae(base(correct), correct, batch_accuracy=0.5, alpha=0.5)[0, 0]) == pytest.approx(1.366025)


def test_middle_prompts_are_scaled_by_one_over_root_two():
    correct = flags_of(4, 8)
    torch.testing.assert_close(
        agrae(base(correct), correct, batch_accuracy=0.6, alpha=0.5), base(correct) / math.sqrt(2)
    )


@pytest.mark.parametrize(("num_correct", "factor"), [(4, 2.41), (7, 5.47)])
def test_easy_term_of_the_code_is_larger_than_the_papers(num_correct, factor):
    correct = flags_of(num_correct, 8)
    weight = {
        variant: float(agrae(torch.ones(1, 8), correct, batch_accuracy=0.0, variant=variant, group_level=False)[0, 0])
        for variant in ("paper", "code")
    }
    assert weight["code"] / weight["paper"] == pytest.approx(factor, abs=0.01)


def test_both_terms_of_the_code_carry_its_epsilon():
    correct = flags_of(1, 64)
    weights = [
        float(agrae(torch.ones(1, 64), correct, batch_accuracy=omega, variant="code")[0, -1]) for omega in (1.0, 0.0)
    ]
    # sqrt(p) = 1/8. With ω = 1 only the hard term counts, and Eq. 13 with w = 1 leaves it: 1 / (2 · (1/8 + 1e-6)).
    # With ω = 0 Eq. 13 silences positives.
    assert weights == pytest.approx([1 / (0.25 + 2e-6), 0.0], rel=1e-6)


@DRAWN
@given(st.integers(1, 15), st.floats(0, 1))
def test_sample_level_mass(num_correct, omega):
    """Σ|A| = G [ω sqrt(1-p) + (1-ω) sqrt(p)]: ω slides the favoured success rate from 1 to 0."""
    correct, p = flags_of(num_correct, 16), num_correct / 16
    result = agrae(base(correct), correct, batch_accuracy=omega, group_level=False)
    expected = 16 * (omega * math.sqrt(1 - p) + (1 - omega) * math.sqrt(p))
    assert float(result.abs().sum()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("omega", "favoured"), [(0.0, 63), (0.25, 58), (0.5, 32), (0.75, 6), (1.0, 1)])
def test_favoured_success_rate_follows_the_batch(omega, favoured):
    """p* = (1-ω)² / (ω² + (1-ω)²): .75²/(.25² + .75²) = .9, and .9 · 64 = 57.6."""
    mass = [
        float(agrae(base(c), c, batch_accuracy=omega, group_level=False).abs().sum())
        for c in (flags_of(k, 64) for k in range(1, 64))
    ]
    assert 1 + mass.index(max(mass)) == favoured


@DRAWN
@given(st.integers(1, 7), st.floats(0, 1), st.floats(0.1, 2))
def test_group_level_sum(num_correct, omega, alpha):
    """C = ΣA = -(1-w) · ½ · Σ|A'| with w = min(1, ω/α), A' before Eq. 13: exactly balanced once ω reaches α."""
    correct = flags_of(num_correct, 8)
    before = agrae(base(correct), correct, batch_accuracy=omega, group_level=False)
    after = agrae(base(correct), correct, batch_accuracy=omega, alpha=alpha)
    expected = -(1 - min(1.0, omega / alpha)) * 0.5 * float(before.abs().sum())
    assert float(after.sum()) == pytest.approx(expected, abs=1e-5)


def test_each_level_acts_alone():
    correct = flags_of(1, 4)
    advantages = base(correct)
    neither = agrae(advantages, correct, batch_accuracy=0.5, sample_level=False, group_level=False)
    assert torch.equal(neither, advantages)
    group_only = agrae(advantages, correct, batch_accuracy=0.5, alpha=1.0, sample_level=False)
    torch.testing.assert_close(group_only, torch.where(advantages > 0, advantages / 2, advantages))
    assert torch.equal(agrae_group_level(advantages, correct, batch_accuracy=0.5, alpha=1.0), group_only)
    sample_only = agrae(advantages, correct, batch_accuracy=0.5, group_level=False)
    torch.testing.assert_close(sample_only / advantages, torch.full((1, 4), 0.5 + 0.5 / math.sqrt(3)))
    assert torch.equal(agrae_sample_level(advantages, correct, batch_accuracy=0.5), sample_only)
    of_code = agrae(advantages, correct, batch_accuracy=0.5, group_level=False, variant="code")
    assert torch.equal(agrae_sample_level(advantages, correct, batch_accuracy=0.5, variant="code"), of_code)
    assert not torch.equal(of_code, sample_only)


def test_the_levels_in_turn_are_the_whole():
    correct = torch.tensor([[True, False, False, False], [True, True, True, False]])
    for variant in ("paper", "code"):
        shifted = agrae_sample_level(base(correct), correct, batch_accuracy=0.3, variant=variant)
        in_turn = agrae_group_level(shifted, correct, batch_accuracy=0.3, alpha=0.7)
        whole = agrae(base(correct), correct, batch_accuracy=0.3, alpha=0.7, variant=variant)
        torch.testing.assert_close(in_turn, whole)


@DRAWN
@given(st.integers(0, 10**6), st.floats(0, 1), st.floats(0.1, 2), st.sampled_from(["paper", "code"]), st.integers(2, 9))
def test_properties(seed, omega, alpha, variant, size):
    generator = torch.Generator().manual_seed(seed)
    correct = torch.rand(4, size, generator=generator) < 0.5
    advantages = torch.randn(4, size, generator=generator)
    copies = advantages.clone(), correct.clone()
    settings_ = {"batch_accuracy": omega, "alpha": alpha, "variant": variant}
    result = agrae(advantages, correct, **settings_)
    assert torch.equal(advantages, copies[0])
    assert torch.equal(correct, copies[1])
    # No sign flips (ω = 0 may silence a positive), nothing is created where there was nothing, all is finite.
    assert bool((result * advantages >= 0).all())
    assert bool(result.isfinite().all())
    assert torch.equal(agrae(torch.zeros(4, size), correct, **settings_), torch.zeros(4, size))
    order = torch.randperm(size, generator=generator)
    assert torch.equal(agrae(advantages[:, order], correct[:, order], **settings_), result[:, order])
    shards = [agrae(advantages[i : i + 1], correct[i : i + 1], **settings_) for i in range(4)]
    assert torch.equal(torch.cat(shards), result)


@pytest.mark.parametrize("variant", ["paper", "code"])
def test_groups_of_equal_flags_have_no_difficulty_weight(variant):
    """A base without a baseline gives such groups an advantage; it passes unweighted instead of divided by zero."""
    correct = torch.tensor([[True, True], [False, False]])
    advantages = torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    assert torch.equal(agrae(advantages, correct, batch_accuracy=1.0, variant=variant), advantages)


def test_groups_of_equal_flags_obey_the_group_level():
    """Eq. 13 knows no groups: positives of a base without a baseline are held back wherever they stand."""
    correct = torch.tensor([[True, True], [False, False], [True, False]])
    advantages = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    held_back = agrae_group_level(advantages, correct, batch_accuracy=0.25, alpha=0.5)
    assert held_back.tolist() == [[0.5, 0.5], [-1.0, -1.0], [0.5, -1.0]]


@LEVELS
def test_a_group_without_a_score_stays_finite(level):
    flags = torch.tensor([[math.nan] * 2, [1.0, 0.0]])
    assert level(torch.zeros(2, 2), flags, batch_accuracy=0.5).tolist() == [[0.0, 0.0]] * 2
    assert level(torch.ones(2, 2), flags, batch_accuracy=0.5)[0].tolist() == [1.0, 1.0]


def test_an_unscored_rollout_changes_nothing_for_its_group():
    rewards = torch.tensor([[1.0, math.nan, 0.0, 0.0]])
    correct = torch.tensor([[True, False, False, False]])
    kept = [0, 2, 3]
    with_it = agrae(group(rewards, correct), scored_flags(correct, rewards), batch_accuracy=0.4)
    without = agrae(group(rewards[:, kept], correct[:, kept]), correct[:, kept], batch_accuracy=0.4)
    assert with_it[0, 1] == 0
    assert torch.equal(with_it[:, kept], without)


def test_names():
    of_agrae = {name: function for name, function in WEIGHTINGS.items() if name.startswith("agrae")}
    assert of_agrae == {
        "agrae": agrae,
        "agrae_sample_level": agrae_sample_level,
        "agrae_group_level": agrae_group_level,
    }


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"batch_accuracy": 1.5}, r"batch_accuracy is 1\.5, but must be in \[0, 1\]"),
        ({"batch_accuracy": math.nan}, r"batch_accuracy is nan, but must be in \[0, 1\]"),
        ({"alpha": 0.0}, r"alpha is 0\.0, but must be finite and above 0\. Set algorithm\.agrae\.alpha"),
        ({"alpha": math.inf}, "alpha is inf"),
        ({"variant": "published"}, r'variant is "published", but must be "paper" or "code"'),
    ],
)
def test_errors(setting, message):
    with pytest.raises(ValueError, match=message):
        agrae(torch.zeros(1, 2), flags_of(1, 2), **{"batch_accuracy": 0.5, **setting})


@LEVELS
def test_matrices_that_are_no_groups_are_refused(level):
    with pytest.raises(ValueError, match=r"group size is 1, .* Set rollout\.group_size to 2 or more\."):
        level(torch.zeros(2, 1), torch.zeros(2, 1, dtype=torch.bool), batch_accuracy=0.5)
    with pytest.raises(ValueError, match=r"shapes are \[2, 3\] and \[2, 2\]"):
        level(torch.zeros(2, 3), torch.zeros(2, 2, dtype=torch.bool), batch_accuracy=0.5)
