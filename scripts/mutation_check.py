"""Break every estimator in several ways, and show for each the test that goes red.

    python scripts/mutation_check.py                 all of them, two at a time
    python scripts/mutation_check.py --only hadw     those of one method
    python scripts/mutation_check.py --json out.json

A mutant is a copy of the package with one piece of text changed; the tests of the estimators run on the copy. A mutant
that no test notices is a survivor, and the script fails.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from mutants import MUTANTS, Mutant

ROOT = Path(__file__).resolve().parents[1]
COPIED = ("mm_agrae", "data_processors", "tests", "pyproject.toml")
TESTS = (
    "tests/unit/algorithms",
    "tests/golden",
    "tests/oracle",
    "tests/unit/test_estimator.py",
    "tests/unit/test_estimator_wiring.py",
    "tests/unit/config/test_algorithm_config.py",
    "tests/unit/config/test_algorithm_refusals.py",
)
# These also need a model: the last step from an estimate to a gradient.
TRAINING_TESTS = ("tests/unit/train", "tests/unit/policy/test_forward.py")


@dataclass(frozen=True)
class Outcome:
    """A mutant and the test that caught it; None for a survivor."""

    method: str
    file: str
    old: str
    new: str
    caught_by: str | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="methods whose name contains this")
    parser.add_argument("--jobs", type=int, default=2, help="mutants at a time")
    parser.add_argument("--json", type=Path, help="write the table here too")
    chosen = parser.parse_args()
    mutants = [mutant for mutant in MUTANTS if chosen.only in mutant.method]
    if not mutants:
        parser.error(f"no method contains {chosen.only!r}; there are {sorted({m.method for m in MUTANTS})}")
    for mutant in mutants:
        _mutated(mutant)  # a text that is no longer there is told before anything runs
    if (failure := _first_failure(None, TESTS + TRAINING_TESTS)) is not None:
        print(f"the tests fail without any mutation ({failure}), so they can show nothing. Mend them first.")
        return 2
    outcomes = []
    with ThreadPoolExecutor(max_workers=chosen.jobs) as pool:
        for outcome in pool.map(_judge, mutants):
            outcomes.append(outcome)
            print(f"{outcome.method:<22} {outcome.old!r} -> {outcome.new!r}\n    {outcome.caught_by or 'SURVIVED'}")
    survivors = [outcome for outcome in outcomes if outcome.caught_by is None]
    print(f"{len(outcomes) - len(survivors)} of {len(outcomes)} mutants caught")
    if chosen.json:
        chosen.json.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1), encoding="utf-8")
    return 1 if survivors else 0


def _judge(mutant: Mutant) -> Outcome:
    # Most mutants fall within seconds to the tests of pure functions; only the others are worth building a model for.
    caught = _first_failure(mutant, TESTS) or _first_failure(mutant, TRAINING_TESTS)
    return Outcome(mutant.method, mutant.file, mutant.old, mutant.new, caught)


def _mutated(mutant: Mutant) -> str:
    text = (ROOT / mutant.file).read_text(encoding="utf-8")
    if text.count(mutant.old) != 1:
        raise SystemExit(
            f"{mutant.file} holds {mutant.old!r} {text.count(mutant.old)} times, but a mutant changes one place. "
            "Mend scripts/mutants.py."
        )
    return text.replace(mutant.old, mutant.new)


def _first_failure(mutant: Mutant | None, tests: tuple[str, ...]) -> str | None:
    """Name of the first test that fails on a copy of the project with the mutant in it."""
    with tempfile.TemporaryDirectory() as folder:
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder)
        if mutant:
            (Path(folder) / mutant.file).write_text(_mutated(mutant), encoding="utf-8")
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "-p", "no:cacheprovider", *tests],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": folder, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"},
            capture_output=True,
            text=True,
            check=False,
        )
    if ended.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) (\S+)", ended.stdout, flags=re.MULTILINE)
    if found is None:
        raise SystemExit(f"the tests could not run:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return found.group(1)


if __name__ == "__main__":
    raise SystemExit(main())
