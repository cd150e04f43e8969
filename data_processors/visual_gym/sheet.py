"""A contact sheet: problems of families and levels side by side, to look at before training on them."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap

from PIL import Image, ImageDraw

from data_processors.visual_gym.drawing import INK, font
from data_processors.visual_gym.families import DEFAULT_SIZE, expand_families, make_problem
from data_processors.visual_gym.problem import DIFFICULTIES
from mm_agrae.data.images import open_image
from mm_agrae.records import IMAGE_MARK, Sample

GAP = 8
LINE = 13
LINES = 9
SPELLED = str.maketrans({"π": "pi", "²": "^2", "≈": "=~"})  # the font lacks these
MIN_COLUMN = 150


def contact_sheet(
    families: Sequence[str],
    difficulties: Sequence[int] = DIFFICULTIES,
    size: int = DEFAULT_SIZE,
    seed: int = 0,
) -> Image.Image:
    """One row per family and one column per difficulty: the picture at its own size, the question and the target.

    Raises:
        DataError: If a family or difficulty is unknown, or the size is below a family's minimum.
    """
    names = expand_families(families)
    width, height = max(size, MIN_COLUMN) + GAP, size + GAP + LINE * LINES
    sheet = Image.new("RGB", (width * len(difficulties), height * len(names)), (235, 235, 235))
    for row, name in enumerate(names):
        for column, difficulty in enumerate(difficulties):
            sample = make_problem(name, difficulty, seed, size=size)
            _paste(sheet, sample, (column * width, row * height), width - GAP)
    return sheet


def _paste(sheet: Image.Image, sample: Sample, corner: tuple[int, int], width: int) -> None:
    x, y = corner
    picture = open_image(sample.images[0], sample.id)
    sheet.paste(picture, (x, y))
    question = sample.question.removeprefix(IMAGE_MARK).splitlines()
    words = [f"{sample.family} {sample.difficulty}: {question[0]}", "   ".join(question[1:]), f"{sample.solution}"]
    words = [part.translate(SPELLED) for part in words]
    lines = [line for part in words for line in wrap(part, max(20, width // 6))]
    ImageDraw.Draw(sheet).multiline_text((x + 2, y + picture.height + 2), "\n".join(lines), fill=INK, font=font(11))
