"""`mm-agrae lab theory`: what the algorithms provably do, checked against the shipped code, and a bandit beside it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mm_agrae.errors import ConfigError
from mm_agrae.lab.bandit.figures import Race, expectations_json, final_table, findings, race_json, run_race
from mm_agrae.lab.theory.agrae import agrae_claims
from mm_agrae.lab.theory.asymmetry import asymmetry_claims
from mm_agrae.lab.theory.claim import FALSE_ALARM, Claim, Row, judge
from mm_agrae.lab.theory.elastic import elastic_claims
from mm_agrae.lab.theory.history import history_claims
from mm_agrae.lab.theory.page import count, interval_text, value_text, write_theory_page
from mm_agrae.store.atomic import finite_or_none, write_json


def run_theory(
    out: Path, *, seed: int = 0, num_seeds: int = 10, num_steps: int = 200, log: Callable[[str], None] = print
) -> bool:
    """Check every claim, run the bandit, write theory.html and theory.json.

    Args:
        out: Folder of both files; made if absent, older files are replaced.
        seed: Of all draws.
        num_seeds: Runs of each bandit method.
        num_steps: Steps of each run.
        log: Takes one line of text at a time.

    Returns:
        Whether every claim passed. The bandit observes and cannot fail.

    Raises:
        ConfigError: If a number is below 1.
        OSError: If the disk does not take a file.
    """
    if num_seeds < 1 or num_steps < 1:
        raise ConfigError(
            f"the bandit was given {num_seeds} seeds and {num_steps} steps, but needs 1 or more of each; "
            "intervals need 2 seeds."
        )
    claims = all_claims()
    rows = judge(claims, seed=seed)
    for line in claim_lines(rows):
        log(line)
    plain, leveled = (
        run_race(seed=seed, num_seeds=num_seeds, num_steps=num_steps, equal_weight=equal) for equal in (False, True)
    )
    for line in bandit_lines(plain, leveled):
        log(line)
    sizes = f"{num_seeds} seeds, {num_steps} steps"
    write_theory_page(Path(out) / "theory.html", claims, rows, plain, leveled, sizes=sizes)
    values = {"seed": seed, "num_seeds": num_seeds, "num_steps": num_steps, "false_alarm": FALSE_ALARM}
    bandit = {
        "same_rate": race_json(plain),
        "equal_weight": race_json(leveled),
        "expectations": expectations_json(plain, leveled),
        "findings": findings(plain, leveled),
    }
    write_json(Path(out) / "theory.json", values | {"claims": claims_json(claims, rows), "bandit": bandit})
    return all(row.passed for row in rows)


def all_claims() -> list[Claim]:
    """T1 to T7, H1 to H7, E1 to E3."""
    return [*asymmetry_claims(), *agrae_claims(), *history_claims(), *elastic_claims()]


def claim_lines(rows: Sequence[Row]) -> list[str]:
    """The judged cases as lines of text with fixed columns, then the count."""
    width = max(len(row.parameters) for row in rows)
    lines = [
        f"{row.claim:3} {row.parameters:{width}} {value_text(row.closed):>10} {value_text(row.enumerated):>10} "
        f"{value_text(row.observed):>10}  {interval_text(row):24} {row.reason or 'pass'}"
        for row in rows
    ]
    header = f"{'':3} {'case':{width}} {'closed':>10} {'enumerated':>10} {'observed':>10}  {'interval':24} verdict"
    return [header, *lines, count(rows)]


def bandit_lines(plain: Race, leveled: Race) -> list[str]:
    """Figures of both races and the findings as lines of text."""
    lines = []
    for race, title in ((plain, "same learning rate"), (leveled, "equal weight")):
        table = final_table(race, caption="")
        width = max(len(str(row[0])) for row in table.rows)
        lines.append(f"bandit, {title}".ljust(width) + "".join(f"{header:>21}" for header in table.headers[1:]))
        lines += [f"{row[0]:{width}}" + "".join(f"{cell!s:>21}" for cell in row[1:]) for row in table.rows]
    return [*lines, *findings(plain, leveled)]


def claims_json(claims: Sequence[Claim], rows: Sequence[Row]) -> list[dict[str, Any]]:
    """JSON values of all claims with their rows."""
    return [
        {
            "id": claim.id,
            "title": claim.title,
            "statement": claim.statement,
            "formula": claim.formula,
            "caveat": claim.caveat,
            "cases": [
                {
                    "parameters": row.parameters,
                    "closed": row.closed,
                    "enumerated": row.enumerated,
                    "observed": finite_or_none(row.observed),
                    "low": finite_or_none(row.low),
                    "high": finite_or_none(row.high),
                    "num_observations": row.num_observations,
                    "passed": row.passed,
                    "reason": row.reason,
                }
                for row in rows
                if row.claim == claim.id
            ],
        }
        for claim in claims
    ]
