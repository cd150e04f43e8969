"""Small pure readers of the cells that public data sets share."""

from __future__ import annotations

import ast
import base64
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_processors.conversion.description import Row
from mm_agrae.records import IMAGE_MARK

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# An image that a row names and nobody finds. The conversion drops its row; None is a row without an image.
MISSING_IMAGE = b""
# Longer than any option list; parsing a literal of any length could exhaust memory.
MAX_LITERAL = 100_000

# "\boxed 5" and "\fbox{5}" stand in solutions beside the usual "\boxed{5}". Without braces only a whole number or one
# fraction is taken: of anything longer the end is not known.
_BOX = re.compile(
    r"\\(?:boxed|fbox)\s*(?:(?P<brace>\{)"
    r"|(?P<bare>(?>-?\d+(?:\.\d+)?)(?![\w/^\\{]|,\d)|\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\}))"
)
_DATA_URL = re.compile(r"\s*data:image/[\w.+-]+;base64,")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_ANSWER_TAG = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_HINT = re.compile(r"^\s*Hint:.*?(?:\n|(?=Question:))", re.DOTALL)
_NUMBERED_MARK = re.compile(r"<image[ _]?(\d+)>")
# A letter that opens an option: "A. x", "A: x", "A) x", "(A) x", at the start, after white space or after ";".
_OPTION = re.compile(r"(?:^|(?<=[\s;]))(?:\(([A-Z])\)|([A-Z])(?:[.:)、．：]))[ \t]*")
_OPTIONS_TITLE = re.compile(r"(?:^|\s)(?:choices?|options?)\s*:\s*$", re.IGNORECASE)


def text_of(cell: Any) -> str:
    """A cell as text: None and NaN are "", a whole float loses its ".0", line ends become "\\n", outer space goes."""
    if cell is None or (isinstance(cell, float) and math.isnan(cell)):
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell).replace("\r\n", "\n").replace("\r", "\n").strip()


def image_of(cell: Any, row: Row) -> bytes | None:
    """The encoded image of a cell.

    Args:
        cell: {"bytes", "path"}, raw bytes, a relative path, or a text "data:image/...;base64,..."; None, "" and an
            empty record are no image.
        row: Its row, whose files a path is looked up in.

    Returns:
        None for no image, MISSING_IMAGE for a path that leads nowhere.
    """
    if isinstance(cell, Mapping):
        return bytes(cell["bytes"]) if cell.get("bytes") else image_of(cell.get("path"), row)
    if isinstance(cell, str) and (match := _DATA_URL.match(cell)):
        return base64.b64decode(cell[match.end() :])
    if isinstance(cell, str):
        return (row.files.read(cell) or MISSING_IMAGE) if cell.strip() else None
    return bytes(cell) if cell else None


def images_of(cell: Any, row: Row) -> tuple[bytes, ...]:
    """The encoded images of a cell that holds one image or a list of them; those that are no image are left out."""
    cells = cell if isinstance(cell, (list, tuple)) else [cell]
    return tuple(image for item in cells if (image := image_of(item, row)) is not None)


def literal_list(cell: Any) -> list[str] | None:
    """A list of texts, given as a list or as the Python literal of one; None for anything else."""
    if isinstance(cell, str):
        if len(cell) > MAX_LITERAL or not cell.strip().startswith("["):
            return None
        try:
            cell = ast.literal_eval(cell.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return [text_of(item) for item in cell] if isinstance(cell, (list, tuple)) else None


def answer_tag(text: str) -> str | None:
    """The content of the last <answer> ... </answer>; None when there is none."""
    found = _ANSWER_TAG.findall(text)
    return found[-1].strip() if found else None


def last_box(text: str) -> str | None:
    """The content of the last closed box, braces inside it included; None when there is none."""
    for match in reversed(list(_BOX.finditer(text))):
        content = match["bare"] if match["bare"] else _braced(text, match.end())
        if content is not None:
            return content.strip()
    return None


def has_box(text: str) -> bool:
    """Whether a box is opened anywhere, closed or not."""
    return bool(re.search(r"\\(?:boxed|fbox)\b", text))


def strip_hint(text: str) -> str:
    """A question without the "Hint: ..." line above it and the word "Question:" before it."""
    return _HINT.sub("", text, count=1).strip().removeprefix("Question:").strip()


def numbered_marks(text: str) -> tuple[str, tuple[int, ...]]:
    """Marks with numbers as plain marks.

    "<image1>", "<image 1>" and "<image_1>" become "<image>"; where an image is named again the words "image 1" stand,
    because every image is shown once.

    Returns:
        The text, and the numbers of the images in the order in which they first appear.
    """
    order: list[int] = []

    def plain(match: re.Match[str]) -> str:
        number = int(match[1])
        if number in order:
            return f"image {order.index(number) + 1}"
        order.append(number)
        return IMAGE_MARK

    return _NUMBERED_MARK.sub(plain, text), tuple(order)


def one_mark_per_image(text: str, num_images: int) -> str | None:
    """A question with one "<image>" per image: as it is when they agree, marks in front when it has none.

    Returns:
        None when it has some marks, but not as many as images.
    """
    marks = text.count(IMAGE_MARK)
    if marks == num_images:
        return text
    return IMAGE_MARK * num_images + text if marks == 0 else None


def with_options(question: str, options: Sequence[str]) -> str:
    """A question with its options below it, lettered from A."""
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False)]
    return "\n".join([question, *lines])


def lettered_options(text: str) -> tuple[str, tuple[str, ...]]:
    """Split a text that ends in lettered options.

    "A. x;B. y", "Choices:\\nA:x\\nB:y" and "(A) x (B) y" are options: the last A, and after it B, C ... in their order.
    Letters out of order belong to the text around them, as in "C. the midpoint of E. F".

    Returns:
        What stands before them, without "Choices:", and the texts of the options; the whole text and () when it has
        no two options.
    """
    matches = list(_OPTION.finditer(text))
    letters = [match[1] or match[2] for match in matches]
    for start in (index for index in reversed(range(len(matches))) if letters[index] == "A"):
        run = [matches[start]]
        for match, letter in zip(matches[start + 1 :], letters[start + 1 :], strict=True):
            if letter == LETTERS[len(run)]:
                run.append(match)
        if len(run) > 1:
            ends = [*(match.start() for match in run[1:]), len(text)]
            options = (text[match.end() : end].strip().rstrip(";") for match, end in zip(run, ends, strict=True))
            stem = _OPTIONS_TITLE.sub("", text[: run[0].start()].rstrip()).rstrip()
            return stem, tuple(option.strip() for option in options)
    return text, ()


def letter_of(text: str, options: Sequence[str]) -> str | None:
    """The letter of the first option that is exactly this text; None when there is none."""
    return LETTERS[options.index(text)] if text in options and len(options) <= len(LETTERS) else None


def _braced(text: str, start: int) -> str | None:
    """From `start`, just inside an open brace, up to the brace that closes it."""
    depth = 1
    for match in _BRACE.finditer(text, start):
        depth += (match[0] == "{") - (match[0] == "}")
        if depth == 0:
            return text[start : match.start()]
    return None
