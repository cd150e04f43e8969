"""Small logs, written by the store itself. A group is a word with one letter per rollout:

C correct and in form (reward 1), c correct only (0.9), W only in form (0.1), w neither (0), ? wrong without a reward.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mm_agrae.records import Completion, Prompt, RenderedPrompt, Rollout, RolloutGroup, Sample, Verdict
from mm_agrae.store.rollout_log import group_lines, write_lines
from mm_agrae.store.run_dir import RunDir

LIMIT = 8  # completion tokens
REWARDS = {"C": 1.0, "c": 0.9, "W": 0.1, "w": 0.0, "?": math.nan}


def group(
    word: str,
    *,
    lengths: Sequence[int] = (),
    text: str = "",
    family: str = "",
    difficulty: int | None = None,
    sample_id: str = "s",
) -> RolloutGroup:
    """The group of a word; completions of 3 tokens unless lengths are given, cut off at LIMIT."""
    sample = Sample(id=sample_id, question=f"How many? {text}", target="4", family=family, difficulty=difficulty)
    prompt = RenderedPrompt(
        prompt=Prompt(sample=sample, messages=()), token_ids=(1, 2), unexpanded_token_ids=(1, 2), position_ids=None,
        next_position=2, mm_token_type_ids=None, pixel_values=None, image_grid_thw=None, content_hash="c0ffee",
    )  # fmt: skip
    pairs = zip(word, lengths or [3] * len(word), strict=True)
    rollouts = tuple(_rollout(letter, length, text) for letter, length in pairs)
    return RolloutGroup(prompt=prompt, rollouts=rollouts, weights_version=0)


def _rollout(letter: str, length: int, text: str) -> Rollout:
    verdict = Verdict(
        status="correct" if letter in "Cc" else "wrong", answer=f"4{text}", span=None, answer_form=None,
        target_form=None, kind="math", rule="integer", formatted=letter in "CW", seconds=0.0,
    )  # fmt: skip
    completion = Completion(
        token_ids=tuple(range(length)), logprobs=(-0.5,) * length, text=f"It is 4 {text}",
        stop_reason="length" if length == LIMIT else "eos",
    )  # fmt: skip
    return Rollout(completion=completion, verdict=verdict, reward=REWARDS[letter])


def write_steps(
    folder: Path,
    steps: Mapping[int, Sequence[RolloutGroup | str]],
    *,
    advantages: Mapping[int, Sequence[Sequence[float]]] | None = None,
    accuracies: Mapping[int, float] | None = None,
    algorithm: Mapping[str, Any] | None = None,
) -> Path:
    """A run directory with these rollouts, with metrics.jsonl and config.json where there is something to say."""
    run = RunDir(folder)
    for step, words in steps.items():
        groups = [group(one) if isinstance(one, str) else one for one in words]
        given = None if advantages is None else advantages[step]
        write_lines(run.rollouts_at(step), group_lines(groups, step=step, advantages=given, thumbnails=run.thumbnails))
    if accuracies is not None:
        lines = [json.dumps({"step": step, "reward/batch_accuracy": value}) for step, value in accuracies.items()]
        run.metrics.write_text("\n".join(lines) + "\n")
    if algorithm is not None:
        run.write_config({"algorithm": algorithm, "rollout": {"max_completion_tokens": LIMIT}})
    return folder
