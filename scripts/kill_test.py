"""Kill a training run with SIGKILL at random moments, resume it each time, and compare it with one that was left alone.

    python scripts/kill_test.py [--kills 20] [--seed 0] [--json]

A tiny vision-language model learns 10 steps on pictures, with a checkpoint and an evaluation every 2 steps. One run is
left alone. Others of the same recipe are killed and resumed, killed again and so on to the end: a chain of kills in one
run, and a new run when one has reached its end. Every life of a run is a process of its own. One kill in three is aimed
at the saving of a checkpoint, which is seen by its temporary folder; one in six comes while the process starts; the
others come at any time of a step.

Compared are weights, moments, state, figures of every step, every completion, and which checkpoint is the best.
Exit status 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from processes import environment

os.environ |= environment()  # before torch is imported, which reads it then, here and in the processes that inherit it

import same_run
from faults import Launcher, Running

from data_processors.visual_gym.write import write_gym
from mm_agrae.data.dataset import open_dataset
from mm_agrae.policy.tiny import build_model_folder, corpus_of
from mm_agrae.store.checkpoint import complete_checkpoints, file_marks, latest_checkpoint, read_state
from mm_agrae.store.run_dir import RunDir, step_of
from mm_agrae.store.tracker import read_metrics

STEPS = 10
KEPT = 2
TIMEOUT_S = 600.0
RECIPE = """\
name: killed
model: {{path: {model}, device: cpu}}
data:
  train: {{path: {data}}}
  eval: {{held_out: {{path: {data}, split: test}}}}
images: {{min_pixels: 1024, max_pixels: 4096}}
prompt: {{instruction: none}}
rollout: {{num_prompts: 4, group_size: 4, max_prompt_tokens: 128, max_completion_tokens: 8}}
verifier: {{num_workers: 1}}
algorithm: {{weighting: [agrae, hadw], dynamic_sampling: true}}
train:
  num_steps: {steps}
  checkpoint_every: 2
  rollout_log_every: 1
  keep_checkpoints: {kept}
  keep_best: eval/held_out/avg@1
  optim: {{lr: 1e-3}}
sft: {{num_steps: 40, batch_size: 8, optim: {{lr: 3e-3}}}}
evaluate: {{num_samples: 1, ks: [1], greedy: false, every: 2}}
"""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One SIGKILL.

    Attributes:
        chain: Which run it hit, from 1.
        aim: "start", "save" or "step".
        step: Steps that metrics.jsonl told of.
        checkpoint: Newest complete checkpoint that was left; None where there was none.
        in_saving: Whether a checkpoint was left half written, not one half removed.
        seconds: The life of the process.
    """

    chain: int
    aim: str
    step: int
    checkpoint: int | None
    in_saving: bool
    seconds: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="decides the moments, as far as a machine repeats itself")
    parser.add_argument("--json", action="store_true", help="print JSON only")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(
            Path(folder), chosen.kills, chosen.seed, say=lambda line: None if chosen.json else print(line, flush=True)
        )
    print(json.dumps(found) if chosen.json else _verdict(found), flush=True)
    return 0 if found["identical"] else 1


def measure(folder: Path, kills: int, seed: int, *, say: Callable[[str], object]) -> dict[str, Any]:
    """Kill so often, and compare every run that was killed with one that was not.

    Returns:
        kills, chains (runs that were killed), identical, differences (in words), in_saving (kills that left half a
        checkpoint), moments (every kill).
    """
    launcher = Launcher(folder)
    recipe, straight = prepare(folder, launcher), folder / "straight"
    _end_well(start(launcher, recipe, straight))
    expected, draw = left_by(RunDir.open(straight)), random.Random(seed)
    if expected["first weights"] == expected["weights"]:
        raise SystemExit("the run that was left alone learnt nothing, so it cannot show what a kill changes")
    saving_s = max(line["time/checkpoint_s"] for line in read_metrics(straight / "metrics.jsonl")[1:])
    step_s = max(line["time/step_s"] for line in read_metrics(straight / "metrics.jsonl")[1:])
    done: list[Kill] = []
    differences: list[str] = []
    chain = 0
    say(f"{'kill':>4} {'run':>4}  {'aim':<6} {'step':>4} {'saved':>5}  half saved  seconds")
    while len(done) < kills:
        chain += 1
        out = folder / f"chain_{chain}"
        while len(done) < kills and (kill := _life(launcher, recipe, out, chain, draw, (step_s, saving_s))):
            done.append(kill)
            say(
                f"{len(done):>4} {chain:>4}  {kill.aim:<6} {kill.step:>4} "
                f"{'-' if kill.checkpoint is None else kill.checkpoint:>5}  {'yes' if kill.in_saving else 'no':<10}  "
                f"{kill.seconds:.1f}"
            )
        _end_well(start(launcher, recipe, out))
        found = left_by(RunDir.open(out))
        differences += [f"run {chain}: {what}" for what in expected if found[what] != expected[what]]
    return {
        "kills": len(done),
        "chains": chain,
        "identical": not differences,
        "differences": differences,
        "in_saving": sum(kill.in_saving for kill in done),
        "moments": [asdict(kill) for kill in done],
    }


def prepare(folder: Path, launcher: Launcher) -> Path:
    """Data, a model that has had a warm start, and the recipe; returns the recipe."""
    data, raw = folder / "data", folder / "raw"
    families = ("counting/circles", "charts/tallest_bar")
    write_gym(data, num=64, held_out=16, seed=0, families=families, size=64, num_processes=1)
    corpus = corpus_of(open_dataset(data, "train"))
    build_model_folder(raw, architecture="qwen2_5_vl", size="tiny", corpus=corpus, seed=0)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.format(model=raw, data=data, steps=STEPS, kept=KEPT), encoding="utf-8")
    _end_well(launcher.start("sft", recipe, "train.checkpoint_every=0", "--out", folder / "warm"))
    model = next((folder / "warm" / "checkpoints").iterdir()) / "model"
    recipe.write_text(RECIPE.format(model=model, data=data, steps=STEPS, kept=KEPT), encoding="utf-8")
    return recipe


def start(launcher: Launcher, recipe: Path, out: Path) -> Running:
    """Begin a run, or go on with it."""
    return launcher.start("train", recipe, "--out", out, *(["--resume"] if (out / "config.json").exists() else []))


def left_by(run: RunDir) -> dict[str, Any]:
    """What two equal runs have in common: everything but times."""
    last = latest_checkpoint(run.checkpoints)
    assert last is not None, f"{run.path} has no checkpoint"
    files = {name: mark["sha256"] for name, mark in file_marks(last).items()}
    # A kill after the last save may leave one more, which the next save would have removed.
    kept = list(complete_checkpoints(run.checkpoints).values())[-KEPT:]
    return {
        "weights": files["model/model.safetensors"],
        "first weights": file_marks(kept[0])["model/model.safetensors"]["sha256"],
        "moments": files["optimizer.safetensors"],
        "state": {key: value for key, value in read_state(last).items() if key != "computed_on"},
        "figures": same_run.metrics(run),
        "completions": same_run.groups(run),
        "best": run.best.read_text(encoding="utf-8"),
        "checkpoints": [path.name for path in kept],
    }


def _life(
    launcher: Launcher, recipe: Path, out: Path, chain: int, draw: random.Random, times: tuple[float, float]
) -> Kill | None:
    """Start or resume a run and kill it; None where it ended before that."""
    step_s, saving_s = times
    aim = draw.choice(["start", "save", "save", "step", "step", "step"])
    began = time.monotonic()
    running = start(launcher, recipe, out)
    halves = half_written(out)
    wanted = _lines(out) + draw.randrange(1, 4)
    if aim == "start":
        ready: Callable[[], bool] = lambda: True  # noqa: E731
        delay = draw.uniform(0.0, step_s)
    elif aim == "save":
        ready, delay = (lambda: bool(half_written(out) - halves)), draw.uniform(0.0, saving_s)
    else:
        ready, delay = (lambda: _lines(out) >= wanted), draw.uniform(0.0, step_s)
    if not _wait(running, ready, delay):
        _end_well(running)
        return None
    running.process.kill()
    running.process.join()
    last = latest_checkpoint(out / "checkpoints")
    return Kill(
        chain=chain,
        aim=aim,
        step=max(0, _lines(out) - 1),
        checkpoint=read_state(last)["step"] if last else None,
        in_saving=bool(half_written(out) - halves),
        seconds=round(time.monotonic() - began, 1),
    )


def _wait(running: Running, ready: Callable[[], bool], delay_s: float) -> bool:
    """Until it is ready, and then so long; False where the process ends before."""
    until: float | None = None
    give_up = time.monotonic() + TIMEOUT_S
    while until is None or time.monotonic() < until:
        if not running.process.is_alive():
            return False
        if time.monotonic() > give_up:
            running.process.kill()
            raise SystemExit(f"a run did not get on within {TIMEOUT_S:.0f} s")
        if until is None and ready():
            until = time.monotonic() + delay_s
        time.sleep(0.001)
    return True


def _end_well(running: Running) -> None:
    ended = running.end(TIMEOUT_S)
    if ended.status != 0:
        raise SystemExit(f"a run that was left alone ended with {ended.status}:\n{ended.said[-4000:]}")


def _lines(out: Path) -> int:
    metrics = out / "metrics.jsonl"
    return metrics.read_bytes().count(b"\n") if metrics.exists() else 0


def half_written(out: Path) -> set[tuple[str, int]]:
    """Checkpoints that are half written, the same name twice told apart.

    One that is half removed has a temporary name too, but comes before the newest complete one.
    """
    newest = max(complete_checkpoints(out / "checkpoints"), default=-1)
    found = set()
    for path in (out / "checkpoints").glob("*step_*"):
        step = step_of(path.name.strip("."))
        try:
            if (
                step is not None
                and step > newest
                and not (path.name.startswith("step") and (path / "COMPLETE").exists())
            ):
                found.add((path.name, path.stat().st_ino))
        except FileNotFoundError:  # it has been renamed or removed meanwhile
            continue
    return found


def _verdict(found: Mapping[str, Any]) -> str:
    what = "all identical to the run that was left alone" if found["identical"] else "\n".join(found["differences"])
    return f"{found['kills']} kills in {found['chains']} runs, {found['in_saving']} in mid-save: {what}"


if __name__ == "__main__":
    sys.exit(main())
