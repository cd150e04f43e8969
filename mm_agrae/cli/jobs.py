"""The jobs of the command line, wired from the rooms below. Heavy imports happen here, when a job runs."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from mm_agrae.cli.blind import measure_blind, plan_blind
from mm_agrae.cli.engines import check_gap, make_engine, require_twins
from mm_agrae.cli.load import load_samples
from mm_agrae.cli.load_sets import load_tasks
from mm_agrae.cli.progress import measuring
from mm_agrae.config import RunConfig, load_config
from mm_agrae.engines.base import Engine
from mm_agrae.errors import ConfigError
from mm_agrae.evaluate.blind import Mode
from mm_agrae.evaluate.identity import model_digest
from mm_agrae.evaluate.run import Evaluator, Task, metrics_of
from mm_agrae.evaluate.summary import lines_of
from mm_agrae.policy.feed import Feed
from mm_agrae.records import Sample
from mm_agrae.report.render import write_report
from mm_agrae.rollout import Judge
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.loop import Parts, train
from mm_agrae.train.saving import computed_on
from mm_agrae.train.session import Session, join, open_session
from mm_agrae.train.sft import fine_tune
from mm_agrae.train.verify_resume import compare, make_copy, plan_replay, replay_config, table
from mm_agrae.verify import VerifierPool

Log = Callable[[str], None]


def run_train(recipe: Path, overrides: Sequence[str], out: Path | None, resume: bool, log: Log) -> RunDir:
    """Reinforcement learning, measured before and after, with a report at the end."""
    config = load_config(recipe, overrides)
    samples, tasks = join(config).everywhere(lambda: (training_samples(config), load_tasks(config)))
    session = open_session(
        config, recipe=recipe.read_text(encoding="utf-8"), job="train", out=out, resume=resume, log=log
    )
    _warn(config, session)
    with closing(session):
        _learn(config, session, samples, tasks)
        if session.world.is_main:
            session.log(f"report: {write_report(session.run_dir.path)}")
    return session.run_dir


def run_sft(recipe: Path, overrides: Sequence[str], out: Path | None, resume: bool, log: Log) -> RunDir:
    """Warm start; the run directory's last checkpoint holds the model."""
    config = load_config(recipe, overrides)
    samples = join(config).everywhere(lambda: training_samples(config))
    session = open_session(
        config, recipe=recipe.read_text(encoding="utf-8"), job="sft", out=out, resume=resume, log=log
    )
    _warn(config, session)
    with closing(session):
        fine_tune(session, samples)
    return session.run_dir


def run_evaluate(
    recipe: Path,
    overrides: Sequence[str],
    out: Path | None,
    log: Log,
    *,
    resume: bool = False,
    blind: Mode | None = None,
) -> RunDir:
    """Measure config.model on every evaluation set, in a run directory of its own; and blind, where asked for."""
    config = load_config(recipe, overrides)
    tasks = join(config).everywhere(lambda: load_tasks(config))
    if not tasks:
        raise ConfigError(
            "data.eval names no set, so there is nothing to measure. Add one: data.eval.held_out.path=DATA "
            "data.eval.held_out.split=test."
        )
    session = open_session(
        config, recipe=recipe.read_text(encoding="utf-8"), job="eval", out=out, resume=resume, log=log
    )
    with closing(session), make_verifier(config) as verifier, closing(make_engine(config, session)) as engine:
        planned = plan_blind(tasks, blind, session.log) if blind else ()
        shown = next((task for task in tasks if task.samples[0].images), tasks[0])
        require_twins(shown.plan.config, session, engine, shown.samples)
        model = model_digest(session.policy) if session.world.is_main else ""
        evaluator = replace(_evaluator(config, session, engine, _judge(config, verifier)), model=model, resume=resume)
        session.record(_measure_all(session, evaluator, tasks, 0))
        if blind:
            measure_blind(session, evaluator, planned, blind)
        if session.world.is_main:
            session.log(f"report: {write_report(session.run_dir.path)}")
    return session.run_dir


def run_verify_resume(run: Path, steps: int | None, log: Log) -> bool:
    """Make some steps of a run once more, print how they compare, and tell whether all is equal to the last bit."""
    run_dir = RunDir.open(run)
    plan = plan_replay(run_dir, steps)
    config = replay_config(plan)
    world = join(config)
    if plan.job == "train" and config.engine.kind == "vllm":
        log("what vLLM samples depends on what it computes together, so steps need not repeat themselves")
    with tempfile.TemporaryDirectory() as own:
        copy = RunDir(Path(world.broadcast(own)) / "run")
        world.on_main(lambda: make_copy(plan, copy.path))
        session = open_session(config, recipe="", job=plan.job, out=copy.path, resume=True, log=log)
        session.stop_after = plan.stop
        samples = world.everywhere(lambda: training_samples(config))
        with closing(session):
            if plan.job == "sft":
                fine_tune(session, samples)
            else:
                _learn(config, session, samples, world.everywhere(lambda: load_tasks(config)))
            session.save()
        found = world.on_main(lambda: compare(plan, copy))
        world.barrier()  # until everybody has read, the folder stays
    for line in table(plan, found, computed_on(world, config)):
        session.log(line)
    return not any(one.different for one in found)


def _learn(config: RunConfig, session: Session, samples: Sequence[Sample], tasks: Sequence[Task]) -> None:
    """The steps of reinforcement learning."""
    with make_verifier(config) as verifier, closing(make_engine(config, session)) as engine:
        require_twins(config, session, engine, samples)
        judge = _judge(config, verifier)
        evaluator = _evaluator(config, session, engine, judge)

        def evaluate(step: int) -> dict[str, float]:
            return _measure_all(session, evaluator, tasks, step)

        parts = Parts(
            samples=samples,
            engine=engine,
            judge=judge,
            evaluate=evaluate,
            check_gap=partial(check_gap, config, session),
        )
        train(session, parts)


def _warn(config: RunConfig, session: Session) -> None:
    for warning in config.warnings():
        session.log(f"warning: {warning}")


def training_samples(config: RunConfig) -> Sequence[Sample]:
    if config.data.train is None:
        raise ConfigError(
            "data.train names no set, but training needs problems to learn from. Add one: data.train.path=DATA."
        )
    return load_samples(config.data.train, training=True)


def make_verifier(config: RunConfig) -> VerifierPool:
    return VerifierPool(num_workers=config.verifier.num_workers, timeout_s=config.verifier.timeout_s)


def _judge(config: RunConfig, verifier: VerifierPool) -> Judge:
    return Judge(
        verifier=verifier,
        correct_weight=config.reward.correct_weight,
        format_weight=config.reward.format_weight,
        profile=config.verifier.profile,
    )


def _evaluator(config: RunConfig, session: Session, engine: Engine, judge: Judge) -> Evaluator:
    return Evaluator(
        engine=engine,
        judge=judge,
        feed=Feed(policy=session.policy, config=config, log=session.log),
        ranks=session.world,
        thumbnails=session.run_dir.thumbnails,
    )


def _measure_all(session: Session, evaluator: Evaluator, tasks: Sequence[Task], step: int) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for task in tasks:
        card = task.plan.card
        if card:
            session.log(
                f"set {task.name}: protocol {card.name} decides prompt, pixels, sampling and scoring, not the recipe"
            )
        with measuring(session, task.name, len(task.samples)) as advance:
            summary = evaluator.measure(task, session.run_dir.eval_at(step), step=step, advance=advance)
        for line in lines_of(summary):
            session.log(line)
        metrics |= metrics_of(summary)
    return metrics
