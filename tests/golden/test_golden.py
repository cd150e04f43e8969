"""Advantages of fixed outcomes, by the authors' code and in the papers' forms.

They are met twice: by the functions, and by the whole way from the names in a recipe.
"""

import json
from pathlib import Path

import pytest
import torch

from mm_agrae.algorithms import ADVANTAGES, ANCHORS, WEIGHTINGS, AnchorState
from mm_agrae.algorithms.groups import batch_accuracy
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.estimator import START, EstimatorState, Outcomes, assemble, estimate

FOLDER = Path(__file__).parent
AGRAE = json.loads((FOLDER / "agrae.json").read_text())
HADW = json.loads((FOLDER / "hadw.json").read_text())
HADW_CODE = "authors_code_window_10_lambda_1.5_includes_current_batch"
HADW_PAPER = "paper_form_anchor_is_mean_of_last_10_prior_batches_lambda_1.3"

CODE = {"std": "unbiased", "std_eps": 1e-6}
PAPER = {"std": "biased"}
NO_STD = {"std": "none"}
# What the recipe says, the keys of the expected table, and the numbers of the functions: scale, weighting.
AGRAE_WAYS = [
    (CODE, ("authors_code_alpha_1", "grpo_std"), CODE, None),
    (
        {"weighting": ["agrae"], "agrae": {"variant": "code"}},
        ("authors_code_alpha_1", "agrae_std"),
        CODE,
        {"variant": "code", "alpha": 1.0},
    ),
    ({"preset": "dr_grpo"}, ("authors_code_alpha_1", "dr_grpo"), NO_STD, None),
    (
        {"preset": "dr_grpo", "weighting": ["agrae"], "agrae": {"variant": "code"}},
        ("authors_code_alpha_1", "agrae_no_std"),
        NO_STD,
        {"variant": "code", "alpha": 1.0},
    ),
    ({"weighting": ["agrae"], "agrae": {"alpha": 1.0}}, ("paper_alpha_1",), PAPER, {"alpha": 1.0}),
    ({"weighting": ["agrae"]}, ("paper_alpha_0.5",), PAPER, {"alpha": 0.5}),
]


def by_recipe(recipe, correct, state=START):
    algorithm = assemble(AlgorithmConfig.model_validate(recipe), max_completion_tokens=16)
    outcomes = Outcomes(
        rewards=correct.float(),
        correct=correct,
        lengths=torch.ones_like(correct, dtype=torch.long),
        truncated=torch.zeros_like(correct),
    )
    return estimate(algorithm, state, outcomes, batch_accuracy=batch_accuracy(correct))[0]


def assert_golden(actual, expected, table):
    torch.testing.assert_close(actual, torch.tensor(expected), atol=table["tolerance"], rtol=0)


@pytest.mark.parametrize("case", AGRAE["cases"], ids=range(len(AGRAE["cases"])))
@pytest.mark.parametrize(
    ("recipe", "keys", "scale", "weighting"), AGRAE_WAYS, ids=["-".join(way[1]) for way in AGRAE_WAYS]
)
def test_agrae(case, recipe, keys, scale, weighting):
    correct = torch.tensor(case["correct"], dtype=torch.bool)
    expected = case
    for key in keys:
        expected = expected[key]
    advantages = ADVANTAGES["group"](correct.float(), correct, **scale)
    if weighting is not None:
        advantages = WEIGHTINGS["agrae"](advantages, correct, batch_accuracy=batch_accuracy(correct), **weighting)
    assert_golden(advantages, expected, AGRAE)
    assert torch.equal(by_recipe(recipe, correct).advantages, advantages)


@pytest.mark.parametrize("case", HADW["cases"], ids=range(len(HADW["cases"])))
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_hadw(case, variant):
    correct = torch.tensor(case["correct"], dtype=torch.bool)
    of_code = variant == "code"
    state = AnchorState(history=tuple(case["earlier_batch_means"]))
    anchor, _ = ANCHORS["window"](state, batch_accuracy(correct), include_current=of_code)
    if not of_code:
        assert anchor == pytest.approx(case["paper_form_anchor"], abs=1e-6)
    base = ADVANTAGES["group"](correct.float(), correct, **(CODE if of_code else PAPER))
    advantages = WEIGHTINGS["hadw"](base, correct, anchor=anchor, scale=1.5 if of_code else 1.3)
    assert_golden(advantages, case[HADW_CODE if of_code else HADW_PAPER], HADW)
    recipe = {"weighting": ["hadw"], "hadw": {"variant": variant}}
    found = by_recipe(recipe, correct, EstimatorState(anchor=state))
    assert torch.equal(found.advantages, advantages)
    assert found.anchor == anchor


def test_the_tables_are_full():
    assert (len(AGRAE["cases"]), len(HADW["cases"])) == (6, 6)
    assert AGRAE["tolerance"] == HADW["tolerance"] == 1e-5
