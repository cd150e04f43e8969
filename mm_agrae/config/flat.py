"""Nested settings by their dotted names, and in what two of them differ."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"train": {"seed": 1}} -> {"train.seed": 1}, in the order of the settings; an empty section is a value."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        inside = isinstance(value, Mapping) and value
        found |= flat(value, f"{prefix}{key}.") if inside else {f"{prefix}{key}": value}
    return found


def changed_settings(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two nested settings, "name: before -> after" with values in JSON, by name.

    Of a section that was filled or emptied, what stands in it is named and no more.
    """
    before, after = (
        {key: json.dumps(value) for key, value in flat(values).items() if value != {}} for values in (saved, now)
    )
    return [
        f"{key}: {before.get(key, 'not set')} -> {after.get(key, 'not set')}"
        for key in sorted(before | after)
        if before.get(key) != after.get(key)
    ]
