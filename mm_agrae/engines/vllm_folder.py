"""The folder in which a run hands weights over, and the locks of its processes.

Every run has a folder of its own beside those of other runs, and a lock in it that is free once the run's main process
is gone, however it went. So a run that was killed leaves nothing for longer than until the next start.
"""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from urllib.parse import urlsplit

from mm_agrae.errors import EngineError

ALIVE = "alive.lock"


class HandoverFolder:
    """A run's own folder.

    Attributes:
        path: It.
    """

    def __init__(self, parent: Path, run: str) -> None:
        """Nothing is made yet.

        Args:
            parent: Where runs have their folders; trainer and servers see it under the same path.
            run: What no other run is called.
        """
        self.parent = parent
        self.path = parent / run
        self._held: TextIOWrapper | None = None

    def open(self) -> None:
        """Make it, and remove those of runs that are gone. For the main process.

        Raises:
            EngineError: It cannot be made.
        """
        try:
            with _locked(self.parent / "starting.lock"):  # nobody takes a folder for left that is being made
                for lock in self.parent.glob(f"*/{ALIVE}"):
                    _remove_if_left(lock)
                self.path.mkdir()
                self._held = _lock(self.path / ALIVE, wait=True)
        except OSError as error:
            raise EngineError(
                f"weights cannot be handed over in {self.parent}: {error}. Name another folder that trainer and "
                "servers see: engine.sync_folder."
            ) from error

    def alone_with(self, base_url: str) -> contextlib.AbstractContextManager[None]:
        """One process of the run at a time, for a server; a process that dies leaves the way free."""
        return _locked(self.path / f"{urlsplit(base_url).netloc.replace(':', '-')}.lock")

    def close(self) -> None:
        """Remove it, where this process made it."""
        if self._held is not None:
            _empty(self.path)
            self._held.close()
            self._held = None


def _remove_if_left(lock: Path) -> None:
    with contextlib.suppress(FileNotFoundError, BlockingIOError), _lock(lock, wait=False):
        _empty(lock.parent)


def _empty(folder: Path) -> None:
    """Delete what a run puts into its folder, and the folder unless somebody else uses it too."""
    for path in [*folder.glob("*.safetensors"), *folder.glob(".*.tmp"), *folder.glob("*.lock")]:
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        folder.rmdir()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _lock(path, wait=True):
        yield


def _lock(path: Path, *, wait: bool) -> TextIOWrapper:
    """The file, locked until it is closed.

    Raises:
        BlockingIOError: Another process holds it, and waiting is not wanted.
    """
    file = path.open("a", encoding="ascii")
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise
    return file
