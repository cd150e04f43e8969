"""The embedded engine: samples from the trainer's own model, every prompt and its images computed once.

The completions of many prompts are decoded together, one token of each at a time. Finished ones leave, and waiting
prompts take their places. Every completion draws from a random stream of its own, so neither the batch size nor the
neighbours change it, but for rounding: products of other shapes may sum in another order, and where two tokens are
almost equally near to the number that was drawn, the other one may come.

Shapes: G completions per prompt, R rows being decoded, H hidden width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mm_agrae.engines.base import check_request
from mm_agrae.engines.repeating_decoder import RepeatingDecoder
from mm_agrae.engines.sampling import draw, uniforms_of
from mm_agrae.engines.shared_decoder import SharedDecoder
from mm_agrae.errors import EngineError
from mm_agrae.policy.load import Policy
from mm_agrae.records import Completion, RenderedPrompt, Sampling

# Copying keys and values without the finished rows costs about one decoding step; it pays at this share of them.
COMPACT_AT = 0.125
# Waiting prompts join when they fill this share of the rows: a prefill between two steps should be worth it.
REFILL_AT = 0.25


class Decoder(Protocol):
    """Keys and values of the rows being decoded, in an order that the caller knows too."""

    @property
    def accepts(self) -> bool:
        """Whether more prompts can be started now."""
        ...

    def start(self, prompts: Sequence[RenderedPrompt], *, group: int) -> Float[Tensor, "R H"]:
        """Append `group` rows for every prompt; returns the states that predict their first tokens."""
        ...

    def step(self, ids: Int[Tensor, " R"], positions: Int[Tensor, " R"]) -> Float[Tensor, "R H"]:
        """Append a token to every row; returns the states that predict the next ones."""
        ...

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all rows but these; ascending."""
        ...


class TransformersEngine:
    """Rollouts from the policy in this process."""

    def __init__(self, policy: Policy, *, batch_rows: int, weights_version: int = 0) -> None:
        """Sample from `policy`, up to `batch_rows` completions at a time (at least one whole group)."""
        self.policy = policy
        self.batch_rows = batch_rows
        self.weights_version = weights_version

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        check_request(prompts, sampling, seeds)
        # Prompts of similar length start together, so little of their keys is padding.
        waiting = deque(sorted(range(len(prompts)), key=lambda index: len(prompts[index].token_ids)))
        done: dict[tuple[int, int], Completion] = {}
        group = sampling.num_completions
        # Processes finish at different tokens, so none may wait for another one's pass: weights are gathered once.
        with self.policy.whole(), self.policy.arithmetic():
            batch = _Batch(self.policy, sampling, max_rows=max(group, min(self.batch_rows, group * len(prompts))))
            while waiting or batch.owners:
                joining = [waiting.popleft() for _ in range(batch.room_for(len(waiting)))]
                if joining:
                    batch.start(joining, [prompts[i] for i in joining], [seeds[i] for i in joining])
                batch.draw()
                done |= batch.leave()
                batch.step()
        return [[done[index, place] for place in range(group)] for index in range(len(prompts))]

    def sync_weights(self, policy: Policy, *, version: int) -> None:
        """The weights are shared with the trainer, so only their version moves."""
        self.policy = policy
        self.weights_version = version

    def close(self) -> None:
        """Nothing is held beyond the policy."""


class _Batch:
    """The completions being decoded.

    Attributes:
        owners: [R] the prompt's number and the completion's place in its group.
        lines: [R] line of the records (ids, logprobs, uniforms: one column per token, the last one is never read).
        num_drawn: [R] tokens drawn so far.
        running: [R] False once its last token is drawn.
    """

    def __init__(self, policy: Policy, sampling: Sampling, *, max_rows: int) -> None:
        self.policy = policy
        self.sampling = sampling
        self.max_rows = max_rows
        self.decoder: Decoder = (
            SharedDecoder(policy, max_tokens=sampling.max_new_tokens)
            if policy.shares_prompts
            else RepeatingDecoder(policy)
        )
        self.eos = torch.tensor(policy.eos_token_ids, device=policy.device)
        shape = (max_rows, sampling.max_new_tokens + 1)
        self.ids = torch.zeros(shape, dtype=torch.long, device=policy.device)
        self.logprobs = torch.zeros(shape, device=policy.device)
        self.uniforms = torch.zeros(shape, dtype=torch.float64, device=policy.device)
        self.owners: list[tuple[int, int]] = []
        self.free = list(range(max_rows))
        self.lines = torch.empty(0, dtype=torch.long, device=policy.device)
        self.first_positions, self.num_drawn, self.last_ids = (self.lines.clone() for _ in range(3))
        self.running = torch.empty(0, dtype=torch.bool, device=policy.device)
        self.num_running = 0
        self.hidden: Tensor | None = None

    def room_for(self, num_waiting: int) -> int:
        """How many of the waiting prompts join now."""
        group = self.sampling.num_completions
        fitting = min(num_waiting, (self.max_rows - len(self.owners)) // group)
        enough = min(num_waiting, max(1, int(REFILL_AT * self.max_rows) // group))
        return fitting if self.decoder.accepts and fitting >= enough else 0

    def start(self, numbers: Sequence[int], prompts: Sequence[RenderedPrompt], seeds: Sequence[Sequence[int]]) -> None:
        """Prefill prompts and begin their completions."""
        group, device = self.sampling.num_completions, self.policy.device
        hidden = self.decoder.start(prompts, group=group)
        self.hidden = hidden if self.hidden is None else torch.cat([self.hidden, hidden])
        self.owners += [(number, place) for number in numbers for place in range(group)]
        lines = torch.tensor([self.free.pop() for _ in hidden], device=device)
        self.uniforms[lines, :-1] = uniforms_of([seed for row in seeds for seed in row], self.sampling).to(device)
        first = torch.tensor([prompt.next_position for prompt in prompts], device=device).repeat_interleave(group)
        self.lines = torch.cat([self.lines, lines])
        self.first_positions = torch.cat([self.first_positions, first])
        self.num_drawn = torch.cat([self.num_drawn, torch.zeros_like(lines)])
        self.running = torch.cat([self.running, torch.ones_like(lines, dtype=torch.bool)])

    def draw(self) -> None:
        """The next token of every row.

        Raises:
            EngineError: The model's logits are not finite.
        """
        assert self.hidden is not None
        column = torch.where(self.running, self.num_drawn, self.sampling.max_new_tokens)
        ids, logprobs = draw(self.policy, self.hidden, self.sampling, self.uniforms[self.lines, column])
        self.ids[self.lines, column] = ids
        self.logprobs[self.lines, column] = logprobs
        self.num_drawn = self.num_drawn + self.running
        self.running = self.running & ~torch.isin(ids, self.eos) & (self.num_drawn < self.sampling.max_new_tokens)
        self.last_ids = ids
        # One transfer from the device per token.
        self.num_running, num_broken = torch.stack([self.running.sum(), logprobs.isnan().sum()]).tolist()
        if num_broken:
            raise EngineError(
                "the model's logits are not finite. Begin a new run from the model/ folder of the last checkpoint "
                "(model.path) with a lower learning rate."
            )

    def leave(self) -> dict[tuple[int, int], Completion]:
        """Take finished rows out, once enough of them are; returns their completions by owner."""
        if self.num_running > (1 - COMPACT_AT) * len(self.owners):
            return {}
        ended = [not running for running in self.running.tolist()]
        lines, lengths = self.lines.tolist(), self.num_drawn.tolist()
        ids, logprobs = self.ids[self.lines].tolist(), self.logprobs[self.lines].tolist()
        left = {
            self.owners[row]: self._completion(ids[row][: lengths[row]], logprobs[row][: lengths[row]])
            for row in range(len(ended))
            if ended[row]
        }
        self.free += [lines[row] for row in range(len(ended)) if ended[row]]
        kept = [row for row in range(len(ended)) if not ended[row]]
        self.owners = [self.owners[row] for row in kept]
        index = torch.tensor(kept, dtype=torch.long, device=self.policy.device)
        self.lines, self.first_positions, self.num_drawn, self.last_ids, self.running = (
            x[index] for x in (self.lines, self.first_positions, self.num_drawn, self.last_ids, self.running)
        )
        self.decoder.keep(kept)
        return left

    def step(self) -> None:
        """Compute the states behind the drawn tokens."""
        if not self.owners:
            self.hidden = None
            return
        self.hidden = self.decoder.step(self.last_ids, self.first_positions + self.num_drawn - 1)

    def _completion(self, token_ids: list[int], logprobs: list[float]) -> Completion:
        ended = token_ids[-1] in self.policy.eos_token_ids
        return Completion(
            token_ids=tuple(token_ids),
            logprobs=tuple(logprobs),
            text=self.policy.tokenizer.decode(token_ids, skip_special_tokens=True),
            stop_reason="eos" if ended else "length",
        )
