"""`mm-agrae doctor`: would this recipe run here?"""

from __future__ import annotations

import os

import typer

from mm_agrae.cli.arguments import Overrides, Recipe


def doctor(recipe: Recipe, overrides: Overrides = None) -> None:
    """Look at everything that a run needs, before a machine is rented for it; every line says fine, warning or wrong.

    The exit code is 0 when nothing is wrong, and 2 when something is. No run directory stays behind.
    """
    from mm_agrae.cli.checkup import examine

    wrong = 0
    for line in examine(recipe, overrides or []):
        wrong += line.level == "wrong"
        # Every process looks, because parts of it are done together; the first one tells.
        if os.environ.get("RANK", "0") == "0":
            print(line, flush=True)
    if wrong:
        raise typer.Exit(code=2)
