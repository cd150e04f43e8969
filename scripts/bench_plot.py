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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RATIOS = {
    "theory": "theory",
    "ratio_to_repeated": "times repeated",
    "ratio_to_peer": "times TRL best",
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
    print(table(found["points"]))
    if chosen.picture:
        draw(found["points"], chosen.picture)
    return 0


def label(point: Mapping[str, Any]) -> str:
    model = f"{point['architecture']}, " if "architecture" in point else ""
    return f"{model}{point['visual']} + {point['P'] - point['visual']}, {point['C']}, {point['G']}"


def measured(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """The ratios that some point has."""
    return [ratio for ratio in RATIOS if any(point.get(ratio) is not None for point in points)]


def table(points: Sequence[Mapping[str, Any]]) -> str:
    """One row per point: sizes, ratios, seconds of ours and of TRL's best, peak memory of both where it was taken."""
    ratios = measured(points)
    names = ["visual + text, C, G", *(RATIOS[ratio] for ratio in ratios)]
    names += ["ours, s", "TRL best, s", "ours, MiB", "TRL best, MiB"]
    lines = ["| " + " | ".join(names) + " |", "| --- |" + " ---: |" * (len(names) - 1)]
    for point in points:
        cells = [label(point), *(_number(point.get(ratio), ".2f") for ratio in ratios)]
        for amounts, scale, form in (("seconds", 1, ".2f"), ("peak_bytes", 2**20, ".0f")):
            for way in ("ours", point.get("peer_best")):
                amount = point.get(amounts, {}).get(way)
                cells.append(_number(None if amount is None else amount / scale, form))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def draw(points: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Bars of every ratio, point by point; 1 is no gain."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    ratios = measured(points)
    figure, axes = plt.subplots(figsize=(8, 1 + 0.6 * len(points)), layout="constrained")
    height = 0.8 / len(ratios)
    for number, ratio in enumerate(ratios):
        places = [place + number * height for place in range(len(points))]
        axes.barh(places, [point.get(ratio) or 0.0 for point in points], height=height, label=RATIOS[ratio])
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(points))], [label(point) for point in points])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.invert_yaxis()
    axes.set_xlabel("how many times as long it takes as ours; theory: how many times the operations")
    axes.legend()
    figure.savefig(out, dpi=150)


if __name__ == "__main__":
    sys.exit(main())
