"""Rollouts on disk: one JSON line per group, pictures as small files beside them.

Training steps and evaluations use the same lines; an evaluation has no advantages. A line holds what judges its
completions again: target, kind, options, tolerance.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mm_agrae.data.images import open_image
from mm_agrae.errors import DataError
from mm_agrae.records import Rollout, RolloutGroup
from mm_agrae.store.atomic import finite_or_none, write_text

THUMBNAIL_SIDE = 320


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write the lines of one file, which appears whole or not at all; replaces a file of that name."""
    write_text(path, "".join(lines))


def group_lines(
    groups: Sequence[RolloutGroup],
    *,
    step: int,
    advantages: Sequence[Sequence[float]] | None,
    thumbnails: Path,
) -> list[str]:
    """One line of JSON per group, and its pictures as thumbnails; arguments and errors as `group_records`."""
    return [json_line(record) for record in group_records(groups, step, advantages, thumbnails)]


def group_records(
    groups: Sequence[RolloutGroup], step: int, advantages: Sequence[Sequence[float]] | None, thumbnails: Path
) -> list[dict[str, Any]]:
    """One JSON object per group, and its pictures as thumbnails.

    Args:
        groups: The groups, one object each.
        step: Step they belong to.
        advantages: [P, G] as lists, or None where there are none (evaluation).
        thumbnails: Folder that receives each picture once, at most 320 px a side, named by the content of the
            original.

    Raises:
        ValueError: If the advantages have another shape than the groups.
        DataError: If a picture cannot be decoded.
    """
    shape = [len(group.rollouts) for group in groups]
    if advantages is not None and [len(row) for row in advantages] != shape:
        raise ValueError(f"advantages have rows of {[len(row) for row in advantages]}, but groups have {shape}.")
    rows = advantages if advantages is not None else [[None] * size for size in shape]
    return [_group_record(group, row, step, thumbnails) for group, row in zip(groups, rows, strict=True)]


def json_line(record: Mapping[str, Any]) -> str:
    """A record as one line of a file."""
    # Plain ASCII: completions may hold lone surrogates, which UTF-8 refuses, and line separators, which cut lines.
    return json.dumps(record, allow_nan=False) + "\n"


def read_groups(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of one file, as `write_lines` wrote them.

    Raises:
        DataError: If a line is no JSON object.
    """
    with Path(path).open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
            except ValueError as error:
                raise DataError(f"line {number} of {path} is no JSON ({error}). Restore or remove the file.") from error
            if not isinstance(line, dict):
                raise DataError(f"line {number} of {path} must be an object. Restore or remove the file.")
            yield line


def _group_record(group: RolloutGroup, row: Sequence[float | None], step: int, thumbnails: Path) -> dict[str, Any]:
    sample = group.prompt.sample
    return {
        "step": step,
        "sample_id": sample.id,
        "family": sample.family,
        "difficulty": sample.difficulty,
        "question": sample.question,
        "target": sample.target,
        "answer_kind": sample.answer_kind,
        "options": list(sample.options),
        "tolerance": asdict(sample.tolerance) if sample.tolerance else None,
        "group": sample.group,
        "metadata": dict(sample.metadata),
        "images": [_thumbnail(image, thumbnails, sample.id) for image in sample.images],
        "prompt_hash": group.prompt.content_hash,
        "num_prompt_tokens": len(group.prompt.token_ids),
        "weights_version": group.weights_version,
        "rollouts": [_rollout(rollout, advantage) for rollout, advantage in zip(group.rollouts, row, strict=True)],
    }


def _rollout(rollout: Rollout, advantage: float | None) -> dict[str, Any]:
    completion = rollout.completion
    # Only where weights changed on the way, or are not those of the group.
    versions = {"weights_versions": list(completion.weights_versions)} if completion.weights_versions else {}
    return versions | {
        "text": completion.text,
        "token_ids": list(completion.token_ids),
        "logprobs": [finite_or_none(value) for value in completion.logprobs],
        "stop_reason": completion.stop_reason,
        "verdict": asdict(rollout.verdict),
        "reward": finite_or_none(rollout.reward),
        "advantage": None if advantage is None else finite_or_none(advantage),
    }


def _thumbnail(image: bytes, folder: Path, sample_id: str) -> str:
    """Name of the thumbnail, written unless it is there."""
    # Named by the original and not by the thumbnail: known pictures then cost a hash and no decoding.
    name = f"{hashlib.sha256(image).hexdigest()[:16]}.png"
    target = folder / name
    if not target.exists():
        folder.mkdir(parents=True, exist_ok=True)
        temporary = folder / f".{name}.{os.getpid()}.tmp"
        try:
            picture = open_image(image, sample_id)
            picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            picture.save(temporary, format="PNG")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    return name
