"""Nested settings by their dotted names, and in what two of them differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"seed": 1}} -> {"train.seed": 1}, in the order of the settings; an empty section has none."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


def changes(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two nested settings, "name: before -> after" with values in JSON, by name."""
    before, after = ({key: json.dumps(value) for key, value in flat(values).items()} for values in (saved, now))
    return [
        f"{key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}"
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    ]
