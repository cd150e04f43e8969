"""DAPO-Math-17k: competition problems whose answers are integers.

Columns: data_source, prompt (one chat message with an instruction before and after the problem), ability,
reward_model (ground_truth, style), extra_info (index). Every prompt is repeated about 100 times, so rows with one
prompt are copies. The processed layout (open-r1/DAPO-Math-17k-Processed; configurations all, en, cn) has the bare
problem in prompt, the answer in solution, and the chat message in source_prompt.
"""

from __future__ import annotations

import re
from typing import Any

from data_processors.conversion.cells import text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="dapo_math",
    title="DAPO-Math-17k",
    hub_id="BytedTsinghua-SIA/DAPO-Math-17k",
    licence="Apache-2.0",
    splits={
        "train": (Part(split="train", files=("data/*.parquet",)),),
        **{config: (Part(split="train", config=config),) for config in ("all", "en", "cn")},
    },
    uses=("training",),
    profile="dapo",
    rows="train 1,791,700 (about 17,400 different)",
    required=("prompt", "reward_model"),
    note="The splits all, en and cn lie in open-r1/DAPO-Math-17k-Processed: name that as the source.",
)
_BEFORE = re.compile(r"^Solve the following math problem step by step\.[^\n]*\n+")
_AFTER = re.compile(r"\n+Remember to put your answer on its own line after \"Answer:\"\.?\s*$")


def convert(row: Row) -> Sample | Drop:
    """One row: the bare problem as the question, the whole message as the data set's own prompt."""
    bare = row.values["prompt"] if isinstance(row.values["prompt"], str) else None
    message = user_words(row.values.get("source_prompt") if bare is not None else row.values["prompt"])
    question = _AFTER.sub("", _BEFORE.sub("", message if bare is None else text_of(bare))).strip()
    if not question:
        return Drop("no question")
    target = text_of((row.values["reward_model"] or {}).get("ground_truth"))
    if not re.fullmatch(r"-?\d+", target):
        return Drop("answer is no integer")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=target,
        answer_kind="integer",
        own_prompt=message or None,
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
    )


def key(row: Row) -> str:
    """Rows with one prompt are copies of each other."""
    prompt = row.values["prompt"]
    return text_of(prompt) if isinstance(prompt, str) else user_words(prompt)


def user_words(messages: Any) -> str:
    """What the user says in a list of chat messages; "" for anything else."""
    if not isinstance(messages, (list, tuple)):
        return ""
    return "\n".join(text_of(message.get("content")) for message in messages if message.get("role") == "user")
