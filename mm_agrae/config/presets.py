"""Presets are named points in the product of algorithm axes, nothing more."""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    # arXiv 2402.03300: normalise by the group's standard deviation, average tokens within a sequence first.
    "grpo": {"advantage": "grpo", "aggregation": "sequence_mean", "clip_low": 0.2, "clip_high": 0.2},
    # arXiv 2503.20783: no standard deviation, and a constant instead of the length as the divisor.
    "dr_grpo": {"advantage": "dr_grpo", "aggregation": "token_sum", "clip_low": 0.2, "clip_high": 0.2},
}
