"""Images of prompts -> what the backbone is given of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt


def image_inputs(policy: Policy, pictured: Sequence[RenderedPrompt]) -> dict[str, Any]:
    """Keyword arguments of the backbone for the images of these prompts, in their order; none without prompts."""
    if not pictured:
        return {}
    pixels = [prompt.pixel_values for prompt in pictured if prompt.pixel_values is not None]
    grids = [prompt.image_grid_thw for prompt in pictured if prompt.image_grid_thw is not None]
    return {
        "pixel_values": torch.cat(pixels).to(policy.device, non_blocking=True),
        "image_grid_thw": torch.cat(grids).to(policy.device, non_blocking=True),
    }
