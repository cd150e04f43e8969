"""The engine that a recipe names, and the check that it is the trainer's twin before anything is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm_agrae.config import RunConfig
from mm_agrae.config.protocol import plan_sets
from mm_agrae.engines.base import Engine
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.engines.vllm_engine import VllmEngine
from mm_agrae.engines.vllm_server import VllmServerEngine
from mm_agrae.errors import DataError, EngineError
from mm_agrae.policy.feed import Feed
from mm_agrae.preflight.twin import TwinReport, bound_of
from mm_agrae.preflight.twin_check import check_twins
from mm_agrae.records import Sample
from mm_agrae.store.atomic import write_json
from mm_agrae.train.session import Session


def make_engine(config: RunConfig, session: Session) -> Engine:
    """The engine of engine.kind, in step with the session's weights. Every rank calls it.

    Raises:
        ConfigError: A package is missing, or the settings do not fit.
        EngineError: The engine cannot be started or reached.
    """
    with session.watch.phase("sync"):  # an engine with a copy of the weights gets them here
        return _made(config, session)


def _made(config: RunConfig, session: Session) -> Engine:
    policy, version = session.policy, session.step
    if config.engine.kind == "vllm":
        return VllmEngine(
            policy,
            config,
            context_tokens=longest_tokens(config),
            processes=session.world.size,
            weights_version=version,
        )
    if config.engine.kind == "vllm_server":
        # Servers have working directories of their own.
        folder = Path(config.engine.sync_folder or session.run_dir.path / "handover").resolve()
        return VllmServerEngine(
            config.engine, policy, folder=folder, ranks=session.world, log=session.log, weights_version=version
        )
    return TransformersEngine(policy, batch_rows=config.rollout.batch_rows, weights_version=version)


def longest_tokens(config: RunConfig) -> int:
    """The longest prompt and completion together that training or a measured set may ask for."""
    training = config.rollout.max_prompt_tokens + config.rollout.max_completion_tokens
    measured = [
        one.rollout.max_prompt_tokens + (one.evaluate.max_completion_tokens or one.rollout.max_completion_tokens)
        for one in (plan.config for plan in plan_sets(config))
    ]
    return max([training, *measured])


def require_twins(config: RunConfig, session: Session, engine: Engine, samples: Sequence[Sample]) -> None:
    """Check before anything is learnt or measured that engine and trainer are one model.

    The figures go to the log and twin.json.

    Args:
        config: By which the problems are rendered.
        session: Whose policy the engine must be a twin of.
        engine: In step with it.
        samples: The problems.

    Raises:
        DataError: None of the first problems can be used, and engine.on_mismatch is refuse. Raised on every rank.
        EngineError: They are not one model, and engine.on_mismatch is refuse; or the engine failed. Raised on every
            rank.
    """
    feed = Feed(policy=session.policy, config=config, log=session.log)
    try:
        with session.watch.phase("rollout"):
            report = check_twins(engine, feed, samples, session.world)
    except DataError as error:
        if config.engine.on_mismatch == "refuse":
            raise DataError(
                f"{error}. Mend the problems or raise rollout.max_prompt_tokens; engine.on_mismatch=warn goes on "
                "without a comparison."
            ) from error
        session.log(f"warning: twin check: {error}")
        return
    if session.world.is_main:
        write_json(session.run_dir.twin, report.to_json())
    session.log(report.line())
    for note in report.notes:
        session.log(f"twin check: {note}")
    if report.findings and config.engine.on_mismatch == "refuse":
        raise EngineError(_why_refused(report))
    for finding in report.findings:
        session.log(f"warning: twin check: {finding.text}")


def check_gap(config: RunConfig, session: Session, mean_nats: float, num_tokens: float) -> None:
    """Hold the tokens of a step against the bound of the check at the start: engine and trainer may part on the way.

    Args:
        config: Its engine.on_mismatch and engine.max_logprob_gap_nats.
        session: Whose step it is.
        mean_nats: Mean |engine - trainer| log-probability of the step's tokens, over all ranks; NaN where none counted.
        num_tokens: How many they are.

    Raises:
        EngineError: It is over the bound, and engine.on_mismatch is refuse.
    """
    if not num_tokens:
        return
    bound = bound_of(session.policy.precision, config.engine.max_logprob_gap_nats).of_prompt(num_tokens)
    if not mean_nats > bound:
        return
    told = (
        f"step {session.step + 1}: the engine's log-probabilities are {mean_nats:.2e} nats off the trainer's on "
        f"average, but must be within {bound:.2g} (engine.max_logprob_gap_nats): it samples from other weights, or "
        "computes otherwise"
    )
    if config.engine.on_mismatch == "refuse":
        raise EngineError(
            f"{told}. Nothing of this step is kept. Start the engine anew and go on with --resume; "
            "engine.on_mismatch=warn learns from such tokens."
        )
    session.log(f"warning: {told}")


def _why_refused(report: TwinReport) -> str:
    """Why engine and trainer are no twins, one reason a line."""
    return "the engine is not the trainer's twin:\n" + "\n".join(f"  {finding.text}" for finding in report.findings)
