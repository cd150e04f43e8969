"""AIME 2024: 30 competition problems whose answers are whole numbers from 0 to 999.

Two layouts. Rows of a problem: problem, answer (text, padded: "025"), and mostly id, url, year; where the answer
column is missing it is the last box of the solution. Rows of a prompt, as DAPO evaluates (BytedTsinghua-SIA/AIME-2024):
prompt (messages with instructions baked in), reward_model {ground_truth, style}, extra_info {index, raw_problem};
every problem stands there 32 times, so that its 960 rows become 30. Answers are compared as numbers: "025" is 25.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from data_processors.conversion.cells import last_box, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="aime24",
    title="AIME 2024",
    hub_id="HuggingFaceH4/aime_2024",
    licence="unknown",
    splits={"test": (Part(split="train"),)},
    uses=("benchmark",),
    profile="math",
    rows="train 30 (used as test); 960 = 30 x 32 in BytedTsinghua-SIA/AIME-2024",
    required=(),
    note="Its only split is called train on the hub; it is a test set all the same.",
)


def convert(row: Row) -> Sample | Drop:
    """One row of either layout as a question with a whole number for an answer."""
    about = f"{row.values.get('url')} {row.values.get('year')}"
    years = re.findall(r"(?<!\d)(?:19|20)\d\d(?!\d)", about)
    return Drop("not of 2024") if years and "2024" not in years else competition_sample(row, DESCRIPTION.name)


def key(row: Row) -> str:
    """The problem's text: the same problem stands in the DAPO layout 32 times."""
    return problem_of(row.values)


def problem_of(values: Mapping[str, Any]) -> str:
    """The problem without instructions, from whichever column holds it; "" when none does."""
    extra = values.get("extra_info") or {}
    return text_of(values.get("problem") or values.get("question") or extra.get("raw_problem"))


def competition_sample(row: Row, name: str) -> Sample | Drop:
    """A row of an AIME, in either layout, as a sample of the data set of this name."""
    values = row.values
    problem = problem_of(values)
    prompt = values.get("prompt") or []
    answer = values.get("answer")
    if answer is None:
        answer = (values.get("reward_model") or {}).get("ground_truth", last_box(text_of(values.get("solution"))))
    raw = text_of(answer)
    if not problem:
        return Drop("no problem")
    if not re.fullmatch(r"\d{1,3}", raw):
        return Drop("answer is no whole number up to 999")
    metadata = {field: text_of(values[field]) for field in ("id", "url", "year") if values.get(field) is not None}
    return Sample(
        id=f"{name}/{row.split}/{row.index}",
        question=problem,
        target=str(int(raw)),
        answer_kind="integer",
        own_prompt=text_of(prompt[-1]["content"]) if prompt else None,
        family=name,
        source=name,
        metadata={**metadata, **({"answer_raw": raw} if raw != str(int(raw)) else {})},
    )
