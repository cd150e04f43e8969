"""A matrix of tiny recipes and the files that finished runs of it would leave, without running anything."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from mm_agrae.lab.compare.cells import Cell
from mm_agrae.lab.compare.spec import Matrix

RECIPE = """\
name: fake
model: {path: start}
data: {train: {path: data}, eval: {held_out: {path: data, split: test}}}
algorithm: {preset: dr_grpo, weighting: [agrae]}
train: {num_steps: 2}
evaluate: {num_samples: 2, ks: [1, 2]}
"""


def matrix(folder: Path, *, seeds: Sequence[int] = (0, 1, 2), recipe: str = RECIPE) -> Matrix:
    """GRPO and GRPO+A-GRAE; pass@1 and truncated, of which the smaller is the better."""
    path = folder / "fake.yaml"
    path.write_text(recipe, encoding="utf-8")
    return Matrix.model_validate(
        {
            "title": "Fake",
            "recipe": str(path),
            "seeds": tuple(seeds),
            "baseline": "GRPO",
            "algorithms": {
                "GRPO": {"algorithm": {"preset": "grpo"}},
                "GRPO+A-GRAE": {"algorithm": {"preset": "grpo", "weighting": ["agrae"]}},
            },
            "notes": ("GRPO drew two samples.",),
            "metrics": ("eval/held_out/pass@1", "eval/held_out/truncated"),
        }
    )


def finish(cell: Cell, *, after: float, before: float = 0.25, correct: Sequence[int] = (1, 1, 1)) -> None:
    """Leave what a finished run leaves: `after` and `before` are pass@1, `correct` counts per problem, of two."""
    run = cell.run
    run.path.mkdir(parents=True)
    run.write_config(cell.config.model_dump(mode="json"))
    lines = [
        {"step": 0, **_evaluation(before), "time/evaluate_s": 4.0},
        {"step": 1, "reward/batch_accuracy": 0.5, "policy/entropy_nats": None, "time/step_s": 10.0},
        {"step": 2, "reward/batch_accuracy": after, "policy/entropy_nats": 0.3, "time/step_s": 20.0},
    ]
    lines.append({"step": 2, **_evaluation(after)})
    run.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    completions = run.eval_at(2) / "held_out.jsonl"
    completions.parent.mkdir(parents=True)
    completions.write_text(
        "".join(json.dumps(_group(f"p{number}", num)) + "\n" for number, num in enumerate(correct)), encoding="utf-8"
    )
    save(cell, 2)


def save(cell: Cell, step: int) -> None:
    """Leave a complete checkpoint."""
    folder = cell.run.checkpoints / f"step_{step:06d}"
    folder.mkdir(parents=True)
    (folder / "COMPLETE").write_text("{}", encoding="utf-8")


def _evaluation(value: float) -> dict[str, float]:
    figures = {"pass@1": value, "pass@2": value, "avg@2": value, "greedy": value, "formatted": 1.0, "truncated": 0.0}
    return {f"eval/held_out/{name}": figure for name, figure in (figures | {"truncated": 1 - value}).items()}


def _group(problem: str, num_correct: int) -> dict:
    statuses = ["correct"] * num_correct + ["wrong"] * (2 - num_correct)
    return {"sample_id": problem, "rollouts": [{"verdict": {"status": status}} for status in statuses]}
