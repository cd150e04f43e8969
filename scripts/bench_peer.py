"""TRL's GRPOTrainer as the peer of the benchmarks: the same tensors through its own loss, and its own whole step.

Needs `pip install -e '.[bench]'`. Its code is not changed: only its inputs are built here, from our rendered
prompts. Its settings are its defaults but for what both sides must have in common: fp32 in place of bf16, `loss_type`
as ours in place of "dapo", and, where there is a reference, `use_bias_correction_kl` off.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from bench_equality import LR, Found, Recorder, Setting
from torch import Tensor
from trl import GRPOConfig, GRPOTrainer
from trl.data_utils import prepare_multimodal_messages

from mm_agrae.policy.hugging_face import transformers
from mm_agrae.records import RenderedPrompt
from mm_agrae.train.experience import Experience

Reward = Callable[..., list[float]]


def make_trainer(
    folder: Path,
    samples: list[dict[str, Any]],
    *,
    micro_batch_rows: int,
    group: int,
    settings: dict[str, Any],
    reward: Reward,
) -> Any:
    """A GRPOTrainer on the model of a folder, in fp32 on the CPU, with its default settings but for `settings`."""
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
        reward_funcs=reward,
        args=arguments,
        train_dataset=datasets.Dataset.from_list(samples),
        processing_class=transformers.AutoProcessor.from_pretrained(folder),
    )


def _unused(completions: Sequence[Any], log_metric: Any = None, **columns: Any) -> list[float]:
    raise AssertionError("only its loss is called, with advantages of ours")


@dataclass(frozen=True, kw_only=True)
class StepShape:
    """Prompts of a step, completions of each, tokens of each completion, and the number of steps."""

    prompts: int
    group: int
    length: int
    steps: int


def make_whole_trainer(
    folder: Path,
    samples: list[dict[str, Any]],
    shape: StepShape,
    *,
    reward: Reward,
    micro_batch_rows: int,
    checkpointing: bool,
    banned: Sequence[int],
) -> Any:
    """A GRPOTrainer that generates completions of exactly `length` tokens itself, one optimiser step for all of them.

    `banned` tokens are never drawn: the model takes one that is drawn for a picture that is not there, and raises.
    """
    return make_trainer(
        folder,
        samples,
        micro_batch_rows=micro_batch_rows,
        group=shape.group,
        reward=reward,
        settings={
            "gradient_checkpointing": checkpointing,
            "loss_type": "grpo",
            "gradient_accumulation_steps": shape.prompts * shape.group // micro_batch_rows,
            "max_steps": shape.steps,
            "max_completion_length": shape.length,
            "generation_kwargs": {"min_new_tokens": shape.length, "suppress_tokens": list(banned)},
        },
    )


def rendered(folder: Path, samples: list[dict[str, Any]]) -> tuple[list[list[int]], Tensor]:
    """Token ids and pixels of prompts as its own code renders them, from its own data set of these samples."""
    trainer = make_trainer(
        folder, samples, micro_batch_rows=len(samples), group=len(samples), settings={}, reward=_unused
    )
    rows = list(trainer.train_dataset)
    prompts = [prepare_multimodal_messages(row["prompt"], images=row["images"]) for row in rows]
    token_ids, _, fields = trainer._tokenize_prompts(prompts)
    return token_ids, fields["pixel_values"]


class Clock:
    """Takes the time whenever the trainer says that a step has ended."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def callback(self) -> Any:
        ends = self.ends

        class EndOfStep(transformers.TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
                ends.append(time.perf_counter())

        return EndOfStep()


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


Rows = Sequence[tuple[RenderedPrompt, tuple[int, ...], float]]


def rows_of(batch: Experience, places: Iterable[int] | None = None) -> Rows:
    """(prompt, completion, advantage) of every completion of these groups; None takes all."""
    return [
        (batch.groups[place].prompt, rollout.completion.token_ids, float(advantage))
        for place in (range(len(batch.groups)) if places is None else places)
        for rollout, advantage in zip(batch.groups[place].rollouts, batch.estimate.advantages[place], strict=True)
    ]


class PeerUpdate:
    """Updates of prepared batches by GRPOTrainer: micro-batches of so many completions, one AdamW step for all."""

    def __init__(
        self, folder: Path, batch: Experience, *, rows: int, checkpointing: bool, lr: float, settings: dict[str, Any]
    ) -> None:
        group = batch.lengths.shape[1]
        self.rows = rows
        self.trainer = make_trainer(
            folder,
            [{"prompt": [{"role": "user", "content": "?"}]}] * max(rows, group),
            micro_batch_rows=rows,
            group=group,
            reward=_unused,
            settings={
                "gradient_checkpointing": checkpointing,
                "gradient_accumulation_steps": max(1, group // rows),
                "loss_type": "grpo",
                **settings,
            },
        )
        if checkpointing:  # its train() would do the same with the same settings
            self.trainer.model.gradient_checkpointing_enable(self.trainer.args.gradient_checkpointing_kwargs)
        assert self.trainer.model.is_gradient_checkpointing == checkpointing
        self.parameters = [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=lr, weight_decay=0.0)
        self.take(rows_of(batch))

    def take(self, rows: Rows) -> None:
        """Prepare these completions for the next update."""
        pad = self.trainer.processing_class.tokenizer.pad_token_id
        starts = range(0, len(rows), self.rows)
        self.batches = [loss_inputs(rows[start : start + self.rows], pad_token_id=pad) for start in starts]
        # A divisor of some losses, counted over the batch that was generated; that is as many micro-batches as the
        # trainer believes to accumulate.
        tokens = sum(int(batch["completion_mask"].sum()) for batch in self.batches)
        share = self.trainer.args.steps_per_generation / len(self.batches)
        for batch in self.batches:
            batch["num_items_in_batch"] = torch.tensor(tokens * share)

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

    def step(self) -> float:
        """Take the step; returns the norm of the gradient."""
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, 1e9))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return norm

    def update(self) -> tuple[float, float]:
        """Returns the loss and the norm of the gradient."""
        return self.backward(), self.step()

    @torch.no_grad()
    def scores(self, model: Any, *, entropy: bool) -> list[tuple[Tensor, Tensor]]:
        """Log-probabilities, and for the trained model entropies, [rows, width] of every micro-batch."""
        found = []
        for batch in self.batches:
            ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
            mask = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
            names = ("pixel_values", "image_grid_thw", "num_images", "mm_token_type_ids")
            images = {name: batch[name] for name in names if name in batch}
            logprobs, entropies, _ = self.trainer._get_per_token_logps_and_entropies(
                model, ids, mask, batch["completion_ids"].shape[1], compute_entropy=entropy, **images
            )
            found.append((logprobs, entropies))
        return found

    def flat(self, padded: Iterable[Tensor]) -> Tensor:
        """[rows, width] of every micro-batch -> one value for every completion token."""
        pairs = zip(padded, self.batches, strict=True)
        return torch.cat([values[batch["completion_mask"].bool()] for values, batch in pairs])


PEER_LOSSES: dict[str, dict[str, Any]] = {
    "grpo": {"loss_type": "grpo", "epsilon": 0.05},
    "dr_grpo": {"loss_type": "dr_grpo", "epsilon": 0.05},
    "dapo": {"loss_type": "dapo", "epsilon": 0.05, "epsilon_high": 0.07},
    "cispo": {"loss_type": "cispo", "epsilon_high": 1.05},  # it bounds the ratio itself
}


def two_updates(folder: Path, batch: Experience, setting: Setting, *, length: int, reference: Path) -> Found:
    """Its side of the comparison, in micro-batches of one group."""
    num_groups, group = batch.lengths.shape
    peer = PeerUpdate(
        folder, batch, rows=group, checkpointing=False, lr=LR,
        settings={
            **PEER_LOSSES[setting.loss],
            "beta": setting.beta,
            "use_bias_correction_kl": False,  # the divergence as in GRPO's paper; no other setting of the loss is moved
            "temperature": setting.temperature,
            "max_completion_length": length,
        },
    )  # fmt: skip
    recorder = peer.optimizer = Recorder(peer.parameters)
    model, other = peer.trainer.model, None
    if setting.beta:
        other = peer.trainer.ref_model
        weights = transformers.AutoModelForImageTextToText.from_pretrained(reference, dtype=torch.float32)
        other.load_state_dict(weights.state_dict())
    scores = peer.scores(model, entropy=True)
    halves = [range(num_groups // 2), range(num_groups // 2, num_groups)]
    old = [logprobs for logprobs, _ in scores]
    losses, norms = [], []
    for number, half in enumerate(halves):
        peer.take(rows_of(batch, half))
        references = (
            [logprobs for logprobs, _ in peer.scores(other, entropy=False)] if other is not None else [None] * len(half)
        )
        for place, inputs, ref_logprobs in zip(half, peer.batches, references, strict=True):
            # Every micro-batch is as wide as its longest completion, then as now: a group is one of them.
            inputs |= {"old_per_token_logps": old[place]} if number else {}
            inputs |= {} if ref_logprobs is None else {"ref_per_token_logps": ref_logprobs}
        loss, norm = peer.update()
        losses.append(loss)
        norms.append(norm)
    peer.take(rows_of(batch))
    return Found(
        logprobs=peer.flat(logprobs for logprobs, _ in scores),
        entropy=peer.flat(entropy for _, entropy in scores),
        loss=sum(losses),
        grad_norm=sum(norms) / len(norms),
        gradients=recorder.recorded,
        weights=[parameter.detach().clone() for parameter in peer.parameters],
        clipped=float("nan"),
    )
