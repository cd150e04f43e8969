"""What a run ran on, so that its figures can be placed later."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch",
    "torchvision",
    "transformers",
    "accelerate",
    "datasets",
    "qwen-vl-utils",
    "math-verify",
    "sympy",
    "numpy",
    "pillow",
    "peft",
    "vllm",
)


def environment(device: str) -> dict[str, Any]:
    """Versions, machine and revision of the code.

    Args:
        device: The device in words, from whoever holds it ("cpu", "cuda: NVIDIA H200").

    Returns:
        JSON values: version, python, platform, cpu_count, device, git_revision and git_dirty (None outside a git
        checkout), packages (name -> version of those installed).
    """
    return {
        **code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "device": device,
        "packages": package_versions(PACKAGES),
    }


@cache  # what was imported stays, whatever is checked out later
def code_version() -> dict[str, Any]:
    """version, git_revision and git_dirty of this package; the last two are None outside a git checkout."""
    revision, dirty = _git_state(Path(__file__))
    return {"version": _version("mm-agrae"), "git_revision": revision, "git_dirty": dirty}


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those packages that are installed."""
    return {name: found for name in names if (found := _version(name)) is not None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_state(file: Path) -> tuple[str | None, bool | None]:
    """Revision of the checkout that tracks `file`, and whether tracked files differ from it."""
    # A package installed into a virtual environment can lie inside somebody else's checkout: only a checkout that
    # tracks this very file says anything about the code.
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return None, None
    revision = _git(file.parent, "rev-parse", "HEAD")
    changes = _git(file.parent, "status", "--porcelain", "--untracked-files=no")
    return revision, None if changes is None else changes != ""


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
