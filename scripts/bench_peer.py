"""TRL's GRPOTrainer as the peer of the benchmarks: the same tensors through its own loss, and its own whole step.

Needs `pip install 'trl==1.16.*'`. Nothing of it is changed; only its inputs are built here, from our rendered prompts.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mm_agrae.policy.hugging_face import transformers
from mm_agrae.records import RenderedPrompt
from mm_agrae.train.experience import Experience


def make_trainer(
    folder: Path, samples: list[dict[str, Any]], *, micro_batch_rows: int, group: int, settings: dict[str, Any]
) -> Any:
    """A GRPOTrainer on the model of a folder, in fp32 on the CPU, with its default loss settings but for `settings`."""
    import datasets
    from trl import GRPOConfig, GRPOTrainer

    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="sdpa"
    )
    arguments = GRPOConfig(
        output_dir=tempfile.mkdtemp(prefix="mm-agrae-bench-trl-"),
        per_device_train_batch_size=micro_batch_rows,
        num_generations=group,
        use_cpu=True,
        bf16=False,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
        save_strategy="no",
        **settings,
    )
    return GRPOTrainer(
        model=model,
        reward_funcs=_alternating,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(samples),
        processing_class=transformers.AutoProcessor.from_pretrained(folder),
    )


def _alternating(completions: Sequence[Any], log_metric: Any = None, **columns: Any) -> list[float]:
    """Rewards that leave no group without a gradient."""
    return [float(number % 2) for number in range(len(completions))]


def loss_inputs(rows: Sequence[tuple[RenderedPrompt, tuple[int, ...], float]], *, pad_token_id: int) -> dict[str, Any]:
    """The batch that its loss takes: prompts padded on the left, completions on the right, an image for every row."""
    prompt_width = max(len(prompt.token_ids) for prompt, _, _ in rows)
    width = max(len(completion) for _, completion, _ in rows)
    shape = len(rows), prompt_width
    prompt_ids, prompt_mask = torch.full(shape, pad_token_id), torch.zeros(shape, dtype=torch.long)
    completion_ids = torch.full((len(rows), width), pad_token_id)
    completion_mask = torch.zeros(len(rows), width, dtype=torch.long)
    types = torch.zeros(len(rows), prompt_width + width, dtype=torch.long)
    for number, (prompt, completion, _) in enumerate(rows):
        start = prompt_width - len(prompt.token_ids)
        prompt_ids[number, start:] = torch.tensor(prompt.token_ids)
        prompt_mask[number, start:] = 1
        completion_ids[number, : len(completion)] = torch.tensor(completion)
        completion_mask[number, : len(completion)] = 1
        if prompt.mm_token_type_ids is not None:
            types[number, start:prompt_width] = prompt.mm_token_type_ids
    inputs: dict[str, Any] = {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.tensor([advantage for _, _, advantage in rows]),
    }
    pixels = [prompt.pixel_values for prompt, _, _ in rows if prompt.pixel_values is not None]
    grids = [prompt.image_grid_thw for prompt, _, _ in rows if prompt.image_grid_thw is not None]
    if pixels:
        inputs |= {
            "pixel_values": torch.cat(pixels),
            "image_grid_thw": torch.cat(grids),
            "num_images": [len(grid) for grid in grids],
            "mm_token_type_ids": types,
        }
    return inputs


class PeerUpdate:
    """The update of one batch by GRPOTrainer: micro-batches of `rows` completions, one AdamW step."""

    def __init__(self, folder: Path, batch: Experience, *, rows: int, checkpointing: bool, lr: float) -> None:
        group = batch.lengths.shape[1]
        self.trainer = make_trainer(
            folder,
            [{"prompt": [{"role": "user", "content": "?"}]}] * rows,
            micro_batch_rows=rows,
            group=group,
            settings={"gradient_checkpointing": checkpointing, "loss_type": "grpo"},
        )
        flat = [
            (one.prompt, rollout.completion.token_ids, float(advantage))
            for one, row in zip(batch.groups, batch.estimate.advantages, strict=True)
            for rollout, advantage in zip(one.rollouts, row, strict=True)
        ]
        pad = self.trainer.processing_class.tokenizer.pad_token_id
        starts = range(0, len(flat), rows)
        self.batches = [loss_inputs(flat[start : start + rows], pad_token_id=pad) for start in starts]
        self.parameters = [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, weight_decay=0.0)

    def backward(self) -> float:
        """Accumulate the gradients as its training_step does; returns the loss."""
        self.trainer.model.train()
        self.trainer.current_gradient_accumulation_steps = len(self.batches)
        total = 0.0
        for batch in self.batches:
            loss = self.trainer._compute_loss(self.trainer.model, batch)
            loss.backward()
            total += float(loss.detach())
        return total

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 1e9)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def update(self) -> None:
        self.backward()
        self.step()

    def logprobs(self) -> Tensor:
        """Of every completion token, row by row."""
        found = []
        for batch in self.batches:
            ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
            mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
            names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
            images = {name: batch[name] for name in names if name in batch}
            with torch.no_grad():
                logprobs, _, _ = self.trainer._get_per_token_logps_and_entropies(
                    self.trainer.model, ids, mask, batch["completion_ids"].shape[1], **images
                )
            found.append(logprobs[batch["completion_mask"].bool()])
        return torch.cat(found)
