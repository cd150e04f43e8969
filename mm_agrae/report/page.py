"""A self-contained HTML page from plain records: text, tables and charts, no scripts, no requests, text escaped."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from mm_agrae.report.curves import LegendEntry
from mm_agrae.report.plots import STROKES, Bars, Series
from mm_agrae.store.atomic import write_text

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Badge:
    """A judged cell: "good" and "bad" have their colours, "neutral" has neither; the words carry the verdict."""

    text: str
    kind: Literal["good", "bad", "neutral"] = "neutral"


Cell = str | Badge


@dataclass(frozen=True)
class Table:
    """Rows of cells; the first cell names its row. `numeric` are the columns, from 0, whose figures are aligned right.

    Raises:
        ValueError: If a row has not one cell per header, or `numeric` names a column that is not there.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""
    numeric: Collection[int] = ()

    def __post_init__(self) -> None:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.headers):
                raise ValueError(
                    f'row {index} of table "{self.caption}" has {len(row)} cells, but there are {len(self.headers)} '
                    "headers: pass one cell for each."
                )
        outside = sorted(set(self.numeric) - set(range(len(self.headers))))
        if outside:
            raise ValueError(
                f'table "{self.caption}" has columns 0 to {len(self.headers) - 1}, but numeric names {outside}: '
                "name columns that exist."
            )


@dataclass(frozen=True)
class Chart:
    """A drawing of `report.plots`, which is markup and not escaped; `legend` as `legend_of` makes it."""

    svg: str
    caption: str
    title: str = ""
    legend: Sequence[LegendEntry] = ()


@dataclass(frozen=True)
class Section:
    """A heading with its paragraphs, then tables, then charts; `collapsed` hides all but the heading until opened."""

    title: str
    paragraphs: Sequence[str] = ()
    tables: Sequence[Table] = ()
    charts: Sequence[Chart] = ()
    collapsed: bool = False


def legend_of(series: Sequence[Series | Bars]) -> tuple[LegendEntry, ...]:
    """What every colour and stroke of `line_chart` or `bar_chart` stands for."""
    return tuple(
        LegendEntry(
            colour=one.colour + 1,
            drawn="area" if isinstance(one, Bars) else STROKES[index % len(STROKES)],
            key=one.label,
            meaning="",
        )
        for index, one in enumerate(series)
    )


def render_page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The page as HTML.

    Args:
        title: Heading and name of the page.
        lead: What the page is about, in a sentence or two.
        sections: In order; their titles make the navigation.

    Returns:
        The same text for the same records; needs no other file and no network, serves light and dark schemes.
    """
    page = environment().get_template("page.html.j2").render(title=title, lead=lead, sections=sections)
    return storable(page)


def write_page(path: Path, title: str, lead: str, sections: Sequence[Section]) -> None:
    """`render_page` into a file, whole or not at all; an older one is replaced.

    Raises:
        OSError: If the disk does not take it.
    """
    write_text(Path(path), render_page(title, lead, sections))


def environment() -> Environment:
    """The templates of this folder, with the style sheet as `style`."""
    # Autoescape for every template, whatever its file name: much of what pages show was written by a model.
    templates = Environment(loader=FileSystemLoader(FOLDER), autoescape=True, undefined=StrictUndefined)
    templates.globals["style"] = Markup((FOLDER / "report.css").read_text(encoding="utf-8"))
    templates.filters |= {"slug": slug, "markup": Markup}
    return templates


def storable(page: str) -> str:
    """The page without lone surrogates, which a tokenizer can decode to and no UTF-8 file can hold."""
    return page.encode("utf-8", "replace").decode("utf-8")


def slug(text: str) -> str:
    """ "H4: p < ½" -> "h4-p": letters and digits for an id."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
