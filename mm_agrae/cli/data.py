"""`mm-agrae data`: make data sets and look at them."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mm_agrae.cli.data_check import check
from mm_agrae.errors import ConfigError, DataError

data_app = typer.Typer(help="Make and look at data sets.", no_args_is_help=True)
data_app.command()(check)


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


@data_app.command(name="list")
def list_data(
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a document.")] = False,
) -> None:
    """List the data sets that can be converted."""
    from data_processors import PROCESSORS

    described = [processor.description for processor in PROCESSORS.values()]
    header = ("name", "data set", "hub id", "splits", "rows", "licence", "uses", "profile")
    rows = [header] + [
        (x.name, x.title, x.hub_id, _few(x.splits), x.rows, x.licence, ", ".join(x.uses), x.profile) for x in described
    ]
    if markdown:
        lines = [f"| {' | '.join(cell or '-' for cell in row)} |" for row in rows]
        print("\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]))
        return
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for each in described:
        if each.note:
            print(f"{each.name}: {each.note}")


@data_app.command()
def convert(
    name: Annotated[str, typer.Argument(help="Data set, see `mm-agrae data list`.")],
    split: Annotated[str, typer.Option(help="Splits to convert, separated by commas.")],
    out: Annotated[Path, typer.Option(help="Folder to make.")],
    source: Annotated[str, typer.Option(help="Hub id, file or folder; default the data set's hub id.")] = "",
    revision: Annotated[str, typer.Option(help="Branch, tag or commit on the hub; default the newest.")] = "",
    workers: Annotated[int, typer.Option(help="Processes; 0 takes one per core.", min=0)] = 0,
) -> None:
    """Convert a data set into canonical samples. Interrupted, the same command goes on where it was."""
    from data_processors import processor_named
    from data_processors.conversion.convert import DROPS_NAME
    from data_processors.conversion.convert import convert as convert_source
    from data_processors.conversion.rows import num_rows
    from data_processors.conversion.sources import open_source
    from mm_agrae.cli.progress import progress_bar

    processor = processor_named(name)
    if not (place := source or processor.description.hub_id):
        raise ConfigError(f"{name!r} has no place on the hub. Name a file or folder with --source.")
    if Path(place).is_dir() and out.resolve().is_relative_to(Path(place).resolve()):
        raise ConfigError(
            f"--out is {out}, inside the source {place}, where the next conversion would take it for rows. Name a "
            "folder elsewhere."
        )
    splits = [each.strip() for each in split.split(",") if each.strip()]
    opened = open_source(processor.description, place, splits, revision=revision or None)
    known = [num_rows(path) for path in opened.row_files()]
    total = None if None in known else sum(count or 0 for count in known)
    with progress_bar("converting", total) as advance:
        manifest = convert_source(processor, opened, out, workers=workers or None, on_rows=advance)
    for split_name, written in manifest.splits.items():
        drops = manifest.origin.drops[split_name]
        print(f"{split_name}: {manifest.origin.rows_in[split_name]} rows in, {written.num_samples} samples out")
        for reason, count in sorted(drops.items(), key=lambda item: -item[1]):
            print(f"  {count} dropped: {reason}")
    print(f"data set: {out} (licence {manifest.origin.licence}; dropped rows in {DROPS_NAME})", flush=True)


@data_app.command()
def rows(
    folders: Annotated[list[Path], typer.Argument(help="Folders of data sets.")],
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    num: Annotated[int, typer.Option(help="Rows of each split.", min=1)] = 1,
) -> None:
    """Draw a contact sheet of the first rows of data sets: picture, question, options, target, kind."""
    from data_processors.conversion.contact_sheet import contact_sheet
    from mm_agrae.data.dataset import open_dataset
    from mm_agrae.data.manifest import read_manifest

    opened = [open_dataset(folder, split) for folder in folders for split in read_manifest(folder).splits]
    samples = [samples[index] for samples in opened for index in range(min(num, len(samples)))]
    if not samples:
        raise DataError(f"{[str(folder) for folder in folders]} hold no sample. Name folders with samples.")
    contact_sheet(samples).save(out)
    print(f"contact sheet: {out} ({len(samples)} rows)", flush=True)


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed) if len(listed) <= 4 else f"{', '.join(listed[:3])}, ... ({len(listed)})"


def _levels(text: str) -> list[int]:
    try:
        return [int(level) for level in text.split(",")]
    except ValueError as error:
        raise ConfigError(f"--difficulties is {text!r}, but must be numbers such as 1,2,3.") from error
