"""A model that looks at its pictures, and engines that are almost its twins."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.policy.load import Policy
from mm_agrae.records import Completion, RenderedPrompt, Sampling

Asked = Callable[[Sequence[RenderedPrompt], Sampling], tuple[Sequence[RenderedPrompt], Sampling]]


def sharpened(policy: Policy, *, factor: float = 3.0) -> Policy:
    """A copy with uneven next-token distributions, which depend on what is seen."""
    model = copy.deepcopy(policy.model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if any(part in name for part in ("q_proj", "k_proj", "qkv")):
                parameter.mul_(3)
            if any(part in name for part in ("down_proj", "o_proj")):
                parameter.mul_(8)
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(factor * head.weight)  # no longer tied
    return replace(policy, model=model)


@dataclass
class Altered:
    """The embedded engine, with what it is asked or what it answers changed."""

    policy: Policy
    ask: Asked = lambda prompts, sampling: (prompts, sampling)
    answer: Callable[[Completion], Completion] = lambda completion: completion
    weights_version: int = 0

    def generate(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        asked, how = self.ask(prompts, sampling)
        groups = TransformersEngine(self.policy, batch_rows=64).generate(asked, how, seeds)
        return [[self.answer(completion) for completion in group] for group in groups]

    def sync_weights(self, policy: Any, *, version: int) -> None:
        self.weights_version = version

    def close(self) -> None:
        """Nothing is held."""


def other_weights(policy: Policy) -> Altered:
    model = copy.deepcopy(policy.model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * parameter.std() * torch.randn(parameter.shape, generator=torch.manual_seed(0)))
    return Altered(replace(policy, model=model))


def temperature_of_one(policy: Policy) -> Altered:
    return Altered(
        policy,
        ask=lambda prompts, sampling: (prompts, replace(sampling, temperature=1.0 if sampling.temperature else 0.0)),
    )


def sampled_greedy(policy: Policy) -> Altered:
    """Takes temperature 0 for 1."""
    return Altered(
        policy, ask=lambda prompts, sampling: (prompts, replace(sampling, temperature=sampling.temperature or 1.0))
    )


def blind(policy: Policy) -> Altered:
    """Sees one and the same picture everywhere."""

    def without(prompt: RenderedPrompt) -> RenderedPrompt:
        if prompt.pixel_values is None:
            return prompt
        hashes = tuple(f"none{place}" for place in range(len(prompt.picture_hashes)))
        return replace(prompt, pixel_values=torch.zeros_like(prompt.pixel_values), picture_hashes=hashes)

    return Altered(policy, ask=lambda prompts, sampling: ([without(prompt) for prompt in prompts], sampling))


def one_place_late(completion: Completion) -> Completion:
    return replace(completion, logprobs=(completion.logprobs[-1], *completion.logprobs[:-1]))


def all_lower(completion: Completion) -> Completion:
    return replace(completion, logprobs=tuple(logprob - 0.05 for logprob in completion.logprobs))


def not_a_number(completion: Completion) -> Completion:
    return replace(completion, logprobs=(float("nan"), *completion.logprobs[1:]))


def without_the_last_token(completion: Completion) -> Completion:
    return replace(completion, token_ids=completion.token_ids[:-1], logprobs=completion.logprobs[:-1])


def said_to_have_ended(completion: Completion) -> Completion:
    """Where it was cut off."""
    return replace(completion, stop_reason="eos")


def without_the_first_token(completion: Completion) -> Completion:
    return replace(completion, token_ids=completion.token_ids[1:], logprobs=completion.logprobs[1:])


def without_a_logprob(completion: Completion) -> Completion:
    return replace(completion, logprobs=completion.logprobs[1:])
