"""The one-call attention of the vision tower against the stock one, which loops over images and windows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import modeling_flash_attention_utils

from mm_agrae.config.schema import ModelConfig
from mm_agrae.policy import attention, load
from mm_agrae.policy.attention import LANGUAGE_ATTENTION, VISION_ATTENTION, vision_attention_of
from mm_agrae.policy.forward import score
from mm_agrae.policy.layout import Row, make_layout
from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt

Rendered = Callable[..., RenderedPrompt]
PolicyOf = Callable[[str], Policy]
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")


def attending(policy: Policy, name: str) -> Policy:
    """A float64 copy whose vision tower attends by a function of that name."""
    made = replace(policy, model=copy.deepcopy(policy.model).double())
    made.inner.set_attn_implementation(
        {"": LANGUAGE_ATTENTION, "text_config": LANGUAGE_ATTENTION, "vision_config": name}
    )  # fmt: skip
    assert made.backbone.visual.config._attn_implementation == name
    return made


def encode(policy: Policy, prompts: list[RenderedPrompt]) -> tuple[Tensor, dict[str, Tensor]]:
    """Features of the pictures, and the gradients of the tower for an uneven weighting of them."""
    pixels = torch.cat([prompt.pixel_values for prompt in prompts]).double()  # type: ignore[misc]
    grids = torch.cat([prompt.image_grid_thw for prompt in prompts])  # type: ignore[misc]
    output = policy.backbone.get_image_features(pixels, grids, return_dict=True).pooler_output
    features = torch.cat(tuple(output))
    policy.model.zero_grad(set_to_none=True)
    (features * torch.linspace(-1, 2, features.numel(), dtype=features.dtype).view_as(features)).sum().backward()
    return features.detach(), {n: p.grad for n, p in policy.model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("family", FAMILIES)
def test_features_and_gradients_equal_the_stock_ones_in_one_call_a_layer(
    policy_of: PolicyOf, rendered: Rendered, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    policy = policy_of(family)
    prompts = [rendered(policy, size) for size in ((64, 48), (40, 64), (32, 32))]
    expected, expected_gradients = encode(attending(policy, "sdpa"), prompts)
    calls: list[Any] = []
    real = attention.attend
    monkeypatch.setattr(attention, "attend", lambda *args: calls.append(args) or real(*args))
    found, gradients = encode(attending(policy, VISION_ATTENTION), prompts)
    assert len(calls) == len(policy.backbone.visual.blocks)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in expected_gradients.items():
        scale = max(float(gradient.norm()), 1e-6)
        assert float((gradients[name] - gradient).norm()) <= 1e-6 * scale, name


def test_windows_of_one_picture_are_several_stretches_of_that_call(
    policy_of: PolicyOf, rendered: Rendered, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = attending(policy_of("qwen2_5_vl"), VISION_ATTENTION)
    stretches: list[int] = []
    real = attention.attend
    monkeypatch.setattr(
        attention, "attend", lambda *args: stretches.append(sum(run[2] for run in args[3][0].runs)) or real(*args)
    )  # fmt: skip
    encode(policy, [rendered(policy, (64, 48)), rendered(policy, (32, 32))])
    full = policy.backbone.visual.config.fullatt_block_indexes
    assert {number for place, number in enumerate(stretches) if place in full} == {2}
    assert all(number > 2 for place, number in enumerate(stretches) if place not in full)


def test_each_device_has_its_way() -> None:
    assert vision_attention_of(torch.device("cpu")) == "sdpa"
    assert vision_attention_of(torch.device("cuda")) == VISION_ATTENTION


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_loaded_with_the_attention_of_cuda(
    model_folder: Callable[[str], Path],
    policy_of: PolicyOf,
    rendered: Rendered,
    monkeypatch: pytest.MonkeyPatch,
    family: str,
) -> None:
    looping = policy_of(family)
    monkeypatch.setattr(load, "vision_attention_of", lambda _device: VISION_ATTENTION)
    # transformers looks for the kernel of a name once per process.
    monkeypatch.setattr(modeling_flash_attention_utils, "_loaded_implementation", None)
    policy = load.load_policy(ModelConfig(path=str(model_folder(family)), device="cpu"))
    assert policy.backbone.visual.config._attn_implementation == VISION_ATTENTION
    assert policy.inner.config.get_text_config()._attn_implementation == LANGUAGE_ATTENTION
    assert policy.shares_prompts
    layout = make_layout([Row(prompt=rendered(policy, (64, 48)), completions=((40, 41, 42), (43,)))])
    found, expected = (score(made, layout).logprobs for made in (policy, looping))
    torch.testing.assert_close(found, expected)


def test_a_policy_on_the_cpu_loops(policy_of: PolicyOf) -> None:
    assert policy_of("qwen2_5_vl").backbone.visual.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name", ["sdpa", VISION_ATTENTION])
@pytest.mark.parametrize("family", FAMILIES)
def test_trap_09_the_plan_of_the_row_does_not_reach_the_patches(
    policy_of: PolicyOf, rendered: Rendered, family: str, name: str
) -> None:
    """What the language model is given travels on to a tower that the backbone calls itself; it must do nothing."""
    policy = attending(policy_of(family), name)
    prompt = rendered(policy, (64, 48))
    layout = make_layout([Row(prompt=prompt, completions=((40, 41), (42,)))])
    expected, _ = encode(policy, [prompt])
    seen: list[Tensor] = []
    hook = policy.backbone.visual.register_forward_hook(lambda _m, _args, out: seen.append(out.pooler_output))
    policy.backbone(
        input_ids=layout.input_ids, position_ids=layout.position_ids, mm_token_type_ids=layout.mm_token_type_ids,
        attention_mask=torch.zeros(1, 1, 1, 1, dtype=torch.bool), attention=layout.attention, use_cache=False,
        pixel_values=prompt.pixel_values.double(), image_grid_thw=prompt.image_grid_thw,  # type: ignore[union-attr]
    )  # fmt: skip
    hook.remove()
    torch.testing.assert_close(seen[0], expected, rtol=1e-9, atol=1e-12)


def test_scores_of_grouped_rows_are_the_same(policy_of: PolicyOf, rendered: Rendered) -> None:
    policy = policy_of("qwen2_5_vl")
    row = Row(prompt=rendered(policy, (64, 48)), completions=((40, 41), (42,)))
    found, expected = (score(attending(policy, name), make_layout([row])) for name in (VISION_ATTENTION, "sdpa"))
    torch.testing.assert_close(found.logprobs, expected.logprobs, rtol=1e-6, atol=1e-8)
