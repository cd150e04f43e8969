"""What bench_step, bench_whole_step or bench_rollout printed with --json -> a table in Markdown, and a picture.

    python scripts/bench_step.py --json > step.json
    python scripts/bench_plot.py step.json                          the table
    python scripts/bench_plot.py step.json --picture step.png       and how many times faster, point by point

Every point that was measured is in both, those where nothing is gained too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Headers; the names of both sides are those that the script printed.
RATIOS = {
    "theory": "theory",
    "theory_to_peer": "theory, {peer}",
    "ratio_to_repeated": "times {repeated}",
    "ratio_to_peer": "times {peer}",
    "ratio_to_peer_stock": "times TRL stock",
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="a file with what was printed")
    parser.add_argument("--picture", type=Path, help="write a PNG here")
    chosen = parser.parse_args()
    found = json.loads(chosen.measured.read_text(encoding="utf-8"))
    if not found["equal"]:
        print("the numbers were not equal, so there is nothing to show")
        return 1
    print(table(found))
    if chosen.picture:
        draw(found, chosen.picture)
    return 0


def label(point: Mapping[str, Any]) -> str:
    model = f"{point['architecture']}, " if "architecture" in point else ""
    ends = f", ends 1/{point['ends']}" if point.get("ends") else ""
    return f"{model}{point['visual']} + {point['P'] - point['visual']}, {point['C']}, {point['G']}{ends}"


def measured(found: Mapping[str, Any]) -> dict[str, str]:
    """The ratios that some point has, with their headers."""
    names = {"peer": found["peer"], "repeated": found["repeated"]}
    return {
        ratio: header.format_map(names)
        for ratio, header in RATIOS.items()
        if any(point.get(ratio) is not None for point in found["points"])
    }


def table(found: Mapping[str, Any]) -> str:
    """One row per point: sizes, ratios, seconds and peak memory of ours and of the peer; no column without a figure."""
    points = found["points"]
    columns = {"visual + text, C, G": [label(point) for point in points]}
    for ratio, header in measured(found).items():
        columns[header] = [_number(point.get(ratio), 1, ".2f") for point in points]
    for amounts, unit, scale, form in (("seconds", "s", 1, ".2f"), ("peak_bytes", "MiB", 2**20, ".0f")):
        of = [(point.get(amounts, {}), point.get("peer_best")) for point in points]
        columns[f"ours, {unit}"] = [_number(by_way.get("ours"), scale, form) for by_way, _ in of]
        columns[f"{found['peer']}, {unit}"] = [_number(by_way.get(best), scale, form) for by_way, best in of]
    columns = {header: cells for header, cells in columns.items() if any(cell != "-" for cell in cells)}
    rows = [columns, *zip(*columns.values(), strict=True)]
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([lines[0], "| --- |" + " ---: |" * (len(columns) - 1), *lines[1:]])


def _number(value: float | None, scale: float, form: str) -> str:
    return "-" if value is None else format(value / scale, form)


def draw(found: Mapping[str, Any], out: Path) -> None:
    """Bars of every ratio, point by point; 1 is no gain."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    points, ratios = found["points"], measured(found)
    figure, axes = plt.subplots(figsize=(8, 1 + 0.6 * len(points)), layout="constrained")
    height = 0.8 / len(ratios)
    for number, ratio in enumerate(ratios):
        places = [place + number * height for place in range(len(points))]
        axes.barh(places, [point.get(ratio) or 0.0 for point in points], height=height, label=ratios[ratio])
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(points))], [label(point) for point in points])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("how many times as long it takes as ours; theory: how many times the operations")
    axes.legend()
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
