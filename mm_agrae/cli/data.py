"""`mm-agrae data`: make data sets and look at them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mm_agrae.errors import ConfigError

data_app = typer.Typer(help="Make and look at data sets.", no_args_is_help=True)


@data_app.command()
def gym(
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    num: Annotated[int, typer.Option(help="Training problems.", min=0)] = 2000,
    held_out: Annotated[int, typer.Option(help="Held-out problems (split test).", min=0)] = 256,
    seed: Annotated[int, typer.Option(help="Decides every problem.", min=0)] = 0,
    families: Annotated[str, typer.Option(help="Families or groups, separated by commas; default all.")] = "",
    difficulties: Annotated[str, typer.Option(help="Levels 1 to 5, separated by commas.")] = "1,2,3,4,5",
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.", min=1)] = 336,
    text_only: Annotated[bool, typer.Option("--text-only", help="Describe each picture in words instead.")] = False,
) -> None:
    """Draw the visual gym: procedural geometry, charts, counting and functions with exact answers."""
    from data_processors.visual_gym.families import ALL
    from data_processors.visual_gym.write import write_gym
    from mm_agrae.cli.progress import progress_bar

    names = [name.strip() for name in families.split(",") if name.strip()] or list(ALL)
    with progress_bar("drawing", num + held_out) as advance:
        manifest = write_gym(
            out,
            num=num,
            held_out=held_out,
            seed=seed,
            families=names,
            difficulties=_levels(difficulties),
            size=size,
            text_only=text_only,
            on_sample=partial(advance, 1),
        )
    counts = ", ".join(f"{split.num_samples} {name}" for name, split in manifest.splits.items())
    print(f"data set: {out} ({counts})", flush=True)


@data_app.command()
def sheet(
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    families: Annotated[str, typer.Option(help="Families or groups, separated by commas; default all.")] = "",
    size: Annotated[int, typer.Option(help="Side of the pictures in pixels.", min=1)] = 336,
    seed: Annotated[int, typer.Option(help="Decides every problem.", min=0)] = 0,
) -> None:
    """Draw a contact sheet of the visual gym, one picture per family and level."""
    from data_processors.visual_gym.families import ALL, DIFFICULTIES
    from data_processors.visual_gym.sheet import contact_sheet

    names = [name.strip() for name in families.split(",") if name.strip()] or list(ALL)
    contact_sheet(names, DIFFICULTIES, size=size, seed=seed).save(out)
    print(f"contact sheet: {out}", flush=True)


def _levels(text: str) -> list[int]:
    try:
        return [int(level) for level in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--difficulties is {text!r}, but must be numbers such as 1,2,3.") from error
