"""Small data sets on disk for the tests of this folder."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from PIL import Image, ImageDraw

from mm_agrae.data.dataset import write_dataset
from mm_agrae.data.images import encode_png
from mm_agrae.data.manifest import Origin
from mm_agrae.preflight.check import Report, check
from mm_agrae.records import AnswerKind, Sample
from mm_agrae.verify import VerifierPool

CLEAN = Origin(processor="own", licence="MIT")


def chart(heights: Sequence[int], *, width: int = 200) -> Image.Image:
    """A bar chart with bars of these heights in pixels, at most 150."""
    picture = Image.new("RGB", (width, 160), "white")
    draw = ImageDraw.Draw(picture)
    step = (width - 20) // len(heights)
    for index, height in enumerate(heights):
        left = 15 + index * step
        draw.rectangle((left, 155 - height, left + step - 8, 155), fill="steelblue")
    draw.line((10, 5, 10, 155, width - 5, 155), fill="black", width=2)
    return picture


def png(heights: Sequence[int]) -> bytes:
    return encode_png(chart(heights))


def jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, format="JPEG", quality=quality)
    return buffer.getvalue()


def sample(
    id_: str,
    question: str,
    target: str = "7",
    *,
    images: Sequence[bytes] = (),
    kind: AnswerKind = "math",
    options: Sequence[str] = (),
) -> Sample:
    return Sample(
        id=id_,
        question="<image>" * len(images) + question,
        target=target,
        images=tuple(images),
        answer_kind=kind,
        options=tuple(options),
    )


def write(folder: Path, *, origin: Origin = CLEAN, **splits: Sequence[Sample]) -> Path:
    write_dataset(splits, folder, source="test", seed=0, origin=origin)
    return folder


def report_on(*training: Path, against: Sequence[Path] = ()) -> Report:
    with VerifierPool(num_workers=1) as pool:
        return check(training, against, budget=None, pool=pool)


def ids(report: Report, kind: str) -> list[tuple[str, tuple[str, ...]]]:
    """Ids of the rows of one kind of finding, each with those of its partners."""
    return [(found.place.id, tuple(other.id for other in found.partners)) for found in report.findings.of(kind)]
