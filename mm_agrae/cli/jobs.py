"""The jobs of the command line, wired from the rooms below. Heavy imports happen here, when a job runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from mm_agrae.cli.load import load_samples
from mm_agrae.cli.progress import progress_bar
from mm_agrae.config import RunConfig, load_config
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.errors import ConfigError
from mm_agrae.evaluate.run import Evaluator, metrics_of
from mm_agrae.policy.feed import Feed
from mm_agrae.records import Sample
from mm_agrae.report.render import write_report
from mm_agrae.rollout import Judge
from mm_agrae.store.run_dir import RunDir
from mm_agrae.train.loop import Parts, train
from mm_agrae.train.session import Session, open_session
from mm_agrae.train.sft import fine_tune
from mm_agrae.verify import VerifierPool

Log = Callable[[str], None]


def run_train(recipe: Path, overrides: Sequence[str], out: Path | None, resume: bool, log: Log) -> RunDir:
    """Reinforcement learning, measured before and after, with a report at the end."""
    config = load_config(recipe, overrides)
    samples, sets = load_samples(config.data.train, training=True), _load_sets(config)
    session = open_session(
        config, recipe=recipe.read_text(encoding="utf-8"), job="train", out=out, resume=resume, log=log
    )
    for warning in config.warnings():
        session.log(f"warning: {warning}")
    with closing(session), _verifier(config) as verifier:
        engine = TransformersEngine(session.policy, batch_rows=config.rollout.batch_rows, weights_version=session.step)
        judge = _judge(config, verifier)
        evaluator = _evaluator(config, session, engine, judge)

        def evaluate(step: int) -> dict[str, float]:
            return _measure_all(evaluator, session.run_dir, sets, step, session.log)

        train(session, Parts(samples=samples, engine=engine, judge=judge, evaluate=evaluate))
        engine.close()
        if session.world.is_main:
            session.log(f"report: {write_report(session.run_dir.path)}")
    return session.run_dir


def run_sft(recipe: Path, overrides: Sequence[str], out: Path | None, resume: bool, log: Log) -> RunDir:
    """Warm start; the run directory's last checkpoint holds the model."""
    config = load_config(recipe, overrides)
    samples = load_samples(config.data.train, training=True)
    session = open_session(
        config, recipe=recipe.read_text(encoding="utf-8"), job="sft", out=out, resume=resume, log=log
    )
    with closing(session):
        fine_tune(session, samples)
    return session.run_dir


def run_evaluate(recipe: Path, overrides: Sequence[str], out: Path | None, log: Log) -> RunDir:
    """Measure config.model on every evaluation set, in a run directory of its own."""
    config = load_config(recipe, overrides)
    sets = _load_sets(config)
    if not sets:
        raise ConfigError(
            "data.eval names no set, so there is nothing to measure. Add one: data.eval.held_out.path=DATA "
            "data.eval.held_out.split=test."
        )
    session = open_session(
        config, recipe=recipe.read_text(encoding="utf-8"), job="eval", out=out, resume=False, log=log
    )
    with closing(session), _verifier(config) as verifier:
        engine = TransformersEngine(session.policy, batch_rows=config.rollout.batch_rows)
        evaluator = _evaluator(config, session, engine, _judge(config, verifier))
        session.record(_measure_all(evaluator, session.run_dir, sets, 0, session.log))
        engine.close()
        if session.world.is_main:
            session.log(f"report: {write_report(session.run_dir.path)}")
    return session.run_dir


def _load_sets(config: RunConfig) -> dict[str, Sequence[Sample]]:
    return {name: load_samples(source) for name, source in config.data.eval.items()}


def _verifier(config: RunConfig) -> VerifierPool:
    return VerifierPool(num_workers=config.verifier.num_workers, timeout_s=config.verifier.timeout_s)


def _judge(config: RunConfig, verifier: VerifierPool) -> Judge:
    return Judge(
        verifier=verifier, correct_weight=config.reward.correct_weight, format_weight=config.reward.format_weight
    )


def _evaluator(config: RunConfig, session: Session, engine: TransformersEngine, judge: Judge) -> Evaluator:
    return Evaluator(
        config=config,
        engine=engine,
        judge=judge,
        feed=Feed(policy=session.policy, config=config, log=session.log),
        ranks=session.world,
        thumbnails=session.run_dir.thumbnails,
    )


def _measure_all(
    evaluator: Evaluator, run_dir: RunDir, sets: dict[str, Sequence[Sample]], step: int, log: Log
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for name, samples in sets.items():
        with progress_bar(f"measuring {name}", len(samples), show=evaluator.ranks.is_main) as advance:
            summary = evaluator.measure(name, samples, run_dir.eval_at(step), step=step, advance=advance)
        figures = "  ".join(
            f"{metric} {i['value']:.3f} [{i['low']:.3f}, {i['high']:.3f}]"
            for metric, i in summary["overall"].items()
            if metric not in ("formatted", "truncated")
        )
        log(f"eval {name} after step {step} ({summary['num_problems']} problems): {figures}")
        metrics |= metrics_of(summary)
    return metrics
