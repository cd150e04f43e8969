"""Judge saved completions again: another profile, or another version of the verifier. Needs no model and no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mm_agrae.evaluate.results import question_of, with_classes
from mm_agrae.evaluate.saved import Group, SavedSet
from mm_agrae.evaluate.summary import Measured
from mm_agrae.records import Verdict
from mm_agrae.rewards import reward
from mm_agrae.store.atomic import write_json, write_stream
from mm_agrae.store.rollout_log import json_line
from mm_agrae.verify import VerifierPool

# Problems judged at a time: bounds what is in memory.
CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class Change:
    """A completion that is judged otherwise than before.

    Attributes:
        set: Name of the set.
        sample_id: The problem.
        completion: Its number among the sampled completions; None for the most probable one.
        target: What was asked for.
        before: Status and answer before.
        after: Status, answer and rule now.
    """

    set: str
    sample_id: str
    completion: int | None
    target: str
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """What became of a set."""

    summary: dict[str, Any]
    changes: list[Change]


def measured_again(measured: Measured, *, profile: str | None, timeout_s: float | None) -> Measured:
    """By what saved completions are judged again.

    Args:
        measured: By what they were judged before.
        profile: Scoring profile; None keeps that one. Another than that of the protocol card is a departure.
        timeout_s: Seconds after which a comparison is killed; None keeps those.
    """
    profile, card = profile or measured.profile, measured.protocol_profile
    before = _departure(measured.profile, card)
    departures = [told for told in measured.departures if told != before]
    if card and profile != card:
        departures.append(_departure(profile, card))
    timeout_s = measured.timeout_s if timeout_s is None else timeout_s
    return replace(measured, profile=profile, timeout_s=timeout_s, departures=tuple(departures))


def _departure(profile: str, card: str | None) -> str:
    return f"scoring profile {profile} instead of {card}"


def rescore_set(saved: SavedSet, verifier: VerifierPool, out: Path, *, measured: Measured) -> Rescored:
    """Judge the saved completions of a set again and write them, with their summary, to another folder.

    Args:
        saved: The set.
        verifier: Judges.
        out: Folder that receives NAME.json, NAME.jsonl and NAME.greedy.jsonl.
        measured: By what they are judged now, see `measured_again`.

    Raises:
        ConfigError: There is no such profile.
        DataError: The saved files cannot be read.
    """
    changes: list[Change] = []
    if saved.greedy_file:
        best = (greedy for _, greedy in saved.groups() if greedy)
        judged = _judged(best, saved.name, measured, verifier, changes, is_greedy=True)
        write_stream(out / f"{saved.name}.greedy.jsonl", map(json_line, judged))
    sampled = (group for group, _ in saved.groups())
    judged = _judged(sampled, saved.name, measured, verifier, changes, is_greedy=False)
    write_stream(out / f"{saved.name}.jsonl", map(json_line, judged))
    again = replace(saved, folder=out, measured=measured)
    summary = again.problems().summary(saved.name, step=saved.summary["step"])
    summary |= {
        "refused": saved.summary["refused"],
        "rescored": {"folder": str(saved.folder), "profile_before": saved.measured.profile, "changes": len(changes)},
    }
    write_json(out / f"{saved.name}.json", summary)
    return Rescored(summary=summary, changes=changes)


def _judged(
    groups: Iterable[Group],
    name: str,
    measured: Measured,
    verifier: VerifierPool,
    changes: list[Change],
    *,
    is_greedy: bool,
) -> Iterator[Group]:
    """The groups with new verdicts, rewards and votes; what changed is added to `changes`."""
    waiting = iter(groups)
    while chunk := list(islice(waiting, CHUNK)):
        texts = [rollout["text"] for group in chunk for rollout in group["rollouts"]]
        questions = [question_of(group, measured.profile) for group in chunk for _ in group["rollouts"]]
        verdicts = iter(verifier.verify_all(texts, questions))
        fresh = []
        for group in chunk:
            rollouts = []
            for number, rollout in enumerate(group["rollouts"]):
                verdict = next(verdicts)
                if _differs(rollout["verdict"], verdict):
                    changes.append(_change(name, group, None if is_greedy else number, rollout["verdict"], verdict))
                rollouts.append({**rollout, "verdict": asdict(verdict), "reward": _reward(verdict, measured)})
            fresh.append({**group, "rollouts": rollouts})
        yield from fresh if is_greedy else with_classes(fresh, verifier, measured.profile)


def _reward(verdict: Verdict, measured: Measured) -> float:
    return reward(verdict, correct_weight=measured.correct_weight, format_weight=measured.format_weight)


def _differs(before: dict[str, Any], after: Verdict) -> bool:
    return before["status"] != after.status or before["answer"] != after.answer


def _change(name: str, group: Group, number: int | None, before: dict[str, Any], after: Verdict) -> Change:
    return Change(
        set=name,
        sample_id=group["sample_id"],
        completion=number,
        target=group["target"],
        before={"status": before["status"], "answer": before["answer"]},
        after={"status": after.status, "answer": after.answer, "rule": after.rule},
    )
