"""Grouped rows against a plain transformers forward of every [prompt | completion] by itself."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from precise import precise
from torch import Tensor

from mm_agrae.policy import head
from mm_agrae.policy.forward import score
from mm_agrae.policy.grouped import plan_attention
from mm_agrae.policy.layout import Layout, Row, make_layout
from mm_agrae.policy.load import Policy
from mm_agrae.policy.tiny import ARCHITECTURES
from mm_agrae.records import RenderedPrompt

Rendered = Callable[..., RenderedPrompt]
PolicyOf = Callable[[str], Policy]
RAGGED = ((40, 41, 42, 43, 44), (), (45,), (46, 40, 47), ())


def make_rows(policy: Policy, rendered: Rendered) -> list[Row]:
    """Three prompts in one batch: one or two images and none, ragged completions."""
    first = rendered(policy, (64, 48), question="How many circles?") if policy.sees else rendered(policy)
    second = rendered(policy, (40, 64), (32, 32), question="Which is taller?") if policy.sees else rendered(policy)
    text = rendered(policy, question="What is two plus two?")
    return [
        Row(prompt=first, completions=RAGGED),
        Row(prompt=second, completions=((50, 51), (52, 53, 54))),
        Row(prompt=text, completions=((), (60, 61, 62, 63))),
    ]


def laid_out(policy: Policy, rows: Sequence[Row]) -> Layout:
    return make_layout(rows)


def alone(rows: Sequence[Row]) -> list[Row]:
    return [replace(row, completions=(completion,)) for row in rows for completion in row.completions]


def plain_logits(policy: Policy, prompt: RenderedPrompt, completion: Sequence[int]) -> Tensor:
    """[completion, V] from the model's own forward, which finds the positions itself."""
    ids = torch.tensor([[*prompt.token_ids, *completion]])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    if prompt.mm_token_type_ids is not None:
        inputs["mm_token_type_ids"] = torch.cat(
            [prompt.mm_token_type_ids, torch.zeros(len(completion), dtype=torch.long)]
        )[None]
    if prompt.pixel_values is not None:
        inputs |= {"pixel_values": prompt.pixel_values, "image_grid_thw": prompt.image_grid_thw}
    logits = policy.model(**inputs, use_cache=False).logits[0, len(prompt.token_ids) - 1 : -1]
    logits = logits.clone()
    logits[:, list(policy.banned_token_ids)] = float("-inf")
    return logits


def plain_logprobs(policy: Policy, rows: Sequence[Row], *, temperature: float = 1.0) -> Tensor:
    pieces = []
    for row in rows:
        for completion in row.completions:
            if completion:
                logprobs = (plain_logits(policy, row.prompt, completion) / temperature).log_softmax(-1)
                pieces.append(logprobs.gather(1, torch.tensor(completion)[:, None])[:, 0])
    return torch.cat(pieces)


def gradients(policy: Policy, logprobs: Tensor) -> dict[str, Tensor]:
    """Gradient of an uneven weighting of the log-probabilities, parameter by parameter."""
    weights = torch.linspace(-1.0, 2.0, len(logprobs), dtype=logprobs.dtype)
    policy.model.zero_grad(set_to_none=True)
    (weights * logprobs).sum().backward()
    found = {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}
    policy.model.zero_grad(set_to_none=True)
    return found


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    total = torch.stack([gradient.norm() for gradient in expected.values()]).norm()
    for name, gradient in expected.items():
        # A gradient that cancels to nothing has no relative error to speak of.
        scale = max(float(gradient.norm()), 1e-5 * float(total))
        assert float((found[name] - gradient).norm()) <= 1e-5 * scale, name


@pytest.fixture(params=ARCHITECTURES)
def policy(request: pytest.FixtureRequest, policy_of: PolicyOf) -> Policy:
    return precise(policy_of(request.param))


@pytest.fixture
def sees(policy_of: PolicyOf) -> Policy:
    return precise(policy_of("qwen2_5_vl"))


def test_grouped_rows_equal_single_rows_and_the_plain_model(policy: Policy, rendered: Rendered) -> None:
    rows = make_rows(policy, rendered)
    grouped = score(policy, laid_out(policy, rows))
    single = score(policy, laid_out(policy, alone(rows)))
    expected = plain_logprobs(policy, rows)
    torch.testing.assert_close(grouped.logprobs.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(single.logprobs.double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grouped.entropy, single.entropy, rtol=1e-5, atol=1e-6)


def test_gradients_of_every_parameter_equal_those_of_repeated_prompts(policy: Policy, rendered: Rendered) -> None:
    rows = make_rows(policy, rendered)
    grouped = gradients(policy, score(policy, laid_out(policy, rows)).logprobs)
    repeated = gradients(policy, score(policy, laid_out(policy, alone(rows))).logprobs)
    plain = gradients(policy, plain_logprobs(policy, rows))
    assert len(grouped) == len(list(policy.model.parameters()))
    assert all(float(gradient.norm()) > 0 for gradient in grouped.values())
    assert_same_gradients(grouped, repeated)
    assert_same_gradients(grouped, plain)


def test_a_plan_that_lets_completions_see_each_other_would_be_seen(policy: Policy, rendered: Rendered) -> None:
    rows = [replace(make_rows(policy, rendered)[0], completions=((40, 41, 42), (43, 44, 45)))]
    layout = laid_out(policy, rows)
    as_one = plan_attention([len(rows[0].prompt.token_ids)], [[6]])
    right, wrong = (score(policy, made).logprobs for made in (layout, replace(layout, attention=as_one)))
    assert float((wrong[3:] - right[3:]).detach().abs().max()) > 1e-3


def test_neighbours_in_a_row_change_nothing(sees: Policy, rendered: Rendered) -> None:
    short, long = Row(prompt=rendered(sees, (32, 32)), completions=RAGGED), make_rows(sees, rendered)[1]
    expected = score(sees, laid_out(sees, [short])).logprobs
    both = score(sees, laid_out(sees, [short, replace(long, completions=((40,) * 60,))])).logprobs
    torch.testing.assert_close(both[: len(expected)], expected)


def test_rows_without_any_completion_token_score_nothing(sees: Policy, rendered: Rendered) -> None:
    made = score(sees, laid_out(sees, [Row(prompt=rendered(sees, (32, 32)), completions=((), ()))]))
    assert made.logprobs.shape == made.entropy.shape == (0,)


def test_banned_ids_have_no_probability_and_entropy_stays_finite(sees: Policy, rendered: Rendered) -> None:
    assert len(sees.banned_token_ids) == 5
    row = Row(prompt=rendered(sees, (32, 32)), completions=((40,),) * 5)
    scores = score(sees, replace(laid_out(sees, [row]), targets=torch.tensor(sees.banned_token_ids)))
    assert torch.isneginf(scores.logprobs).all()
    probabilities = plain_logits(sees, row.prompt, (0,)).softmax(-1)[0]
    kept = probabilities[probabilities > 0]
    assert len(probabilities) - len(kept) == 5
    torch.testing.assert_close(scores.entropy[0].double(), -(kept * kept.log()).sum(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_the_logits(sees: Policy, rendered: Rendered, temperature: float) -> None:
    rows = make_rows(sees, rendered)
    found = score(sees, laid_out(sees, rows), temperature=temperature).logprobs
    expected = plain_logprobs(sees, rows, temperature=temperature)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)
    assert float((found - score(sees, laid_out(sees, rows)).logprobs).detach().abs().max()) > 0.01


def test_pieces_of_the_head_equal_the_whole(sees: Policy, rendered: Rendered, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = laid_out(sees, make_rows(sees, rendered))
    whole = score(sees, layout)
    expected = gradients(sees, whole.logprobs)
    heights: list[int] = []
    real = head._log_softmax

    def watched(states: Tensor, *others: Any) -> Tensor:
        heights.append(len(states))
        return real(states, *others)

    monkeypatch.setattr(head, "_log_softmax", watched)
    monkeypatch.setattr(head, "CHUNK", 3)
    pieces = score(sees, layout)
    assert heights == [3] * 6
    torch.testing.assert_close(pieces.logprobs, whole.logprobs)
    torch.testing.assert_close(pieces.entropy, whole.entropy)
    assert_same_gradients(gradients(sees, pieces.logprobs), expected)
    assert heights == [3] * 12, "and the same pieces on the way back"


def test_scores_without_gradient_equal_those_with(sees: Policy, rendered: Rendered) -> None:
    layout = laid_out(sees, make_rows(sees, rendered))
    with torch.no_grad():
        quiet = score(sees, layout)
    assert not quiet.logprobs.requires_grad
    torch.testing.assert_close(quiet.logprobs, score(sees, layout).logprobs.detach())
