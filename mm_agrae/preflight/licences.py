"""What a data set may be used for, and which benchmarks were made from the sources of which training sets."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from mm_agrae.data.manifest import Origin

# What the parts of a licence's name ask for.
_TERMS: Mapping[str, str] = {
    "nc": "no commercial use",
    "nd": "no adapted versions may be passed on",
    "sa": "adapted versions carry the same licence",
    "gpl": "adapted versions carry the same licence",
}

# Benchmark -> training sets that draw on the same collections, as their papers and cards say. Rewording and redrawing
# hide such problems from a comparison of text and pictures.
SHARED_SOURCES: Mapping[str, tuple[str, ...]] = {
    "amc23": ("deepscaler", "openr1_math", "virl39k"),
    "geometry3k": ("geometry3k_choice", "mathv360k"),
    "geometry3k_choice": ("geometry3k", "mathv360k"),
    "geoqa": ("geoqa_r1v", "mathv360k", "multimodal_open_r1"),
    "math500": ("math", "math12k", "deepscaler", "openr1_math", "virl39k"),
    "mathverse": ("geoqa_r1v", "geometry3k", "mathv360k", "multimodal_open_r1"),
    "mathvista": ("geoqa_r1v", "geometry3k", "clevr_count", "mathv360k", "multimodal_open_r1", "chartqa"),
    "olympiadbench": ("deepscaler", "openr1_math"),
    "we_math": ("we_math2",),
}


def may_train(origin: Origin) -> bool:
    """Whether a data set may be trained on."""
    return "training" in origin.uses


def licence_notes(licence: str) -> Iterator[tuple[str, str]]:
    """What a user must know of a licence, as kind of finding and note."""
    if licence.casefold() in ("", "unknown"):
        yield "unknown_licence", ""
        return
    parts = re.findall(r"[a-z]+", licence.casefold())
    terms = [term for part, term in _TERMS.items() if part in parts]
    if terms:
        yield "licence_terms", f"{licence}: {'; '.join(terms)}"
