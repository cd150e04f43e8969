"""`mm-agrae eval` and what is done with its results. Needs no torch before a model is measured."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from mm_agrae.cli.arguments import Out, Overrides, Recipe, Resume, check, say
from mm_agrae.errors import DataError

Blind = Annotated[
    Optional[Literal["grey", "swap"]],  # noqa: UP045
    typer.Option("--blind", help="Measure once more with grey or swapped pictures: how much of the score needs them?"),
]
Results = Annotated[Path, typer.Argument(help="Run directory, or the folder of one evaluation.")]
# Changed verdicts that are shown; all are in changed.jsonl.
SHOWN = 20


def evaluate(
    recipe: Recipe, overrides: Overrides = None, out: Out = None, resume: Resume = False, blind: Blind = None
) -> None:
    """Measure a model on the evaluation sets of a recipe: pass@k, avg@k, maj@k and more, with intervals."""
    check(recipe, overrides)
    from mm_agrae.cli.jobs import run_evaluate

    run_evaluate(recipe, overrides or [], out, say, resume=resume, blind=blind)


def rescore(
    results: Results,
    out: Annotated[Path, typer.Option(help="Folder to make for the new verdicts and summaries.")],
    profile: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Scoring profile; default that by which each set was measured."),
    ] = None,
    workers: Annotated[int, typer.Option(help="Worker processes for symbolic comparison.", min=1)] = 2,
    timeout_s: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Seconds after which a comparison is killed; default as each set was measured.", min=0.1),
    ] = None,
) -> None:
    """Judge saved completions again, without a model, and list the verdicts that changed."""
    from dataclasses import asdict

    from mm_agrae.evaluate.rescore import measured_again, rescore_set
    from mm_agrae.evaluate.saved import saved_sets
    from mm_agrae.evaluate.summary import lines_of
    from mm_agrae.store.atomic import write_stream
    from mm_agrae.store.rollout_log import json_line
    from mm_agrae.verify import VerifierPool

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} exists and is not empty, but --out must name a new or empty folder. Name another.")
    changes = []
    for saved in saved_sets(results).values():
        measured = measured_again(saved.measured, profile=profile, timeout_s=timeout_s)
        with VerifierPool(num_workers=workers, timeout_s=measured.timeout_s) as verifier:
            rescored = rescore_set(saved, verifier, out, measured=measured)
        changes += rescored.changes
        for line in lines_of(rescored.summary):
            say(line)
    write_stream(out / "changed.jsonl", (json_line(asdict(change)) for change in changes))
    for change in changes[:SHOWN]:
        where = "greedy" if change.completion is None else f"completion {change.completion}"
        say(
            f"changed: {change.set} {change.sample_id} {where}: {change.before['status']} {change.before['answer']!r} "
            f"-> {change.after['status']} {change.after['answer']!r} ({change.after['rule']}), target {change.target!r}"
        )
    say(f"{len(changes)} verdicts changed; all of them: {out / 'changed.jsonl'}")


def eval_diff(
    first: Results,
    second: Results,
    out: Annotated[Optional[Path], typer.Option(help="JSON file to write.")] = None,  # noqa: UP045
    seed: Annotated[int, typer.Option(help="Of the resampling.", min=0)] = 0,
) -> None:
    """Compare two results problem by problem: difference, paired interval and p value of every figure."""
    from mm_agrae.evaluate.diff import diff_sets, lines_of
    from mm_agrae.evaluate.saved import saved_sets
    from mm_agrae.store.atomic import write_json

    before, after = saved_sets(first), saved_sets(second)
    shared = [name for name in before if name in after]
    if not shared:
        raise DataError(
            f"{first} has the sets {list(before)} and {second} {list(after)}, but a comparison needs one in both."
            " Measure the same sets."
        )
    for name in (*before, *after):
        if name not in shared:
            say(f"{name}: in one result only, not compared")
    diffs = [diff_sets(before[name], after[name], seed=seed) for name in shared]
    for diff in diffs:
        for line in lines_of(diff):
            say(line)
    if out:
        write_json(out, {diff.name: diff.to_json() for diff in diffs})
