"""MATH-Vision: competition problems of 16 subjects in five levels, each with one picture.

Columns: id, question, options (list, empty for free form), image (a path), decoded_image, answer, solution, level,
subject. Pictures are named in the text as <image1>, mostly at its end, and some are not named; a problem with several
(<image2> ... up to eight) still has one file that shows them all, so the first name becomes the mark and the others the
words "image 2". Options "A" ... "E" stand in the picture and are not listed. Some free-form answers bear traces of
writing: a trailing space, dollars and a box around them, a form feed where "\\f" of "\\frac" stood. Two answers are a
letter without options; they are choices of what the picture shows.
"""

from __future__ import annotations

import re

from data_processors.conversion.cells import LETTERS, image_of, last_box, literal_list, text_of, with_options
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import IMAGE_MARK, Sample

DESCRIPTION = Description(
    name="mathvision",
    title="MATH-Vision",
    hub_id="MathLLMs/MathVision",
    licence="MIT",
    splits={name: (Part(split=name),) for name in ("test", "testmini")},
    uses=("benchmark",),
    profile="mathvision",
    rows="test 3,040, testmini 304 (part of test)",
    required=("id", "question", "options", "image", "answer", "level", "subject"),
)
_NAME = re.compile(r"<image(\d+)>")


def convert(row: Row) -> Sample | Drop:
    """One row as a choice of five, listed or pictured, or as an open question."""
    values = row.values
    options = tuple(literal_list(values["options"]) or ())
    image = image_of(values.get("decoded_image"), row) or image_of(values["image"], row)
    raw = str(values["answer"] or "")
    target = clean_answer(raw)
    is_choice = bool(options) or bool(re.fullmatch("[A-E]", target))
    if image is None:
        return Drop("no image")
    if not target:
        return Drop("no answer")
    if options and target not in LETTERS[: len(options)]:
        return Drop("answer is none of the options")
    is_pictured = not options or all(option == letter for option, letter in zip(options, LETTERS, strict=False))
    listed = () if is_pictured else tuple(_NAME.sub(r"image \1", option) for option in options)
    subject, level = text_of(values["subject"]), text_of(values["level"])
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(values['id'])}",
        question=with_options(one_picture(text_of(values["question"])), listed),
        target=target,
        answer_kind="choice" if is_choice else "math",
        images=(image,),
        options=listed,
        family=subject,
        difficulty=int(level) if level.isdecimal() else None,
        source=DESCRIPTION.name,
        metadata={
            "subject": subject,
            "level": level,
            "question_type": "multiple choice" if is_choice else "free form",
            **({"answer_raw": raw} if raw != target else {}),
        },
    )


def one_picture(question: str) -> str:
    """The first name of a picture as the mark, the others as words; the mark in front when none is named."""
    if not _NAME.search(question):
        return f"{IMAGE_MARK}{question}"
    return _NAME.sub(r"image \1", _NAME.sub(IMAGE_MARK, question, count=1))


def clean_answer(raw: str) -> str:
    """An answer without what writing it down left: "$\\boxed{7}$" is 7, "\\x0crac{36}{13}" is \\frac{36}{13}."""
    answer = text_of(raw.replace("\x0c", "\\f"))
    answer = re.sub(r"^\$([^$]*)\$$", r"\1", answer).strip()
    if answer.startswith("\\boxed"):
        return last_box(answer) or answer
    return answer
