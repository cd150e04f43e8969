"""Which completions a report shows, and how a completion is cut into marked pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mm_agrae.records import IMAGE_MARK
from mm_agrae.report.read import Group

SHOWN_CHARACTERS = 2400


@dataclass(frozen=True, kw_only=True)
class Segment:
    """A piece of a completion; a "cut" says how much was left out."""

    kind: Literal["text", "answer", "cut"]
    text: str


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One held-out problem at the first and at the last evaluation."""

    before: Group
    after: Group

    @property
    def gain(self) -> float:
        return self.after.num_correct / len(self.after.rollouts) - self.before.num_correct / len(self.before.rollouts)


def segments(text: str, span: tuple[int, int] | None, *, limit: int = SHOWN_CHARACTERS) -> tuple[Segment, ...]:
    """Cut a completion at its answer, and shorten what is long beside it.

    Args:
        text: The completion.
        span: Start and end of the answer in `text`; a span that does not fit the text marks nothing.
        limit: Most characters shown on each side of the answer.

    Returns:
        Pieces in order; without cuts their texts join to `text`.
    """
    if span is None or not 0 <= span[0] < span[1] <= len(text):
        return _shortened(text, limit)
    start, end = span
    return (
        *_shortened(text[:start], limit),
        Segment(kind="answer", text=text[start:end]),
        *_shortened(text[end:], limit),
    )


def question_text(group: Group) -> str:
    """The question without its image mark, or with numbered pictures where there are several."""
    marks = group.question.count(IMAGE_MARK)
    if marks <= 1:
        return group.question.replace(IMAGE_MARK, "").strip()
    text = group.question
    for number in range(1, marks + 1):
        text = text.replace(IMAGE_MARK, f"[picture {number}]", 1)
    return text.strip()


def training_groups(groups: Sequence[Group], *, num_mixed: int) -> tuple[Group, ...]:
    """Up to `num_mixed` mixed groups, then one all wrong and one all correct, where there are such."""
    wrong = [group for group in groups if group.rollouts and group.num_correct == 0]
    correct = [group for group in groups if group.rollouts and group.num_correct == len(group.rollouts)]
    return (*[group for group in groups if group.mixed][:num_mixed], *wrong[:1], *correct[:1])


def held_out_pairs(before: Sequence[Group], after: Sequence[Group], *, num_pairs: int) -> tuple[Pair, ...]:
    """Problems of both evaluations: the largest gains, and the largest loss as the last one where there is a loss."""
    first, last = _by_sample(before), _by_sample(after)
    pairs = [Pair(before=first[name], after=last[name]) for name in first if name in last]
    # Stable on the order of the data set, so that the same run always shows the same problems.
    pairs.sort(key=lambda pair: -pair.gain)
    if len(pairs) > num_pairs and pairs[-1].gain < 0:
        return (*pairs[: num_pairs - 1], pairs[-1])
    return tuple(pairs[:num_pairs])


def _by_sample(groups: Sequence[Group]) -> Mapping[str, Group]:
    return {group.sample_id: group for group in groups if group.rollouts}


def _shortened(text: str, limit: int) -> tuple[Segment, ...]:
    if not text:
        return ()
    if len(text) <= limit:
        return (Segment(kind="text", text=text),)
    half = limit // 2
    left_out = f" … {len(text) - 2 * half} characters left out … "
    return (
        Segment(kind="text", text=text[:half]),
        Segment(kind="cut", text=left_out),
        Segment(kind="text", text=text[-half:]),
    )
