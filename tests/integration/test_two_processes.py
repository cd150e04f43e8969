"""Two processes of one run are one run: same completions, same curve, same gradients, files written once."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import run_files
import same_run
from colours import cut_short_after
from launches import COMMAND_LINE, accelerate_launch, launched, two_processes
from safetensors.torch import load_file, save_file

from mm_agrae.cli.jobs import run_train
from mm_agrae.store.run_dir import RunDir

# 3 prompts on 2 processes: an uneven tail, and with every third problem in words, ranks with pictures and without.
SETTINGS = ["train.num_steps=3", "evaluate.num_samples=2", "algorithm.beta=0.02", "train.updates_per_rollout=3"]


def test_two_processes_train_as_one(recipe: Path, tmp_path: Path) -> None:
    alone = run_train(recipe, SETTINGS, tmp_path / "one", False, lambda line: None)
    ended = accelerate_launch("train", recipe, *SETTINGS, "--out", tmp_path / "two")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert same_run.differences(RunDir.open(tmp_path / "two"), alone) == []
    # One of the processes speaks.
    assert ended.stdout.count("report: ") == 1
    assert sum(line.strip().startswith("1/3") for line in ended.stdout.splitlines()) == 1
    pictures = [[bool(group["images"]) for group in groups] for groups in run_files.groups(alone).values()]
    assert any(len(set(step)) == 2 for step in pictures), "no step mixes pictures and words"


def test_two_processes_sample_again_as_one(recipe: Path, tmp_path: Path) -> None:
    """Which groups are kept is decided from those of all processes; a process may keep none or all of its own."""
    settings = [
        *("train.num_steps=4", "rollout.num_prompts=4", "train.updates_per_rollout=2", "evaluate.num_samples=2"),
        *("algorithm.preset=dapo", "algorithm.weighting=[agrae,hadw]", "algorithm.trust_region=elastic"),
    ]
    alone = run_train(recipe, settings, tmp_path / "one", False, lambda line: None)
    ended = two_processes(*COMMAND_LINE, "train", recipe, *settings, "--out", tmp_path / "two")
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert same_run.differences(RunDir.open(tmp_path / "two"), alone) == []
    assert any(line["rollout/sampling_rounds"] > 1 for line in run_files.metrics(alone)[1:])


def test_a_problem_of_one_process_stops_both(recipe: Path, mixed_data: Path, tmp_path: Path) -> None:
    """A picture cut short is found by the one process that decodes it."""
    data = cut_short_after(2, tmp_path / "data")
    out = tmp_path / "run"
    ended = two_processes(*COMMAND_LINE, "train", recipe, f"data.train.path={data}", "--out", out)
    assert ended.returncode != 0
    assert "cannot be decoded" in ended.stderr
    assert "The run is saved up to step" in ended.stderr
    assert list(out.glob("checkpoints/step_*/COMPLETE"))


UNLIKE = """
import os, sys
from pathlib import Path
from mm_agrae.cli.jobs import run_train
from mm_agrae.errors import ConfigError

recipe, out = map(Path, sys.argv[1:])
rank = os.environ["RANK"]
os.chdir(out / rank)
for settings in ([f"seed={rank}"], ["model.path=model"]):
    try:
        run_train(recipe, settings, out / "run", False, lambda line: None)
    except ConfigError as error:
        print(str(error).replace("\\n", " "), flush=True)
"""


def test_processes_that_do_not_start_alike_are_refused(
    recipe: Path, warm_model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Machines that have another recipe, or another model under the same path."""
    for rank in (0, 1):
        model = tmp_path / str(rank) / "model"
        shutil.copytree(warm_model("qwen2_5_vl"), model)
        if rank:
            weights = load_file(model / "model.safetensors")
            next(iter(weights.values())).view(-1)[0] += 1
            save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "unlike.py").write_text(UNLIKE, encoding="utf-8")
    ended = two_processes(tmp_path / "unlike.py", recipe, tmp_path)
    assert ended.stdout.count("rank 1 on ") == 4, ended.stderr[-3000:]
    assert ended.stdout.count("seed: 0 -> 1") == 2
    assert ended.stdout.count("weights of model.path: ") == 2
    assert not (tmp_path / "run").exists()


def test_a_launcher_that_starts_one_of_two(recipe: Path, tmp_path: Path) -> None:
    """accelerate's own command, asked for two processes without a GPU."""
    launcher = "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no"
    words = (*COMMAND_LINE, "train", recipe, "--out", tmp_path / "run")
    ended = launched(sys.executable, *launcher.split(), *words)
    assert ended.returncode != 0
    assert "error: MASTER_ADDR is set and WORLD_SIZE is not" in ended.stderr
    assert not (tmp_path / "run").exists()
