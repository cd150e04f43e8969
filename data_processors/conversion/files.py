"""Image files beside the rows of a data set: loose in its folder, or inside its zip archives."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from mm_agrae.errors import DataError

# No picture is larger, and a few kilobytes of an archive can unfold to more than the memory holds.
MAX_MEMBER = 256 << 20


class MemberError(ValueError):
    """A member of an archive is there and cannot be read; the text is short and the same for like members."""


@dataclass(frozen=True)
class Files:
    """What a row can name by a relative path.

    Attributes:
        root: Folder of the data set; None when there is none.
        archives: Zip archives, looked into after the folder, in order.
    """

    root: Path | None = None
    archives: tuple[Path, ...] = ()

    def read(self, path: str) -> bytes | None:
        """The content of a file; None when it is not there.

        Args:
            path: Relative to the folder or to the top of an archive. "file://" and leading "./" or "/" are taken off,
                and a path that leaves the folder is not there.

        Raises:
            MemberError: If the file is broken, encrypted or too large in its archive.
            DataError: If an archive is no zip file.
        """
        name = path.removeprefix("file://").replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            return None
        if self.root and _is_file(place := self.root.joinpath(*parts)):
            return place.read_bytes()
        for archive in self.archives:
            data = _read_member(archive, "/".join(parts))
            if data is not None:
                return data
        return None


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except OSError:  # the name is too long, because the cell holds no path
        return False


def _read_member(archive: Path, name: str) -> bytes | None:
    opened, names = _open_archive(archive)
    # Archives often hold one folder of the archive's own name above the paths that the rows give.
    found = next((full for full in (name, f"{archive.stem}/{name}") if full in names), None)
    if found is None:
        return None
    if opened.getinfo(found).file_size > MAX_MEMBER:
        raise MemberError(f"image is larger than {MAX_MEMBER >> 20} MB in its archive")
    try:
        return opened.read(found)
    # The last two are a damaged stream and an encrypted member.
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError) as error:
        raise MemberError("image cannot be read from its archive") from error


# Each process keeps its archives open; a data set has few.
@lru_cache(maxsize=32)
def _open_archive(archive: Path) -> tuple[zipfile.ZipFile, frozenset[str]]:
    try:
        opened = zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{archive} is no whole zip archive ({error}). If it is a pointer, fetch it with `git lfs pull`; otherwise "
            "fetch the archive again."
        ) from error
    return opened, frozenset(opened.namelist())
