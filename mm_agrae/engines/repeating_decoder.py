"""Decoding with the model's own cache, every prompt repeated for its completions: for models that cannot share.

Shapes: P prompts, G completions per prompt, R rows being decoded, T cached tokens, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.policy.hugging_face import transformers
from mm_agrae.policy.load import Policy
from mm_agrae.policy.vision import image_inputs
from mm_agrae.records import RenderedPrompt


class Bf16Cache(transformers.DynamicCache):
    """Keys and values in bf16.

    Under autocast, keys leave the rotary embedding in fp32, and the cache would keep both tensors so: twice the memory,
    and cast again at every token. Attention casts them to bf16 in any case, so no number changes.
    """

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        return super().update(key_states.bfloat16(), value_states.bfloat16(), layer_idx)


class RepeatingDecoder:
    """See Decoder."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.cache: Any = None
        self.mask = torch.empty(0, 0, dtype=torch.long)

    @property
    def accepts(self) -> bool:
        return len(self.mask) == 0

    def start(self, prompts: Sequence[RenderedPrompt], *, group: int) -> Float[Tensor, "R H"]:
        """The prompts are prefilled once, then their cache is repeated."""
        kind = Bf16Cache if self.policy.precision == "bf16" else transformers.DynamicCache
        self.cache = kind(config=self.policy.inner.config)
        inputs = _padded(self.policy, prompts)
        images = image_inputs(self.policy, [prompt for prompt in prompts if prompt.pixel_values is not None])
        out = self.policy.backbone(**inputs, **images, past_key_values=self.cache, use_cache=True)
        repeat = torch.arange(len(prompts), device=self.policy.device).repeat_interleave(group)
        self.cache.reorder_cache(repeat)
        self.mask = inputs["attention_mask"][repeat]
        return out.last_hidden_state[repeat, -1]

    def step(self, ids: Int[Tensor, " R"], positions: Int[Tensor, " R"]) -> Float[Tensor, "R H"]:
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], dim=1)
        out = self.policy.backbone(
            input_ids=ids[:, None],
            attention_mask=self.mask,
            position_ids=positions.expand(3, -1)[..., None] if self.policy.sees else positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        return out.last_hidden_state[:, -1]

    def keep(self, rows: Sequence[int]) -> None:
        index = torch.tensor(rows, dtype=torch.long, device=self.policy.device)
        self.mask = self.mask[index]
        if rows:
            self.cache.reorder_cache(index)
        else:
            self.cache = None


def _padded(policy: Policy, prompts: Sequence[RenderedPrompt]) -> dict[str, Tensor]:
    """Inputs [P, T] of the prompts, padded on the left."""
    width = max(len(prompt.token_ids) for prompt in prompts)
    num_position_rows = prompts[0].position_ids.shape[0]
    input_ids = torch.full((len(prompts), width), policy.tokenizer.pad_token_id or 0)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    positions = torch.zeros(num_position_rows, len(prompts), width, dtype=torch.long)
    types = torch.zeros_like(mask)
    for index, prompt in enumerate(prompts):
        start = width - len(prompt.token_ids)
        input_ids[index, start:] = torch.tensor(prompt.token_ids)
        mask[index, start:] = 1
        positions[:, index, start:] = prompt.position_ids
        if prompt.mm_token_type_ids is not None:
            types[index, start:] = prompt.mm_token_type_ids
    inputs = {"input_ids": input_ids, "attention_mask": mask}
    inputs["position_ids"] = positions if num_position_rows > 1 else positions[0]
    if policy.sees:
        inputs["mm_token_type_ids"] = types
    return {name: tensor.to(policy.device) for name, tensor in inputs.items()}
