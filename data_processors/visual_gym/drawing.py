"""A square canvas in pixels of the finished picture, drawn larger and reduced so that edges come out smooth."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import hypot

from PIL import Image, ImageDraw, ImageFont

Point = tuple[float, float]
Colour = tuple[int, int, int]

WHITE: Colour = (255, 255, 255)
INK: Colour = (25, 25, 25)
FAINT: Colour = (222, 222, 222)
MUTED: Colour = (130, 130, 130)
COLOURS: dict[str, Colour] = {
    "red": (220, 38, 38),
    "blue": (37, 99, 235),
    "green": (22, 150, 70),
    "orange": (249, 140, 22),
    "purple": (140, 60, 200),
    "grey": (120, 120, 120),
}


@lru_cache(maxsize=64)
def font(size: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


class Canvas:
    """Points are (x, y) with y downwards, in pixels of the finished picture."""

    def __init__(self, size: int, *, scale: int) -> None:
        """`scale` is how many times larger the canvas is drawn: 1 for pixel-aligned rectangles, 2-4 for slopes."""
        self.size = size
        self._scale = scale
        self._image = Image.new("RGB", (size * scale, size * scale), WHITE)
        self._draw = ImageDraw.Draw(self._image)

    def _at(self, points: Sequence[Point]) -> list[Point]:
        return [(x * self._scale, y * self._scale) for x, y in points]

    def picture(self) -> Image.Image:
        return self._image.reduce(self._scale) if self._scale > 1 else self._image

    def line(self, points: Sequence[Point], *, fill: Colour = INK, width: float = 1.5) -> None:
        self._draw.line(self._at(points), fill=fill, width=max(1, round(width * self._scale)), joint="curve")

    def dashed(self, start: Point, end: Point, *, fill: Colour = MUTED, dash: float = 5) -> None:
        length = hypot(end[0] - start[0], end[1] - start[1])
        count = max(1, round(length / (2 * dash)))
        for step in range(count):
            a, b = step / count, (step + 0.5) / count
            self.line([_between(start, end, a), _between(start, end, b)], fill=fill, width=1)

    def polygon(self, points: Sequence[Point], *, fill: Colour | None = None, outline: Colour | None = INK) -> None:
        if fill is not None:
            self._draw.polygon(self._at(points), fill=fill)
        if outline is not None:
            self.line([*points, points[0], points[1]], fill=outline)

    def rectangle(self, corner: Point, opposite: Point, *, fill: Colour) -> None:
        """Fills whole pixels from `corner` up to, not including, `opposite`."""
        (left, top), (right, bottom) = self._at([corner, opposite])
        self._draw.rectangle((left, top, right - 1, bottom - 1), fill=fill)

    def disc(
        self, centre: Point, radius: float, *, fill: Colour | None, outline: Colour | None = None, width: float = 1.5
    ) -> None:
        self._draw.ellipse(
            self._box(centre, radius), fill=fill, outline=outline, width=max(1, round(width * self._scale))
        )

    def arc(self, centre: Point, radius: float, angles: tuple[float, float], *, width: float = 1.2) -> None:
        """An arc clockwise on the screen from the first angle to the second, in degrees from the x axis."""
        self._draw.arc(self._box(centre, radius), *angles, fill=INK, width=max(1, round(width * self._scale)))

    def sector(self, centre: Point, radius: float, angles: tuple[float, float], *, fill: Colour) -> None:
        self._draw.pieslice(self._box(centre, radius), *angles, fill=fill, outline=WHITE, width=self._scale)

    def text(self, at: Point, words: str, *, size: float, anchor: str = "mm", fill: Colour = INK) -> None:
        """Words with a white rim, so that a line behind them never makes them unreadable.

        The anchor is "l", "m" or "r" and then "m": the left end, the middle or the right end of the words.
        """
        face, x, y = font(size * self._scale), at[0] * self._scale, at[1] * self._scale
        # The font has no minus sign and its hyphen is too short to be read as one: it is drawn, as wide as a plus.
        gap = face.getlength("+")
        widths = [face.getlength(part) for part in words.split("-")]
        x -= (sum(widths) + gap * (len(widths) - 1)) * {"l": 0.0, "m": 0.5, "r": 1.0}[anchor[0]]
        for index, (part, width) in enumerate(zip(words.split("-"), widths, strict=True)):
            if index:
                self._draw.line([(x + 0.15 * gap, y), (x + 0.85 * gap, y)], fill=fill, width=round(1.4 * self._scale))
                x += gap
            rim = 2 * self._scale
            self._draw.text((x, y), part, font=face, anchor="lm", fill=fill, stroke_width=rim, stroke_fill=WHITE)
            x += width

    def plain_text(self, at: Point, words: str, *, size: float, fill: Colour) -> None:
        """Centred words without a rim, for coloured ground."""
        where = (at[0] * self._scale, at[1] * self._scale)
        self._draw.text(where, words, font=font(size * self._scale), anchor="mm", fill=fill)

    def _box(self, centre: Point, radius: float) -> tuple[float, float, float, float]:
        x, y, r = centre[0] * self._scale, centre[1] * self._scale, radius * self._scale
        return x - r, y - r, x + r, y + r


def text_width(words: str, size: float) -> float:
    return float(font(size).getlength(words.replace("-", "+")))


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share
