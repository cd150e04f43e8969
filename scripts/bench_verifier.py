"""How many verdicts the verifier gives per second and core, and what bombs do to it.

    python scripts/bench_verifier.py                    the labelled cases, 20 passes
    python scripts/bench_verifier.py --quick            3 passes
    python scripts/bench_verifier.py --json out.json    the figures as a file too

First every case is judged in this process and in the pool; different verdicts fail the script. Then:

- simple: cases with a number or a letter for a target that need no computer algebra, in this process;
- mixed: all cases, one worker; the processor time of both processes is counted;
- bombs: all cases with 5 % of comparisons that never end between them, two workers. The verdicts on the cases must be
  the same, and every bomb must end within its deadline and a second.

Caches are emptied before each pass: "first sight" is what an answer costs that was never seen. "again" is the same
with caches as they are, as for the completions of one group. Rates are per second of processor time, so a busy machine
does not lower them.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import random
import re
import signal
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mm_agrae.records import Verdict
from mm_agrae.verify.agreement import Case, read_cases
from mm_agrae.verify.pool import VerifierPool
from mm_agrae.verify.question import Question
from mm_agrae.verify.verifier import begin, verify

CASES = Path(__file__).parent.parent / "tests" / "data" / "verifier_cases.jsonl"
DEADLINE_S = 1.0
BOMB_SHARE = 0.05
SIMPLE_TARGET = re.compile(r"[+-]?\d+(?:\.\d+)?|[A-H]")
Figures = dict[str, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 passes in place of 20")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    chosen = parser.parse_args()
    with CASES.open("rb") as lines:
        cases = list(read_cases(lines, source=CASES.name))
    passes = 3 if chosen.quick else 20
    different = differing(cases)
    if different:
        print(f"other verdicts in the pool than in the process: {', '.join(different)}. Timings of those mean nothing.")
        return 1
    print(f"{len(cases)} cases, the same verdicts in the pool and in the process; {passes} passes\n")
    figures = {**simple(cases, passes=passes), **mixed(cases, passes=passes), **starting()}
    for name, figure in figures.items():
        print(f"{name:52}{figure:12,.4g}")
    found, faults = bombs(cases, passes=passes)
    for name, figure in found.items():
        print(f"{name:52}{figure:12,.4g}")
    for fault in faults:
        print(f"fault: {fault}")
    if chosen.json:
        chosen.json.write_text(json.dumps({**figures, **found}, indent=2), encoding="utf-8")
    return 1 if faults else 0


def differing(cases: Sequence[Case]) -> list[str]:
    """Cases on which the pool and the process itself do not say the same."""
    with VerifierPool(num_workers=1) as pool:
        pooled = judge(pool, cases)
    alone = [verify(case.prediction, case.question) for case in cases]
    return [case.id for case, one, two in zip(cases, pooled, alone, strict=True) if timeless(one) != timeless(two)]


def judge(pool: VerifierPool, cases: Sequence[Case]) -> list[Verdict]:
    return pool.verify_all([case.prediction for case in cases], [case.question for case in cases])


def timeless(verdict: Verdict) -> Verdict:
    return replace(verdict, seconds=0.0)


def simple(cases: Sequence[Case], *, passes: int) -> Figures:
    """Verdicts per second of processor time where the target is a number or a letter."""
    chosen = [
        case
        for case in cases
        if SIMPLE_TARGET.fullmatch(case.question.target) and isinstance(begin(case.prediction, case.question), Verdict)
    ]
    rates: dict[str, list[float]] = {"first sight": [], "again": []}
    for _ in range(passes):
        forget()
        for name, repetitions in (("first sight", 1), ("again", 10)):
            begun = time.process_time()
            for _ in range(repetitions):
                for case in chosen:
                    begin(case.prediction, case.question)
            rates[name].append(repetitions * len(chosen) / (time.process_time() - begun))
    shown = {f"simple, {name}: verdicts/s per core": statistics.median(rate) for name, rate in rates.items()}
    return {"simple cases": float(len(chosen)), **shown}


def forget() -> None:
    """Empty the verifier's caches."""
    modules = [module for name, module in sys.modules.items() if name.startswith("mm_agrae.verify")]
    for value in [value for module in modules for value in vars(module).values()]:
        if isinstance(value, functools._lru_cache_wrapper):
            value.cache_clear()


def mixed(cases: Sequence[Case], *, passes: int) -> Figures:
    """Verdicts per second of processor time, and the slowest percent, for all cases with one worker."""
    rates, first, seconds = [], 0.0, []
    with VerifierPool(num_workers=1) as pool:
        pool.verify_all(["\\boxed{\\sqrt{12}}"], [Question(target="2\\sqrt{3}")])
        for number in range(passes + 1):
            forget()
            begun = time.process_time() + workers_time(pool)
            verdicts = judge(pool, cases)
            rate = len(cases) / (time.process_time() + workers_time(pool) - begun)
            seconds += [verdict.seconds for verdict in verdicts]
            if number:
                rates.append(rate)
            else:
                first = rate
    return {
        "mixed, first pass of a worker: verdicts/s per core": first,
        "mixed: verdicts/s per core": statistics.median(rates),
        "mixed: 50th percentile, ms": 1000 * statistics.median(seconds),
        "mixed: 99th percentile, ms": 1000 * statistics.quantiles(seconds, n=100)[-1],
    }


def workers_time(pool: VerifierPool) -> float:
    """Processor time of the workers that are alive, in seconds."""
    pids = [worker.pid for worker in pool._staff.workers]
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e9


def starting() -> Figures:
    """Seconds to the first verdict of a pool, and to one for which a worker must be replaced."""
    question = Question(target="2\\sqrt{3}")
    begun = time.perf_counter()
    with VerifierPool(num_workers=1) as pool:
        pool.verify_all(["\\boxed{\\sqrt{12}}"], [question])
        first = time.perf_counter() - begun
        again = []
        for _ in range(5):
            (worker,) = pool._staff.workers
            os.kill(worker.pid or 0, signal.SIGKILL)
            worker.connection.poll(10)  # until it is dead
            begun = time.perf_counter()
            pool.verify_all(["\\boxed{\\sqrt{12}}"], [question])
            again.append(time.perf_counter() - begun)
    return {"first verdict of a pool, s": first, "verdict with a new worker, ms": 1000 * statistics.median(again)}


def bombs(cases: Sequence[Case], *, passes: int) -> tuple[Figures, list[str]]:
    """Passes over the cases with bombs between them: figures, and whatever went wrong."""
    peaceful = list(cases) * passes
    draw = random.Random(0)
    mined = [(case.prediction, case.question) for case in peaceful]
    is_bomb = [False] * len(mined)
    num_bombs = round(len(mined) * BOMB_SHARE / (1 - BOMB_SHARE))
    for number in range(num_bombs):
        place = draw.randrange(len(mined) + 1)
        mined.insert(place, bomb(number))
        is_bomb.insert(place, True)
    with VerifierPool(num_workers=2, timeout_s=DEADLINE_S) as pool:
        before = judge(pool, peaceful)
        begun = time.perf_counter()
        verdicts = list(pool.verify_stream(mined))
        wall = time.perf_counter() - begun
    ended = [verdict for verdict, bombed in zip(verdicts, is_bomb, strict=True) if bombed]
    spared = [verdict for verdict, bombed in zip(verdicts, is_bomb, strict=True) if not bombed]
    pairs = zip(peaceful, before, spared, strict=True)
    harmed = sorted({case.id for case, one, two in pairs if timeless(one) != timeless(two)})
    slowest = max(verdict.seconds for verdict in ended)
    faults = [f"another verdict beside bombs: {', '.join(harmed)}"] if harmed else []
    if slowest > DEADLINE_S + 1:
        faults.append(f"a bomb took {slowest:.1f} s, but the deadline is {DEADLINE_S} s and a second")
    return {
        "bombs": float(num_bombs),
        "bombs that ended as timeout": float(sum(verdict.status == "timeout" for verdict in ended)),
        f"slowest bomb, s (deadline {DEADLINE_S} s + 1)": slowest,
        "cases beside bombs with another verdict": float(len(harmed)),
        "cases and bombs with two workers, s": wall,
        "of which the bombs at their deadline cost, s": sum(verdict.seconds for verdict in ended) / 2,
    }, faults


def bomb(number: int) -> tuple[str, Question]:
    """A comparison that passes the guards and never ends, another one for every number."""
    text = f"\\boxed{{x\\sqrt{{{number}.5\\sqrt{{\\sqrt{{2}}}}}}}}"
    return text, Question(target=f"x\\ln({number + 7})", answer_kind="expression")


if __name__ == "__main__":
    sys.exit(main())
