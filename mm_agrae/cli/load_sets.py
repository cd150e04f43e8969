"""The evaluation sets of the config -> what an evaluator measures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from mm_agrae.cli.load import load_samples
from mm_agrae.config import RunConfig
from mm_agrae.config.protocol import Plan, plan_sets
from mm_agrae.data.manifest import read_manifest
from mm_agrae.errors import DataError
from mm_agrae.evaluate.run import Task


def load_tasks(config: RunConfig) -> tuple[Task, ...]:
    """Every set of data.eval, its problems read.

    Raises:
        ConfigError: A protocol card does not exist or does not fit the source.
        DataError: A set cannot be read, or is not the one that its card is about.
    """
    return tuple(_task(plan) for plan in plan_sets(config))


def _task(plan: Plan) -> Task:
    facts = _facts(plan)
    if plan.card:
        _check(plan, facts)
    samples = load_samples(plan.source)
    whole = plan.card.data.num_problems if plan.card else None
    departures = plan.departures
    if whole is not None and len(samples) != whole and not plan.source.limit:
        departures = (*departures, f"{len(samples)} problems instead of {whole}")
    return Task(plan=replace(plan, departures=departures), samples=samples, data=facts)


def _facts(plan: Plan) -> dict[str, Any]:
    """Where the problems come from, as far as it is known."""
    source = plan.source
    facts: dict[str, Any] = {"path": source.path, "split": source.split}
    if source.format != "canonical":
        return {**facts, "processor": source.format}
    manifest = read_manifest(Path(source.path))
    found = manifest.splits.get(source.split)
    return {
        **facts,
        "source": manifest.source,
        "processor": manifest.origin.processor,
        "revision": manifest.origin.revision,
        "sha256": found.sha256 if found else None,
    }


def _check(plan: Plan, facts: dict[str, Any]) -> None:
    """Refuse data that are not those of the card."""
    assert plan.card is not None
    wanted = plan.card.data
    for what, must_be in (("processor", wanted.processor), ("revision", wanted.revision), ("sha256", wanted.sha256)):
        found = facts.get(what, "unknown")
        if must_be is not None and found != must_be:
            raise DataError(
                f"set {plan.name!r}: {what} of {plan.source.path} is {found!r}, but protocol {plan.card.name} measures "
                f"{must_be!r}. Convert the data with `mm-agrae data convert {wanted.processor} --source "
                f"{wanted.hub_id or 'FOLDER'} --split {wanted.split}`, or drop the protocol."
            )
