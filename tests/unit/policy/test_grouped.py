"""The attention of a row of groups, and the ways in which it could be wrong without a word."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from precise import precise
from torch import Tensor

from mm_agrae.policy.forward import score
from mm_agrae.policy.grouped import AttentionPlan, attend, plan_attention
from mm_agrae.policy.kernels import Stretches
from mm_agrae.policy.layout import Layout, Row, make_layout
from mm_agrae.policy.load import Policy
from mm_agrae.policy.tiny import ARCHITECTURES
from mm_agrae.records import RenderedPrompt
from tests.unit.policy.exact_attention import group_mask, masked_attention

Rendered = Callable[..., RenderedPrompt]
PolicyOf = Callable[[str], Policy]
SCALE = 0.3


def draw(*sizes: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*sizes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def test_a_plan_names_every_token_once_and_every_completion_token_twice() -> None:
    # Row: prompt 0-2, completions 3-4 and 5 (an empty one between), prompt 6-7 without completions, prompt 8, 9-10.
    plan = plan_attention((3, 2, 1), ((2, 0, 1), (), (2,)))
    own = (range(3), range(3, 5), range(5, 6), range(6, 8), range(8, 9), range(9, 11))
    assert plan.own == Stretches(queries=own, keys=own, causal=True)
    assert plan.shared == (
        Stretches(queries=(range(3, 6),), keys=(range(3),), causal=False),
        Stretches(queries=(range(9, 11),), keys=(range(8, 9),), causal=False),
    )
    assert len(plan.calls) == 3


def test_a_plan_for_another_device_has_two_calls_whatever_the_groups() -> None:
    plan = plan_attention((3, 2, 1), ((2, 0, 1), (), (2,))).to(torch.device("meta"))
    assert len(plan.calls) == 2
    assert isinstance(plan, AttentionPlan)
    assert len(plan_attention((3, 2), ((), (0,))).to(torch.device("meta")).calls) == 1


def test_queries_may_be_fewer_than_keys() -> None:
    """Completions that go on from a prompt whose keys were computed before."""
    own = Stretches(queries=(range(2), range(2, 5)), keys=(range(4, 6), range(6, 9)), causal=True)
    shared = Stretches(queries=(range(5),), keys=(range(4),), causal=False)
    plan = AttentionPlan(own=own, shared=(shared,), calls=()).to(torch.device("cpu"))
    leaves = [draw(5, 4, 16), draw(9, 2, 16, seed=1), draw(9, 2, 16, seed=2)]
    leaves = [x.requires_grad_() for x in leaves]
    out = attend(*leaves, plan.calls, SCALE)
    expected = masked_attention(*leaves, group_mask((4,), ((2, 3),))[4:], SCALE)
    torch.testing.assert_close(out, expected)
    grad = draw(5, 4, 16, seed=3)
    found = torch.autograd.grad(out, leaves, grad)
    for a, b in zip(found, torch.autograd.grad(expected, leaves, grad), strict=True):
        torch.testing.assert_close(a, b)


def a_layout(policy: Policy, rendered: Rendered, completions: tuple[tuple[int, ...], ...], *, seed: int = 0) -> Layout:
    prompt = rendered(policy, (64, 48), seed=seed) if policy.sees else rendered(policy, seed=seed)
    return make_layout([Row(prompt=prompt, completions=completions)])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trap_01_positions_restart_after_the_prompt(policy_of: PolicyOf, rendered: Rendered, architecture: str) -> None:
    """Positions that run on from one completion into the next raise no error and are wrong from the second on."""
    policy = precise(policy_of(architecture))
    twins = a_layout(policy, rendered, ((40, 41, 42), (40, 41, 42)))
    found = score(policy, twins).logprobs
    torch.testing.assert_close(found[3:], found[:3], rtol=1e-6, atol=1e-8)
    flat = twins.position_ids.clone()
    flat[..., -3:] += 3
    wrong = score(policy, replace(twins, position_ids=flat)).logprobs
    torch.testing.assert_close(wrong[:3], found[:3])
    assert float((wrong[3:] - found[3:]).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_trap_02_no_mask_of_transformers_cuts_the_row(
    policy_of: PolicyOf, rendered: Rendered, architecture: str
) -> None:
    """Without a mask of four dimensions transformers takes a position that jumps back for a new sequence."""
    policy = precise(policy_of(architecture))
    layout = a_layout(policy, rendered, ((40, 41, 42), (43, 44)))
    masks: list[Any] = []
    hooks = [
        layer.self_attn.register_forward_pre_hook(
            lambda _m, _args, names: masks.append(names["attention_mask"]), with_kwargs=True
        )
        for layer in policy.inner.get_decoder().layers
    ]
    found = score(policy, layout).logprobs
    for hook in hooks:
        hook.remove()
    # What reaches the layers is the placeholder: no mask was made, none is read.
    assert [tuple(mask.shape) for mask in masks] == [(1, 1, 1, 1)] * len(hooks)
    # Four rows would be text positions and three rotary ones, and the text row is what such a mask is made from.
    assert layout.position_ids.shape == ((3, *layout.input_ids.shape) if policy.sees else layout.input_ids.shape)
    alone = [score(policy, a_layout(policy, rendered, (one,))).logprobs for one in ((40, 41, 42), (43, 44))]
    torch.testing.assert_close(found, torch.cat(alone), rtol=1e-6, atol=1e-8)


def test_trap_04_merging_under_autograd_is_wrong_without_a_word() -> None:
    """The kernels ignore the gradient of the log-sum-exp, so a mixture of two of them has half a gradient."""
    groups = (6,), ((3, 2),)
    leaves = [x.requires_grad_() for x in (draw(11, 2, 16), draw(11, 2, 16, seed=1), draw(11, 2, 16, seed=2))]
    grad = draw(11, 2, 16, seed=3)
    expected = torch.autograd.grad(masked_attention(*leaves, group_mask(*groups), SCALE), leaves, grad)
    found = torch.autograd.grad(attend(*leaves, plan_attention(*groups).calls, SCALE), leaves, grad)
    for a, b in zip(found, expected, strict=True):
        assert relative(a, b) < 1e-14
    merged = _merged_under_autograd(*leaves)
    torch.testing.assert_close(merged, masked_attention(*leaves, group_mask(*groups), SCALE)[6:])
    naive = torch.autograd.grad(merged, leaves, grad[6:])
    only = torch.autograd.grad(masked_attention(*leaves, group_mask(*groups), SCALE)[6:], leaves, grad[6:])
    assert relative(naive[0], only[0]) > 1e-2


def _merged_under_autograd(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The completions 6-8 and 9-10 of one group, their two parts mixed by ordinary operations: the right output."""

    def part(queries: slice, keys: slice, causal: bool) -> tuple[Tensor, Tensor]:
        q, k, v = (x.transpose(0, 1)[None] for x in (query[queries], key[keys], value[keys]))
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=SCALE)
        return out[0].transpose(0, 1), lse[0].T

    pieces = []
    for stretch in (slice(6, 9), slice(9, 11)):
        (own, own_lse), (shared, shared_lse) = part(stretch, stretch, True), part(stretch, slice(6), False)
        weight = torch.sigmoid(own_lse - shared_lse)[..., None]
        pieces.append(own * weight + shared * (1 - weight))
    return torch.cat(pieces)


def test_trap_05_the_prompts_gradient_is_summed_once_and_alike_every_time() -> None:
    """G copies of a prompt send G gradients, and adding these one by one in bf16 rounds G times."""
    groups = (16,), ((4,) * 64,)
    row = [draw(272, 4, 16), draw(272, 2, 16, seed=1), draw(272, 2, 16, seed=2)]
    leaves = [x.bfloat16().requires_grad_() for x in row]
    grad = draw(272, 4, 16, seed=3).bfloat16()
    exact = [x.detach().double().requires_grad_() for x in leaves]
    expected = torch.autograd.grad(masked_attention(*exact, group_mask(*groups), SCALE), exact, grad.double())
    first, second = (
        torch.autograd.grad(attend(*leaves, plan_attention(*groups).calls, SCALE), leaves, grad) for _ in range(2)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    shares = _value_gradients_of_copies(*exact, grad.double())
    one_by_one = torch.zeros(16, 2, 16, dtype=torch.bfloat16)
    for share in shares:
        one_by_one += share.bfloat16()
    # Two roundings, of the own part and of the sum, against 64.
    assert relative(first[2][:16], expected[2][:16]) < 4e-3
    assert relative(one_by_one, expected[2][:16]) > 8e-3


def _value_gradients_of_copies(query: Tensor, key: Tensor, value: Tensor, grad: Tensor) -> list[Tensor]:
    """What each of 64 completions of 4 tokens sends into the values of a copy of the prompt of 16."""
    mask = group_mask((16,), ((4,),))
    shares = []
    for start in range(16, 272, 4):
        places = [*range(16), *range(start, start + 4)]
        parts = [x.detach()[places].requires_grad_() for x in (query, key, value)]
        out = masked_attention(*parts, mask, SCALE)
        shares.append(torch.autograd.grad(out[16:], parts[2], grad[start : start + 4])[0][:16])
    return shares


@pytest.mark.parametrize("architecture", ["qwen2_5_vl", "qwen3_vl", "qwen3"])
def test_trap_08_a_recomputed_layer_attends_by_its_own_plan(
    policy_of: PolicyOf, rendered: Rendered, architecture: str
) -> None:
    """A layer that is recomputed runs in the backward pass, when a global of its forward pass holds another row."""
    policy = precise(policy_of(architecture))
    layouts = [
        a_layout(policy, rendered, ((40, 41), (42, 43, 44))),
        a_layout(policy, rendered, ((45,), (46, 47), (48,)), seed=1),
    ]
    expected = _gradients_of_both(policy, layouts)
    policy.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    policy.model.enable_input_require_grads()
    runs: list[int] = []
    policy.inner.get_decoder().layers[0].mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    found = _gradients_of_both(policy, layouts)
    assert len(runs) == 4  # both rows forward, then both again
    assert not any(module.training for module in policy.model.modules())
    with torch.no_grad():
        score(policy, layouts[0])
    assert len(runs) == 5
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).norm()) <= 1e-6 * max(float(gradient.norm()), 1e-6), name


def _gradients_of_both(policy: Policy, layouts: list[Layout]) -> dict[str, Tensor]:
    """Two forward passes, then one backward pass through both."""
    policy.model.zero_grad(set_to_none=True)
    scores = [score(policy, layout).logprobs for layout in layouts]
    (scores[0].sum() - 2 * scores[1].sum()).backward()
    return {name: p.grad.clone() for name, p in policy.model.named_parameters() if p.grad is not None}


def test_autocast_leaves_attention_one_number_format(policy_of: PolicyOf, rendered: Rendered) -> None:
    """Rotary embeddings of fp32 lift query and key out of bf16, and a kernel takes one format only."""
    policy = policy_of("qwen2_5_vl")
    layout = a_layout(policy, rendered, ((40, 41, 42), (43, 44)))
    expected = score(policy, layout).logprobs.detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = score(policy, layout).logprobs
    found.sum().backward()
    policy.model.zero_grad(set_to_none=True)
    torch.testing.assert_close(found.detach().float(), expected, rtol=0, atol=0.1)
