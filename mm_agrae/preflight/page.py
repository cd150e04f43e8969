"""check.html for people, check.json for programs, and a few printed lines."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mm_agrae.preflight.check import Checked, Report
from mm_agrae.preflight.findings import KINDS, Finding, Place, Severity
from mm_agrae.preflight.lengths import bin_width, binned
from mm_agrae.preflight.pictures import (
    MAX_ASPECT,
    MAX_LONG_DISTANCE,
    MAX_SHORT_DISTANCE,
    MIN_CONTRAST,
    MIN_SIDE,
)
from mm_agrae.preflight.repeats import MAX_TEMPLATE
from mm_agrae.preflight.texts import LONG_QUESTION
from mm_agrae.report.page import Badge, Cell, Chart, Section, Table, legend_of, write_page
from mm_agrae.report.plots import NUM_COLOURS, Bars, bar_chart
from mm_agrae.store.atomic import write_json

FORMAT_VERSION = 1
MAX_SHOWN = 50
_BADGE: dict[Severity, Badge] = {
    "refused": Badge("refused", "bad"),
    "fault": Badge("fault", "bad"),
    "note": Badge("note", "neutral"),
}
LEAD = (
    "What can be wrong with data sets before anything is trained or measured on them. Refused: may not be used as it "
    "was given. Fault: should be mended or removed. Note: for you to judge."
)


def write_check(out: Path, report: Report) -> None:
    """Write check.html and check.json into a folder.

    Raises:
        OSError: If the disk does not take them.
    """
    write_json(out / "check.json", as_json(report))
    sections = [_sets(report), _overview(report), *_kinds(report), *_tokens(report), _method()]
    write_page(out / "check.html", "Data check", LEAD, sections)


def as_json(report: Report) -> dict[str, Any]:
    """The report as JSON values; keys stay as they are within one format_version."""
    return {
        "format_version": FORMAT_VERSION,
        "refused": report.findings.refused,
        "sets": [_set_json(one, report) for one in report.sets],
        "findings": report.findings.as_json(),
        "thresholds": {
            "min_side_pixels": MIN_SIDE,
            "max_aspect": MAX_ASPECT,
            "max_bits_of_64": MAX_SHORT_DISTANCE,
            "max_bits_of_256": MAX_LONG_DISTANCE,
            "min_contrast": MIN_CONTRAST,
            "long_question_words": LONG_QUESTION,
            "max_template_rows": MAX_TEMPLATE,
            "max_prompt_tokens": report.budget.max_prompt_tokens if report.budget else None,
        },
    }


def summary(report: Report) -> Iterator[str]:
    """One line per data set, then one per kind that was found."""
    for one in report.sets:
        licence = f", licence {one.manifest.origin.licence}" if one.manifest else ", no manifest"
        yield f"{one.role} {one.name}: {one.num_rows} rows, {one.num_pictures} images{licence}"
        if one.lengths.total:
            over = f", {one.lengths.num_over} over the budget" if one.lengths.num_over else ""
            yield f"  prompt tokens: median {one.lengths.quantile(0.5)}, longest {max(one.lengths.total)}{over}"
    found = [name for name in KINDS if report.findings.counts[name]]
    for name in found:
        kind, first = KINDS[name], report.findings.of(name)[0]
        yield f"{kind.severity}: {kind.title}: {report.findings.counts[name]} (first: {_shown(first.place)})"
    if not found:
        yield "nothing found"


def _set_json(one: Checked, report: Report) -> dict[str, Any]:
    origin = one.manifest.origin if one.manifest else None
    return {
        "name": one.name,
        "folder": str(one.folder),
        "role": one.role,
        "processor": origin.processor if origin else None,
        "licence": origin.licence if origin else None,
        "uses": list(origin.uses) if origin else None,
        "profile": origin.profile if origin else None,
        "rows": one.num_rows,
        "images": one.num_pictures,
        "splits": {name: split.num_samples for name, split in one.manifest.splits.items()} if one.manifest else {},
        "tokens": one.lengths.as_json() if report.budget else None,
    }


def _sets(report: Report) -> Section:
    rows: list[tuple[Cell, ...]] = []
    for one in report.sets:
        origin = one.manifest.origin if one.manifest else None
        uses: Cell = Badge("no manifest", "bad")
        if origin:
            barred = one.role == "training" and "training" not in origin.uses
            uses = Badge(" and ".join(origin.uses) + (" only" if barred else ""), "bad" if barred else "neutral")
        splits = (
            ", ".join(f"{name} {split.num_samples:,}" for name, split in one.manifest.splits.items())
            if origin and one.manifest
            else ""
        )
        cells = (origin.processor or "none", origin.licence, origin.profile) if origin else ("", "", "")
        rows.append((one.name, one.role, *cells, uses, splits, f"{one.num_pictures:,}"))
    headers = ("Set", "Given as", "Processor", "Licence", "Profile", "Made for", "Rows", "Images")
    return Section("Data sets", (), (Table(headers, rows, numeric={7}),))


def _overview(report: Report) -> Section:
    rows = [
        (kind.title, f"{report.findings.counts[name]:,}", _BADGE[kind.severity], kind.meaning)
        if report.findings.counts[name]
        else (kind.title, "0", Badge("none", "good"), kind.meaning)
        for name, kind in KINDS.items()
    ]
    return Section("Findings", (), (Table(("Finding", "Count", "Verdict", "Meaning"), rows, numeric={1}),))


def _kinds(report: Report) -> Iterator[Section]:
    for name, kind in KINDS.items():
        if not report.findings.counts[name]:
            continue
        shown = report.findings.of(name)[:MAX_SHOWN]
        count = report.findings.counts[name]
        paragraphs = [kind.meaning]
        if count > len(shown):
            kept = len(report.findings.of(name))
            where = "all are" if kept == count else f"the first {kept:,} are"
            paragraphs.append(f"The first {len(shown)} of {count:,}; {where} in check.json.")
        has_partners = any(finding.num_partners for finding in shown)
        headers = ("Row", "Other rows", "Seen") if has_partners else ("Row", "Seen")
        rows = [_cells(finding, has_partners) for finding in shown]
        yield Section(kind.title, paragraphs, (Table(headers, rows),), collapsed=kind.severity == "note")


def _cells(finding: Finding, has_partners: bool) -> tuple[str, ...]:
    row = _shown(finding.place)
    if not has_partners:
        return row, finding.note
    partners = ", ".join(_shown(partner) for partner in finding.partners)
    more = finding.num_partners - len(finding.partners)
    return row, partners + (f" and {more:,} more" if more else ""), finding.note


def _tokens(report: Report) -> Iterator[Section]:
    counted = [one for one in report.sets if one.lengths.total]
    if not report.budget or not counted:
        return
    longest = max(max(one.lengths.total) for one in counted)
    width = bin_width(longest)
    num_bins = longest // width + 1
    edges = [f"{i * width}" if width == 1 else f"{i * width} to {(i + 1) * width - 1}" for i in range(num_bins)]
    series = [
        Bars(
            label=one.name,
            values=[count / one.lengths.total.total() for count in binned(one.lengths.total, width, num_bins)],
            colour=index % NUM_COLOURS,
        )
        for index, one in enumerate(counted)
    ]
    title = f"Share of prompts by length in tokens, longest {longest}"
    svg = bar_chart(edges, series, slug="tokens", title=title, value_label="share of the prompts")
    rows = []
    for one in counted:
        lengths, num = one.lengths, one.lengths.total.total()
        figures = (
            num, lengths.quantile(0.5), lengths.quantile(0.95), max(lengths.total), lengths.num_text // num,
            lengths.num_visual // num, lengths.max_visual, lengths.num_over,
        )  # fmt: skip
        rows.append((one.name, *(f"{figure:,}" for figure in figures)))
    headers = (
        "Set", "Prompts", "Median", "95 % up to", "Longest", "Text, mean", "Visual, mean", "Visual, most",
        "Over budget",
    )  # fmt: skip
    budget = report.budget
    wording = (
        f"Tokens of the whole prompt: chat template, instruction {budget.prompt.instruction!r}, question and images of "
        f"{budget.images.min_pixels:,} to {budget.images.max_pixels:,} pixels. The budget is "
        f"{budget.max_prompt_tokens:,} tokens."
    )
    chart = Chart(svg=svg, title="Prompt tokens", caption=title, legend=legend_of(series))
    yield Section("Prompt lengths", (wording,), (Table(headers, rows, numeric=range(1, 9)),), (chart,))


def _method() -> Section:
    return Section(
        "How rows are compared",
        (
            "Text: Unicode NFKC, one case, without image marks, LaTeX layout, punctuation and the usual instructions "
            "on how to answer; any other sentence that a set adds hides a problem from the comparison. Options are "
            "taken out of the question, and their order and letters do not matter. Rows with pictures match by the "
            "question without its options; rows without pictures need equal options, unless one side has none and "
            f"the question has at least {LONG_QUESTION} words.",
            f"Pictures: perceptual hashes differ in at most {MAX_SHORT_DISTANCE} of 64 and {MAX_LONG_DISTANCE} of 256 "
            "bits. Resized and recompressed copies are found; crops, mirror images and redrawn figures are not, and "
            "two charts that differ in a single label may look alike: what is near is for you to judge. A picture of "
            f"one colour (brightness deviates by less than {MIN_CONTRAST:g} of 255) is like none but the same file.",
            f"A question that more than {MAX_TEMPLATE} training rows ask is a template and not reported as shared.",
        ),
    )


def _shown(place: Place) -> str:
    return " / ".join(part for part in (place.dataset, place.split, place.id) if part)
