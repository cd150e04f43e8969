"""The last state of a prompt, which predicts the first token of every completion."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType

import pytest
import torch
from torch import Tensor

from mm_agrae.policy import forward, prefix
from mm_agrae.policy.layout import Row, make_layout
from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt


@pytest.mark.parametrize("apart", [False, True])
def test_trap_05_its_gradient_is_rounded_once(
    policy_of: Callable[[str], Policy],
    rendered: Callable[..., RenderedPrompt],
    monkeypatch: pytest.MonkeyPatch,
    apart: bool,
) -> None:
    """Shares of advantages that sum to 0 nearly cancel, and adding them one by one in bf16 rounds each sum."""
    policy = policy_of("qwen3")
    policy = replace(policy, model=copy.deepcopy(policy.model).bfloat16())
    row = Row(prompt=rendered(policy), completions=tuple((40 + number % 16,) for number in range(64)))
    hidden, picked = retained(monkeypatch, prefix if apart else forward)
    prompt = prefix.read_prompt(policy, row)
    scores = prefix.score_after(policy, prompt, row) if apart else forward.score(policy, make_layout([row]))
    (torch.linspace(-1, 1, 64) * scores.logprobs).sum().backward()
    shares = picked[0].grad
    found = prompt.end.grad if apart else hidden[0].grad
    assert shares is not None
    assert found is not None
    assert shares.dtype == torch.bfloat16
    exact = shares.double().sum(0)
    last = found[0] if apart else found[0, len(row.prompt.token_ids) - 1]
    assert float((last - exact).norm() / exact.norm()) < 2**-8
    one_by_one = torch.zeros_like(shares[0])
    for share in shares:
        one_by_one += share
    assert float((one_by_one - exact).norm() / exact.norm()) > 2**-7


def retained(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> tuple[list[Tensor], list[Tensor]]:
    """From now on: last hidden states of the module's passes, and the states that it scores, with their gradients."""
    hidden: list[Tensor] = []
    picked: list[Tensor] = []
    hidden_states, score_states = forward.hidden_states, forward.score_states

    def keeping(kept: list[Tensor], states: Tensor) -> Tensor:
        if states.requires_grad:
            states.retain_grad()
            kept.append(states)
        return states

    monkeypatch.setattr(module, "hidden_states", lambda *a, **k: keeping(hidden, hidden_states(*a, **k)))
    monkeypatch.setattr(
        module, "score_states", lambda policy, states, *a, **k: score_states(policy, keeping(picked, states), *a, **k)
    )
    return hidden, picked
