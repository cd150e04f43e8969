"""Equal models have equal marks, and others not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from mm_agrae.policy.load import Policy
from mm_agrae.policy.marks import processor_mark, weights_mark


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8])
def test_equal_weights_have_equal_marks_and_others_not(dtype: torch.dtype) -> None:
    weights = [("a", torch.arange(6).to(dtype).reshape(2, 3)), ("b", torch.tensor(3.0).to(dtype))]
    mark = weights_mark(weights)
    assert mark == weights_mark([(name, tensor.clone()) for name, tensor in weights])
    changed = weights[0][1].clone()
    changed[1, 2] += 1
    assert mark != weights_mark([("a", changed), weights[1]])
    assert mark != weights_mark([("c", weights[0][1]), weights[1]])
    assert mark != weights_mark([("a", weights[0][1].reshape(3, 2)), weights[1]])
    assert mark != weights_mark([("a", -weights[0][1]), weights[1]])


def test_weights_in_other_places_have_another_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mm_agrae.policy.marks.STRETCH", 7)
    weights = torch.linspace(-1, 1, 100)
    mark = weights_mark([("a", weights)])
    assert weights_mark([("a", weights.flip(0))]) != mark
    assert weights_mark([("a", weights.roll(7))]) != mark  # stretches change places


def test_a_processor_is_known_by_everything_that_it_does(policy_of: Callable[[str], Policy]) -> None:
    policy = policy_of("qwen2_5_vl")
    mark = processor_mark(policy)
    assert processor_mark(policy_of("qwen2_5_vl")) == mark
    assert processor_mark(replace(policy, banned_token_ids=policy.banned_token_ids[1:])) != mark
    # How it was loaded is no part of it.
    policy.tokenizer.init_kwargs["local_files_only"] = not policy.tokenizer.init_kwargs.get("local_files_only")
    assert processor_mark(policy) == mark
    template = policy.processor.chat_template
    try:
        policy.processor.chat_template = template + " "
        assert processor_mark(policy) != mark
    finally:
        policy.processor.chat_template = template
