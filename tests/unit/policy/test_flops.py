"""Predicted operations against those that torch counts while the model runs."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mm_agrae.policy.flops import Cost, GroupShape, ModelShape, forward_cost, model_shape, shape_of, update_cost
from mm_agrae.policy.forward import score
from mm_agrae.policy.head import Head
from mm_agrae.policy.layout import Row, make_layout
from mm_agrae.policy.load import Policy
from mm_agrae.policy.vision_cache import VisionCache
from mm_agrae.records import RenderedPrompt

Rendered = Callable[..., RenderedPrompt]
PolicyOf = Callable[[str], Policy]
EVEN = ((40, 41, 42, 43), (44, 45, 46, 47), (48, 49, 50, 51))
FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward

MODEL = ModelShape(weights=100, width=8, layers=2, head=50, trained=1.0, head_trained=True, vision=None)


def attended(query: tuple[int, ...], key: tuple[int, ...], causal: bool) -> int:
    batch, heads, length, width = query
    pairs = length * (length + 1) // 2 if causal else length * key[2]
    return 4 * batch * heads * width * pairs


def flash(
    query: tuple, key: tuple, value: tuple, dropout: float = 0.0, causal: bool = False, *, out_shape: object,
    scale: float | None = None,
) -> int:  # fmt: skip
    return attended(query, key, causal)


def flash_backward(
    grad: tuple, query: tuple, key: tuple, value: tuple, out: tuple, lse: tuple, dropout: float, causal: bool, *,
    out_shape: object, attn_mask: None = None, scale: float | None = None,
) -> int:  # fmt: skip
    return 2 * attended(query, key, causal)


def counted(run: Callable[[], Tensor]) -> float:
    """Operations of a forward pass, and of its backward pass where there is a gradient."""
    with FlopCounterMode(display=False, custom_mapping={FLASH: flash, FLASH_BACKWARD: flash_backward}) as counter:
        out = run()
        if out.requires_grad:
            out.sum().backward()
    return counter.get_total_flops()


def make_row(policy: Policy, rendered: Rendered) -> Row:
    prompt = rendered(policy, (64, 48), (32, 32)) if policy.sees else rendered(policy)
    return Row(prompt=prompt, completions=EVEN)


@pytest.mark.parametrize("architecture", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3"])
def test_a_forward_pass_is_what_torch_counts(policy_of: PolicyOf, rendered: Rendered, architecture: str) -> None:
    """The rest is the rotary table, one small product per pass."""
    policy = policy_of(architecture)
    row = make_row(policy, rendered)
    with torch.no_grad():
        found = counted(lambda: score(policy, make_layout([row])).logprobs)
    predicted = forward_cost(model_shape(policy), shape_of(row.prompt, row.completions), shared=True)
    assert found == pytest.approx(predicted.total, rel=2e-3)
    assert min(predicted.language, predicted.attention, predicted.head) > 0.002 * predicted.total
    assert (predicted.vision > 0.1 * predicted.total) == policy.sees


@pytest.mark.parametrize(
    ("frozen", "room", "rest"),
    [
        ((), 2**20, 0.03),
        (("visual",), 0, 0.01),
        (("visual",), 2**20, 0.01),
        (("visual", "embed_tokens"), 0, 0.01),
        (("language_model",), 2**20, 0.05),
    ],
)
def test_an_update_is_what_torch_counts(
    policy_of: PolicyOf, rendered: Rendered, frozen: tuple[str, ...], room: int, rest: float
) -> None:
    """After a rollout. Recomputing the head is no useful work; torch spares the gradient of pixels, we do not."""
    policy = policy_of("qwen2_5_vl")
    policy = replace(policy, model=copy.deepcopy(policy.model), vision_cache=VisionCache(room))
    for name, parameter in policy.model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    row = make_row(policy, rendered)
    model, shape = model_shape(policy), shape_of(row.prompt, row.completions)
    assert model.vision is not None
    assert model.vision.cached == ("visual" in frozen and room > 0)
    with torch.no_grad():
        score(policy, make_layout([row]))
    found = counted(lambda: score(policy, make_layout([row])).logprobs)
    predicted = update_cost(model, shape, shared=True).total
    assert found - forward_cost(model, shape, shared=True).head == pytest.approx(predicted, rel=rest)


def test_two_completions_by_hand() -> None:
    """Prompt 3, completions 2 and 1: 6 tokens shared, 9 repeated; causal pairs 6 + (2·3 + 3) + (1·3 + 1)."""
    group = GroupShape(prompt=3, completions=(2, 1))
    assert forward_cost(MODEL, group, shared=True) == Cost(
        language=2 * 100 * 6, attention=4 * 2 * 8 * (6 + 9 + 4), head=2 * 50 * 3
    )
    assert forward_cost(MODEL, group, shared=False) == Cost(
        language=2 * 100 * 9, attention=4 * 2 * 8 * (6 + 9 + 6 + 4), head=2 * 50 * 3
    )
    assert update_cost(MODEL, group, shared=True).total == 3 * forward_cost(MODEL, group, shared=True).total


def test_adapters_and_frozen_parts_cost_less_to_train() -> None:
    """Of linear layers with almost nothing trained: forward, and backward to their input."""
    adapters = replace(MODEL, trained=0.0, head_trained=False)
    group = GroupShape(prompt=3, completions=(2, 1))
    once = forward_cost(adapters, group, shared=True)
    assert update_cost(adapters, group, shared=True) == Cost(
        language=2 * once.language, attention=3 * once.attention, head=2 * once.head
    )


@pytest.mark.parametrize(
    ("family", "settings", "layers", "width"),
    [
        ("llama", {}, 2, 32),
        ("lfm2", {"layer_types": ["conv", "full_attention"]}, 1, 32),
        ("mistral", {"sliding_window": 8}, 2, 32),
        ("falcon_h1", {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 4}, 2, 32),
        ("gptj", {"n_embd": 32, "n_layer": 3, "n_head": 4, "rotary_dim": 4}, 3, 32),
        ("mamba", {"state_size": 4}, 0, 0),
    ],
)
def test_layers_that_attend_are_counted(
    policy_of: PolicyOf, family: str, settings: dict[str, Any], layers: int, width: int
) -> None:
    """Convolutions and recurrent states are none; layers that are both at once are."""
    sizes = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 64,
    }  # fmt: skip
    known = {} if family == "gptj" else sizes
    config = transformers.AutoConfig.for_model(family, **(known | {"vocab_size": 64} | settings))
    model = transformers.AutoModelForCausalLM.from_config(config)
    model.set_output_embeddings(Head(model.get_output_embeddings()))
    found = model_shape(replace(policy_of("qwen3"), model=model))
    assert (found.layers, found.layers and found.width) == (layers, width)


def test_a_group_is_the_sum_of_its_completions_alone() -> None:
    group = GroupShape(prompt=7, completions=(5, 0, 3))
    alone = [forward_cost(MODEL, replace(group, completions=(n,)), shared=True) for n in group.completions]
    assert sum(alone, start=Cost()) == forward_cost(MODEL, group, shared=False)


def test_windows_are_those_of_the_tower(policy_of: PolicyOf, rendered: Rendered) -> None:
    """A picture of 3 x 4 visual tokens in windows of 2 x 2: the lower ones are cut short."""
    policy = policy_of("qwen2_5_vl")
    policy = replace(policy, model=copy.deepcopy(policy.model))
    tower, settings = policy.backbone.visual, policy.inner.config.vision_config
    tower.fullatt_block_indexes = settings.fullatt_block_indexes = [1]
    settings.window_size = tower.window_size = 2 * settings.patch_size * settings.spatial_merge_size
    prompt = rendered(policy, (64, 48))
    assert prompt.image_grid_thw is not None
    assert prompt.image_grid_thw.tolist() == [[1, 6, 8]]
    assert prompt.pixel_values is not None
    with torch.no_grad():
        found = counted(lambda: tower(prompt.pixel_values, grid_thw=prompt.image_grid_thw).last_hidden_state)
    model = model_shape(policy)
    assert model.vision is not None
    assert (model.vision.full_layers, model.vision.windowed_layers, model.vision.window) == (1, 1, 2)
    predicted = forward_cost(model, shape_of(prompt, ()), shared=True).vision
    assert found == pytest.approx(predicted, rel=2e-3)
    everything = replace(model, vision=replace(model.vision, full_layers=2, windowed_layers=0))
    assert predicted < 0.99 * forward_cost(everything, shape_of(prompt, ()), shared=True).vision
