"""A raw row to a checked sample or a reason to drop it, and which rows are repeats of earlier ones."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from data_processors.conversion.cells import MISSING_IMAGE
from data_processors.conversion.description import Drop, Processor, Row
from data_processors.conversion.files import MemberError
from data_processors.conversion.sources import Source
from mm_agrae.data.images import open_image
from mm_agrae.errors import DataError
from mm_agrae.records import IMAGE_MARK, Sample

REPEATED_ROW = "repeats an earlier row"
REPEATED_ID = "has the id of an earlier row"
# What a processor raises over a row that is not as its data set describes.
ROW_ERRORS = (TypeError, KeyError, IndexError, ValueError, AttributeError)


def convert_row(processor: Processor, row: Row) -> Sample | Drop:
    """Convert a row and refuse what no run could use: no answer, a mark too few, an image that cannot be decoded.

    A row that its processor stumbles over is dropped with the name of the error: one odd row among a million must not
    end the conversion, and the counts show it.
    """
    try:
        result = processor.convert(row)
    except MemberError as error:
        return Drop(str(error))
    except ROW_ERRORS as error:
        if isinstance(error, DataError):
            raise
        return Drop(f"not a row of this data set ({type(error).__name__})")
    return result if isinstance(result, Drop) else _checked(result)


def _checked(sample: Sample) -> Sample | Drop:
    if not sample.target.strip():
        return Drop("no answer")
    if sample.question.count(IMAGE_MARK) != len(sample.images):
        return Drop("number of image marks is not the number of images")
    if sample.own_prompt is not None and sample.own_prompt.count(IMAGE_MARK) != len(sample.images):
        return Drop("number of image marks in its own prompt is not the number of images")
    if MISSING_IMAGE in sample.images:
        return Drop("image file is missing")
    if not _is_unicode(sample):
        return Drop("text is not valid Unicode")
    for image in sample.images:
        try:
            open_image(image, sample.id)
        except DataError:
            return Drop("image cannot be decoded")
    return sample


def _is_unicode(sample: Sample) -> bool:
    """Whether no text holds half of a surrogate pair, which JSON can spell and no file can store."""
    texts = {name: value for name, value in vars(sample).items() if name not in ("images", "tolerance")}
    try:
        json.dumps(texts, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass
class Repeats:
    """Tells the first of several copies from the later ones. Holds 16 bytes for each that is new."""

    _seen: set[bytes] = field(default_factory=set)

    def is_new(self, key: str) -> bool:
        digest = hashlib.blake2b(key.encode(), digest_size=16).digest()
        if digest in self._seen:
            return False
        self._seen.add(digest)
        return True


def is_repeat(processor: Processor, row: Row, seen: Repeats) -> bool:
    """Whether an earlier row has the same key. A row whose key cannot be made repeats nothing."""
    if not processor.key:
        return False
    try:
        return not seen.is_new(processor.key(row))
    except ROW_ERRORS:
        return False


def read_samples(processor: Processor, source: Source, split: str, drops: Counter[str]) -> Iterator[Sample]:
    """The samples of one split in order, one at a time.

    Args:
        processor: The data set.
        source: Its files.
        split: Our name of the split.
        drops: Counts the dropped rows by reason while the samples are read.
    """
    rows, ids = Repeats(), Repeats()
    for row in source.rows(split):
        if is_repeat(processor, row, rows):
            drops[REPEATED_ROW] += 1
            continue
        result = convert_row(processor, row)
        if isinstance(result, Drop):
            drops[result.reason] += 1
        elif not ids.is_new(result.id):
            drops[REPEATED_ID] += 1
        else:
            yield result
