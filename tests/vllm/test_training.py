"""Whole short training runs with rollouts from a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mm_agrae.cli.jobs import run_train
from tests.vllm.conftest import RealServer

Serve = Callable[[Path], RealServer]


@pytest.fixture
def recipe(
    tmp_path: Path, model_folder: Callable[[str], Path], gym_folder: Path, recipe_text: Callable[[Path, Path], str]
) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe_text(model_folder("qwen2_5_vl"), gym_folder), encoding="utf-8")
    return path


def metrics_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_run_goes_on_when_its_server_is_killed(
    serve: Serve, recipe: Path, model_folder: Callable[[str], Path], tmp_path: Path
) -> None:
    server = serve(model_folder("qwen2_5_vl"))
    settings = [
        "engine.kind=vllm_server",
        f"engine.base_urls=[{server.url}]",
        "train.num_steps=6",
        "engine.recover_timeout_s=900",
    ]
    told: list[str] = []
    killed_before = server.times_killed

    def log(line: str) -> None:
        told.append(line)
        # The line of the third step, in the middle of the run: nothing waits for the server then.
        if "3/6" in line and server.times_killed == killed_before:
            server.kill()
            server.start()

    run = run_train(recipe, settings, tmp_path / "run", False, log)
    steps = [line for line in metrics_of(run.path) if "policy/grad_norm" in line]
    assert server.times_killed == killed_before + 1
    assert len(steps) == 6
    assert any("waited for" in line for line in told)
