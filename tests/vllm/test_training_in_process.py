"""A run on two processes, each with a vLLM engine of its own, through the command line."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from processes import environment, torchrun

START_S = 500


def test_two_processes_learn_with_an_engine_each(
    model_folder: Callable[[str], Path], gym_folder: Path, recipe_text: Callable[[Path, Path], str], tmp_path: Path
) -> None:
    recipe = tmp_path / "recipe.yaml"
    engine = "engine: {kind: vllm, memory_fraction: 0.2}\n"
    recipe.write_text(recipe_text(model_folder("qwen2_5_vl"), gym_folder) + engine)
    # With three problems one process has a group more than the other, and none waits for the other to sample.
    # The bonus gives every completion a gradient, whatever it earned.
    settings = ["rollout.num_prompts=3", "algorithm.entropy_weight=0.01"]
    command = torchrun(2, "-m", "mm_agrae.cli.main", "train", recipe, *settings, "--out", tmp_path / "run")
    surroundings = environment() | {"TORCH_COMPILE_DISABLE": "1", "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(command, capture_output=True, text=True, env=surroundings, timeout=START_S)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    twin = json.loads((tmp_path / "run/twin.json").read_text())
    assert twin["gap_max_nats"] < 1e-4
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2]
    # After an update too, engine and trainer see the same probabilities.
    assert all(line["rollout/logprob_gap_max_nats"] < 1e-4 for line in lines[1:])
