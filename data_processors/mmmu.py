"""MMMU: college problems of 30 subjects, with up to seven pictures each.

One configuration per subject, each with the splits dev, validation and test (answers withheld, "?"). Columns: id
("validation_Math_15"), question with <image 1>, options (the Python literal of a list, apostrophes and <image 2>
inside), explanation, image_1 ... image_7 (mostly null), img_type, answer, topic_difficulty, question_type
(multiple-choice, open), subfield. Pictures are shown in the order in which the question and its options name them; one
named again is not shown again. Options go up to the letter I, and one row has a single option. Three open questions
have several accepted answers, written as the literal of a list, which the rule of MMMU reads: any of them will do.
"""

from __future__ import annotations

from data_processors.conversion.cells import (
    LETTERS,
    image_of,
    literal_list,
    numbered_marks,
    one_mark_per_image,
    text_of,
    with_options,
)
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DISCIPLINES = {
    "Art and Design": ("Art", "Art_Theory", "Design", "Music"),
    "Business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "Science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "Health and Medicine": (
        *("Basic_Medical_Science", "Clinical_Medicine", "Diagnostics_and_Laboratory_Medicine", "Pharmacy"),
        "Public_Health",
    ),
    "Humanities and Social Science": ("History", "Literature", "Psychology", "Sociology"),
    "Technology and Engineering": (
        *("Agriculture", "Architecture_and_Engineering", "Computer_Science", "Electronics", "Energy_and_Power"),
        *("Materials", "Mechanical_Engineering"),
    ),
}
DISCIPLINE_OF = {subject: discipline for discipline, subjects in DISCIPLINES.items() for subject in subjects}
SUBJECTS = tuple(sorted(DISCIPLINE_OF))
DESCRIPTION = Description(
    name="mmmu",
    title="MMMU",
    hub_id="MMMU/MMMU",
    licence="Apache-2.0",
    splits={
        name: tuple(Part(split=name, config=subject) for subject in SUBJECTS) for name in ("dev", "validation", "test")
    },
    uses=("benchmark",),
    profile="mmmu",
    rows="dev 150, validation 900, test 10,500 (answers withheld)",
    required=("id", "question", "options", "image_1", "answer", "question_type"),
)
DIFFICULTIES = {"Easy": 1, "Medium": 2, "Hard": 3}
MAX_IMAGES = 7


def convert(row: Row) -> Sample | Drop:
    """One row as a choice, or as an open question with a short answer."""
    subject = subject_of(text_of(row.values["id"])) or text_of(row.part.config)
    if text_of(row.values["question_type"]) == "open":
        return _open_sample(row, subject)
    return choice_sample(row, DESCRIPTION.name, subject)


def choice_sample(row: Row, name: str, subject: str) -> Sample | Drop:
    """A multiple-choice row of MMMU or MMMU-Pro, as a sample of the data set of this name."""
    options = literal_list(row.values["options"])
    target = text_of(row.values["answer"])
    if target in ("", "?"):
        return Drop("answer is withheld")
    if not options:
        return Drop("options cannot be read")
    if len(target) != 1 or target not in LETTERS[: len(options)]:
        return Drop("answer is none of the options")
    placed = place_images(with_options(text_of(row.values["question"]), options), row)
    if isinstance(placed, Drop):
        return placed
    question, images = placed
    return Sample(
        id=f"{name}/{row.split}/{text_of(row.values['id'])}",
        question=question,
        target=target,
        answer_kind="choice",
        images=images,
        # An option that is a picture keeps the name of its picture: "<image 2>" is no mark.
        options=tuple(options),
        family=subject,
        difficulty=DIFFICULTIES.get(text_of(row.values.get("topic_difficulty"))),
        source=name,
        metadata=axes(row, subject),
    )


def place_images(text: str, row: Row) -> tuple[str, tuple[bytes, ...]] | Drop:
    """A text with plain marks, and its images in the order of the marks; in front of it when it names none."""
    marked, order = numbered_marks(text)
    cells = [row.values.get(f"image_{number}") for number in order or range(1, MAX_IMAGES + 1)]
    images = tuple(image for cell in cells if (image := image_of(cell, row)) is not None)
    question = one_mark_per_image(marked, len(images))
    return Drop("question names an image that the row has not") if question is None else (question, images)


def subject_of(row_id: str) -> str:
    """ "validation_Basic_Medical_Science_7" is of Basic_Medical_Science; "" for an id without a known subject."""
    subject = "_".join(row_id.split("_")[1:-1])
    return subject if subject in SUBJECTS else ""


def axes(row: Row, subject: str) -> dict[str, str]:
    """What results are broken down by, and scored by: the discipline of the subject."""
    found = {name: text_of(row.values.get(name)) for name in ("subfield", "topic_difficulty", "question_type")}
    return {"subject": subject, "discipline": DISCIPLINE_OF.get(subject, "")} | {
        name: text for name, text in found.items() if text
    }


def _open_sample(row: Row, subject: str) -> Sample | Drop:
    raw = text_of(row.values["answer"])
    if raw in ("", "?"):
        return Drop("answer is withheld")
    placed = place_images(text_of(row.values["question"]), row)
    if isinstance(placed, Drop):
        return placed
    question, images = placed
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{text_of(row.values['id'])}",
        question=question,
        target=raw,
        answer_kind="text",
        images=images,
        family=subject,
        difficulty=DIFFICULTIES.get(text_of(row.values.get("topic_difficulty"))),
        source=DESCRIPTION.name,
        metadata=axes(row, subject),
    )
