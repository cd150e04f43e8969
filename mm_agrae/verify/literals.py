"""Numbers and lists that are written as Python writes them, read without running anything."""

from __future__ import annotations

import ast
import math
import re
from decimal import Decimal

from mm_agrae.verify.normalise import MAX_CHARS

_FLOAT = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?")


def plain_number(text: str) -> Decimal | None:
    """The value of digits with a point and a power of ten; None for anything else, and beyond what floats hold."""
    shown = text.strip()
    if len(shown) > MAX_CHARS or not _FLOAT.fullmatch(shown):
        return None
    value = Decimal(shown)
    return value if math.isfinite(float(value)) else None


def literal_list(text: str) -> list[str] | None:
    """The items of a list that is written as a Python literal, as text; None for anything else."""
    shown = text.strip()
    if len(shown) > MAX_CHARS or not (shown.startswith("[") and shown.endswith("]")):
        return None
    try:
        found = ast.literal_eval(shown)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None
    return [str(one) for one in found] if isinstance(found, list) else None
