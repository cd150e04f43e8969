"""What a supervised and a reinforcement run have in common: opening, resuming, saving and closing a run directory."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar
from uuid import uuid4

import torch

from mm_agrae.config import RunConfig, config_hash, saved_hash
from mm_agrae.errors import CheckpointError, ConfigError, DataError
from mm_agrae.estimator import START, EstimatorState
from mm_agrae.policy.feed import Cursor
from mm_agrae.policy.load import Policy, load_policy, save_weights
from mm_agrae.policy.optim import make_optimizer
from mm_agrae.records import Prompt, Sample
from mm_agrae.seeding import seed_for
from mm_agrae.store.checkpoint import latest_checkpoint, prune, read_state, save_checkpoint
from mm_agrae.store.provenance import environment
from mm_agrae.store.run_dir import RunDir
from mm_agrae.store.tracker import Tracker, truncate_after
from mm_agrae.train.distributed import World
from mm_agrae.train.memory import shortage_told
from mm_agrae.train.skips import Skips
from mm_agrae.train.supervision import Place, Watch

T = TypeVar("T")
Job = Literal["sft", "train", "eval"]
Draw = Callable[[Cursor], tuple[list[Prompt], Cursor]]

MODEL_FOLDER = "model"
# Collectives outlast the longest deadline by so much, so that a stall is found by the watch.
AFTER_DEADLINE_S = 60.0
# What a checkpoint without a word on its arithmetic was learnt with.
BEFORE_STORAGE_WAS_A_SETTING = {"stored_weights": "fp32"}


@dataclass(kw_only=True)
class Session:
    """An open run on one rank. `step`, `cursor` and `estimator` move; everything else stays.

    Once the model is made, nothing in a run draws from a global random generator (every draw has a seed of its own,
    from the step and the place in it), so step and cursor are all the randomness there is to save.

    Attributes:
        job: What the run does; a checkpoint of one job does not resume another.
        optimizer: None where nothing is learnt.
        tracker: On the main process only.
        watch: Told of the phases of a step.
        skips: Updates that were left out.
        step: Steps done.
        cursor: Place in the training data.
        estimator: What the algorithm remembers of earlier batches.
        data: What the training data looked like at the first step; the cursor means nothing in other data.
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
    data: str | None = None

    def fix_data(self, samples: Sequence[Sample]) -> None:
        """Bind the run to its training data.

        Raises:
            CheckpointError: A resumed run meets other data than it began with.
        """
        data = f"{len(samples)} samples, {samples[0].id} to {samples[len(samples) - 1].id}"
        if self.data not in (None, data):
            raise CheckpointError(
                f"{self.run_dir.path} learnt from {self.data}, but data.train now holds {data}. "
                "Restore the data, or start a new run."
            )
        self.data = data

    def record(self, metrics: dict[str, float]) -> None:
        """Log the metrics of the step just done."""
        if self.tracker:
            self.tracker.log(self.step, metrics)

    def save(self) -> None:
        """Checkpoint the session, unless this step is saved already."""
        with self.watch.phase("save"):
            self._save()

    def _save(self) -> None:
        if self.world.is_main:
            state = {
                "job": self.job,
                "cursor": vars(self.cursor),
                "estimator": self.estimator.to_json(),
                "skipped_in_a_row": self.skips.in_a_row,
                "config_hash": _mark(self.run_dir),
                "arithmetic": arithmetic_of(self.policy),
                "data": self.data,
                "wandb_run_id": self.tracker.run_id if self.tracker else None,
            }
            last = latest_checkpoint(self.run_dir.checkpoints)
            if last is None or read_state(last)["step"] != self.step:
                save_checkpoint(self.run_dir.checkpoints, self.step, write=self._write, state=state)
                prune(self.run_dir.checkpoints, self.config.train.keep_checkpoints)
        self.world.barrier()

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

    def _write(self, folder: Path) -> None:
        assert self.optimizer is not None
        save_weights(self.policy, folder / MODEL_FOLDER)
        torch.save(self.optimizer.state_dict(), folder / "optimizer.pt")


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
    world = World(device=config.model.device, timeout_s=config.supervision.longest_s + AFTER_DEADLINE_S)
    say = log if world.is_main else lambda line: None
    run_dir = _existing_run(out, config) if resume else None
    checkpoint = latest_checkpoint(run_dir.checkpoints) if run_dir else None
    state = read_state(checkpoint) if checkpoint else None
    if run_dir and state and state["config_hash"] != _mark(run_dir):
        raise CheckpointError(
            f"checkpoint {checkpoint} was saved under another configuration than {run_dir.config} holds: one of the "
            "two comes from another run. Put the one that belongs here back, or start a new run."
        )
    if state and state["job"] != job:
        raise CheckpointError(
            f"{out} is a run of `mm-agrae {state['job']}`, so `mm-agrae {job}` cannot resume it. "
            f"Name a run directory of {job}."
        )
    began = state.get("arithmetic", BEFORE_STORAGE_WAS_A_SETTING) if state else {}
    config = _stored_as(config, began)
    with shortage_told("load", config, lambda: "while the model was loaded"):
        policy, optimizer = _load(config, job, world, checkpoint, say)
    here = arithmetic_of(policy)
    if began != {name: here[name] for name in began}:
        raise CheckpointError(
            f"{out} was learnt with {_in_words(began)}, but here it would go on with "
            f"{_in_words(here)}, and no longer be the same run. Resume it on a machine like the one "
            "that it began on, or start a new run from the model/ folder of its last checkpoint."
        )
    # After the model, so that a recipe that cannot start leaves no folder behind that would refuse the mended one.
    run_dir = run_dir or RunDir(Path(world.broadcast(_new_directory(config, out) if world.is_main else "")))
    session = Session(
        job=job,
        config=config,
        world=world,
        run_dir=run_dir,
        policy=policy,
        optimizer=optimizer,
        tracker=None,
        log=say,
        step=state["step"] if state else 0,
        cursor=Cursor(**state["cursor"]) if state else Cursor(),
        watch=Watch(run_dir.logs, Place(rank=world.rank, size=world.size, launch=world.broadcast(uuid4().hex)), config),
        skips=Skips(
            limit=config.supervision.max_skipped_updates,
            in_a_row=state.get("skipped_in_a_row", 0) if state else 0,
        ),
        estimator=EstimatorState.from_json(state["estimator"]) if state else START,
        data=state["data"] if state else None,
    )
    if resume:
        say(f"resuming {run_dir.path} after step {session.step}")
    if world.is_main:
        _write_facts(session, recipe, resume)
        session.tracker = _open_tracker(session, state["wandb_run_id"] if state else None, resume)
    return session


def arithmetic_of(policy: Policy) -> dict[str, str]:
    """What the settings of precision and storage came out as, and how groups are laid out: both differ by machine."""
    layout = "shared" if policy.shares_prompts else "repeated"
    return {"precision": policy.precision, "stored_weights": policy.stored_weights, "layout": layout}


def _stored_as(config: RunConfig, began: Mapping[str, str]) -> RunConfig:
    """A run goes on with fp32 weights if it began so, wherever "auto" would choose otherwise today."""
    if config.model.stored_weights != "auto" or began.get("stored_weights") != "fp32":
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"stored_weights": "fp32"})})


def _in_words(arithmetic: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in arithmetic.items())


def _load(
    config: RunConfig, job: Job, world: World, checkpoint: Path | None, log: Callable[[str], None]
) -> tuple[Policy, torch.optim.Optimizer | None]:
    """Policy and optimiser as the run begins, or as the checkpoint left them."""
    # Fresh adapters draw from the global generator: seeded, every rank and every repetition starts from the same ones.
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(config.seed, "adapters"))
        policy = load_policy(
            config.model,
            world.device,
            weights=checkpoint / MODEL_FOLDER if checkpoint else None,
            trained=job != "eval",
            log=log,
        )
    if job == "eval":
        return policy, None
    settings = config.sft.optim if job == "sft" else config.train.optim
    optimizer = make_optimizer(policy.trainable(), settings, masters=policy.masters)
    if checkpoint:
        optimizer.load_state_dict(torch.load(checkpoint / "optimizer.pt", map_location="cpu", weights_only=True))
    return policy, optimizer


def _existing_run(out: Path | None, config: RunConfig) -> RunDir:
    if out is None:
        raise CheckpointError("--resume needs the run directory to go on with. Give it with --out RUN_DIR.")
    run_dir = RunDir.open(out)
    _check_config(run_dir, config)
    return run_dir


def _new_directory(config: RunConfig, out: Path | None) -> str:
    made = RunDir.create_at(out) if out else RunDir.create(Path(config.output_dir), config.name)
    return str(made.path)


def _mark(run_dir: RunDir) -> str:
    """What binds a run's checkpoints to its config.json, which is written once."""
    return saved_hash(json.loads(run_dir.config.read_text(encoding="utf-8")))


def _check_config(run_dir: RunDir, config: RunConfig) -> None:
    """A run goes on under the config it began with; the numbers would mean nothing otherwise."""
    try:
        saved = RunConfig.model_validate_json(run_dir.config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{run_dir.config} is no configuration of this version, so the run cannot be resumed: {error}\n"
            "Resume with the version that began it, or start a new run."
        ) from error
    if config_hash(saved) == config_hash(config):
        return
    before, now = (_flat(c.model_dump(mode="json")) for c in (saved, config))
    changed = [
        f"{key}: {before.get(key, 'not set')} -> {now.get(key, 'not set')}"
        for key in sorted(before | now)
        if before.get(key) != now.get(key)
    ]
    raise CheckpointError(
        f"{run_dir.path} belongs to another configuration; it differs in\n  " + "\n  ".join(changed) + "\n"
        "Resume with the recipe it began with, or start a new run."
    )


def _flat(values: dict, prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = json.dumps(value)
    return flat


def _write_facts(session: Session, recipe: str, resume: bool) -> None:
    if not resume:
        session.run_dir.write_recipe(recipe)
        session.run_dir.write_config(session.config.model_dump(mode="json"))
    session.run_dir.write_environment(environment(str(session.world.device)) | arithmetic_of(session.policy))


def _open_tracker(session: Session, run_id: str | None, resume: bool) -> Tracker:
    metrics = session.run_dir.metrics
    if resume and metrics.exists():
        truncate_after(metrics, session.step if session.step else -1)
    settings = session.config.tracker
    return Tracker(
        metrics,
        wandb_mode=settings.wandb,
        project=settings.project,
        name=f"{session.config.name}-{session.run_dir.path.name}",
        config=session.config.model_dump(mode="json"),
        run_id=run_id,
        directory=session.run_dir.logs,
    )
