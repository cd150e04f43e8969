"""One process at a time writes into a run: two that resume it at once would remove each other's files."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import IO

from mm_agrae.errors import CheckpointError


def hold(path: Path, log: Callable[[str], None]) -> IO[str] | None:
    """Lock a file until it is closed or the process ends, however it ends.

    A process that it forks does not inherit the lock, so a worker that outlives it holds nothing.

    Args:
        path: The file; made when missing, and left behind.
        log: Told where the file system knows no locks.

    Returns:
        The open file, None where there are no locks.

    Raises:
        CheckpointError: Another process holds it.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read().strip()
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise CheckpointError(
                f"{path.parent} is in use by {holder or 'another process'}. Wait until it has ended, or end it first."
            ) from error
        log(f"{path} cannot be locked ({error.strerror}): see to it that no other process works in this run")
        return None
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return file
