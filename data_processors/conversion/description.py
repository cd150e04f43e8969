"""What a data processor is made of: where its rows lie, one raw row, and what became of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from data_processors.conversion.files import Files
from mm_agrae.records import Sample

Use = Literal["training", "benchmark"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """Where rows of one of our splits lie.

    Attributes:
        split: Name of the split in the repository of the data set ("testmini", "sample_variant1").
        config: Name of its configuration there; None for the default one.
        files: Globs of its files, for what the repository does not describe itself ("39Krelease.parquet"). Empty
            looks for files that bear the names of the split and the configuration.
    """

    split: str
    config: str | None = None
    files: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Description:
    """A data set as a user finds it in the table.

    Attributes:
        name: Name of the processor; the ids of its samples start with it.
        title: Name that people know it by.
        hub_id: Where it lies on the Hugging Face hub; "" for a layout of users' own files.
        licence: As its card states it; "unknown" when it does not.
        splits: Parts by the name of our split; the rows of its parts follow each other. Empty takes any split by its
            own name.
        uses: What it may be used for; ("benchmark",) may not be trained on.
        profile: Scoring profile of its rule.
        rows: Published sizes ("train 2,101, test 601"); "" when unknown.
        required: Columns that must be there.
        archives: Globs of zip archives of images beside the rows; read by relative path, never unpacked.
        images: Globs of loose image files beside the rows, which have to be fetched from the hub too.
        note: One sentence that a user must know; "" when there is none.
    """

    name: str
    title: str
    hub_id: str
    licence: str
    splits: Mapping[str, tuple[Part, ...]]
    uses: tuple[Use, ...]
    profile: str
    rows: str
    required: tuple[str, ...]
    archives: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    note: str = ""


def own_layout(name: str, title: str, *, required: tuple[str, ...], note: str) -> Description:
    """The description of a layout of users' own files: any split, any use, the general scoring profile."""
    return Description(
        name=name,
        title=title,
        hub_id="",
        licence="your own",
        splits={},
        uses=("training", "benchmark"),
        profile="generic",
        rows="",
        required=required,
        archives=("*.zip",),
        note=note,
    )


@dataclass(frozen=True, kw_only=True)
class Row:
    """One raw row and where it stands.

    Attributes:
        values: Its columns, images not decoded; a required column that it lacks is None.
        index: Its place within our split, from 0.
        split: Name of our split.
        part: Part that it came from.
        files: Image files that it may name by a relative path.
    """

    values: Mapping[str, Any]
    index: int
    split: str
    part: Part
    files: Files


@dataclass(frozen=True)
class Drop:
    """A row that cannot be used.

    Attributes:
        reason: Short and the same for like rows, because reasons are counted ("answer box is not closed").
    """

    reason: str


Convert = Callable[[Row], Sample | Drop]
Key = Callable[[Row], str]


@dataclass(frozen=True, kw_only=True)
class Processor:
    """A data processor.

    Attributes:
        description: The data set.
        convert: One row to one sample. Pure, but for reading image files.
        key: What makes two rows copies of each other; None when the set does not repeat rows.
    """

    description: Description
    convert: Convert
    key: Key | None = None
