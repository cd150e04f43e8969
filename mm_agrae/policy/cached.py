"""Lines that are decoded token by token with the model's own cache.

Shapes: P lines, T tokens of the longest, R rotary rows, H hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.policy.hugging_face import transformers
from mm_agrae.records import RenderedPrompt

if TYPE_CHECKING:
    from mm_agrae.policy.load import Policy


class Bf16Cache(transformers.DynamicCache):
    """Keys and values in bf16.

    Under autocast, keys leave the rotary embedding in fp32, and the cache would keep both tensors so: twice the memory,
    and cast again at every token. Attention casts them to bf16 in any case, so no number changes.
    """

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        return super().update(key_states.bfloat16(), value_states.bfloat16(), layer_idx)


class CachedLines:
    """Lines side by side, padded on the left, and what the model remembers of them."""

    def __init__(self, policy: Policy, prompts: Sequence[RenderedPrompt], images: dict[str, Any]) -> None:
        """Prefill.

        Args:
            policy: Its model.
            prompts: One per line.
            images: What the backbone is given of their images.
        """
        self.policy = policy
        kind = Bf16Cache if policy.precision == "bf16" else transformers.DynamicCache
        self.cache: Any = kind(config=policy.inner.config)
        inputs = _padded(policy, prompts)
        self.mask = inputs["attention_mask"]
        out = policy.backbone(**inputs, **images, past_key_values=self.cache, use_cache=True)
        self.last: Float[Tensor, "P H"] = out.last_hidden_state[:, -1]

    def step(self, ids: Int[Tensor, " P"], positions: Int[Tensor, " P"]) -> Float[Tensor, "P H"]:
        """Hidden states of one more token per line."""
        self.mask = torch.cat([self.mask, self.mask.new_ones(len(ids), 1)], dim=1)
        out = self.policy.backbone(
            input_ids=ids[:, None],
            attention_mask=self.mask,
            position_ids=positions.expand(3, -1)[..., None] if self.policy.sees else positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        self.last = out.last_hidden_state[:, -1]
        return self.last

    def select(self, lines: Int[Tensor, " N"]) -> None:
        """Go on with these lines, in this order; a line may be there more than once."""
        self.mask, self.last = self.mask[lines], self.last[lines]
        self.cache.reorder_cache(lines)


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
