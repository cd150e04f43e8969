"""The lines of `mm-agrae doctor`, wired from the rooms below: a run is opened as for training, in a passing folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import torch

from mm_agrae.cli.engines import make_engine
from mm_agrae.cli.jobs import make_verifier, training_samples
from mm_agrae.cli.load_sets import load_tasks
from mm_agrae.config import RunConfig, load_config
from mm_agrae.errors import CheckpointError, ConfigError, DataError, EngineError, ShortOfMemoryError
from mm_agrae.policy.feed import Feed
from mm_agrae.policy.fsdp import is_piece
from mm_agrae.policy.load import Policy
from mm_agrae.preflight.doctor import (
    Line,
    Size,
    answer_lines,
    disk_line,
    launch_lines,
    length_lines,
    memory_line,
    model_line,
    recipe_lines,
    software_line,
    twin_lines,
)
from mm_agrae.preflight.lengths import Budget
from mm_agrae.preflight.twin_check import check_twins
from mm_agrae.records import Sample
from mm_agrae.store.provenance import environment
from mm_agrae.train.distributed import World
from mm_agrae.train.session import Job, Session, arithmetic_of, open_session

T = TypeVar("T")


def examine(recipe: Path, overrides: Sequence[str]) -> Iterator[Line]:
    """Look at one thing after the other; what cannot be looked at because of something wrong is left out."""
    # Nobody wants a run in the tracker for it.
    config = _attempt("recipe", lambda: load_config(recipe, [*overrides, 'tracker.wandb="off"']))
    if isinstance(config, Line):
        yield config
        return
    yield from recipe_lines(config)
    samples = _attempt("data", lambda: _samples(config))
    if isinstance(samples, Line):
        yield samples
    else:
        yield Line(level="fine", topic="data", text=f"{len(samples)} problems, {len(config.data.eval)} sets to measure")
    with _workspace(config) as folder:
        text, said = recipe.read_text(encoding="utf-8"), list[str]()
        job: Job = "train" if config.data.train else "eval"
        session = _attempt(
            "model",
            lambda: open_session(config, recipe=text, job=job, out=folder / "run", resume=False, log=said.append),
        )
        yield from (Line(level="warning", topic="model", text=one) for one in said)
        if isinstance(session, Line):
            yield session
            return
        with closing(session):
            yield from _machine(config, session)
            agreed = _agreed(session.world, samples)
            if isinstance(agreed, Line) and not isinstance(samples, Line):
                yield agreed
            samples = agreed
            if not isinstance(samples, Line):
                yield from _problems(config, session, samples)
            yield from engine_lines(config, session, samples)
            session.world.barrier()  # the folder is the main process's, and others may still read it


def _machine(config: RunConfig, session: Session) -> Iterator[Line]:
    """Software, model, processes, memory and disk."""
    policy, world = session.policy, session.world
    yield software_line(environment(str(world.device)))
    size, arithmetic = _size(policy, config), arithmetic_of(policy)
    yield model_line(size, str(world.device), arithmetic)
    on_cuda = world.device.type == "cuda"
    if session.optimizer is None:
        return
    yield from launch_lines(config, num_processes=world.size, num_devices=torch.cuda.device_count() if on_cuda else 0)
    yield memory_line(
        size,
        arithmetic["stored_weights"],
        num_processes=world.size,
        device_bytes=torch.cuda.get_device_properties(world.device).total_memory if on_cuda else None,
    )
    yield disk_line(config, size, free_bytes=shutil.disk_usage(config.output_dir).free)


def _problems(config: RunConfig, session: Session, samples: Sequence[Sample]) -> Iterator[Line]:
    """Prompts and reference answers."""
    budget = Budget(
        policy=session.policy,
        prompt=config.prompt,
        images=config.images,
        max_prompt_tokens=config.rollout.max_prompt_tokens,
    )
    yield from _told("prompts", lambda: length_lines(budget, samples))
    with make_verifier(config) as pool:
        yield from _told("answers", lambda: answer_lines(samples, pool, config.verifier.profile))


def engine_lines(config: RunConfig, session: Session, samples: Sequence[Sample] | Line) -> Iterator[Line]:
    """Whether the engine answers, and as the trainer would."""
    made = _attempt("engine", lambda: make_engine(config, session))
    engine = _agreed(session.world, made)
    if isinstance(engine, Line):
        if not isinstance(made, Line):
            made.close()
        yield engine
        return
    yield Line(level="fine", topic="engine", text=f"{config.engine.kind} is ready")
    with closing(engine):
        if isinstance(samples, Line):
            return
        feed = Feed(policy=session.policy, config=config, log=lambda line: None)
        refuses = config.engine.on_mismatch == "refuse"
        yield from _told(
            "twins", lambda: twin_lines(check_twins(engine, feed, samples, session.world), refuses=refuses)
        )


def _told(topic: str, look: Callable[[], Iterable[Line]]) -> Iterator[Line]:
    """The lines of a look, or what stands in its way."""
    found = _attempt(topic, lambda: list(look()))
    yield from [found] if isinstance(found, Line) else found


def _attempt(topic: str, make: Callable[[], T]) -> T | Line:
    """What is made, or what stands in its way."""
    try:
        return make()
    except (ConfigError, DataError, CheckpointError, EngineError, ShortOfMemoryError, OSError) as error:
        return Line(level="wrong", topic=topic, text=str(error))


def _agreed(world: World, found: T | Line) -> T | Line:
    """What was made, or on every process what stands in the way of one, because what follows is done by all."""
    told = world.collect([found if isinstance(found, Line) else None])
    for rank, line in enumerate(told):
        if line:
            return line if world.size == 1 else replace(line, text=f"rank {rank}: {line.text}")
    return found


def _samples(config: RunConfig) -> Sequence[Sample]:
    """The training problems, or of a recipe that only measures those of its first set; all sets are opened."""
    tasks = load_tasks(config)
    if config.data.train is None and tasks:
        return tasks[0].samples
    return training_samples(config)


def _size(policy: Policy, config: RunConfig) -> Size:
    pieces = [parameter for parameter in policy.model.parameters() if is_piece(parameter)]
    return Size(
        num_weights=sum(parameter.numel() for parameter in policy.model.parameters()),
        num_trained=sum(parameter.numel() for parameter in policy.trainable()),
        num_frozen_pieces=sum(parameter.numel() for parameter in pieces if not parameter.requires_grad),
        num_trained_pieces=sum(parameter.numel() for parameter in pieces if parameter.requires_grad),
        adapters_only=config.model.lora is not None,
    )


@contextmanager
def _workspace(config: RunConfig) -> Iterator[Path]:
    """A folder below output_dir, where a run would write and an engine on another host could read."""
    base = Path(config.output_dir)
    made = not base.exists()
    base.mkdir(parents=True, exist_ok=True)
    try:
        with TemporaryDirectory(dir=base, prefix=".doctor-") as folder:
            yield Path(folder)
    finally:
        if made:
            with suppress(OSError):  # another process may be writing there
                base.rmdir()
