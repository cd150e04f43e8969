"""The evaluation sets of the config -> what an evaluator measures."""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

from data_processors import processor_named
from mm_agrae.cli.load import load_samples
from mm_agrae.config import RunConfig
from mm_agrae.config.protocol import Plan, Protocol, plan_sets
from mm_agrae.data.manifest import read_manifest
from mm_agrae.errors import ConfigError, DataError
from mm_agrae.evaluate.run import Task
from mm_agrae.metrics.group_scores import aggregate_named
from mm_agrae.verify.profiles import profile_named


def load_tasks(config: RunConfig) -> tuple[Task, ...]:
    """Every set of data.eval, its problems read.

    Raises:
        ConfigError: A protocol card does not exist, names what does not exist, or does not fit the source.
        DataError: A set cannot be read, or is not the one that its card is about.
    """
    plans = plan_sets(config)
    for plan in plans:
        _check_names(plan)
    return tuple(_task(plan) for plan in plans)


def _check_names(plan: Plan) -> None:
    """Refuse, before any set is read, what would end the run when this one is scored."""
    profile_named(plan.config.verifier.profile)
    if plan.card is None:
        return
    _check_data(plan.card)
    if plan.aggregate and aggregate_named(plan.aggregate).grouped:
        source = plan.source
        parts = {"limit": source.limit, "families": source.families, "difficulties": source.difficulties}
        cut = [name for name, value in parts.items() if value]
        if cut:
            raise ConfigError(
                f"data.eval.{plan.name} has {' and '.join(cut)} set, but protocol {plan.card.name} scores problems "
                "together and needs all of them. Leave that out; evaluate.trial makes a quick look cheaper."
            )


def _check_data(card: Protocol) -> None:
    """Refuse a processor or a split that does not exist; "" names no processor, for data of one's own."""
    if not card.data.processor:
        return
    splits = list(processor_named(card.data.processor).description.splits)
    if splits and card.data.split not in splits:
        nearest = get_close_matches(card.data.split, splits, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"protocol {card.name} measures the split {card.data.split!r}, but {card.data.processor} has "
            f"{', '.join(splits)}. The nearest is {nearest!r}."
        )


def _task(plan: Plan) -> Task:
    facts = _facts(plan)
    if plan.card:
        _check(plan, facts)
    limit = plan.source.limit
    # Read without the limit, which would hide that a set is short.
    found = load_samples(plan.source.model_copy(update={"limit": None}))
    cut = limit is not None and limit < len(found)
    samples = list(islice(found, limit)) if cut else found
    departures = list(plan.departures)
    if plan.card:
        if plan.card.images is None and any(sample.images for sample in samples):
            raise DataError(
                f"set {plan.name!r} has pictures, but protocol {plan.card.name} gives no pixel budget. Set images of "
                "the card to min_pixels and max_pixels."
            )
        whole = plan.card.data.num_problems
        if whole is not None and len(found) != whole:
            departures.append(f"{len(found)} problems instead of {whole}")
        if cut:
            departures.append(f"the first {limit} problems only")
    return Task(plan=replace(plan, departures=tuple(departures)), samples=samples, data=facts)


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
