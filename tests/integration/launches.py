"""The command line as processes of its own: one, or the two of a launcher."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from processes import environment, torchrun

COMMAND_LINE = ("-m", "mm_agrae.cli.main")
LAUNCH_FILE = Path(__file__).resolve().parents[2] / "configs" / "accelerate" / "two_cpu_processes.yaml"


def mm_agrae(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return launched(sys.executable, *COMMAND_LINE, *words)


def two_processes(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """A program (a file, or -m and a module) as two processes."""
    return launched(*torchrun(2, *words))


def accelerate_launch(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Two processes of the command line, as the launch file starts them."""
    launcher = ("-m", "accelerate.commands.launch", "--config_file", LAUNCH_FILE, "--main_process_port", "0")
    return launched(sys.executable, *launcher, *COMMAND_LINE, *words)


def launched(*command: str | Path) -> subprocess.CompletedProcess[str]:
    words = list(map(str, command))
    return subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=240, check=False)
