"""What a supervised and a reinforcement run have in common: opening, resuming, saving and closing a run directory."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, TypeVar
from uuid import uuid4

import torch

from mm_agrae.config import RunConfig
from mm_agrae.data.dataset import content_mark
from mm_agrae.errors import CheckpointError, ConfigError, DataError
from mm_agrae.estimator import START, EstimatorState
from mm_agrae.policy.feed import Cursor
from mm_agrae.policy.load import Policy, load_policy
from mm_agrae.policy.marks import processor_facts, weights_mark
from mm_agrae.policy.optim import make_optimizer
from mm_agrae.records import Prompt, Sample
from mm_agrae.seeding import seed_for
from mm_agrae.store.lock import hold
from mm_agrae.store.provenance import environment
from mm_agrae.store.run_dir import RunDir
from mm_agrae.store.tracker import Tracker
from mm_agrae.train.best import check_keep_best, check_measured, check_measured_so_far, name_best
from mm_agrae.train.distributed import World
from mm_agrae.train.facts import open_tracker, write_facts
from mm_agrae.train.hosts import check_alike, check_model, check_start
from mm_agrae.train.memory import shortage_told
from mm_agrae.train.resuming import (
    Left,
    arithmetic_of,
    changed_marks,
    check_arithmetic,
    config_hash_of,
    existing_run,
    find_left,
    stored_as,
    tell_changes,
)
from mm_agrae.train.saving import MODEL_FOLDER, computed_on, gather, read_optimizer, write_checkpoint
from mm_agrae.train.sharding import is_sharded, shard_if_asked
from mm_agrae.train.skips import Skips
from mm_agrae.train.supervision import Place, Watch

T = TypeVar("T")
Job = Literal["sft", "train", "eval"]
Draw = Callable[[Cursor], tuple[list[Prompt], Cursor]]

# Collectives outlast the longest deadline by so much, so that a stall is found by the watch.
AFTER_DEADLINE_S = 60.0


@dataclass(kw_only=True)
class Session:
    """An open run on one rank. `step`, `cursor` and `estimator` move; everything else stays.

    Once the model is made, nothing in a run draws from a global random generator (every draw has a seed of its own,
    from the step and the place in it), so step and cursor are all the randomness there is to save. The learning rate
    is a function of the step, and the step is the version of the weights.

    Attributes:
        job: What the run does; a checkpoint of one job does not resume another.
        optimizer: None where nothing is learnt.
        tracker: On the main process only.
        watch: Told of the phases of a step.
        skips: Updates that were left out.
        step: Steps done.
        cursor: Place in the training data.
        estimator: What the algorithm remembers of earlier batches.
        made_from: Marks of what is read anew at every start and must be what it was at the first: data, processor, and
            weights that no checkpoint holds. The content of the problems alone may change, which is told.
        saved: Step of the newest checkpoint.
        stop_after: Step to stop after, short of the job's own number; None makes them all.
        lock: Keeps other launches out of the run; on the main process only.
    """

    job: Job
    config: RunConfig
    world: World
    run_dir: RunDir
    policy: Policy
    optimizer: torch.optim.Optimizer | None
    tracker: Tracker | None
    log: Callable[[str], None]
    step: int
    cursor: Cursor
    watch: Watch
    skips: Skips
    estimator: EstimatorState = START
    made_from: Mapping[str, str] = field(default_factory=dict)
    saved: int | None = None
    stop_after: int | None = None
    lock: IO[str] | None = None

    def bind(self, facts: Mapping[str, str]) -> None:
        """Bind the run to what it is made from.

        Args:
            facts: Marks, by what they are of.

        Raises:
            CheckpointError: A resumed run finds something else than it began with.
            ConfigError: The processes of the run find different things.
        """
        check_alike(self.world, facts)
        changed = changed_marks(self.made_from, facts)
        if changed:
            listed = "".join(f"\n  {line}" for line in changed)
            raise CheckpointError(
                f"{self.run_dir.path} was not made from what is there now:{listed}\n"
                "Put back what it began with, or start a new run."
            )
        self.made_from = {**self.made_from, **facts}

    def bind_data(self, samples: Sequence[Sample]) -> None:
        """Bind the run to its training data, and tell of problems that were changed since: a broken one may be mended.

        Raises:
            CheckpointError: A resumed run finds others than it began with; the cursor would mean nothing in them.
            ConfigError: The processes of the run find different ones.
        """
        self.bind({"data.train": f"{len(samples)} samples, {samples[0].id} to {samples[len(samples) - 1].id}"})
        content = {"content of data.train": content_mark(samples)}
        check_alike(self.world, content)
        for line in changed_marks(self.made_from, content):
            self.log(f"{line}: the file or problems in it were changed, and the run goes on with them as they are now")
        self.made_from = {**self.made_from, **content}

    def record(self, metrics: dict[str, float]) -> None:
        """Log the metrics of the step just done.

        Raises:
            ConfigError: The metric of train.keep_best is not among them, at the first step where it had to be.
        """
        if self.job == "train":
            check_measured(self.config, self.step, metrics)
        if self.tracker:
            self.tracker.log(self.step, metrics)

    def is_done(self, num_steps: int) -> bool:
        """Whether the job has made its steps, or those that it was asked for in `stop_after`."""
        return self.step >= (num_steps if self.stop_after is None else self.stop_after)

    def save(self) -> None:
        """Checkpoint the session, unless this step is saved already. Every rank must call it.

        Raises:
            CheckpointError: It could not be saved, on any rank; earlier checkpoints are whole.
        """
        if self.saved == self.step:
            return
        with self.watch.phase("save"):
            assert self.optimizer is not None
            content = gather(self.policy, self.optimizer, keep=self.world.is_main)
            self.world.on_main(lambda: write_checkpoint(self.run_dir, self.config, self.policy, content, self._state()))
            self.saved = self.step

    def save_if_due(self, num_steps: int) -> float:
        """Checkpoint at the end and every train.checkpoint_every steps; returns the seconds it took."""
        started = time.perf_counter()
        every = self.config.train.checkpoint_every
        if self.step == num_steps or (every and self.step % every == 0):
            self.save()
        return time.perf_counter() - started

    def take(self, draw: Draw, make: Callable[[Prompt], T], cursor: Cursor) -> tuple[list[T], Cursor]:
        """This rank's share of the step's prompts, each made into what the job computes with.

        Args:
            draw: From a cursor to the step's prompts over all ranks and the next cursor.
            make: Renders a prompt.
            cursor: Where to draw from.

        Raises:
            DataError: A sample cannot be used. All ranks stop, and what was learnt so far is saved first.
        """
        problem, mine = None, []
        try:
            prompts, cursor = draw(cursor)
            mine = [make(prompt) for prompt in self.world.share(prompts)]
        except (ConfigError, DataError) as error:  # a text model meets its first image in a ConfigError
            problem = str(error)
        problems = [found for found in self.world.collect([problem]) if found]
        if problems:
            self.save()
            raise DataError(f"{problems[0]}\nThe run is saved up to step {self.step} in {self.run_dir.path}.")
        return mine, cursor

    def close(self) -> None:
        if self.tracker:
            self.tracker.close()
        if self.lock:
            self.lock.close()

    def _state(self) -> dict[str, Any]:
        """Everything that decides the future beside weights and moments, and what the past was computed on."""
        return {
            "step": self.step,
            "job": self.job,
            "cursor": vars(self.cursor),
            "estimator": self.estimator.to_json(),
            "skipped_in_a_row": self.skips.in_a_row,
            "config_hash": config_hash_of(self.run_dir),
            "arithmetic": arithmetic_of(self.policy),
            "computed_on": computed_on(self.world, self.config),
            "made_from": dict(self.made_from),
            "wandb_run_id": self.tracker.run_id if self.tracker else None,
        }


def join(config: RunConfig) -> World:
    """Meet the other processes of a run."""
    return World(device=config.model.device, timeout_s=config.supervision.limit_s(None) + AFTER_DEADLINE_S)


def open_session(
    config: RunConfig,
    *,
    recipe: str,
    job: Job,
    out: Path | None,
    resume: bool,
    log: Callable[[str], None],
) -> Session:
    """Start a run in a new directory, or go on with one.

    Args:
        config: The resolved config.
        recipe: The recipe as it was written.
        job: Decides which optimiser settings count.
        out: The run directory; None makes one below config.output_dir (not when resuming).
        resume: Go on from the latest checkpoint of `out`, from the beginning when there is none.
        log: Receives lines for the user, on the main process.

    Raises:
        CheckpointError: The directory exists (without resume), does not (with it), or belongs to another config or job,
            or its policy was computed and stored in another precision or layout.
    """
    world = join(config)
    say = log if world.is_main else lambda line: None
    check_start(world, config, out, job=job, resume=resume)
    if job == "train":
        check_keep_best(config)
    run_dir = existing_run(out, config, say) if resume else None
    lock = _hold(run_dir, world, say) if run_dir else None
    left = find_left(run_dir, job, world) if run_dir else None
    if left and job == "train":
        check_measured_so_far(config, left.run_dir)
    config = stored_as(config, left)
    with shortage_told("load", config, lambda: "while the model was loaded"):
        policy, optimizer, stays = _load(config, job, world, left, say)
    if left:
        check_arithmetic(left, policy)
    # After the model, so that a recipe that cannot start leaves no folder behind that would refuse the mended one.
    run_dir = run_dir or _new_directory(config, out, world)
    state = left.state if left else {}
    session = Session(
        job=job,
        config=config,
        world=world,
        run_dir=run_dir,
        policy=policy,
        optimizer=optimizer,
        tracker=None,
        log=say,
        step=state.get("step", 0),
        cursor=Cursor(**state.get("cursor", {})),
        watch=Watch(run_dir.logs, Place(rank=world.rank, size=world.size, launch=world.broadcast(uuid4().hex)), config),
        skips=Skips(limit=config.supervision.max_skipped_updates, in_a_row=state.get("skipped_in_a_row", 0)),
        estimator=EstimatorState.from_json(state["estimator"]) if left else START,
        made_from=state.get("made_from", {"data.train": state["data"]} if state.get("data") else {}),
        saved=state.get("step"),
    )
    session.bind(stays)
    if resume:
        say(f"resuming {run_dir.path} after step {session.step}")
    if left:
        tell_changes(left, computed_on(world, config), say)
    if world.is_main:
        facts = environment(str(world.device)) | arithmetic_of(policy)
        write_facts(run_dir, config, recipe=None if resume else recipe, environment=facts, step=session.step)
        session.tracker = open_tracker(
            run_dir, config, step=session.step if resume else None, run_id=state.get("wandb_run_id")
        )
        if resume:  # a kill may have come between a checkpoint and best.json
            name_best(run_dir, config, job)
    session.lock = lock if resume else _hold(run_dir, world, say)
    return session


def _hold(run_dir: RunDir, world: World, log: Callable[[str], None]) -> IO[str] | None:
    """Keep other launches out of the run; the main process holds the lock."""
    held: list[IO[str] | None] = [None]
    world.on_main(lambda: held.append(hold(run_dir.path / "lock", log)))
    return held[-1]


def _load(
    config: RunConfig, job: Job, world: World, left: Left | None, log: Callable[[str], None]
) -> tuple[Policy, torch.optim.Optimizer | None, dict[str, str]]:
    """Policy and optimiser as the run begins, or as the checkpoint left them, and marks of what training leaves alone.

    With adapters a checkpoint does not hold the model below them; the processor is that of model.path in any case.
    """
    # Fresh adapters draw from the global generator: seeded, every rank and every repetition starts from the same ones.
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(config.seed, "adapters"))
        policy = load_policy(
            config.model,
            world.device,
            weights=left.checkpoint / MODEL_FOLDER if left else None,
            trained=job != "eval",
            to_be_sharded=is_sharded(config.train, world),
            log=log,
        )
    check_model(world, policy)
    if job == "eval":
        return policy, None, {}
    alone = weights_mark(pair for pair in policy.model.named_parameters() if not pair[1].requires_grad)
    stays = {"weights that are not trained": alone} | processor_facts(policy)
    policy = shard_if_asked(policy, config.train, world, log)
    settings = config.sft.optim if job == "sft" else config.train.optim
    optimizer = make_optimizer(policy.trainable(), settings, masters=policy.masters)
    if left:
        read_optimizer(policy, optimizer, left.checkpoint)
    return policy, optimizer, stays


def _new_directory(config: RunConfig, out: Path | None, world: World) -> RunDir:
    """Made by the main process; where it cannot be made, every process is told."""
    return world.on_main(lambda: RunDir.create_at(out) if out else RunDir.create(Path(config.output_dir), config.name))
