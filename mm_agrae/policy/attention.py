"""The door to transformers' attention interface: every layer of the language model attends through here.

Whatever a forward pass is given as `attention` decides. It travels as an argument of that pass and not as a global,
because a recomputed layer runs again during the backward pass, when globals of the forward pass are gone.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mm_agrae.policy.hugging_face import transformers

LANGUAGE_ATTENTION = "mm_agrae"


class Attention(Protocol):
    """How the tokens of one forward pass attend to each other."""

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of one layer.

        Args:
            layer: Number of the layer.
            query: [B, H, T, D], rotated.
            key, value: [B, K, T, D]; K divides H.
            scale: Multiplies the scores.

        Returns:
            [B, T, H, D].
        """
        ...


def language_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    attention: Attention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls; without an `attention` of ours it is the stock one."""
    if attention is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    return attention.attend(module.layer_idx, query, key, value, scale), None  # type: ignore[arg-type]


transformers.AttentionInterface.register(LANGUAGE_ATTENTION, language_attention)
transformers.AttentionMaskInterface.register(LANGUAGE_ATTENTION, sdpa_mask)
