"""The columns of the canonical data set, and a sample as a row of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from mm_agrae.errors import DataError
from mm_agrae.records import IMAGE_MARK, Sample, Tolerance

COLUMNS = (
    "id",
    "question",
    "target",
    "answer_kind",
    "images",
    "options",
    "tolerance",
    "own_prompt",
    "group",
    "solution",
    "family",
    "difficulty",
    "source",
    "metadata",
)


def arrow_schema() -> pa.Schema:
    """The columns with their types; the schema's metadata tells the `datasets` library that images are images."""
    # Imported here because it takes a second and reading a data set does not need it.
    from datasets import Features, Image, List, Value

    text, number = Value("string"), Value("int64")
    kinds = {
        "images": List(Image()),
        "options": List(text),
        "tolerance": {"kind": text, "value": Value("float64")},
        "difficulty": number,
    }
    return Features({name: kinds.get(name, text) for name in COLUMNS}).arrow_schema


def to_row(sample: Sample) -> dict[str, Any]:
    """A sample as a row.

    Raises:
        DataError: If it has no target, or not one image for every "<image>" of its question.
    """
    check_sample(sample)
    row = {name: getattr(sample, name) for name in COLUMNS}
    row["images"] = [{"bytes": data, "path": None} for data in sample.images]
    row["options"] = list(sample.options)
    row["tolerance"] = asdict(sample.tolerance) if sample.tolerance else None
    row["metadata"] = json.dumps(sample.metadata, sort_keys=True)
    return row


def from_row(row: Mapping[str, Any]) -> Sample:
    """The sample of a row whose images are not decoded.

    Raises:
        DataError: If the row has no target, or an image names a path instead of holding the file.
    """
    values = {name: row[name] for name in COLUMNS}
    values["images"] = tuple(_image_bytes(image, row["id"]) for image in row["images"] or ())
    values["options"] = tuple(row["options"] or ())
    values["tolerance"] = Tolerance(**row["tolerance"]) if row["tolerance"] else None
    values["metadata"] = json.loads(row["metadata"] or "{}")
    sample = Sample(**values)
    check_sample(sample)
    return sample


def check_sample(sample: Sample) -> None:
    """Refuse a sample that no run could use.

    Raises:
        DataError: If it has no target, or not one image for every "<image>" of its question.
    """
    if not sample.target:
        raise DataError(
            f"sample {sample.id!r} has no target, but every sample needs a reference answer. "
            "Fill the column 'target', or remove the sample."
        )
    marks = sample.question.count(IMAGE_MARK)
    if marks != len(sample.images):
        raise DataError(
            f"sample {sample.id!r} has {len(sample.images)} images and {marks} marks {IMAGE_MARK} in its question, but "
            "every image needs exactly one mark. Mend the question or the images, or remove the sample."
        )


def content_hash(sample: Sample) -> str:
    """What makes two samples the same problem: question, images and target."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (sample.question.encode(), sample.target.encode(), *sample.images):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.hexdigest()


def _image_bytes(image: Mapping[str, Any] | None, sample_id: str) -> bytes:
    data = image["bytes"] if image else None
    if data is None:
        raise DataError(
            f"sample {sample_id!r} has an image without bytes, but a canonical data set holds the image files "
            "themselves. Write the data set again from its source."
        )
    return bytes(data)
