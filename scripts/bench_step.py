"""One update, G completions per prompt: what sharing the prompt and its picture is worth.

    python scripts/bench_step.py                    the table, about 14 minutes on two idle cores
    python scripts/bench_step.py --quick            two small points, fewer losses
    python scripts/bench_step.py --json             the table as JSON, and nothing else, on standard output
    python scripts/bench_step.py --journal FILE     keep what is measured; a second call goes on from there
    python scripts/bench_step.py --profile          where our update spends its time, nothing else
    python scripts/bench_step.py --without-peer     without TRL (which needs `pip install -e '.[bench]'`)

Four ways of computing the same GRPO update of the same groups, fp32, each with its optimiser step:

    trl stock       GRPOTrainer with its default settings but for fp32 and its "grpo" loss: gradient checkpointing,
                    8 rows at a time
    trl best        without checkpointing, the fastest of 8, 16 and 32 rows at a time
    repeated        ours, every completion with a prompt and a picture of its own
    ours            every prompt and picture once

Before anything is timed, bench_equality compares what the ways compute: log-probabilities, entropies, losses, every
gradient, the weights after a step. The first update of every way at every point, which is not timed, is compared with
ours too: loss, gradients and their norm. Every time is the median over rounds in which all ways take turns; theory is
how many times fewer operations ours needs than repeated. Prompts are rendered before: our rotary positions are computed
there, TRL's in its update. Peak memory is what a process that has only imported grows by in two updates (resident set,
Linux), each way in one of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import bench_equality as equality
import bench_inputs
import numpy as np
import torch
from bench_inputs import Point
from bench_runs import Runs, add_arguments_of_runs, arguments, check_arguments, with_peak

from mm_agrae.policy.load import Policy
from mm_agrae.records import RolloutGroup
from mm_agrae.train.experience import Experience
from mm_agrae.train.update import Learner, update

POINTS = (
    Point(visual=256, text=64, completion=64, group=8, prompts=2),
    Point(visual=256, text=64, completion=64, group=16, prompts=1),
    Point(visual=256, text=64, completion=32, group=8, prompts=2),
    Point(visual=64, text=64, completion=64, group=8, prompts=2),
    Point(visual=64, text=64, completion=128, group=8, prompts=2),
    Point(visual=0, text=256, completion=64, group=8, prompts=2),
    Point(visual=0, text=128, completion=256, group=8, prompts=2),
    Point(visual=0, text=64, completion=512, group=8, prompts=1),
)
QUICK = (
    Point(visual=64, text=64, completion=32, group=8, prompts=2),
    Point(visual=64, text=64, completion=32, group=16, prompts=2),
)
SMALL = Point(visual=16, text=24, completion=12, group=4, prompts=4)
QUICK_SETTINGS = (equality.Setting(), equality.Setting(loss="cispo", beta=0.04, temperature=0.7))
PEER_ROWS = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One update each time it is run, with its loss and the norm of its gradient; and its optimiser."""

    run: Callable[[], tuple[float, float]]
    optimizer: torch.optim.Optimizer


def main() -> int:
    parser = arguments(__doc__, quick="two small points, 2 rounds, two losses")
    add_arguments_of_runs(parser)
    parser.add_argument("--architecture", default="qwen2_5_vl", help="qwen2_vl, qwen2_5_vl or qwen3_vl")
    parser.add_argument("--size", default="toy", help="tiny or toy")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure_one(json.loads(chosen.one))))
        return 0
    check_arguments(parser, chosen)
    report = (lambda line: None) if chosen.json else partial(print, flush=True)
    runs = Runs(script=Path(__file__), journal=chosen.journal, threads=chosen.threads)
    case = {"architecture": chosen.architecture, "size": chosen.size, "peer": not chosen.without_peer}
    points = QUICK if chosen.quick else POINTS
    if chosen.profile:
        for point in points:
            report(f"{point.label}\n" + runs.measure({**case, "kind": "profile", "point": asdict(point)})["table"])
        return 0
    entries = runs.measure({**case, "kind": "equality", "quick": chosen.quick})
    for line in equality.lines_of(entries):
        report(line)
    table: list[dict[str, Any]] = []
    for point in points if equality.equal(entries) else ():
        timed = runs.measure({**case, "kind": "time", "point": asdict(point), "rounds": 2 if chosen.quick else 4})
        entries |= {f"{name}, {point.label}": entry for name, entry in timed["equality"].items()}
        if not equality.equal(entries):
            report("\n".join(equality.lines_of(timed["equality"])))
            break
        table.append(row_of(runs, {**case, "point": asdict(point)}, timed))
        report(line_of(table[-1]))
    equal = equality.equal(entries)
    if not equal:
        report("The ways do not compute the same, so timings would mean nothing.")
    if chosen.json:
        names = {"repeated": "ours repeated", "peer": "TRL best"}
        print(json.dumps({"equal": equal, "equality": entries, "threads": chosen.threads, **names, "points": table}))
    return 0 if equal else 1


def row_of(runs: Runs, case: Mapping[str, Any], timed: Mapping[str, Any]) -> dict[str, Any]:
    """The row of the table for one point."""
    best = timed["seconds"]
    ways = [name for name in ("ours", "repeated", "trl stock", timed["peer_best"]) if name in best]
    peaks = runs.measure({**case, "kind": "memory", "ways": ways})
    point = Point(**case["point"])
    with_peer = timed["peer_best"] is not None
    return {
        "P": point.visual + point.text,
        "visual": point.visual,
        "C": point.completion,
        "G": point.group,
        "prompts": point.prompts,
        **timed,
        "peak_bytes": peaks,
        "ratio_to_repeated": best["repeated"] / best["ours"],
        "ratio_to_peer": best[timed["peer_best"]] / best["ours"] if with_peer else None,
        "ratio_to_peer_stock": best["trl stock"] / best["ours"] if with_peer else None,
    }


def line_of(row: Mapping[str, Any]) -> str:
    times = "  ".join(f"{name} {seconds:.3f} s" for name, seconds in row["seconds"].items())
    peaks = "  ".join(f"{name} {size / 2**20:.0f} MiB" for name, size in row["peak_bytes"].items())
    ratios = f"theory {row['theory']:.2f}  to repeated {row['ratio_to_repeated']:.2f}"
    if row["ratio_to_peer"]:
        ratios += f"  to trl best {row['ratio_to_peer']:.2f}  to trl stock {row['ratio_to_peer_stock']:.2f}"
    return f"P {row['P']:4} ({row['visual']} visual)  C {row['C']:3}  G {row['G']:2}  {ratios}\n  {times}\n  {peaks}"


def measure_one(case: Mapping[str, Any]) -> dict[str, Any]:
    """Run in a process of its own."""
    if case["kind"] == "memory":
        return peaks_of(case)
    torch.set_num_threads(case["threads"])
    folder = bench_inputs.build(bench_inputs.temporary_folder(), architecture=case["architecture"], size=case["size"])
    if case["kind"] == "equality":
        return check_equality(folder, case)
    point = Point(**case["point"])
    if case["kind"] == "profile":
        import bench_profile

        learner, batch = prepared(folder, point, sharing=True)
        update(learner, batch, step=0)
        return {"table": bench_profile.table(learner.policy, lambda: [update(learner, batch, step=0) for _ in "123"])}
    return measure_times(folder, point, rounds=case["rounds"], with_peer=case["peer"])


def peaks_of(case: Mapping[str, Any]) -> dict[str, int]:
    """Bytes by which a process grows, of every way in a child that was forked before anything was computed."""
    if any(way.startswith("trl") for way in case["ways"]):
        import bench_peer  # noqa: F401  once for all children
    found = {}
    for way in case["ways"]:
        with multiprocessing.get_context("fork").Pool(1) as child:
            found[way] = child.apply(peak_of, (case, way))
    return found


def peak_of(case: Mapping[str, Any], way: str) -> int:
    torch.set_num_threads(case["threads"])
    folder = bench_inputs.build(bench_inputs.temporary_folder(), architecture=case["architecture"], size=case["size"])
    run = way_of(folder, Point(**case["point"]), way).run
    return with_peak(lambda: (run(), run()))


def check_equality(folder: Path, case: Mapping[str, Any]) -> equality.Entries:
    """Every setting on a small model, the usual one on the model that is timed."""
    small, other = (
        bench_inputs.build(bench_inputs.temporary_folder(), architecture=case["architecture"], size="tiny", seed=seed)
        for seed in (0, 1)
    )
    settings = QUICK_SETTINGS if case["quick"] else equality.ALL_SETTINGS
    point = QUICK[0]
    found = equality.compare(
        small, groups_of(bench_inputs.policy_of(small), SMALL, ragged=True), settings,
        length=SMALL.completion, reference=other, with_peer=case["peer"],
    )  # fmt: skip
    timed = equality.compare(
        folder, groups_of(bench_inputs.policy_of(folder), point, ragged=True), [equality.Setting()],
        length=point.completion, reference=folder, with_peer=case["peer"],
    )  # fmt: skip
    return found | {f"{name}, {case['size']}": entry for name, entry in timed.items()}


def groups_of(policy: Policy, point: Point, *, ragged: bool) -> list[RolloutGroup]:
    """Random pictures and completions."""
    rng = np.random.default_rng(0)
    samples = [bench_inputs.make_sample(policy, point, number, rng) for number in range(point.prompts)]
    completions = [bench_inputs.make_completions(policy, point, rng, ragged=ragged) for _ in samples]
    return equality.groups_of([bench_inputs.rendered(policy, sample) for sample in samples], completions)


def prepared(folder: Path, point: Point, *, sharing: bool) -> tuple[Learner, Experience]:
    policy = bench_inputs.policy_of(folder)
    learner = equality.learner_of(policy, equality.Setting(), length=point.completion, sharing=sharing)
    return learner, equality.experienced(learner, groups_of(policy, point, ragged=False))


def way_of(folder: Path, point: Point, way: str) -> Way:
    """One update, by the name of the way: ours, repeated, trl stock, or trl and the rows of a micro-batch."""
    learner, batch = prepared(folder, point, sharing=way != "repeated")
    if way in ("ours", "repeated"):

        def ours() -> tuple[float, float]:
            metrics = update(learner, batch, step=0)
            return metrics["policy/loss"], metrics["policy/grad_norm"]

        return Way(run=ours, optimizer=learner.optimizer)
    import bench_peer

    setting = way.removeprefix("trl ")
    rows = 8 if setting == "stock" else int(setting)
    peer = bench_peer.PeerUpdate(
        folder, batch, rows=rows, checkpointing=setting == "stock", lr=equality.LR, settings={}
    )
    return Way(run=peer.update, optimizer=peer.optimizer)


def warmed_up(way: Way) -> equality.Updated:
    """Run once, and keep what it computed; later runs keep nothing."""
    gradients: list[torch.Tensor] = []

    def keep(optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group in optimizer.param_groups:
            # TRL leaves a weight that took no part without a gradient, such as the tower's where nothing is shown.
            gradients.extend(torch.zeros_like(one) if one.grad is None else one.grad.clone() for one in group["params"])

    handle = way.optimizer.register_step_pre_hook(keep)
    loss, norm = way.run()
    handle.remove()
    return equality.Updated(loss=loss, grad_norm=norm, gradients=[gradients])


def measure_times(folder: Path, point: Point, *, rounds: int, with_peer: bool) -> dict[str, Any]:
    """Median seconds of every way, taken in turns, none where the first updates differ; TRL's fastest is named."""
    rows = [count for count in PEER_ROWS if count <= point.group * point.prompts]
    peers = [f"trl {count}" for count in rows] if with_peer else []
    names = ["ours", "repeated", *(["trl stock"] if with_peer else []), *peers]
    ways = {name: way_of(folder, point, name) for name in names}
    first = warmed_up(ways["ours"])
    entries: equality.Entries = {}
    for name in names[1:]:
        found = equality.updates_apart(first, warmed_up(ways[name]))
        entries |= {f"{key}, {name}": entry for key, entry in found.items()}
    if not equality.equal(entries):
        return {"equality": entries}
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, way in ways.items():
            started = time.perf_counter()
            way.run()
            seconds[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    learner, batch = prepared(folder, point, sharing=True)
    groups = [(group.prompt, [one.completion.token_ids for one in group.rollouts]) for group in batch.groups]
    return {
        "equality": entries,
        "seconds": medians,
        "peer_best": min(peers, key=lambda name: medians[name], default=None),
        "theory": bench_inputs.theory(learner.policy, groups),
    }


if __name__ == "__main__":
    sys.exit(main())
