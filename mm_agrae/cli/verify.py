"""`mm-agrae verify`: does the verifier agree with a file of labelled cases?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def verify(
    file: Annotated[Path, typer.Argument(help="Labelled cases: one JSON object per line.")],
    json_only: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: total, agree, disagreements [{id, ...}], ...")
    ] = False,
    workers: Annotated[int, typer.Option(help="Processes for computer algebra.", min=1)] = 2,
    timeout_s: Annotated[float, typer.Option(help="Seconds after which a comparison is killed.", min=0.01)] = 5.0,
) -> None:
    """Judge labelled cases; print agreement by profile and category, and every disagreement.

    A line holds id, prediction, gold, answer_type and expected (true or false); where they matter also profile
    (default generic), category, options and tolerance. Other keys are left alone.

    The exit code is 0 when all cases agree, 1 when some do not, and 2 when the file cannot be read.
    """
    from mm_agrae.verify.agreement import agreement_of, as_json, as_lines, judge_cases, read_cases
    from mm_agrae.verify.pool import VerifierPool

    with file.open("rb") as lines, VerifierPool(num_workers=workers, timeout_s=timeout_s) as pool:
        agreement = agreement_of(judge_cases(read_cases(lines, source=str(file)), pool))
    print(json.dumps(as_json(agreement)) if json_only else "\n".join(as_lines(agreement)), flush=True)
    if agreement.disagreements:
        raise typer.Exit(code=1)
