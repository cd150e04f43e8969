"""A contact sheet of canonical rows: picture, question, options, target and kind, for a person to check."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from textwrap import wrap

from PIL import Image, ImageDraw, ImageFont

from mm_agrae.data.images import open_image
from mm_agrae.records import Sample

WIDTH, PICTURE_HEIGHT, GAP = 420, 190, 10
LINE, MAX_LINES = 15, 22
CHARS = 62
COLUMNS = 4
GROUND, INK = (235, 235, 235), (20, 20, 20)


def contact_sheet(samples: Sequence[Sample], *, columns: int = COLUMNS) -> Image.Image:
    """One cell per sample, row by row, each row as high as its highest cell. Long texts are cut and end in "...".

    Args:
        samples: What to show, at least one.
        columns: Cells side by side.
    """
    cells = [_cell(sample) for sample in samples]
    columns = min(columns, len(cells))
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    heights = [max(cell.height for cell in row) for row in rows]
    sheet = Image.new("RGB", (GAP + (WIDTH + GAP) * columns, GAP + sum(heights) + GAP * len(rows)), GROUND)
    for number, row in enumerate(rows):
        for column, cell in enumerate(row):
            sheet.paste(cell, (GAP + (WIDTH + GAP) * column, GAP + sum(heights[:number]) + GAP * number))
    return sheet


def _cell(sample: Sample) -> Image.Image:
    """The pictures side by side, reduced to fit and never enlarged, and the words below them."""
    room = (WIDTH - 2 * GAP) // max(1, len(sample.images))
    pictures = [open_image(data, sample.id) for data in sample.images]
    for picture in pictures:
        picture.thumbnail((room - GAP, PICTURE_HEIGHT))
    top = max((picture.height + GAP for picture in pictures), default=0) + GAP
    lines = _lines(sample)
    cell = Image.new("RGB", (WIDTH, top + LINE * len(lines) + GAP), "white")
    for index, picture in enumerate(pictures):
        cell.paste(picture, (GAP + room * index, GAP))
    draw = ImageDraw.Draw(cell)
    for index, line in enumerate(lines):
        draw.text((GAP, top + LINE * index), line, fill=INK, font=_font())
    return cell


def _lines(sample: Sample) -> list[str]:
    tolerance = f", {sample.tolerance.kind} {sample.tolerance.value:g}" if sample.tolerance else ""
    parts = [sample.id, *sample.question.splitlines()]
    if sample.options:
        parts.append("options: " + " | ".join(sample.options))
    parts += [f"target: {sample.target}", f"kind: {sample.answer_kind}{tolerance}, {len(sample.images)} images"]
    if sample.group:
        parts.append(f"group: {sample.group}")
    if sample.own_prompt:
        parts.append(f"own prompt: {' '.join(sample.own_prompt.split())}")
    lines = [line for part in parts for line in wrap(part, CHARS) or [""]]
    return lines if len(lines) <= MAX_LINES else [*lines[: MAX_LINES - 1], "..."]


@cache
def _font() -> ImageFont.FreeTypeFont:
    # The font that comes with matplotlib has Greek letters, degree signs and roots; Pillow's own has none of them.
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), 12)
