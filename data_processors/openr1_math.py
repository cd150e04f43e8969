"""OpenR1-Math-220k: NuminaMath problems with reasoning of a large model.

Columns: problem, solution, answer, problem_type, question_type (math-word-problem, MCQ, proof), source, uuid,
generations and, one per generation, is_reasoning_complete, correctness_math_verify and correctness_llama, and
messages. The lists of booleans can be null or shorter than generations: what is not there counts as false. Proofs
have no answer to compare.
"""

from __future__ import annotations

from typing import Any

from data_processors.conversion.cells import text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from data_processors.conversion.golds import Gold, gold_of, unwrapped
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="openr1_math",
    title="OpenR1-Math-220k",
    hub_id="open-r1/OpenR1-Math-220k",
    licence="Apache-2.0",
    splits={
        "train": (Part(split="train"),),
        "extended": (Part(split="train", config="extended"),),
    },
    uses=("training",),
    profile="math",
    rows="train 93,733, extended about 131,000",
    required=("problem", "answer"),
    note="Holds AMC and AIME problems; metadata say how many generations of a row were verified.",
)


def convert(row: Row) -> Sample | Drop:
    """One row: a choice where it says MCQ and its answer is a letter, else a free-form question."""
    values = row.values
    if values.get("question_type") == "proof":
        return Drop("a proof has no answer to compare")
    question, answer = text_of(values["problem"]), text_of(values["answer"])
    # Outside MCQ a letter is a variable or a point.
    gold = gold_of(question, answer) if values.get("question_type") == "MCQ" else Gold(target=unwrapped(answer))
    if isinstance(gold, Drop):
        return gold
    if not question or not gold.target:
        return Drop("no answer" if question else "no question")
    num_generations = len(values.get("generations") or ())
    complete = flags(values.get("is_reasoning_complete"), num_generations)
    verified = zip(
        flags(values.get("correctness_math_verify"), num_generations),
        flags(values.get("correctness_llama"), num_generations),
        strict=True,
    )
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=question,
        target=gold.target,
        answer_kind=gold.kind,
        options=gold.options,
        family=text_of(values.get("problem_type")),
        source=DESCRIPTION.name,
        metadata={
            "origin": text_of(values.get("source")),
            "num_generations": num_generations,
            "num_complete": sum(complete),
            "num_verified": sum(rule or judge for rule, judge in verified),
        },
    )


def flags(cell: Any, length: int) -> list[bool]:
    """A list of booleans brought to a length; what is missing or null is false."""
    known = [bool(flag) for flag in cell or ()][:length]
    return known + [False] * (length - len(known))
