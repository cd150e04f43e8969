"""Presets are named pairs of advantage and aggregation, nothing more."""

from __future__ import annotations

PRESETS: dict[str, dict[str, str]] = {
    # arXiv 2402.03300: normalise by the group's standard deviation, average tokens within a sequence first.
    "grpo": {"advantage": "grpo", "aggregation": "sequence_mean"},
    # arXiv 2503.20783: no standard deviation, and a constant instead of the length as the divisor.
    "dr_grpo": {"advantage": "dr_grpo", "aggregation": "token_sum"},
}
