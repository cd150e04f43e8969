"""`mm-agrae verify-resume` and `mm-agrae export`: what a run's checkpoints are worth, and their models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from mm_agrae.cli.arguments import say

Run = Annotated[Path, typer.Argument(help="Run directory.")]


def verify_resume(
    run: Run,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help="Steps to make; default: from the checkpoint before the last to the last.", min=1),
    ] = None,
) -> None:
    """Make some steps of a run again from a checkpoint, and compare; exit status 2 where anything differs."""
    from mm_agrae.cli.jobs import run_verify_resume

    if not run_verify_resume(run, steps, say):
        raise typer.Exit(2)


def export(
    run: Run,
    out: Annotated[Path, typer.Option(help="Folder to make; nothing is overwritten.")],
    step: Annotated[Optional[int], typer.Option(help="Checkpoint after this step; default the newest.", min=0)] = None,  # noqa: UP045
    best: Annotated[bool, typer.Option("--best", help="The checkpoint that train.keep_best kept.")] = False,
    merge: Annotated[bool, typer.Option("--merge", help="Fold adapters into the model that they adapt.")] = False,
) -> None:
    """Write the model of a checkpoint as an ordinary model folder; of a LoRA run an adapter folder, or merged."""
    from mm_agrae.store.run_dir import RunDir
    from mm_agrae.train.export import choose_checkpoint
    from mm_agrae.train.export import export as export_model

    checkpoint = choose_checkpoint(RunDir.open(run), step, best=best)
    digest = export_model(checkpoint, out, merge=merge)
    say(f"model: {out} (from {checkpoint.name}, sha256 {digest})")
