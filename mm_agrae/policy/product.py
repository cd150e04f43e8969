"""Matrix products whose sums are not rounded to a narrow format."""

from __future__ import annotations

import torch
from torch import Tensor

NARROW = (torch.bfloat16, torch.float16)


def product(left: Tensor, right: Tensor) -> Tensor:
    """left @ right of two matrices or two batches of them, summed and returned in fp32 or wider.

    On CUDA that of bf16 or fp16 has no gradient.
    """
    multiply = torch.mm if left.dim() == 2 else torch.bmm
    if left.dtype not in NARROW:
        return multiply(left, right)
    if left.is_cuda:
        return multiply(left, right, out_dtype=torch.float32)
    return multiply(left.float(), right.float())
