"""What a checkpoint of a run holds, beside state.json: a model folder, and the optimiser's tensors by weight names.

    model/                      ordinary Hugging Face folder; of a LoRA run a peft adapter folder
    optimizer.safetensors       exp_avg, exp_avg_sq and step of every trained weight
    state.json                  everything else that decides the future, and what the run was computed on

All tensors are whole, so a run goes on with any number of processes. Nothing is pickled.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mm_agrae.config import RunConfig
from mm_agrae.policy.load import Policy
from mm_agrae.policy.snapshot import model_tensors, optimizer_tensors, restore_optimizer, write_model
from mm_agrae.store.checkpoint import save_checkpoint
from mm_agrae.store.provenance import PACKAGES, code_version, package_versions
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.best import keep_checkpoints
from mm_agrae.train.distributed import World

MODEL_FOLDER = "model"
OPTIMIZER = "optimizer.safetensors"


@dataclass(frozen=True, kw_only=True)
class Content:
    """Tensors of a checkpoint; empty on processes that do not write."""

    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]


def gather(policy: Policy, optimizer: torch.optim.Optimizer, *, keep: bool) -> Content:
    """Weights and moments as a checkpoint holds them; every process must call it.

    Before anything is written: a process that could not write would leave the others waiting for a weight.
    """
    return Content(model=model_tensors(policy, keep=keep), optimizer=optimizer_tensors(policy, optimizer, keep=keep))


def write_checkpoint(
    run_dir: RunDir, config: RunConfig, policy: Policy, content: Content, state: Mapping[str, Any]
) -> None:
    """Save one checkpoint, then remove those that need not be kept. Only the main process calls it.

    Args:
        run_dir: The run.
        config: Which checkpoints are kept.
        policy: Its configuration and its processor go beside the weights.
        content: What `gather` gave.
        state: JSON values for state.json, among them "step" and "job".

    Raises:
        CheckpointError: It could not be saved; earlier checkpoints are whole.
    """

    def write(folder: Path) -> None:
        write_model(policy, content.model, folder / MODEL_FOLDER)
        save_file(content.optimizer, folder / OPTIMIZER)

    save_checkpoint(run_dir.checkpoints, state["step"], write=write, state=state)
    keep_checkpoints(run_dir, config, state["job"])


def read_optimizer(policy: Policy, optimizer: torch.optim.Optimizer, checkpoint: Path) -> None:
    """Give the optimiser what a checkpoint holds of it.

    Raises:
        CheckpointError: It was saved for other weights.
    """
    restore_optimizer(policy, optimizer, load_file(checkpoint / OPTIMIZER))


def computed_on(world: World, config: RunConfig) -> dict[str, Any]:
    """What can change numbers though recipe and data are equal: how they are rounded, and by which code.

    On a CPU, with completions of the embedded engine, a resumed run is exact where all of it is equal. On a GPU that
    is not measured, and what vLLM samples depends on which requests it computes together.
    """
    device = world.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    installed = package_versions(PACKAGES)
    return {
        "processes": world.size,
        "sharding": config.train.sharding,
        "device": f"{device.type} {name}",
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "gradient_checkpointing": config.model.gradient_checkpointing,
        "micro_batch_tokens": config.train.micro_batch_tokens,
        "micro_batch_targets": config.train.micro_batch_targets,
        "recompute_above_tokens": config.train.recompute_above_tokens,
        "batch_rows": config.rollout.batch_rows,
        **code_version(),
        **{name: installed.get(name) for name in PACKAGES},
    }
