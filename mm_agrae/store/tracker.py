"""Metrics of a run: always one JSON line per call in metrics.jsonl, mirrored to wandb by one setting.

The only door to wandb, which is imported only when it is on.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.metrics.catalogue import check_keys
from mm_agrae.store.atomic import finite_or_none, write_text

WandbMode = Literal["off", "offline", "online"]


class Tracker:
    """Writes metrics; one per run, on the main process only. Usable as a context manager."""

    def __init__(
        self,
        path: Path,
        *,
        wandb_mode: WandbMode,
        project: str,
        name: str,
        config: Mapping[str, Any],
        run_id: str | None,
        directory: Path,
    ) -> None:
        """Open metrics.jsonl for appending, and a wandb run when asked for.

        Args:
            path: metrics.jsonl; lines already there stay, a torn last one is dropped.
            wandb_mode: "off"; "offline" writes wandb's files without network; "online" sends them.
            project: wandb project.
            name: wandb run name.
            config: Resolved configuration, shown by wandb.
            run_id: wandb run to continue, None for a new one.
            directory: Folder in which wandb makes its `wandb/` folder.

        Raises:
            CheckpointError: If metrics.jsonl has a broken line before its last.
            ConfigError: If wandb refuses to start, such as online without a key.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # A torn line of a killed process would otherwise swallow the first line that is appended.
        if path.exists():
            _rewrite(path, read_metrics(path))
        self._file = path.open("a", encoding="utf-8")
        self._wandb: Any = None
        if wandb_mode != "off":
            try:
                self._wandb = _start_wandb(wandb_mode, project, name, config, run_id, directory)
            except BaseException:
                self._file.close()
                raise

    @property
    def run_id(self) -> str | None:
        """Id of the wandb run, to hand to the tracker that resumes it; None when wandb is off."""
        return None if self._wandb is None else str(self._wandb.id)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line and make it durable. NaN and infinities become null, so that every line is valid JSON.

        Raises:
            UncataloguedMetricError: If a key has no entry in the catalogue of metrics; nothing is written.
        """
        check_keys(metrics)
        line = {"step": step} | {key: finite_or_none(float(value)) for key, value in metrics.items()}
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        if self._wandb is not None:
            self._wandb.log({"step": step, **metrics})

    def close(self) -> None:
        """End the wandb run and close the file; a second call does nothing."""
        self._file.close()
        if self._wandb is not None:
            self._wandb.finish()
            self._wandb = None

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All lines of a metrics.jsonl; a torn last line, left by a kill in mid-write, is dropped.

    Raises:
        CheckpointError: If a line before the last is no JSON object with a whole-numbered "step".
    """
    pieces = Path(path).read_bytes().split(b"\n")
    # Behind the last newline is nothing, or what a killed process managed to write of a line.
    if not pieces[-1].strip():
        pieces.pop()
    lines = []
    for number, piece in enumerate(pieces, start=1):
        line = _parsed(piece)
        if line is not None:
            lines.append(line)
        elif number < len(pieces):
            raise CheckpointError(
                f"line {number} of {path} is broken, but only the last line may be (by a kill in mid-write). "
                "Restore the file or remove that line."
            )
    return lines


def truncate_after(path: Path, step: int) -> None:
    """Keep only the lines up to and including `step`, so that a resumed run writes the later ones again.

    A missing file stays missing. The rewrite is atomic.

    Raises:
        CheckpointError: As `read_metrics`; the file is then untouched.
    """
    path = Path(path)
    if path.exists():
        _rewrite(path, [line for line in read_metrics(path) if line["step"] <= step])


def _rewrite(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def _parsed(piece: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(piece)
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None


def _start_wandb(
    mode: Literal["offline", "online"],
    project: str,
    name: str,
    config: Mapping[str, Any],
    run_id: str | None,
    directory: Path,
) -> Any:
    import wandb

    Path(directory).mkdir(parents=True, exist_ok=True)
    try:
        run = wandb.init(
            mode=mode,
            project=project,
            name=name,
            config=dict(config),
            id=run_id,
            resume=None if run_id is None else "allow",
            dir=str(directory),
            settings=wandb.Settings(console="off", silent=True),
        )
    except wandb.Error as error:
        raise ConfigError(
            f"wandb did not start in mode {mode!r} ({error}). Run `wandb login` or set WANDB_API_KEY, or set "
            "tracker.wandb to offline or off."
        ) from error
    # Our own step axis: wandb's refuses to go back, which a resumed run does.
    run.define_metric("*", step_metric="step")
    return run
