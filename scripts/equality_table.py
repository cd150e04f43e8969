"""How far a step of two processes is from the step of one, for each way of holding weights.

    python scripts/equality_table.py [--json]

Both take two updates (AdamW, clipped) of the same groups: pictures and texts, unequal lengths, unequal shares, so that
processes have other numbers of micro-batches. Differences are relative: |two - one| / |one| of the loss, and the norm
of the difference over the norm of all gradients, or of all that the weights have moved. The model is tiny and random.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1] / "tests" / "integration"
sys.path.append(str(TESTS))

import torch  # noqa: E402
from colours import colour_sample, told  # noqa: E402
from processes import environment, torchrun  # noqa: E402

from mm_agrae.policy.tiny import build_model_folder  # noqa: E402

# What the model is, then how it is held: flags of tests/integration/ranks.py, and words for the table.
MODELS = {
    "qwen2_5_vl": "pictures and texts",
    "qwen2_5_vl+frozen": "frozen vision tower",
    "qwen2_5_vl+lora": "LoRA",
    "qwen3+untied": "texts, a head of its own",
}
HOLDING = {
    "": "none",
    "+sharded": "fsdp2",
    "+sharded+recomputing": "fsdp2, gradient checkpointing",
    "+sharded+gathered": "fsdp2, reshard_after_forward=false",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print JSON only")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(Path(folder))
    if chosen.json:
        print(json.dumps(lines))
        return
    print("| model | train.sharding | loss | gradients | weights |\n| --- | --- | --- | --- | --- |")
    for line in lines:
        figures = " | ".join(f"{line[name]:.1e}" for name in ("loss", "gradients", "weights"))
        print(f"| {line['model']} | {line['sharding']} | {figures} |")


def measure(folder: Path) -> list[dict[str, Any]]:
    """One line per model and way of holding it."""
    corpus = [f"{sample.question} {sample.solution}" for i in range(24) for sample in (colour_sample(i), told(i))]
    for architecture in sorted({model.partition("+")[0] for model in MODELS}):
        build_model_folder(folder / architecture, architecture=architecture, size="tiny", corpus=corpus, seed=0)
    one = found_by(1, folder, list(MODELS))
    two = found_by(2, folder, [model + holding for model in MODELS for holding in HOLDING])
    return [
        {"model": words, "sharding": how, **differences(two[model + holding], one[model])}
        for model, words in MODELS.items()
        for holding, how in HOLDING.items()
    ]


def found_by(num_processes: int, folder: Path, ways: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What ranks.learn finds, by the way."""
    out = folder / f"found_by_{num_processes}.pt"
    jobs = [f"{way}={folder / way.partition('+')[0]}{''.join(way.partition('+')[1:])}" for way in ways]
    subprocess.run(torchrun(num_processes, TESTS / "ranks.py", out, *jobs), env=environment(), check=True)
    return torch.load(out, weights_only=False)  # written by the line above


def differences(two: Mapping[str, Any], one: Mapping[str, Any]) -> dict[str, float]:
    """Relative differences of loss, gradients of both updates, and what the weights have moved."""
    loss, same_loss = two["metrics"]["policy/loss"], one["metrics"]["policy/loss"]
    gradients = [apart(ours, theirs) for ours, theirs in zip(two["gradients"], one["gradients"], strict=True)]
    return {
        "loss": abs(loss - same_loss) / abs(same_loss),
        "gradients": max(gradients),
        "weights": apart(two["moves"], one["moves"]),
    }


def apart(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> float:
    """Norm of the difference over the norm."""
    one, two = (torch.cat([of[name].double().flatten() for name in sorted(theirs)]) for of in (ours, theirs))
    return float((one - two).norm() / two.norm())


if __name__ == "__main__":
    main()
