"""The pure half of the twin check: figures by hand, bounds, sentences."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from mm_agrae.preflight.twin import BOUNDS, Bound, PictureTwin, PromptTwin, bound_of, judge

BOUND = Bound(mean_nats=0.01, token_nats=0.1)


def twin(
    engine: tuple[float, ...] = (-1.0, -2.0),
    trainer: tuple[float, ...] = (-1.0, -2.0),
    leads: tuple[float, ...] = (0.0, 0.0),
    picture: PictureTwin | None = None,
    sample_id: str = "a",
) -> PromptTwin:
    return PromptTwin(
        sample_id=sample_id, engine=engine, trainer=trainer, untempered=trainer, leads=leads, picture=picture
    )


def kinds(*twins: PromptTwin, bound: Bound = BOUND, temperature: float = 1.0) -> list[str]:
    return [finding.kind for finding in judge(twins, bound, temperature=temperature).findings]


def test_figures_by_hand() -> None:
    seen = PictureTwin(engine=(0.5,), trainer=(-0.3,), parted=True)
    # Gaps 0, 0.5, 0.25: mean 0.25. Three of four greedy tokens are the trainer's.
    report = judge(
        [
            twin((-1.0, -2.0), (-1.0, -2.5), (0.0, 0.2), seen),
            twin((-1.0,), (-0.75,), (0.0, 0.0), PictureTwin(engine=(-0.25,), trainer=(0.1,), parted=False)),
        ],
        BOUND,
        temperature=1.0,
    )
    assert (report.num_prompts, report.num_tokens, report.num_greedy_tokens) == (2, 3, 4)
    assert report.gap_mean_nats == pytest.approx(0.25)
    assert report.gap_max_nats == 0.5
    assert report.greedy_agreement == 0.75
    assert report.greedy_lead_max_nats == 0.2
    assert (report.num_pictured, report.num_parted) == (2, 1)
    assert report.picture_effect_engine_nats == pytest.approx(0.375)
    assert report.picture_effect_trainer_nats == pytest.approx(0.2)
    assert report.line() == (
        "twin check: over 3 tokens of 2 prompts engine and trainer differ by 2.5e-01 nats (prompts by at most 2.5e-01, "
        "tokens by at most 5.0e-01; bound of the mean 1e-02); 75 % of greedy tokens agree; grey pictures change 1 of "
        "2 greedy completions, and the tokens before by 3.8e-01 nats in the engine and 2.0e-01 in the trainer"
    )


def test_equal_numbers_are_twins() -> None:
    report = judge([twin()], BOUND, temperature=0.7)
    assert report.findings == ()
    assert report.gap_max_nats == 0
    assert report.greedy_agreement == 1
    assert report.picture_effect_engine_nats is None
    assert report.notes == ("no prompt of the check has a picture, so whether the engine sees pictures was not tested",)


def test_the_mean_is_held_against_its_bound_and_no_single_token() -> None:
    assert kinds(twin((-1.0,) * 20, (-1.19, *(-1.0,) * 19))) == []
    assert kinds(twin((-1.0,) * 20, (-1.21, *(-1.0,) * 19))) == ["log-probs"]


def test_a_gap_is_told_with_its_bound_and_a_remedy() -> None:
    # No prompt is beyond its own bound, but together they are.
    (finding,) = judge([twin((-1.0,), (-1.1,), ())] * 20, BOUND, temperature=1.0).findings
    assert finding.text.startswith("engine and trainer differ by 0.1 nats per token, but rounding explains 0.01 at")
    assert "engine.on_mismatch=warn" in finding.text


@pytest.mark.parametrize(("num_ranks", "gap"), [(8, 0.3), (16, 0.6), (64, 2.0)])
def test_one_wrong_engine_is_not_outvoted_by_others(num_ranks: int, gap: float) -> None:
    right = twin((-2.0,) * 32, (-2.0,) * 32)
    wrong = replace(twin((-2.0,) * 32, (-2.0 - gap,) * 32, sample_id="w"), rank=3)
    report = judge([right] * 4 * (num_ranks - 1) + [wrong] * 4, BOUNDS["bf16"], temperature=0.6)
    assert report.gap_mean_nats == pytest.approx(gap / num_ranks)
    assert report.gap_mean_nats < BOUNDS["bf16"].mean_nats
    (finding,) = report.findings
    assert finding.kind == "log-probs"
    # 5e-2 for each token, and 0.5 / 32 because one of them may be off by 0.5.
    assert finding.text.startswith(
        f"engine and trainer differ by {gap:g} nats per token for sample 'w' (rank 3), but rounding explains 0.066 at "
        f"most; so it is for 4 of {4 * num_ranks} prompts, and the mean over all is {gap / num_ranks:.3g}."
    )
    assert report.worst == "sample 'w' (rank 3)"
    assert report.gap_prompt_nats == pytest.approx(gap)
    raw = replace(wrong, untempered=wrong.engine)
    assert kinds(*[right] * 60, raw, bound=BOUNDS["bf16"], temperature=0.6) == ["temperature"]


def test_few_tokens_of_a_prompt_may_be_off_by_more() -> None:
    twins = [twin((-1.0,) * 20, (-1.0,) * 20)] * 9
    # Of two tokens 0.01 + 0.1 / 2 on average.
    assert kinds(*twins, twin((-1.0, -1.0), (-1.0, -1.119))) == []
    assert kinds(*twins, twin((-1.0, -1.0), (-1.0, -1.121))) == ["log-probs"]
    assert kinds(*twins, twin((-1.0, -1.0), (-1.0, math.nan))) == ["log-probs"]
    report = judge([*twins, twin((), (), ())], BOUND, temperature=1.0)
    assert report.findings == ()
    assert report.gap_prompt_nats == 0


def test_log_probabilities_of_temperature_1_are_named() -> None:
    raw = replace(twin((-1.0, -2.0), (-0.5, -3.0)), untempered=(-1.0, -2.0))
    assert kinds(raw, temperature=0.5) == ["temperature"]
    (finding,) = judge([raw], BOUND, temperature=0.5).findings
    assert "--logprobs-mode processed_logprobs" in finding.text
    assert "not of rollout.temperature 0.5" in finding.text
    assert kinds(replace(raw, untempered=(-1.5, -2.0)), temperature=0.5) == ["log-probs"]


@pytest.mark.parametrize("value", [math.nan, -math.inf, math.inf])
def test_what_is_no_number_is_beyond_every_bound(value: float) -> None:
    broken = twin((value, -2.0))
    assert kinds(broken, bound=Bound(mean_nats=1e9, token_nats=1e9)) == ["log-probs"]
    saved = judge([broken], BOUND, temperature=1.0).to_json()
    assert saved["gap_mean_nats"] is None
    json.dumps(saved, allow_nan=False)


def test_a_near_tie_is_no_fault_of_greedy_decoding() -> None:
    assert kinds(twin(leads=(0.2, 0.0))) == []
    assert kinds(twin(leads=(0.21, 0.0))) == ["greedy"]
    assert kinds(twin(leads=(math.nan, 0.0))) == ["greedy"]


def test_a_picture_that_only_the_trainer_sees_is_a_fault() -> None:
    def picture(engine: float, trainer: float, *, parted: bool = False) -> PromptTwin:
        return twin(picture=PictureTwin(engine=(0.0, engine), trainer=(0.0, trainer), parted=parted))

    assert kinds(picture(0.0, 0.3)) == ["pictures"]
    assert kinds(picture(-0.14, 0.3)) == ["pictures"]
    assert kinds(picture(-0.3, 0.3)) == []
    assert kinds(picture(0.0, 0.3, parted=True)) == []
    untold = judge([picture(0.0, 0.1)], BOUND, temperature=1.0)
    assert untold.findings == ()
    assert untold.notes[0].startswith("grey pictures change no token by more than 0.1 nats in the trainer itself")


def test_one_unseen_picture_is_not_outvoted_by_others() -> None:
    seen = twin(picture=PictureTwin(engine=(0.4,), trainer=(0.4,), parted=True))
    unseen = twin(picture=PictureTwin(engine=(0.0,), trainer=(0.4,), parted=False), sample_id="two-pictures")
    (finding,) = judge([seen] * 9 + [unseen], BOUND, temperature=1.0).findings
    assert "in 1 prompts (first: sample 'two-pictures' (rank 0))" in finding.text


def test_broken_completions_are_told_with_their_sample() -> None:
    broken = PromptTwin(
        sample_id="b", engine=(), trainer=(), untempered=(), leads=(), malformed=("3 tokens come with 2",)
    )
    (finding,) = judge([twin(), broken], BOUND, temperature=1.0).findings
    assert finding.kind == "malformed"
    assert finding.text.startswith("the engine's completions are broken: sample 'b' (rank 0): 3 tokens come with 2.")
    assert judge([broken], BOUND, temperature=1.0).line() == "twin check: nothing to compare"


def test_bounds_of_precisions_and_of_ones_own() -> None:
    assert bound_of("fp32", None) == BOUNDS["fp32"]
    assert bound_of("bf16", None) == BOUNDS["bf16"]
    assert BOUNDS["bf16"].mean_nats > BOUNDS["fp32"].mean_nats
    own = bound_of("bf16", 2 * BOUNDS["bf16"].mean_nats)
    assert own.mean_nats == 2 * BOUNDS["bf16"].mean_nats
    assert own.token_nats == pytest.approx(2 * BOUNDS["bf16"].token_nats)
