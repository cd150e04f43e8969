"""Whether two runs of one recipe are the same run, although they were computed by other numbers of processes.

    python scripts/same_run.py RUN OTHER [--json]

Sums in another order round differently, so computed figures may differ by that much. Everything that is counted must be
equal: the problems, every sampled token, verdicts, rewards, lengths, results. Exit status 1 where something differs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from mm_agrae.store.run_dir import RunDir
from mm_agrae.store.tracker import read_metrics
from mm_agrae.train.verify_resume import exact

COUNTED = ("reward/", "group/", "verify/", "eval/")
RELATIVE, ABSOLUTE = 1e-4, 2e-5
# The largest gap of one token is rounding itself, so that only its size can be compared.
GAP, LARGEST_GAP = "rollout/logprob_gap_max_nats", 1e-3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("other", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    chosen = parser.parse_args()
    run, other = RunDir.open(chosen.run), RunDir.open(chosen.other)
    found = differences(run, other)
    largest = largest_difference(run, other) if not found else None
    if chosen.json:
        print(json.dumps({"same": not found, "differences": found, "largest_relative_difference": largest}))
    else:
        print(
            "\n".join(found) or f"the same run; figures that are computed differ by {largest:.1e} at most, relatively"
        )
    return 1 if found else 0


def differences(run: RunDir, other: RunDir) -> list[str]:
    """What differs by more than rounding, in words; empty for the same run."""
    return [*_other_metrics(run, other), *_other_groups(run, other)]


def largest_difference(run: RunDir, other: RunDir) -> float:
    """Of two runs that are the same, over all figures of metrics.jsonl that are above rounding themselves."""
    pairs = (
        (ours[key], theirs[key])
        for ours, theirs in zip(metrics(run), metrics(other), strict=True)
        for key in theirs
        if theirs[key] is not None and key != GAP and abs(theirs[key]) > ABSOLUTE
    )
    return max((abs(one - two) / abs(two) for one, two in pairs), default=0.0)


def metrics(run: RunDir) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what measures the machine, which no two runs share."""
    return [{"step": line["step"], **exact(line)} for line in read_metrics(run.metrics)]


def groups(run: RunDir) -> dict[str, list[dict[str, Any]]]:
    """The saved completions of training and evaluation by file, in their order, without the times of verdicts."""
    found = {
        path.relative_to(run.path).as_posix(): [
            json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()
        ]
        for folder in (run.rollouts, run.eval)
        for path in sorted(folder.rglob("*.jsonl"))
    }
    for group in chain.from_iterable(found.values()):
        for rollout in group["rollouts"]:
            del rollout["verdict"]["seconds"]
    return found


def same_figure(key: str, ours: float | None, theirs: float | None) -> bool:
    """Whether two values of a metric are equal, by rounding where it is computed."""
    if key == GAP:
        return max(ours or 0.0, theirs or 0.0) < LARGEST_GAP
    if key == "step" or key.startswith(COUNTED) or key.endswith("_tokens") or ours is None or theirs is None:
        return ours == theirs
    return math.isclose(ours, theirs, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def _other_metrics(run: RunDir, other: RunDir) -> Iterator[str]:
    lines, other_lines = metrics(run), metrics(other)
    if len(lines) != len(other_lines):
        yield f"{run.metrics} has {len(lines)} lines, {other.metrics} has {len(other_lines)}"
    for ours, theirs in zip(lines, other_lines, strict=False):
        for key in sorted(ours.keys() | theirs.keys()):
            if key not in ours or key not in theirs:
                yield f"step {ours['step']}: {key} stands in one of the two only"
            elif not same_figure(key, ours[key], theirs[key]):
                yield f"step {ours['step']}: {key} is {ours[key]}, in the other {theirs[key]}"


def _other_groups(run: RunDir, other: RunDir) -> Iterator[str]:
    ours, theirs = groups(run), groups(other)
    for name in sorted(ours.keys() ^ theirs.keys()):
        yield f"{name} is in one of the two only"
    for name in sorted(ours.keys() & theirs.keys()):
        if [_sampled(group) for group in ours[name]] != [_sampled(group) for group in theirs[name]]:
            yield f"{name} holds other problems or other completions"


def _sampled(group: Mapping[str, Any]) -> tuple[Any, ...]:
    tokens = [rollout["token_ids"] for rollout in group["rollouts"]]
    return group["sample_id"], group["prompt_hash"], tokens


if __name__ == "__main__":
    sys.exit(main())
