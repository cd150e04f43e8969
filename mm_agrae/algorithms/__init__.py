"""Algorithms as pure functions of a [P, G] matrix: advantage -> weighting -> trust region -> loss.

Each axis is a dict from the name that a recipe uses to a function.
"""

from collections.abc import Callable

from torch import Tensor

from mm_agrae.algorithms.ablations import easy_focused, hard_focused, negative_dominant, positive_dominant
from mm_agrae.algorithms.advantages import ADVANTAGES
from mm_agrae.algorithms.aggregation import AGGREGATIONS
from mm_agrae.algorithms.agrae import agrae, agrae_group_level, agrae_sample_level
from mm_agrae.algorithms.grpo_lead import grpo_lead
from mm_agrae.algorithms.hadw import ANCHORS, AnchorState, hadw
from mm_agrae.algorithms.losses import LOSSES, TokenLoss, Tokens, k3
from mm_agrae.algorithms.trust_region import TRUST_REGIONS, ClipBounds

WEIGHTINGS: dict[str, Callable[..., Tensor]] = {
    "agrae": agrae,
    "agrae_sample_level": agrae_sample_level,
    "agrae_group_level": agrae_group_level,
    "hadw": hadw,
    "grpo_lead": grpo_lead,
    "positive_dominant": positive_dominant,
    "negative_dominant": negative_dominant,
    "hard_focused": hard_focused,
    "easy_focused": easy_focused,
}

__all__ = [
    "ADVANTAGES",
    "AGGREGATIONS",
    "ANCHORS",
    "LOSSES",
    "TRUST_REGIONS",
    "WEIGHTINGS",
    "AnchorState",
    "ClipBounds",
    "TokenLoss",
    "Tokens",
    "k3",
]
