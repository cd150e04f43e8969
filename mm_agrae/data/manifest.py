"""The manifest beside a data set: what is in it and where it came from.

Opening a split compares the rows and bytes of its file with the manifest. The hash is for whoever copies or cites a
data set: computing it means reading the whole file, which opening avoids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mm_agrae.errors import DataError

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 2


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the samples of a conversion came from and what they may be used for.

    Attributes:
        processor: Name of the data processor; "" when none made them.
        revision: Commit of the repository on the hub; "local" for files on disk, "" for made samples.
        licence: Licence of the data set as its card states it; "unknown" when nobody said.
        uses: "training", "benchmark" or both; a data set without "training" may not be trained on.
        profile: Scoring profile of its rule.
        files: Hash (sha256) of every file that rows were read from, by its path in the source.
        rows_in: Rows read by split; a split that is not named had no row dropped.
        drops: Rows dropped, by split and reason.
    """

    processor: str = ""
    revision: str = ""
    licence: str = "unknown"
    uses: tuple[str, ...] = ("training", "benchmark")
    profile: str = "generic"
    files: Mapping[str, str] = field(default_factory=dict)
    rows_in: Mapping[str, int] = field(default_factory=dict)
    drops: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SplitManifest:
    """One split of a data set.

    Attributes:
        file: Name of its parquet file in the folder.
        num_samples: Rows.
        families: Samples per family.
        difficulties: Samples per difficulty; samples without one are under "none".
        num_bytes: Size of the file.
        sha256: Hash of the file.
    """

    file: str
    num_samples: int
    families: dict[str, int]
    difficulties: dict[str, int]
    num_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A whole data set.

    Attributes:
        format_version: Version of this layout.
        package_version: Version of the package that wrote it.
        source: Where the samples came from: a hub id, a path, the name of what made them.
        origin: What a conversion knows beyond that.
        seed: Seed they were made with (0 for a converted data set).
        splits: By name.
        split_overlap: Number of problems (question, images and target) found in more than one split.
    """

    format_version: int
    package_version: str
    source: str
    origin: Origin
    seed: int
    splits: dict[str, SplitManifest]
    split_overlap: int


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_NAME).write_text(json.dumps(asdict(manifest), indent=2) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a data set.

    Raises:
        DataError: If there is none, it cannot be parsed, or it is of another format version.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        there = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else "no such folder"
        raise DataError(
            f"{folder} holds no {MANIFEST_NAME} (there is: {there}), but a data set is a folder with a manifest. "
            "Give the folder that `mm-agrae data` wrote."
        )
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = values["format_version"]
        if version == FORMAT_VERSION:
            splits = {name: SplitManifest(**split) for name, split in values.pop("splits").items()}
            origin = values.pop("origin")
            origin = Origin(**{**origin, "uses": tuple(origin["uses"])})
            return Manifest(**values, origin=origin, splits=splits)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a manifest ({error!r}). Write the data set again.") from error
    raise DataError(
        f"{path} has format version {version}, but this package reads version {FORMAT_VERSION}. "
        "Write the data set again with this version."
    )


def sorted_counts(counts: Counter[str]) -> dict[str, int]:
    return {key: counts[key] for key in sorted(counts)}
