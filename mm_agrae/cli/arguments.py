"""Arguments that several commands share. Importing them imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Recipe = Annotated[Path, typer.Argument(help="Recipe: a YAML file, see configs/.")]
Overrides = Annotated[Optional[list[str]], typer.Argument(help="Settings that differ, as dotted.key=value.")]  # noqa: UP045
Out = Annotated[Optional[Path], typer.Option(help="Run directory; default <output_dir>/<name>/<time>.")]  # noqa: UP045
Resume = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]


def check(recipe: Path, overrides: list[str] | None) -> None:
    """Read the settings before the heavy imports, so that a mistyped key is told at once."""
    from mm_agrae.config import load_config
    from mm_agrae.config.protocol import plan_sets

    plan_sets(load_config(recipe, overrides or []))


def say(line: str) -> None:
    """Tell the user."""
    print(line, flush=True)
