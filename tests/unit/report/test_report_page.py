import re
from html.parser import HTMLParser

import pytest

from mm_agrae.report.page import Badge, Chart, Section, Table, legend_of, render_page, write_page
from mm_agrae.report.plots import Bars, Series, bar_chart, line_chart

ATTACK = '</td><script>alert(1)</script><img src=x onerror="alert(1)">{{ 7 * 7 }}'


class Page(HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.data = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.data.append(data)

    def tags(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


CURVES = [Series(label="GRPO", steps=[0, 1], values=[0.1, 0.2], colour=0)]
CHART = Chart(line_chart(CURVES, slug="c", title="t"), "Entropy falls.", legend=legend_of(CURVES))


def test_everything_that_is_given_is_shown_in_order():
    table = Table(("Claim", "Value"), [("one", "1.0"), ("two", Badge("fail", "bad"))], caption="All", numeric={1})
    first = Section("First", ("A paragraph.",), (table,), (CHART,))
    text = " ".join(Page(render_page("Title", "What it is.", [first, Section("Second")])).data)
    words = ["Title", "What it is.", "A paragraph.", "All", "Claim", "one", "1.0", "fail", "GRPO", "Entropy falls."]
    assert re.search(".*".join(map(re.escape, [*words, "Second"])), text, re.DOTALL)


def test_figures_are_aligned_and_verdicts_coloured():
    table = Table(("Claim", "Value", "Verdict"), [("one", "1.0", Badge("fail", "bad"))], numeric={1})
    found = Page(render_page("t", "", [Section("s", tables=(table,))]))
    assert [cell.get("class") for cell in found.tags("td")] == ["num", None]
    assert [cell.get("class") for cell in found.tags("th")] == [None, "num", None, None]
    assert [mark["class"] for mark in found.tags("span")] == ["badge bad"]


def test_foreign_text_never_becomes_markup():
    table = Table((ATTACK, "b"), [(ATTACK, Badge(ATTACK, "good"))], caption=ATTACK)
    drawing = Chart(line_chart(CURVES, slug="c", title=ATTACK), ATTACK, title=ATTACK)
    found = Page(render_page(ATTACK, ATTACK, [Section(ATTACK, (ATTACK,), (table,), (drawing,)), Section("b")]))
    assert not {"script", "img"} & {tag for tag, _ in found.elements}
    assert not [name for _, attributes in found.elements for name in attributes if name.startswith("on")]
    assert "".join(found.data).count(ATTACK) >= 11


def test_the_page_asks_for_nothing_from_outside_and_its_ids_are_unique():
    sections = [Section("Same", charts=(CHART,)), Section("Same"), Section("H4: p < ½")]
    page = render_page("t", "l", sections)
    found = Page(page)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in found.elements}
    assert not re.findall(r"https?://|@import|url\((?!#)", page)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"].removeprefix("#") for attributes in found.tags("a")]
    assert links == ["s1-same", "s2-same", "s3-h4-p"]
    assert set(links) <= set(ids)


def test_collapsed_sections_open_on_demand_and_others_are_open():
    found = Page(render_page("t", "l", [Section("a"), Section("b", collapsed=True)]))
    assert len(found.tags("details")) == 1
    assert "open" not in found.tags("details")[0]


def test_light_and_dark_come_from_the_style_sheet():
    assert "prefers-color-scheme: dark" in render_page("t", "l", [])


def test_a_page_is_written_whole_and_the_same_again(tmp_path):
    path = tmp_path / "new" / "page.html"
    write_page(path, "t", "lone \ud800 surrogate", [Section("s")])
    first = path.read_bytes()
    assert "lone ? surrogate" in first.decode("utf-8")
    write_page(path, "t", "lone \ud800 surrogate", [Section("s")])
    assert path.read_bytes() == first
    assert [file.name for file in path.parent.iterdir()] == ["page.html"]


def test_rows_and_numeric_columns_must_fit_the_headers():
    with pytest.raises(ValueError, match=r'row 1 of table "All" has 1 cells, but there are 2'):
        Table(("a", "b"), [("1", "2"), ("1",)], caption="All")
    with pytest.raises(ValueError, match=r"columns 0 to 1, but numeric names \[2\]"):
        Table(("a", "b"), [("1", "2")], numeric={2})


def test_a_legend_follows_the_strokes_and_areas_that_are_drawn():
    curves = [Series(label=str(i), steps=[0], values=[0.0], colour=i) for i in range(4)]
    assert [entry.drawn for entry in legend_of(curves)] == ["solid", "dashed", "dotted", "solid"]
    bars = [Bars(label="a", values=[0.5], colour=4)]
    (entry,) = legend_of(bars)
    assert (entry.colour, entry.drawn, entry.key) == (5, "area", "a")
    assert "var(--series-5)" in bar_chart(["one"], bars, slug="b", title="t")
