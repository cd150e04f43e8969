"""One training step by one and by two processes of one machine: the same numbers first, then the time of each phase.

    python scripts/bench_scaling.py                   pictures of 64 and 256 visual tokens
    python scripts/bench_scaling.py --quick           64 visual tokens, every way visited once
    python scripts/bench_scaling.py --json            the table as JSON, and nothing else, on standard output
    python scripts/bench_scaling.py --journal FILE    keep what is measured; a second call goes on from there

The step is that of bench_whole_step.py: 8 prompts x 8 completions x 64 tokens over all processes, our default
settings, every process with one thread (--threads). First a run by one process and by two must be the same run: every
sampled token, every count, and computed figures up to rounding (scripts/same_run.py). Then

    one       one process
    two       two processes, which share the same 8 prompts
    beside    two runs of one process at the same time that know nothing of each other: what the machine allows

`one` and `two` are visited again in the reverse order. A time is the median of all steps without the first of each
visit. The speed-up is one / two; the ceiling, 2 one / beside, is that of two processes that never have to meet: below
2 where cores share memory, caches or clock. Per step, `meeting` is the time that the rank that waits least spends in
communication, and `waiting` what the other one spends there beyond that, because its share was ready earlier.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import bench_whole_step as whole
import same_run
import torch
from bench_runs import Runs, arguments
from processes import torchrun

from mm_agrae.data.dataset import open_dataset
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.distributed import World

PROCESSES = {"one": 1, "two": 2}
STEPS = 6  # enough for two runs that are started at the same time to be side by side in most of them
# In the order of the visits; a second visit in the reverse one.
WAYS = ("one", "two", "beside")
Meeting = tuple[float, float]  # when it ended, and how long it took


def main() -> int:
    parser = arguments(__doc__, quick="64 visual tokens, one visit")
    parser.set_defaults(threads=1)
    parser.add_argument("--architecture", choices=whole.ARCHITECTURES, default=whole.ARCHITECTURES[0])
    parser.add_argument("--visual", type=int, action="append", help="visual tokens of a picture, a square number")
    parser.add_argument("--size", default="tiny", help="tiny or toy")
    parser.add_argument("--journal", type=Path, help="keep finished measurements here, and take them from here")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--rank-in", nargs=2, metavar=("FOLDER", "CASE"), help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.rank_in:
        run_rank(Path(chosen.rank_in[0]), whole.Case(**json.loads(chosen.rank_in[1])))
        return 0
    if chosen.one:
        print(json.dumps(measure_one(whole.Case(**json.loads(chosen.one)))))
        return 0
    report = (lambda line: None) if chosen.json else partial(print, flush=True)
    runs = Runs(script=Path(__file__), journal=chosen.journal, threads=chosen.threads)
    equality, table = {}, []
    for visual in chosen.visual or (whole.VISUAL[:1] if chosen.quick else whole.VISUAL):
        case = {"architecture": chosen.architecture, "size": chosen.size, "visual": visual, "steps": STEPS}
        found = runs.measure({**case, "way": "equality", "visit": 0})
        equality[f"{visual} visual tokens"] = found
        report("\n".join(found["differences"]) or f"{visual} visual tokens: one run by 1 and by 2 processes")
        if not found["differences"]:
            table.append(row_of(runs.measure, case, visits=1 if chosen.quick else 2))
            report(line_of(table[-1]))
    equal = not any(found["differences"] for found in equality.values())
    if chosen.json:
        print(json.dumps({"equal": equal, "equality": equality, "threads": chosen.threads, "points": table}))
    return 0 if equal else 1


def row_of(measure: Callable[[dict[str, Any]], dict[str, Any]], case: dict[str, Any], *, visits: int) -> dict[str, Any]:
    """The row of the table for one case."""
    found = {way: [measure({**case, "way": way, "visit": 0})] for way in WAYS}
    for way in reversed(PROCESSES if visits == 2 else ()):
        found[way].append(measure({**case, "way": way, "visit": 1}))
    seconds = {way: whole.medians_of(of) for way, of in found.items()}
    phases = {
        way: {name: statistics.mean(visit["phases"][name] for visit in found[way]) for name in found[way][0]["phases"]}
        for way in PROCESSES
    }
    return {
        **{key: case[key] for key in ("architecture", "size", "visual")},
        "seconds": seconds,
        "phases": phases,
        "gradient_bytes": found["two"][0]["gradient_bytes"],
        "speedup": seconds["one"] / seconds["two"],
        "ceiling": 2 * seconds["one"] / seconds["beside"],
    }


def line_of(row: dict[str, Any]) -> str:
    one, two = (", ".join(f"{name} {seconds:.3f}" for name, seconds in row["phases"][way].items()) for way in PROCESSES)
    return (
        f"{row['architecture']} {row['size']}, {row['visual']} visual tokens: 1 process {row['seconds']['one']:.3f} s, "
        f"2 processes {row['seconds']['two']:.3f} s, speed-up {row['speedup']:.2f} of at most {row['ceiling']:.2f}\n"
        f"  1 process:   {one}\n  2 processes: {two}"
    )


def measure_one(case: whole.Case) -> dict[str, Any]:
    """Run in a process of its own, which launches those that compute."""
    bench = whole.build(case)
    if case.way == "equality":
        one, two = (RunDir.open(Path(finish(launch(bench.folder, case, number))["run"])) for number in (1, 2))
        found = same_run.differences(two, one)
        return {"differences": found, "largest": None if found else same_run.largest_difference(two, one)}
    if case.way == "beside":
        both = [finish(running) for running in [launch(bench.folder, case, 1) for _ in range(2)]]
        return {"seconds": [seconds for run in both for seconds in run["seconds"]]}
    return finish(launch(bench.folder, case, PROCESSES[case.way]))


def launch(folder: Path, case: whole.Case, num_processes: int) -> subprocess.Popen[str]:
    command = torchrun(num_processes, __file__, "--rank-in", folder, json.dumps(asdict(case)))
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(running: subprocess.Popen[str]) -> dict[str, Any]:
    """What the main process of a run printed last."""
    out, errors = running.communicate()
    if running.returncode != 0:
        raise SystemExit(f"a run failed:\n{out[-1000:]}\n{errors[-4000:]}")
    return json.loads(out.splitlines()[-1])


def run_rank(folder: Path, case: whole.Case) -> None:
    """One of the processes of a run; the main one prints what it found."""
    torch.set_num_threads(case.threads)
    bench = whole.Bench(folder=folder, samples=list(open_dataset(folder / "gym", "train")))
    session = whole.open_ours(bench, case, sharing=True)
    collect = session.world.collect
    meetings = watch(session.world)
    metrics, ends = whole.run_ours(session, bench.samples)
    everyone = collect([seconds_met(meetings, ends)])
    if not session.world.is_main:
        return
    seconds, steps = whole.lengths_of(ends), metrics[whole.WARM_UP :]
    phases = {
        name: statistics.median(step[f"time/{name}_s"] for step in steps) for name in ("rollout", "verify", "update")
    }
    phases["other"] = statistics.median(seconds) - sum(phases.values())
    phases["meeting"] = statistics.median(map(min, zip(*everyone, strict=True)))
    phases["waiting"] = statistics.median(max(ranks) - min(ranks) for ranks in zip(*everyone, strict=True))
    found = {"seconds": seconds, "phases": phases, "run": str(session.run_dir.path)}
    found["gradient_bytes"] = sum(4 * parameter.numel() for parameter in session.policy.trainable())
    print(json.dumps(found))


def watch(world: World) -> list[Meeting]:
    """From now on, the list gets every exchange of this process with the others."""
    meetings: list[Meeting] = []

    def timed(meet: Callable[..., Any]) -> Callable[..., Any]:
        def run(*what: Any) -> Any:
            started = time.perf_counter()
            found = meet(*what)
            ended = time.perf_counter()
            meetings.append((ended, ended - started))
            return found

        return run

    if world.size > 1:  # a lone process meets nobody, whatever it calls
        world.collect, world.exchange = timed(world.collect), timed(world.exchange)
        world.broadcast, world.sum, world.barrier = timed(world.broadcast), timed(world.sum), timed(world.barrier)
    return meetings


def seconds_met(meetings: Sequence[Meeting], ends: Sequence[float]) -> list[float]:
    """Of every step but the first ones, the time in meetings; a step lasts from one end to the next."""
    return [
        sum(seconds for when, seconds in meetings if earlier < when <= later)
        for earlier, later in zip(ends[whole.WARM_UP - 1 :], ends[whole.WARM_UP :], strict=False)
    ]


if __name__ == "__main__":
    sys.exit(main())
