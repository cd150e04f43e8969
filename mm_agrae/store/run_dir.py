"""Where a run keeps everything: one folder, one fixed layout, never overwritten."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mm_agrae.errors import CheckpointError
from mm_agrae.store.atomic import write_json, write_text

# Temporary files of store.atomic for recipe.yaml and config.json.
_TORN = re.compile(r"\.(recipe\.yaml|config\.json)\.\d+\.tmp")


class RunDirExistsError(CheckpointError, FileExistsError):
    """A new run was asked to write into a folder that already holds something."""


@dataclass(frozen=True)
class RunDir:
    """The layout of a run directory. Making the object touches nothing; `create`, `create_at` and `open` do."""

    path: Path

    @classmethod
    def create(cls, root: Path, name: str, *, now: datetime | None = None) -> RunDir:
        """Make `<root>/<name>/<yyyymmdd-hhmmss>/`; a second run of the same second gets the suffix -2, and so on.

        Args:
            root: Folder of all runs.
            name: Name of the recipe; one folder name, no separators.
            now: Time that names the run; the local time when None.

        Raises:
            ValueError: If the name is not a plain folder name.
        """
        if not name or name in {".", ".."} or Path(name).name != name:
            raise ValueError(f"run name is {name!r}, but it must be a single folder name without separators.")
        parent = Path(root) / name
        parent.mkdir(parents=True, exist_ok=True)
        stamp = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
        number = 1
        while True:
            path = parent / (stamp if number == 1 else f"{stamp}-{number}")
            try:
                path.mkdir()
            except FileExistsError:
                number += 1
                continue
            return cls(path)._with_folders()

    @classmethod
    def create_at(cls, path: Path) -> RunDir:
        """Make a run in exactly this folder, which must be missing or empty.

        What a process left that was killed before it wrote config.json counts as empty.

        Raises:
            RunDirExistsError: If the path is a file or a folder with something in it; nothing is touched.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or not cls(path)._is_unused()):
            kind = "a folder that is not empty" if path.is_dir() else "a file"
            raise RunDirExistsError(
                f"{path} is {kind}, but a new run needs a folder that is empty or does not exist. "
                "Continue the run in it with --resume, or name another folder."
            )
        path.mkdir(parents=True, exist_ok=True)
        for torn in cls(path)._torn():
            torn.unlink()
        return cls(path)._with_folders()

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """An existing run.

        Raises:
            CheckpointError: If the folder does not exist or holds no config.json.
        """
        run = cls(Path(path))
        if not run.path.is_dir():
            raise CheckpointError(f"{run.path} does not exist, but must be the folder of a run. Check the path.")
        if not run.config.is_file():
            raise CheckpointError(
                f"{run.path} holds no config.json, so it is no run directory. "
                "Name the folder of one run, such as runs/<recipe>/<yyyymmdd-hhmmss>."
            )
        return run

    def _with_folders(self) -> RunDir:
        for folder in self._folders:
            folder.mkdir(exist_ok=True)
        return self

    @property
    def _folders(self) -> tuple[Path, ...]:
        return self.rollouts, self.checkpoints, self.eval, self.logs, self.thumbnails

    def _torn(self) -> list[Path]:
        return [path for path in self.path.iterdir() if _TORN.fullmatch(path.name)]

    def _is_unused(self) -> bool:
        """Whether the folder is empty but for what a run makes of it before config.json."""
        found = set(self.path.iterdir())
        if found - {*self._folders, self.recipe, *self._torn()}:
            return False
        # A recipe that no run has put there is somebody's own.
        if self.recipe in found and not found.issuperset(self._folders):
            return False
        return not any(folder in found and (not folder.is_dir() or any(folder.iterdir())) for folder in self._folders)

    @property
    def recipe(self) -> Path:
        """The YAML as given."""
        return self.path / "recipe.yaml"

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.json"

    @property
    def environment(self) -> Path:
        """Versions, device and git revision, as the run began."""
        return self.path / "environment.json"

    @property
    def twin(self) -> Path:
        """How far the engine was from the trainer when the run started."""
        return self.path / "twin.json"

    @property
    def metrics(self) -> Path:
        """One JSON line per step."""
        return self.path / "metrics.jsonl"

    @property
    def rollouts(self) -> Path:
        """Folder of the saved rollouts, one file per step."""
        return self.path / "rollouts"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def eval(self) -> Path:
        """Folder of the evaluations, one folder per step."""
        return self.path / "eval"

    @property
    def best(self) -> Path:
        """Which checkpoint measured best, and by what; there is none without train.keep_best."""
        return self.path / "best.json"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def thumbnails(self) -> Path:
        """Folder of the small pictures that rollouts and evaluations refer to."""
        return self.path / "thumbnails"

    @property
    def report(self) -> Path:
        return self.path / "report.html"

    def rollouts_at(self, step: int) -> Path:
        """File of the rollouts of one step."""
        return self.rollouts / f"{step_name(step)}.jsonl"

    def eval_at(self, step: int) -> Path:
        """Folder of the evaluation after `step` updates."""
        return self.eval / step_name(step)

    def write_recipe(self, text: str) -> None:
        """Store the recipe exactly as the user gave it."""
        write_text(self.recipe, text)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Store the resolved configuration; JSON values only."""
        write_json(self.config, config)

    def write_environment(self, environment: Mapping[str, Any], *, step: int = 0) -> None:
        """Store what the run runs on from a step; see `store.provenance.environment`.

        What it began on stays. Later records stand beside it, as environment_resumed_000010.json.
        """
        later = self.environment.with_name(f"environment_resumed_{step:06d}.json")
        write_json(later if self.environment.exists() else self.environment, environment)


def step_name(step: int) -> str:
    """`step_000010`: sorts by name as by number up to a million steps."""
    return f"step_{step:06d}"


def step_of(name: str) -> int | None:
    """The step that a file or folder name such as `step_000010` or `step_000010.jsonl` stands for, else None."""
    prefix, _, digits = name.partition(".")[0].partition("_")
    return int(digits) if prefix == "step" and digits.isascii() and digits.isdigit() else None
