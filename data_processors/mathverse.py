"""MathVerse: each of 788 problems in five versions that move what is given from the text into the picture.

Columns: sample_index, problem_index, problem_version, question, image, answer, question_type (multi-choice,
free-form), metadata {subject, subfield, source; in some copies the text of a dictionary}, query_wo and query_cot (the
set's own prompts; own_prompt is query_wo), question_for_eval (the whole question in words in every version). The
question of the version Vision Only is "", because the picture shows it. In the configuration testmini_text_only the
image is "". Choices stand in the question as "Choices:\\nA:40°". Some answers of choices are no letter: "(C)", the text
of a choice, two letters; they become letters, or a text where no choice fits. "掳" is a degree sign in the wrong
encoding.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

from data_processors.conversion.cells import LETTERS, image_of, letter_of, lettered_options, text_of
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import IMAGE_MARK, AnswerKind, Sample

DESCRIPTION = Description(
    name="mathverse",
    title="MathVerse",
    hub_id="AI4Math/MathVerse",
    licence="MIT",
    splits={name: (Part(split=name, config=name),) for name in ("testmini", "testmini_text_only")},
    uses=("benchmark",),
    profile="mathverse",
    rows="testmini 3,940 = 788 x 5 versions, testmini_text_only 788",
    required=("sample_index", "problem_version", "question", "image", "answer", "question_type"),
    note="The score is over the five versions; the text-only split is an ablation and no part of it.",
)
SHOWN = "Answer the question that the image shows."
AXES = ("subject", "subfield", "source")


def convert(row: Row) -> Sample | Drop:
    """One row, in its version, as a choice or an open question."""
    values = row.values
    version, raw = text_of(values["problem_version"]), text_of(values["answer"])
    image = image_of(values["image"], row)
    has_image = version.lower().replace("_", " ") != "text only"
    if not raw:
        return Drop("no answer")
    if has_image and image is None:
        return Drop("no image")
    question = _degrees(text_of(values["question"]))
    # The choices of all versions, also of those that only show them.
    _, title, listed = (_degrees(text_of(values.get("question_for_eval"))) or question).rpartition("Choices:")
    options = lettered_options(listed)[1] if title else ()
    is_choice = text_of(values["question_type"]) == "multi-choice"
    target, kind = choice_target(_degrees(raw), options) if is_choice else (_degrees(raw), "math")
    if kind == "choice" and options and target not in LETTERS[: len(options)]:
        if not re.search(rf"{target}\s*[:.]", listed):
            return Drop("answer is none of the choices")
        options = ()
    mark, about = (IMAGE_MARK if has_image else ""), _record(values.get("metadata"))
    query = text_of(values.get("query_wo"))
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(values['sample_index'])}",
        question=f"{mark}{question or SHOWN}",
        target=target,
        answer_kind=kind,
        images=(image,) if has_image and image is not None else (),
        options=options if kind == "choice" else (),
        own_prompt=f"{mark}{_degrees(query)}" if query else None,
        family=text_of(about.get("subject")) or DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={
            **{name: text for name in AXES if (text := text_of(about.get(name)))},
            "version": version,
            "problem": text_of(values.get("problem_index")),
            "question_type": text_of(values["question_type"]),
            **({"answer_raw": raw} if raw != target else {}),
        },
    )


def choice_target(answer: str, options: tuple[str, ...]) -> tuple[str, AnswerKind]:
    """The answer of a multiple-choice row, and its kind.

    "C" and "(C)" are letters, "C\\nD" is several, the text of an option is its letter; anything else, such as a bearing
    that no option holds, stays a text.
    """
    letters = re.findall(r"(?<![A-Za-z])\(?([A-H])\)?(?![A-Za-z])", answer)
    if letters and re.fullmatch(r"[A-H()\s,;]+", answer):
        return (letters[0], "choice") if len(letters) == 1 else (",".join(letters), "choices")
    plain = [_plain(option) for option in options]
    letter = letter_of(_plain(answer), plain)
    return (letter, "choice") if letter else (answer, "math" if re.search(r"\d", answer) else "text")


def _plain(text: str) -> str:
    return re.sub(r"[\s$]", "", text.replace("^\\circ", "°").replace("^{\\circ}", "°"))


def _degrees(text: str) -> str:
    return text.replace("掳", "°")


def _record(cell: Any) -> Mapping[str, Any]:
    """A record, given as one or as the Python literal of one; an empty one for anything else."""
    if isinstance(cell, str) and cell.startswith("{") and len(cell) < 10_000:
        try:
            cell = ast.literal_eval(cell)
        except (ValueError, SyntaxError):
            return {}
    return cell if isinstance(cell, Mapping) else {}
