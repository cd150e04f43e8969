"""Processes as scripts and tests start them: nothing of a launcher around them, a port or a disk of their own.

Only the standard library is imported, because torch reads the environment when it is.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LAUNCH = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
QUIET = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled"}


def environment() -> dict[str, str]:
    """Ours, without a launcher around it: one thread that does not spin, no network, no tracker."""
    return {name: value for name, value in os.environ.items() if name not in LAUNCH} | QUIET


def torchrun(num_processes: int, *words: str | Path) -> list[str]:
    """The command that starts a program (a file, or -m and a module) as so many processes that find each other."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    return [sys.executable, *launcher, *map(str, words)]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """A file system of its own at this new folder; False where it cannot be mounted, as root alone can."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(folder)], check=True)
