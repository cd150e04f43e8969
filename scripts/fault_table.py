"""Every fault on purpose, in a real process: what the run did, what was lost, and how soon it was where it had been.

    python scripts/fault_table.py             the table
    python scripts/fault_table.py --json      the rows as JSON, and nothing else, on standard output
    python scripts/fault_table.py --only memory --only rank     rows whose names hold one of these words

A tiny Qwen2.5-VL learns six steps from pictures. `lost` compares with the run that nothing happened to: "nothing" says
that all metrics and, bit for bit, the last checkpoint's weights and moments are the same. `repeated` counts steps that
were made twice. `recover_s` runs from the fault to the moment when the resumed run has made the step of the fault; what
finds the fault (a deadline of 3 s), and loading the model, are in it; the imports of a fresh process are not, they take
`start_s`. Rows that go on by themselves count the seconds that the fault cost. Servers are stand-ins, from
tests/unit/engines, in processes of their own; a run on one of them that is left alone is what their rows compare with.
Exit status 0 if every row holds, 1 if one does not, 3 if one could not be tried.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from processes import environment

os.environ |= environment()  # before torch is imported, which reads it then, here and in the processes that inherit it

import fault_rows as rows
import fault_rows_services as services
from colours import RECIPE, colour_sample, warm_model, write_colours
from faults import Launcher

from mm_agrae.train.supervision import STALLED

STATUS = {True: 0, False: 1, None: 3}
VERDICT = {True: "", False: "  DOES NOT HOLD", None: "  NOT TRIED"}
Make = Callable[[rows.Bench, str], rows.Row]

FAULTS: dict[str, Make] = {
    "killed in the rollout": partial(rows.single, kind="kill", phase="rollout", step=4, status=-9),
    "killed in the update": partial(rows.single, kind="kill", phase="update", step=3, status=-9),
    "killed while saving": partial(rows.single, kind="kill_in_checkpoint", phase="save", step=4, status=-9),
    "disk full while saving": partial(
        rows.full_disk, step=4, says="newest is step_000002", settings=("train.rollout_log_every=100",)
    ),
    "disk full while logging": partial(rows.full_disk, step=3, says="error: the disk is full"),
    "engine hangs": partial(rows.single, kind="hang", phase="rollout", step=3, says="phase rollout", status=STALLED),
    "out of memory in the update": partial(
        rows.single, kind="memory", phase="update", step=3, says="lower train.micro_batch_tokens"
    ),
    "rank stalls": rows.stalled_rank,
    "rank killed, under torchrun": rows.killed_rank,
    "rank killed, no agent": rows.lonely_rank,
    "gradient NaN once": rows.one_nan,
    "gradient NaN for ever": rows.endless_nan,
    "checkpoint file truncated": rows.truncated_checkpoint,
    "damaged picture": rows.damaged_picture,
    "comparison never ends": partial(services.verifier_row, harm=None),
    "verifier worker killed": partial(services.verifier_row, harm=services.kill_worker),
    "verifier pool killed": partial(services.verifier_row, harm=services.kill_pool),
    "vLLM server killed and restarted": partial(services.server_row, harm=services.restart),
    f"vLLM server hangs for {services.HUNG_S:g} s": partial(services.server_row, harm=services.freeze),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    parser.add_argument("--only", action="append", default=[], help="rows whose name holds this word; may be repeated")
    chosen = parser.parse_args()
    if unknown := [word for word in chosen.only if not named([word])]:
        parser.error(f"no row's name holds {', '.join(unknown)}. Rows: {', '.join(FAULTS)}.")
    with tempfile.TemporaryDirectory() as folder:
        start_s = seconds_to_start()
        found = []
        for row in table(Path(folder), named(chosen.only)):
            found.append(row)
            if not chosen.json:
                print(line_of(row), flush=True)
    holds = all_hold(found)
    if chosen.json:
        print(json.dumps({"rows": [asdict(row) for row in found], "start_s": start_s, "holds": holds}, allow_nan=False))
    else:
        print(f"a fresh process takes {start_s:.1f} s more for its imports")
    return STATUS[holds]


def named(words: Sequence[str]) -> list[str]:
    """Names of the rows that hold one of these words; of all rows where there is none."""
    return [name for name in FAULTS if not words or any(word in name for word in words)]


def all_hold(found: Sequence[rows.Row]) -> bool | None:
    """False if a row does not hold; otherwise None if one could not be tried."""
    verdicts = [row.holds for row in found]
    return False if False in verdicts else None if None in verdicts else True


def table(folder: Path, names: Sequence[str]) -> Iterator[rows.Row]:
    """The rows, as they are measured."""
    recipe = make_recipe(folder)
    bench = rows.make_bench(folder, recipe, Launcher(folder))
    for name in names:
        yield FAULTS[name](bench, name)


def line_of(row: rows.Row) -> str:
    seconds = "not measured" if row.recover_s is None else f"{row.recover_s:.1f} s"
    return f"{row.fault:<34} lost: {row.lost}; repeated: {row.repeated}; {seconds}; {row.ended}{VERDICT[row.holds]}"


def make_recipe(folder: Path) -> Path:
    """A recipe with a model that is right about half the time, as the tests have it."""
    data = write_colours(folder / "data", [colour_sample(index, image=index % 3 > 0) for index in range(24)])
    model = warm_model(folder / "warm", "qwen2_5_vl", data)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=model, data=data), encoding="utf-8")
    return recipe


def seconds_to_start() -> float:
    """What a fresh process needs before it can load a model."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import mm_agrae.cli.jobs"], check=True, cwd=rows.ROOT)
    return time.perf_counter() - begun


if __name__ == "__main__":
    sys.exit(main())
