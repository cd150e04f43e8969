"""Presets are named points in the product of choices, nothing more: each fills what a recipe leaves out."""

from __future__ import annotations

import math
from typing import Any

# The bounds that each loss takes; None takes none. Those of `clip` depend on the ratio.
LOSS_BOUNDS: dict[str, dict[str, float | None]] = {
    "clip": {"clip_low": 0.2, "clip_high": 0.2},
    "cispo": {"clip_low": None, "clip_high": 4.0},
    "sapo": {"clip_low": None, "clip_high": None},
    "reinforce": {"clip_low": None, "clip_high": None},
}
# A mean over a sequence moves far less than a token, so 0.2 would bound nothing; and 3e-4 would cut every token.
RATIO_BOUNDS: dict[str, dict[str, float | None]] = {
    "token": LOSS_BOUNDS["clip"],
    "sequence": {"clip_low": 3e-4, "clip_high": 4e-4},
    "geometric_mean": {"clip_low": 1 - math.exp(-0.4), "clip_high": math.exp(0.4) - 1},
}

# arXiv 2402.03300: normalise by the group's standard deviation, average tokens within a sequence first.
_GRPO: dict[str, Any] = {
    "baseline": "group",
    "std": "biased",
    "ratio": "token",
    "loss": "clip",
    **LOSS_BOUNDS["clip"],
    "aggregation": "sequence_mean",
    "overlong": "off",
    "dynamic_sampling": False,
    "weighting": (),
}

PRESETS: dict[str, dict[str, Any]] = {
    "grpo": _GRPO,
    # arXiv 2503.20783: no standard deviation, and a constant instead of the length as the divisor.
    "dr_grpo": _GRPO | {"std": "none", "aggregation": "token_sum"},
    # arXiv 2503.14476: more room upwards, every token counts the same, only groups that can teach, long answers cost.
    "dapo": _GRPO | {"clip_high": 0.28, "aggregation": "token_mean", "overlong": "shape", "dynamic_sampling": True},
    # arXiv 2507.18071: the ratio of the sequence, which moves far less than that of a token.
    "gspo": _GRPO | RATIO_BOUNDS["sequence"] | {"ratio": "sequence"},
    # arXiv 2507.20673: log ratios bounded to 0.4 either way, then their geometric mean.
    "gmpo": _GRPO | RATIO_BOUNDS["geometric_mean"] | {"ratio": "geometric_mean"},
    # arXiv 2506.13585: the ratio is a weight, capped at 5, and no token loses its gradient.
    "cispo": _GRPO | LOSS_BOUNDS["cispo"] | {"loss": "cispo", "aggregation": "token_mean"},
    # arXiv 2511.20347: a soft gate in place of bounds.
    "sapo": _GRPO | LOSS_BOUNDS["sapo"] | {"loss": "sapo"},
    # arXiv 2402.14740: the others of the group are the baseline.
    "rloo": _GRPO | {"baseline": "leave_one_out", "std": "none"},
    # arXiv 2501.03262, with the group as the baseline: whitened over the batch.
    "reinforce_pp": _GRPO | {"std": "batch", "aggregation": "token_mean"},
    # arXiv 2506.01347: correct rollouts only, wrong ones only, and both with little weight on the correct ones.
    "psr": _GRPO | {"baseline": "none", "std": "none", "positive_weight": 1.0, "negative_weight": 0.0},
    "nsr": _GRPO | {"baseline": "none", "std": "none", "positive_weight": 0.0, "negative_weight": 1.0},
    "w_reinforce": _GRPO | {"baseline": "none", "std": "none", "positive_weight": 0.1, "negative_weight": 1.0},
    # arXiv 2504.09696: GRPO with that paper's logistic weight of the difficulty, and none of its rewards.
    "grpo_lead": _GRPO | {"weighting": ("grpo_lead",)},
}


def usual_bounds(loss: Any, ratio: Any) -> dict[str, float | None]:
    """The bounds of a loss and a ratio where a recipe names none; nothing for a name that does not exist."""
    bounds = RATIO_BOUNDS if loss == "clip" else LOSS_BOUNDS
    key = ratio if loss == "clip" else loss
    return bounds.get(key, {}) if isinstance(key, str) else {}
