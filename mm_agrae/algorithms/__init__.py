"""Algorithms as pure functions of a [P, G] matrix: advantage -> weighting -> trust region -> loss.

Each axis is a dict from the name that a recipe uses to a function; any choice on one axis goes with any on the others.
"""

from mm_agrae.algorithms.advantages import ADVANTAGES
from mm_agrae.algorithms.agrae import BASE_STD, WEIGHTINGS
from mm_agrae.algorithms.losses import AGGREGATIONS, LOSSES, TokenLoss, k3
from mm_agrae.algorithms.trust_region import TRUST_REGIONS, ClipBounds

__all__ = [
    "ADVANTAGES",
    "AGGREGATIONS",
    "BASE_STD",
    "LOSSES",
    "TRUST_REGIONS",
    "WEIGHTINGS",
    "ClipBounds",
    "TokenLoss",
    "k3",
]
