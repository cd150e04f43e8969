"""A hub id, a file or a folder as a stream of raw rows.

What lies on the hub is fetched into its cache and then read as a folder, so that both ways end in the same code.
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import cast

from PIL import Image

from data_processors.conversion.description import Description, Part, Row
from data_processors.conversion.files import Files
from data_processors.conversion.layout import README, card_configs, matching, row_files
from data_processors.conversion.rows import column_names, read_rows
from mm_agrae.errors import ConfigError, DataError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)
LOCAL = "local"

PartFiles = tuple[tuple[Part, tuple[Path, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Rows of a data set that can be read.

    Attributes:
        place: Hub id or path, as it was given.
        revision: Commit on the hub, or "local".
        root: Folder that the files lie in.
        parts: The parts of every split with their files.
        files: Image files beside the rows.
        required: Columns that every row has; None where the file has none.
    """

    place: str
    revision: str
    root: Path
    parts: Mapping[str, PartFiles]
    files: Files
    required: tuple[str, ...]

    def rows(self, split: str) -> Iterator[Row]:
        """The rows of one split in order, a few in memory at a time.

        Raises:
            DataError: If a file cannot be read.
        """
        index = 0
        blank = dict.fromkeys(self.required)
        for part, paths in self.parts[split]:
            for path in paths:
                for values in read_rows(path):
                    yield Row(values={**blank, **values}, index=index, split=split, part=part, files=self.files)
                    index += 1

    def row_files(self) -> list[Path]:
        """Every file that holds rows, once."""
        return list(dict.fromkeys(path for parts in self.parts.values() for _, paths in parts for path in paths))

    def pictures(self) -> list[Path]:
        """Every loose file that is named like a picture."""
        Image.init()
        suffixes = Image.registered_extensions()
        return [self.root / name for name in _names(self.root) if Path(name).suffix.lower() in suffixes]

    def hashes(self) -> dict[str, str]:
        """sha256 of every file that holds rows, by its path under the root."""
        return {path.relative_to(self.root).as_posix(): _sha256(path) for path in self.row_files()}


def open_source(description: Description, place: str, splits: Sequence[str], *, revision: str | None = None) -> Source:
    """Find the files of a data set, and fetch them when the place is a hub id.

    Args:
        description: The data set.
        place: Hub id, a file of rows (taken as the one split that is asked for), or a folder with a copy of the
            repository.
        splits: Our names of the splits to open, at least one.
        revision: Branch, tag or commit on the hub; None takes the newest.

    Raises:
        ConfigError: If no split is named, a split is not one of the data set's, or a revision is given for a local
            place.
        DataError: If nothing is found, or a required column is missing; the message says what there is.
    """
    wanted = {split: _parts(description, split) for split in splits}
    if not wanted:
        offer = f"one or more of {', '.join(description.splits)}" if description.splits else "the splits of your files"
        raise ConfigError(f"no split of {description.name!r} was named. Name {offer}.")
    path = Path(place)
    if not path.exists():
        root, commit = _fetch(description, place, wanted, revision)
    elif revision:
        raise ConfigError(f"a revision ({revision}) was given for {place}, but files on disk have none. Leave it out.")
    else:
        root, commit = (path if path.is_dir() else path.parent), LOCAL
    names = _names(root)
    parts = (
        _one_file(wanted, path)
        if path.is_file()
        else {split: _files(root, names, split_parts) for split, split_parts in wanted.items()}
    )
    archives = tuple(root / name for glob in description.archives for name in matching(names, glob))
    files = Files(root=root, archives=archives)
    source = Source(place=place, revision=commit, root=root, parts=parts, files=files, required=description.required)
    _check_columns(source)
    return source


def _parts(description: Description, split: str) -> tuple[Part, ...]:
    if not description.splits:
        if "/" in split:
            raise ConfigError(f"split is {split!r}, but it names a file, so it must be without '/'. Name another.")
        return (Part(split=split),)
    if split not in description.splits:
        near = difflib.get_close_matches(split, description.splits, n=1)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Its splits: {', '.join(description.splits)}."
        raise ConfigError(f"{description.name!r} has no split {split!r}. {remedy}")
    return description.splits[split]


def _one_file(wanted: Mapping[str, tuple[Part, ...]], path: Path) -> dict[str, PartFiles]:
    if len(wanted) > 1:
        raise ConfigError(
            f"{path} is one file, but the splits {list(wanted)} were asked for. Name the one split that it is, or give "
            "a folder."
        )
    for split, parts in wanted.items():
        if len(names := list(dict.fromkeys(part.split for part in parts))) > 1:
            raise ConfigError(
                f"{path} is one file, but the split {split!r} is made of {names}. Name the one of them that the file "
                "is, or give a folder."
            )
    return {split: ((parts[0], (path,)),) for split, parts in wanted.items()}


def _files(root: Path, names: Sequence[str], parts: tuple[Part, ...]) -> PartFiles:
    configs = card_configs(root / README)
    return tuple((part, tuple(root / name for name in row_files(names, part, configs))) for part in parts)


def _fetch(
    description: Description, place: str, wanted: Mapping[str, tuple[Part, ...]], revision: str | None
) -> tuple[Path, str]:
    """The folder of the hub's cache with the files that are wanted, and the commit."""
    if not HUB_ID.fullmatch(place):
        raise DataError(f"{place} is neither a file, a folder nor a hub id (owner/name). Give one of these.")
    # Imported here: it takes a while, which no command that reads local files should pay.
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # A failed connection is an error of the HTTP library below the hub's, which differs between its versions; the
    # first base of the hub's own error is that library's.
    http_error = cast(type[Exception], HfHubHTTPError.__bases__[0])
    try:
        info = HfApi().dataset_info(place, revision=revision)
        names = sorted(sibling.rfilename for sibling in info.siblings or ())
        commit = str(info.sha)
        card = README in names and hf_hub_download(place, README, repo_type="dataset", revision=commit)
        configs = card_configs(Path(card)) if card else {}
        needed = [name for parts in wanted.values() for part in parts for name in row_files(names, part, configs)]
        needed += [name for glob in (*description.archives, *description.images) for name in matching(names, glob)]
        patterns = [escape(name) for name in dict.fromkeys([*needed, *([README] if card else [])])]
        folder = snapshot_download(place, repo_type="dataset", revision=commit, allow_patterns=patterns)
    except (OSError, HFValidationError, http_error) as error:
        raise DataError(
            f"{place!r} is nothing on disk, and cannot be fetched from the hub ({error}). Check the spelling and the "
            "connection, or give a local copy."
        ) from error
    return Path(folder), commit


def _names(root: Path) -> list[str]:
    """Paths of all files under a folder, sorted; hidden folders (.git, .cache) are left out."""
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(folder, name).relative_to(root).as_posix() for name in files]
    return sorted(found)


def _check_columns(source: Source) -> None:
    for path in source.row_files():
        there = column_names(path)
        missing = [name for name in source.required if name not in there]
        if missing:
            raise DataError(
                f"{path} has the columns {there}, but {missing} must be there too. Rename the columns, or give another "
                "data set."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
