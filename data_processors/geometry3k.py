"""Geometry3K: plane geometry from textbooks (hub id hiyouga/geometry3k).

Columns: images, problem (with one "<image>" per image) and answer; newer revisions also have id, choices and
ground_truth (the letter of the right choice), which go into the metadata. The target is the text of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from data_processors.loading import image_bytes, load_rows
from mm_agrae.errors import DataError
from mm_agrae.records import IMAGE_MARK, Sample

SOURCE = "geometry3k"
FAMILY = "geometry3k"
REQUIRED = ("images", "problem", "answer")
OPTIONAL = ("id", "choices", "ground_truth")


def read(source: str, split: str) -> Iterator[Sample]:
    """The problems of one split, in order.

    Args:
        source: Hub id, parquet file, or folder with parquet files.
        split: "train", "validation" or "test".

    Raises:
        DataError: If a column is missing, an answer is empty, an image has no content, or a row has not one image for
            each "<image>" in its problem.
    """
    for index, row in enumerate(load_rows(source, split, required=REQUIRED)):
        name = f"row {index} of split {split!r}"
        images = tuple(image_bytes(image, name) for image in row["images"] or ())
        marks = row["problem"].count(IMAGE_MARK)
        if marks != len(images):
            raise DataError(
                f"{name} has {len(images)} images and {marks} marks {IMAGE_MARK} in its problem, but every image needs "
                "exactly one mark. Mend the row, or remove it."
            )
        if not row["answer"]:
            raise DataError(f"{name} has no answer, but every problem needs one. Fill it in, or remove the row.")
        yield Sample(
            id=f"{SOURCE}/{split}/{index}",
            question=row["problem"],
            target=row["answer"].strip(),
            images=images,
            family=FAMILY,
            source=SOURCE,
            metadata={key: row[key] for key in OPTIONAL if row.get(key) is not None},
        )
