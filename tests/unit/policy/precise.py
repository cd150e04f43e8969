"""Models that show what attention is wrong about."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch

from mm_agrae.policy.load import Policy


def precise(policy: Policy) -> Policy:
    """A float64 copy whose attention looks at something: random weights of the usual size attend evenly."""
    model = copy.deepcopy(policy.model).double()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "qkv")):
                parameter.mul_(3)
    return replace(policy, model=model)
