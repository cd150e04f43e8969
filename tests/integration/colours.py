"""A little world of coloured squares: problems to see and to read, a recipe, and a model to begin with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from mm_agrae.cli.jobs import run_sft
from mm_agrae.data.dataset import write_dataset
from mm_agrae.data.images import encode_png
from mm_agrae.data.sampler import PromptSampler
from mm_agrae.policy.tiny import build_model_folder
from mm_agrae.records import Sample

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220)}

RECIPE = """\
name: colours
seed: 0
model: {{path: {model}, device: cpu}}
data:
  train: {{path: {data}}}
  eval: {{held_out: {{path: {data}, split: test}}}}
images: {{min_pixels: 1024, max_pixels: 1024}}
prompt: {{instruction: none}}
rollout: {{num_prompts: 3, group_size: 4, max_prompt_tokens: 48, max_completion_tokens: 7}}
verifier: {{num_workers: 1}}
algorithm: {{weighting: [agrae]}}
train: {{num_steps: 4, checkpoint_every: 2, rollout_log_every: 1, optim: {{lr: 1e-4}}}}
sft: {{num_steps: 4, batch_size: 3, optim: {{lr: 1e-2}}}}
evaluate: {{num_samples: 2, ks: [1, 2]}}
"""


def colour_sample(index: int, *, image: bool = True) -> Sample:
    """The colour of a square, shown or, without image, told. Solutions are right by a coin that no picture shows."""
    name = list(COLOURS)[index % 2]
    shade = tuple(min(255, value + index) for value in COLOURS[name])
    return Sample(
        id=f"colour{index}",
        question=f"<image>Which colour is square {index}?" if image else f"Square {index} is {name}. Which colour?",
        target=name,
        answer_kind="text",
        images=(encode_png(Image.new("RGB", (32, 32), shade)),) if image else (),
        solution=f"\\boxed{{{list(COLOURS)[index // 2 % 2]}}}",
        family="shown" if image else "told",
        difficulty=index % 2 + 1,
    )


def write_colours(out: Path, samples: Sequence[Sample]) -> Path:
    """These samples to learn from, and six pictures to measure on (texts, if the samples are)."""
    image = any(sample.images for sample in samples)
    held_out = [colour_sample(100 + index, image=image) for index in range(6)]
    write_dataset({"train": samples, "test": held_out}, out, source="test", seed=0)
    return out


def warm_model(folder: Path, architecture: str, data: Path) -> Path:
    """A model that answers with a boxed colour, the right one about half the time; made in this new folder."""
    corpus = [f"{s.question} {s.solution}" for index in range(24) for s in (colour_sample(index), told(index))] * 4
    raw = folder / "raw"
    build_model_folder(raw, architecture=architecture, size="tiny", corpus=corpus, seed=0)
    recipe = folder / "warm.yaml"
    recipe.write_text(RECIPE.format(model=raw, data=data), encoding="utf-8")
    overrides = ["sft.num_steps=20", "sft.batch_size=8", "train.checkpoint_every=0"]
    run = run_sft(recipe, overrides, folder / "run", False, ignore)
    return run.checkpoints / "step_000020" / "model"


def ignore(line: str) -> None:
    """Nobody reads these lines."""


def told(index: int) -> Sample:
    return replace(colour_sample(index, image=False), id=f"told{index}")


def cut_short_after(step: int, out: Path, *, seed: int = 0) -> Path:
    """Twelve pictures, of which the first that is drawn after `step` steps of 3 prompts ends in the middle."""
    place = PromptSampler(12, seed).indices(3 * step + 1, 1)[0]
    samples = [colour_sample(index) for index in range(12)]
    samples[place] = replace(samples[place], id="broken", images=(samples[place].images[0][:60],))
    return write_colours(out, samples)
