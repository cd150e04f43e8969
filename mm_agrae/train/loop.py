"""The reinforcement-learning loop: sample -> prompt -> rollout -> experience -> balance -> update -> metrics."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from mm_agrae.config import RunConfig
from mm_agrae.data.sampler import PromptSampler
from mm_agrae.engines.base import Engine
from mm_agrae.estimator import assemble
from mm_agrae.policy.feed import Cursor, Feed
from mm_agrae.policy.flops import model_shape
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.marks import weights_mark
from mm_agrae.policy.vision import share_tower
from mm_agrae.records import RenderedPrompt, Sample, Sampling
from mm_agrae.rollout import Harvest, Judge, rollout
from mm_agrae.seeding import seed_for
from mm_agrae.store.rollout_log import group_lines, write_lines
from mm_agrae.train.balance import balanced, useful_flops
from mm_agrae.train.experience import Experience, experience
from mm_agrae.train.progress import Progress
from mm_agrae.train.sampling import Sampled, sample_groups
from mm_agrae.train.session import Draw, Session
from mm_agrae.train.sharding import shard_if_asked
from mm_agrae.train.update import Learner, update


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the loop is given: where problems come from, who answers, who judges, who measures.

    `evaluate` takes the step and returns eval/* metrics; it runs on all ranks. `check_gap` takes the mean difference of
    a step's log-probabilities, engine from trainer (nats; NaN where nothing was learnt), and the number of tokens, and
    raises where it is too large.
    """

    samples: Sequence[Sample]
    engine: Engine
    judge: Judge
    evaluate: Callable[[int], dict[str, float]]
    check_gap: Callable[[float, float], None]


def train(session: Session, parts: Parts) -> None:
    """Run the loop from the session's step to train.num_steps.

    Raises:
        DataError: A sample cannot be used. The run stops before the update it would have been part of, and everything
            before it is saved.
        EngineError: The engine failed, or is not the trainer's twin any more; what was saved before stays.
        FloatingPointError: Loss or gradient was not finite too often in a row; everything is saved, the batch too.
    """
    with session.watch.steps():
        _train(session, parts)


def _train(session: Session, parts: Parts) -> None:
    session.bind_data(parts.samples)
    config = session.config
    learner = make_learner(session)
    shape = model_shape(session.policy)
    feed = Feed(policy=session.policy, config=config, log=session.log)
    draw = partial(feed.take, parts.samples, PromptSampler(len(parts.samples), config.seed), config.rollout.num_prompts)
    progress = Progress(session.log, config.train.num_steps)
    if session.step == 0:
        session.record(_measure(parts, session))
    checkpoint_s, told_shortage = 0.0, False
    while not session.is_done(config.train.num_steps):
        started = time.perf_counter()
        session.watch.step = session.step + 1
        sampled = _sample(session, parts, draw, feed, learner.algorithm.max_sampling_rounds)
        told_shortage = _tell_shortage(session, sampled, told=told_shortage)
        batch, estimator = experience(sampled, learner.algorithm, session.estimator)
        balancing = time.perf_counter()
        batch = balanced(learner, batch, shape)
        balance_s = time.perf_counter() - balancing
        with session.watch.phase("update"):
            outcome = update(learner, batch, step=session.step) | {"time/balance_s": balance_s}
        # Before anything of the step is recorded or saved.
        parts.check_gap(outcome["rollout/logprob_gap_mean_nats"], outcome["policy/learnt_tokens"])
        session.step, session.cursor, session.estimator = session.step + 1, sampled.cursor, estimator
        syncing = time.perf_counter()
        with session.watch.phase("sync"):
            parts.engine.sync_weights(session.policy, version=session.step)
        outcome["time/sync_s"] = time.perf_counter() - syncing
        metrics = batch.metrics() | outcome | _costs(session, sampled, outcome)
        metrics["throughput/update_useful_flops_per_s"] = useful_flops(learner, batch, shape) / metrics["time/update_s"]
        if session.skips.is_over or _due(session.step, config.train.rollout_log_every, config):
            with session.watch.phase("save"):
                _log_rollouts(session, batch)
        if _due(session.step, config.evaluate.every, config, first=False):
            metrics |= _measure(parts, session)
        metrics["time/checkpoint_s"] = checkpoint_s
        metrics["time/step_s"] = time.perf_counter() - started
        # Before the checkpoint, so that a kill between the two loses no line: a resumed run drops later ones.
        session.record(metrics)
        progress.show(session.step, metrics)
        _tell_skips(session, int(metrics["policy/skipped_updates"]))
        checkpoint_s = session.save_if_due(config.train.num_steps)


def make_learner(session: Session) -> Learner:
    """Policy, reference, optimiser and algorithm as the update takes them."""
    config = session.config
    assert session.optimizer is not None
    return Learner(
        policy=session.policy,
        reference=_reference(session),
        optimizer=session.optimizer,
        algorithm=assemble(config.algorithm, max_completion_tokens=config.rollout.max_completion_tokens),
        config=config.train,
        temperature=config.rollout.temperature,
        max_completion_tokens=config.rollout.max_completion_tokens,
        world=session.world,
        skips=session.skips,
        phases=session.watch.phase,
    )


def _reference(session: Session) -> Policy | None:
    """The initial policy, when the loss asks for it: with adapters the same model, else a frozen copy."""
    config, policy = session.config, session.policy
    if config.algorithm.beta == 0:
        return None
    if config.model.lora:
        return policy
    reference = load_policy(config.model, policy.device, trained=False, log=lambda line: None)  # the policy has said it
    session.bind({"weights of the reference": weights_mark(reference.model.named_parameters())})
    return shard_if_asked(share_tower(reference, policy), config.train, session.world, lambda line: None)


def _sample(session: Session, parts: Parts, draw: Draw, feed: Feed, max_rounds: int) -> Sampled:
    """The groups of the step."""
    count = session.config.rollout.num_prompts

    def harvest(number: int, cursor: Cursor) -> tuple[Harvest, Cursor]:
        with session.watch.phase("render"):
            prompts, cursor = session.take(draw, feed.render, cursor)
        return _roll_out(session, parts, prompts, first_place=number * count), cursor

    return sample_groups(harvest, session.world, count=count, max_rounds=max_rounds, cursor=session.cursor)


def _tell_shortage(session: Session, sampled: Sampled, *, told: bool) -> bool:
    """Say, the first time only, that sampling again did not find enough groups that can teach; whether it was said."""
    missing, count = sampled.num_missing, session.config.rollout.num_prompts
    if told or not session.config.algorithm.dynamic_sampling or missing == 0:
        return told
    session.log(
        f"step {session.step + 1}: after {sampled.rounds} rounds of sampling {count - missing} of {count} groups have "
        "both correct and wrong answers; groups that teach nothing fill the step. Raise "
        "algorithm.max_sampling_rounds, or take problems that suit the model. Said once: rollout/missing_groups counts."
    )
    return True


def _roll_out(session: Session, parts: Parts, mine: Sequence[RenderedPrompt], *, first_place: int) -> Harvest:
    """This rank's prompts, sampled and judged."""
    settings = session.config.rollout
    # By the place in the step and not by the sample: a sample that a small data set yields twice is answered anew.
    places = session.world.share(range(first_place, first_place + settings.num_prompts))
    seeds = [
        [seed_for(session.config.seed, "rollout", session.step, place, number) for number in range(settings.group_size)]
        for place in places
    ]
    sampling = Sampling(
        num_completions=settings.group_size,
        max_new_tokens=settings.max_completion_tokens,
        temperature=settings.temperature,
    )
    return rollout(parts.engine, parts.judge, mine, sampling, seeds, phases=session.watch.phase)


def _tell_skips(session: Session, num_skipped: int) -> None:
    """Name a step with updates that were left out.

    Raises:
        FloatingPointError: There were too many in a row; the run is saved first.
    """
    if num_skipped:
        session.log(
            f"step {session.step}: {num_skipped} of {session.config.train.updates_per_rollout} updates left out, "
            "because their loss or gradient is not finite"
        )
    if session.skips.is_over:
        session.save()
        file = session.run_dir.rollouts_at(session.step)
        batch = f"Its batch is in {file}, for `mm-agrae lab replay {file}`."
        raise session.skips.error(session.run_dir.path, step=session.step, batch=batch)


def _costs(session: Session, sampled: Sampled, outcome: Mapping[str, float]) -> dict[str, float]:
    """Seconds and throughput; the slowest rank counts, because the others wait for it."""
    mine = {"time/rollout_s": sampled.rollout_s, "time/verify_s": sampled.verify_s}
    mine |= {key: value for key, value in outcome.items() if key.startswith("time/")}
    everyone = session.world.collect([mine])
    costs = {key: max(rank[key] for rank in everyone) for key in mine}
    lengths = sampled.facts.lengths
    costs["throughput/rollout_tokens_per_s"] = int(lengths.sum()) / costs["time/rollout_s"]
    costs["throughput/update_tokens_per_s"] = int(lengths[sampled.kept].sum()) / costs["time/update_s"]
    costs["rollout/refused_samples"] = float(session.cursor.refused)
    if session.world.device.type == "cuda":
        peak = session.world.collect([float(torch.cuda.max_memory_allocated())])
        costs["memory/gpu_peak_bytes"] = max(peak)
        torch.cuda.reset_peak_memory_stats()
    return costs


def _log_rollouts(session: Session, batch: Experience) -> None:
    advantages = [batch.estimate.advantages[row].tolist() for row in batch.rows]
    run_dir = session.run_dir
    mine = group_lines(batch.groups, step=session.step, advantages=advantages, thumbnails=run_dir.thumbnails)
    # By row: which rank holds a kept group depends on where it was sampled.
    lines = session.world.merge(dict(zip(batch.rows, mine, strict=True)))
    if session.world.is_main:
        write_lines(run_dir.rollouts_at(session.step), lines)


def _measure(parts: Parts, session: Session) -> dict[str, float]:
    started = time.perf_counter()
    with session.watch.phase("evaluate"):
        metrics = parts.evaluate(session.step)
    return metrics | {"time/evaluate_s": time.perf_counter() - started} if metrics else metrics


def _due(step: int, every: int, config: RunConfig, *, first: bool = True) -> bool:
    return step == config.train.num_steps or (first and step == 1) or (every > 0 and step % every == 0)
