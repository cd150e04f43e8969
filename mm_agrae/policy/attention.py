"""The door to transformers' attention interface: every layer of the language model attends through here.

Whatever a forward pass is given as `attention` decides. It travels as an argument of that pass and not as a global,
because a recomputed layer runs again during the backward pass, when globals of the forward pass are gone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from mm_agrae.policy.call import Call
from mm_agrae.policy.cpu_attention import Blocks
from mm_agrae.policy.cuda_attention import Packed
from mm_agrae.policy.grouped import attend
from mm_agrae.policy.hugging_face import transformers

LANGUAGE_ATTENTION = "mm_agrae"
# The name holds "flash", by which transformers knows that all images of a batch go into one call.
VISION_ATTENTION = "mm_agrae_flash_vision"


def vision_attention_of(device: torch.device) -> str:
    """How a vision tower attends on a device; on a CPU a call per image or window is as fast as one for all."""
    return "sdpa" if device.type == "cpu" else VISION_ATTENTION


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


@dataclass(frozen=True)
class Recorder:
    """Attends as told, and hands layer, keys and values [B, K, T, D] to `keep`."""

    attention: Attention
    keep: Callable[[int, Tensor, Tensor], None]

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """See Attention."""
        self.keep(layer, key, value)
        return self.attention.attend(layer, query, key, value, scale)


def no_mask(ids: Tensor) -> Tensor:
    """What stands in place of a mask where an Attention decides.

    Four dimensions keep transformers from making a mask of its own, which would cut a row at every position that does
    not follow the one before.
    """
    return ids.new_zeros(1, 1, 1, 1, dtype=torch.bool)


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
    # Under autocast the rotary embedding may leave query and key in fp32; values come straight from a linear layer.
    query, key = query.to(value.dtype), key.to(value.dtype)
    return attention.attend(module.layer_idx, query, key, value, scale), None  # type: ignore[arg-type]


def vision_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of a vision tower within every image or window, in one call where a loop would make one of each.

    Args:
        module: Not used.
        query, key, value: [1, H, N, D], patches of all images.
        attention_mask: Not used; lengths say it all.
        scaling: Multiplies the scores.
        cu_seq_lens_q: int32 running totals of the patches of each image or window, from 0.
        max_length_q: Patches of the largest.
        kwargs: What transformers hands on to every layer; the language model's `attention` may be among it.

    Returns:
        [1, N, H, D].
    """
    whole = slice(0, query.shape[2])
    call: Call
    if query.device.type == "cpu":
        sizes = [(length, length) for length in cu_seq_lens_q.diff().tolist()]
        call = Blocks.of(sizes, queries=whole, keys=whole, causal=False)
    else:
        # Made anew by every layer: nothing of it is computed here, or, but for fp32's kernel, anywhere else.
        call = Packed(
            queries=whole, keys=whole, query_ends=cu_seq_lens_q, key_ends=cu_seq_lens_q,
            longest_query=max_length_q, longest_key=max_length_q, causal=False,
        )  # fmt: skip
    query, key, value = (x.squeeze(0).transpose(0, 1).to(value.dtype) for x in (query, key, value))
    return attend(query, key, value, (call,), scaling).unsqueeze(0), None


transformers.AttentionInterface.register(LANGUAGE_ATTENTION, language_attention)
transformers.AttentionMaskInterface.register(LANGUAGE_ATTENTION, sdpa_mask)
transformers.AttentionInterface.register(VISION_ATTENTION, vision_attention)
