"""Geometry3K as multiple choice: the same rows as geometry3k, answered by a letter.

Needs a revision with the columns choices (four texts) and ground_truth (a letter); the answer's text goes into the
metadata. Results on the two forms are not comparable: a guess is right in a quarter of these.
"""

from __future__ import annotations

from data_processors.conversion.cells import LETTERS, images_of, literal_list, one_mark_per_image, text_of, with_options
from data_processors.conversion.description import Description, Drop, Part, Row
from mm_agrae.records import Sample

DESCRIPTION = Description(
    name="geometry3k_choice",
    title="Geometry3K, multiple choice",
    hub_id="hiyouga/geometry3k",
    licence="MIT",
    splits={name: (Part(split=name),) for name in ("train", "validation", "test")},
    uses=("training", "benchmark"),
    profile="generic",
    rows="train 2,101, validation 300, test 601",
    required=("images", "problem", "choices", "ground_truth"),
    note="The rows of geometry3k with the options listed; say which of the two a result is on.",
)


def convert(row: Row) -> Sample | Drop:
    """One row as a choice of its options, which are listed below the question."""
    images = images_of(row.values["images"], row)
    question = one_mark_per_image(text_of(row.values["problem"]), len(images))
    options = tuple(literal_list(row.values["choices"]) or ())
    target = text_of(row.values["ground_truth"]).upper()
    if question is None:
        return Drop("number of image marks is not the number of images")
    if not options:
        return Drop("no choices")
    if len(target) != 1 or target not in LETTERS[: len(options)]:
        return Drop("answer is none of the choices")
    return Sample(
        id=f"{DESCRIPTION.name}/{row.split}/{row.index}",
        question=with_options(question, options),
        target=target,
        answer_kind="choice",
        images=images,
        options=options,
        family=DESCRIPTION.name,
        source=DESCRIPTION.name,
        metadata={"answer_text": text_of(row.values.get("answer")) or options[LETTERS.index(target)]},
    )
