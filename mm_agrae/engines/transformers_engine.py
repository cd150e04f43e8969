"""The embedded engine: samples from the trainer's own model, the prompt and its image computed once per group.

The prompts of a batch are prefilled once, their cache is repeated G times, then all completions are decoded together;
finished ones leave the batch. Every completion draws from a random stream of its own, so neither the batch size nor
the neighbours change it.

Shapes: P prompts, G completions per prompt, R rows being decoded, T cached tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mm_agrae.engines.base import check_request
from mm_agrae.errors import EngineError
from mm_agrae.policy.forward import logits_of
from mm_agrae.policy.hugging_face import transformers
from mm_agrae.policy.load import Policy
from mm_agrae.policy.vision import image_inputs
from mm_agrae.records import Completion, RenderedPrompt, Sampling

# Copying the cache without its finished rows costs about one decoding step; it pays once this share is finished.
COMPACT_AT = 0.125


class Bf16Cache(transformers.DynamicCache):
    """Keys and values in bf16.

    Under autocast, keys leave the rotary embedding in fp32, and the cache would keep both tensors so: twice the memory,
    and cast again at every token. Attention casts them to bf16 in any case, so no number changes.
    """

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        return super().update(key_states.bfloat16(), value_states.bfloat16(), layer_idx)


class TransformersEngine:
    """Rollouts from the policy in this process."""

    def __init__(self, policy: Policy, *, batch_rows: int, weights_version: int = 0) -> None:
        """Sample from `policy`, up to `batch_rows` completions at a time (at least one whole group)."""
        self.policy = policy
        self.batch_rows = batch_rows
        self.weights_version = weights_version

    def generate(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        check_request(prompts, sampling, seeds)
        at_a_time = max(1, self.batch_rows // sampling.num_completions)
        # Prompts of similar length share a batch, so little of it is padding; results go back to their places.
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index].token_ids))
        results: list[list[Completion]] = [[] for _ in prompts]
        for start in range(0, len(order), at_a_time):
            chosen = order[start : start + at_a_time]
            groups = self._generate_batch([prompts[i] for i in chosen], sampling, [seeds[i] for i in chosen])
            for index, group in zip(chosen, groups, strict=True):
                results[index] = group
        return results

    def sync_weights(self, policy: Policy, *, version: int) -> None:
        """The weights are shared with the trainer, so only their version moves."""
        self.policy = policy
        self.weights_version = version

    def close(self) -> None:
        """Nothing is held beyond the policy."""

    @torch.no_grad()
    def _generate_batch(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        num_rows = len(prompts) * sampling.num_completions
        uniforms = _uniforms([seed for row in seeds for seed in row], sampling).to(self.policy.device)
        with self.policy.arithmetic():
            tokens, logprobs = _decode(self.policy, prompts, sampling, uniforms)
        completions = [self._completion(tokens[row], logprobs[row]) for row in range(num_rows)]
        size = sampling.num_completions
        return [completions[start : start + size] for start in range(0, num_rows, size)]

    def _completion(self, token_ids: list[int], logprobs: list[float]) -> Completion:
        ended = token_ids[-1] in self.policy.eos_token_ids
        return Completion(
            token_ids=tuple(token_ids),
            logprobs=tuple(logprobs),
            text=self.policy.tokenizer.decode(token_ids, skip_special_tokens=True),
            stop_reason="eos" if ended else "length",
        )


def _decode(
    policy: Policy, prompts: Sequence[RenderedPrompt], sampling: Sampling, uniforms: Tensor
) -> tuple[list[list[int]], list[list[float]]]:
    """Token ids and log-probabilities of P * G completions, group by group."""
    hidden, cache, mask = _prefill(policy, prompts)
    repeat = torch.arange(len(prompts), device=policy.device).repeat_interleave(sampling.num_completions)
    cache.reorder_cache(repeat)
    hidden, mask = hidden[repeat], mask[repeat]
    next_position = torch.tensor([prompt.next_position for prompt in prompts], device=policy.device)[repeat]
    num_position_rows = prompts[0].position_ids.shape[0]
    eos = torch.tensor(policy.eos_token_ids, device=policy.device)
    tokens: list[list[int]] = [[] for _ in range(len(repeat))]
    logprobs: list[list[float]] = [[] for _ in range(len(repeat))]
    rows = torch.arange(len(repeat), device=policy.device)  # [R] completion that each row of the batch decodes
    running = torch.ones_like(rows, dtype=torch.bool)
    for step in range(sampling.max_new_tokens):
        ids, scores = _draw(policy, hidden, sampling, uniforms[rows, step])
        for row, alive, token, logprob in zip(
            rows.tolist(), running.tolist(), ids.tolist(), scores.tolist(), strict=True
        ):
            if alive:
                tokens[row].append(token)
                logprobs[row].append(logprob)
        running &= ~torch.isin(ids, eos)
        num_running = int(running.sum())
        if num_running == 0 or step + 1 == sampling.max_new_tokens:
            break
        if num_running <= (1 - COMPACT_AT) * len(rows):
            keep = running.nonzero()[:, 0]
            cache.reorder_cache(keep)
            ids, rows, mask, next_position, running = (t[keep] for t in (ids, rows, mask, next_position, running))
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = (next_position + step)[:, None]  # [R, 1]
        out = policy.backbone(
            input_ids=ids[:, None],
            attention_mask=mask,
            position_ids=positions.expand(num_position_rows, -1, -1) if num_position_rows > 1 else positions,
            past_key_values=cache,
            use_cache=True,
        )
        hidden = out.last_hidden_state[:, -1]
    return tokens, logprobs


def _prefill(policy: Policy, prompts: Sequence[RenderedPrompt]) -> tuple[Tensor, Any, Tensor]:
    """Last hidden state [P, H], cache and attention mask [P, T] of the prompts, padded on the left."""
    width = max(len(prompt.token_ids) for prompt in prompts)
    num_position_rows = prompts[0].position_ids.shape[0]
    input_ids = torch.full((len(prompts), width), policy.tokenizer.pad_token_id or 0)
    mask = torch.zeros(len(prompts), width, dtype=torch.long)
    positions = torch.zeros(num_position_rows, len(prompts), width, dtype=torch.long)
    types = torch.zeros_like(mask)
    for index, prompt in enumerate(prompts):
        start = width - len(prompt.token_ids)
        input_ids[index, start:] = torch.tensor(prompt.token_ids)
        mask[index, start:] = 1
        positions[:, index, start:] = prompt.position_ids
        if prompt.mm_token_type_ids is not None:
            types[index, start:] = prompt.mm_token_type_ids
    inputs: dict[str, Tensor] = {"input_ids": input_ids, "attention_mask": mask}
    inputs["position_ids"] = positions if num_position_rows > 1 else positions[0]
    if policy.sees:
        inputs["mm_token_type_ids"] = types
    cache = (Bf16Cache if policy.precision == "bf16" else transformers.DynamicCache)(config=policy.inner.config)
    on_device = {name: tensor.to(policy.device) for name, tensor in inputs.items()}
    images = image_inputs(policy, [prompt for prompt in prompts if prompt.pixel_values is not None])
    out = policy.backbone(**on_device, **images, past_key_values=cache, use_cache=True)
    return out.last_hidden_state[:, -1], cache, mask.to(policy.device)


def _draw(policy: Policy, hidden: Tensor, sampling: Sampling, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Next ids [R] and their log-probabilities [R] at the sampling temperature, before any nucleus is cut."""
    logits = logits_of(policy, hidden, sampling.temperature or 1.0)
    log_softmax = logits.log_softmax(dim=-1)  # [R, V]
    if log_softmax[:, 0].isnan().any():  # one logit that is not a number makes its whole row so
        raise EngineError("the model's logits are not finite. Resume from a checkpoint with a lower learning rate.")
    if sampling.temperature == 0:
        ids = logits.argmax(dim=-1)
    else:
        # float64: over a large vocabulary a float32 running sum is off by more than rare tokens weigh.
        probabilities = _nucleus(log_softmax.double().exp(), sampling.top_p)
        cumulative = probabilities.cumsum(dim=-1)
        total = cumulative[:, -1:]
        # Strictly below the total, or rounding could land behind the last token of positive probability.
        target = torch.minimum(uniforms[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
        ids = torch.searchsorted(cumulative, target, right=True)[:, 0]
    return ids, log_softmax.gather(1, ids[:, None])[:, 0]


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    """Zero the tokens outside the smallest set whose probability reaches top_p."""
    if top_p >= 1:
        return probabilities
    ranked, order = probabilities.sort(dim=-1, descending=True)
    outside = ranked.cumsum(dim=-1) - ranked >= top_p
    return probabilities.masked_fill(outside.scatter(1, order, outside), 0.0)


def _uniforms(seeds: Sequence[int], sampling: Sampling) -> Tensor:
    """[P * G, max_new_tokens] numbers in [0, 1), each row from its own stream."""
    rows = [np.random.Generator(np.random.Philox(seed)).random(sampling.max_new_tokens) for seed in seeds]
    return torch.from_numpy(np.stack(rows))
