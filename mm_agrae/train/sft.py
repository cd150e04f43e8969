"""Warm start: supervised fine-tuning on worked solutions, with the data, prompts, policy and files of training."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from mm_agrae.data.sampler import PromptSampler
from mm_agrae.errors import DataError
from mm_agrae.policy.feed import Feed
from mm_agrae.policy.forward import TokenScores
from mm_agrae.policy.gradient import differentiate
from mm_agrae.policy.layout import Row
from mm_agrae.policy.optim import learning_rate, optimizer_step
from mm_agrae.policy.packing import budget_of, pack
from mm_agrae.records import Prompt, Sample
from mm_agrae.train.session import Session
from mm_agrae.train.sharding import gathering

PRINT_EVERY = 10


def fine_tune(session: Session, samples: Sequence[Sample]) -> None:
    """Learn to continue each prompt with its worked solution, from the session's step to sft.num_steps.

    loss = -mean log-probability over the solution tokens of the batch, the end-of-text token included

    Raises:
        DataError: A sample cannot be used, or has no worked solution. The run stops before the update it would have
            been part of, and everything before it is saved.
        FloatingPointError: Loss or gradient was not finite too often in a row; everything is saved.
    """
    with session.watch.steps():
        _fine_tune(session, samples)


def _fine_tune(session: Session, samples: Sequence[Sample]) -> None:
    session.bind_data(samples)
    config = session.config
    feed = Feed(policy=session.policy, config=config, log=session.log)
    draw = partial(feed.take, samples, PromptSampler(len(samples), config.seed), config.sft.batch_size)
    make = partial(_row, session, feed)
    while not session.is_done(config.sft.num_steps):
        started = time.perf_counter()
        session.watch.step = session.step + 1
        with session.watch.phase("render"):
            rows, cursor = session.take(draw, make, session.cursor)
        num_tokens = sum(session.world.collect([sum(len(row.completions[0]) for row in rows)]))
        lr = learning_rate(config.sft.optim, session.step, config.sft.num_steps)
        with session.watch.phase("update"):
            metrics = _step(session, rows, num_tokens, lr)
        session.step, session.cursor = session.step + 1, cursor
        metrics["sft/step_s"] = time.perf_counter() - started
        metrics["sft/tokens_per_s"] = num_tokens / metrics["sft/step_s"]
        session.record(metrics)
        if session.step % PRINT_EVERY == 0 or session.step in (1, config.sft.num_steps):
            session.log(
                f"sft {session.step}/{config.sft.num_steps}  loss {metrics['sft/loss_nats']:.3f}  "
                f"grad {metrics['sft/grad_norm']:.2f}  {metrics['sft/step_s']:.2f} s"
            )
        if session.skips.is_over:
            ids = session.world.collect([row.prompt.sample.id for row in rows])
            session.save()
            raise session.skips.error(
                session.run_dir.path, step=session.step, batch=f"It learnt from {', '.join(ids)}."
            )
        session.save_if_due(config.sft.num_steps)


def _row(session: Session, feed: Feed, prompt: Prompt) -> Row:
    solution = prompt.sample.solution
    if not solution:
        raise DataError(
            f"sample {prompt.sample.id!r} has no worked solution, but a warm start learns from solutions. "
            "Use a data set with solutions, or start reinforcement learning from a model that needs no warm start."
        )
    tokenizer = session.policy.tokenizer
    ids = tokenizer.encode(solution, add_special_tokens=False)
    if banned := set(ids) & set(session.policy.banned_token_ids):
        raise DataError(
            f"the worked solution of sample {prompt.sample.id!r} holds "
            f"{', '.join(tokenizer.convert_ids_to_tokens(sorted(banned)))}, which stands for a picture in a prompt and "
            "has probability 0 in an answer. Remove it from the solution."
        )
    return Row(prompt=feed.render(prompt), completions=((*ids, tokenizer.eos_token_id),))


def _step(session: Session, rows: Sequence[Row], num_tokens: int, lr: float) -> dict[str, float]:
    """One optimiser step on the mean over the global batch's tokens; none where loss or gradient is not finite."""
    config, policy, world = session.config, session.policy, session.world
    sums = torch.zeros(1, dtype=torch.float64, device=policy.device)
    budget = replace(budget_of(config.train), apart=policy.shards is None)

    def loss_of(rows: Sequence[Row], scores: TokenScores, *, counts: bool) -> Tensor:
        return -scores.logprobs.sum() * counts / num_tokens

    batches = pack(rows, budget, padded=not policy.shares_prompts)
    in_step = world.in_step(batches, [], list(policy.model.parameters()))
    with gathering(policy, config.train):
        for micro_batch, counts in in_step:
            sums += differentiate(policy, micro_batch, partial(loss_of, counts=counts), budget=budget).double()
    parameters = policy.trainable()
    world.sum_gradients(parameters)
    assert session.optimizer is not None
    loss, bound = float(world.sum(sums)), config.sft.optim.max_grad_norm
    norm = optimizer_step(session.optimizer, parameters, loss=loss, lr=lr, max_grad_norm=bound)
    taken = math.isfinite(norm)
    session.skips.note(taken=taken)
    return {
        "sft/loss_nats": loss,
        "sft/grad_norm": norm,
        "sft/learning_rate": lr,
        "sft/skipped_updates": float(not taken),
    }
