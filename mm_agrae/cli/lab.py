"""The laboratory: what algorithms claim, and what they would have done with recorded rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

lab_app = typer.Typer(help="Compare algorithms without training a model.", no_args_is_help=True)


@lab_app.command()
def theory(
    out: Annotated[Path, typer.Option(help="Folder for theory.html and theory.json.")],
    seed: Annotated[int, typer.Option(help="Decides every draw.", min=0)] = 0,
    num_seeds: Annotated[int, typer.Option(help="Runs of the bandit per estimator.", min=2)] = 10,
) -> None:
    """Check what the papers claim, by computing it and by simulating it; fails if a claim does not hold."""
    from mm_agrae.lab.theory.run import run_theory

    holds = run_theory(out, seed=seed, num_seeds=num_seeds, log=_say)
    _say(f"page: {out / 'theory.html'}")
    if not holds:
        raise typer.Exit(code=1)


@lab_app.command()
def replay(
    run: Annotated[Path, typer.Argument(help="Run directory, or a file of rollouts.")],
    algorithms: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Such as grpo, dapo+agrae+elastic, or run for the run's own; default: a choice of eight."),
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Folder of the page; default RUN/replay.")] = None,  # noqa: UP045
    groups: Annotated[int, typer.Option(help="Groups shown one by one.", min=0)] = 12,
) -> None:
    """Run recorded rollouts through several algorithms, side by side."""
    from mm_agrae.lab.replay.run import run_replay

    _say(f"page: {run_replay(run, algorithms=algorithms or (), out=out, num_groups=groups, log=_say)}")


def _say(line: str) -> None:
    print(line, flush=True)
