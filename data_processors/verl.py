"""A user's own set in the layout of verl: data_source, prompt (chat messages), reward_model, and images.

reward_model.ground_truth is a text, a number, a list of one, or a record {question, target, solution}, as the data of
A-GRAE's authors have it. The tag data_source names the family, so that mixed sets are told apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from data_processors.conversion.cells import last_box, text_of
from data_processors.conversion.description import Drop, Row, own_layout
from data_processors.conversion.messages import plain_answer, read_prompt
from mm_agrae.records import Sample

DESCRIPTION = own_layout(
    "verl",
    "Your own: prompt, reward_model (verl)",
    required=("prompt", "reward_model"),
    note="Columns prompt, reward_model with ground_truth, and where there are any data_source and images.",
)


def convert(row: Row) -> Sample | Drop:
    """One row; the system message and the rule's style go into the metadata."""
    asked = read_prompt(row.values["prompt"], row.values.get("images"), row)
    truth = (row.values["reward_model"] or {}).get("ground_truth")
    answer = _target(truth)
    if isinstance(asked, Drop):
        return asked
    if isinstance(answer, Drop):
        return answer
    solution = text_of(truth.get("solution")) if isinstance(truth, Mapping) else ""
    style = text_of(row.values["reward_model"].get("style"))
    metadata = {"system": asked.system, "style": style, "ability": text_of(row.values.get("ability"))}
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=asked.question,
        target=answer,
        images=asked.images,
        # A worked solution has to end in the boxed target.
        solution=solution if last_box(solution) == answer else None,
        family=text_of(row.values.get("data_source")),
        source=DESCRIPTION.name,
        metadata={name: value for name, value in metadata.items() if value},
    )


def _target(truth: Any) -> str | Drop:
    if isinstance(truth, Mapping):
        truth = truth.get("target")
    if isinstance(truth, (list, tuple)):
        if len(truth) != 1:
            return Drop("ground truth is a list, but not of one")
        truth = truth[0]
    return plain_answer(text_of(truth))
