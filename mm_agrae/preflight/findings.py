"""What a check can find, and the list of what it found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["refused", "fault", "note"]

# Every occurrence is counted; this many of each kind are kept with their ids, so that memory stays bounded.
MAX_KEPT = 10_000
MAX_PARTNERS = 5


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One thing that can be found: "refused" may not be used, "fault" should be mended, "note" is for judgement."""

    title: str
    severity: Severity
    meaning: str


KINDS: dict[str, Kind] = {
    "no_manifest": Kind(
        title="No manifest",
        severity="refused",
        meaning="The folder has no manifest that can be read, so nobody can say what it holds or allows. Convert the "
        "data with `mm-agrae data convert`.",
    ),
    "benchmark_only": Kind(
        title="Benchmark among the training sets",
        severity="refused",
        meaning="Its manifest allows measuring only: its licence or its purpose bars training on it. Give it after "
        "--against, and train on something else.",
    ),
    "unknown_licence": Kind(
        title="Licence unknown",
        severity="note",
        meaning="The manifest names no licence. Read the card of the data set before you use or publish it.",
    ),
    "licence_terms": Kind(
        title="Licence with conditions",
        severity="note",
        meaning="The name of the licence states conditions on what you do with the data. Read the licence itself.",
    ),
    "shared_sources": Kind(
        title="Sources shared with a benchmark",
        severity="note",
        meaning="A training set and a benchmark draw on the same collections. Reworded and redrawn problems are not "
        "found by comparing rows, so report the pair beside the figures.",
    ),
    "unusable_row": Kind(
        title="Row cannot be used",
        severity="fault",
        meaning="No target, not one mark per image, or an image that is not embedded: a run would stop at this row.",
    ),
    "placeholder_target": Kind(
        title="Target is a placeholder",
        severity="fault",
        meaning='The target is blank or says that there is none ("None", "nan", "?"): an answer without any content '
        "could match it.",
    ),
    "unverified_target": Kind(
        title="Answer key does not verify against itself",
        severity="fault",
        meaning="A completion that states the target is not judged correct under the profile of the set, so the row "
        "can never be rewarded.",
    ),
    "kind_mismatch": Kind(
        title="Target is not of its kind",
        severity="fault",
        meaning="A number without a digit, or a yes-no answer that is neither: only the same words would be right.",
    ),
    "letter_beyond_options": Kind(
        title="Letter without an option",
        severity="fault",
        meaning="The target of a choice is no letter of its options.",
    ),
    "ambiguous_target": Kind(
        title="Two options say what the target says",
        severity="fault",
        meaning="The right option stands there twice under two letters, of which only one is scored as right.",
    ),
    "duplicate_options": Kind(
        title="Duplicate options",
        severity="note",
        meaning="Two wrong options are the same text: guessing is easier than their number says.",
    ),
    "unreadable_image": Kind(
        title="Image cannot be decoded",
        severity="fault",
        meaning="Empty, cut short, or no image: a run would stop at this row.",
    ),
    "extreme_aspect": Kind(
        title="Image too long and thin",
        severity="fault",
        meaning="Its long side is more than 200 times the short one; Qwen-VL's resize rule refuses it.",
    ),
    "tiny_image": Kind(
        title="Tiny image",
        severity="note",
        meaning="A side is shorter than 28 pixels, one visual token of Qwen2.5-VL. It is enlarged before the model "
        "sees it; some other programs refuse it.",
    ),
    "duplicate": Kind(
        title="Duplicate",
        severity="note",
        meaning="Same question, options and image files as an earlier row of the split.",
    ),
    "near_duplicate": Kind(
        title="Near duplicate",
        severity="note",
        meaning="Same question and options as an earlier row of the split, with pictures that look alike.",
    ),
    "split_overlap": Kind(
        title="Same problem in two splits",
        severity="fault",
        meaning="Same question and options, same or look-alike pictures, in two splits of one data set.",
    ),
    "contradiction": Kind(
        title="Same problem, another target",
        severity="fault",
        meaning="An exact duplicate within the data set has a target that is written otherwise: one of the two may be "
        "wrong.",
    ),
    "leak": Kind(
        title="Leak",
        severity="fault",
        meaning="A problem of a benchmark stands among the training problems: same question, and pictures that are the "
        "same or look alike. The figures of the benchmark would partly measure memory.",
    ),
    "shared_picture": Kind(
        title="Picture shared with a benchmark, other question",
        severity="note",
        meaning="Training shows the picture of a benchmark problem under another question. No leak of the answer, but "
        "the picture is not new to the model.",
    ),
    "shared_text": Kind(
        title="Question shared with a benchmark, other picture",
        severity="note",
        meaning="A long question of a benchmark is asked in training with another picture, or with a picture on one "
        "side only (as in benchmarks that put the picture into words).",
    ),
    "over_budget": Kind(
        title="Prompt longer than the budget",
        severity="note",
        meaning="Training and evaluation leave the row out and count it.",
    ),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A row: data set, split and id; split and id are "" where a whole set is meant."""

    dataset: str
    split: str = ""
    id: str = ""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One occurrence.

    Attributes:
        kind: A name in KINDS.
        place: The row that it is about; for what concerns a benchmark, the benchmark's row.
        partners: Up to MAX_PARTNERS other rows that it involves.
        num_partners: How many others there are.
        note: What was seen there.
    """

    kind: str
    place: Place
    partners: tuple[Place, ...] = ()
    num_partners: int = 0
    note: str = ""


class Findings:
    """Counts every finding, keeps the first MAX_KEPT of each kind."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._kept: dict[str, list[Finding]] = {kind: [] for kind in KINDS}

    def add(self, kind: str, place: Place, note: str = "", *, partners: Sequence[Place] = ()) -> None:
        """Record one occurrence of a name in KINDS."""
        self.counts[kind] += 1
        if len(self._kept[kind]) < MAX_KEPT:
            self._kept[kind].append(
                Finding(
                    kind=kind,
                    place=place,
                    partners=tuple(partners[:MAX_PARTNERS]),
                    num_partners=len(partners),
                    note=note,
                )
            )

    def of(self, kind: str) -> Sequence[Finding]:
        """Those kept of one kind, in the order in which they were found."""
        return self._kept[kind]

    @property
    def refused(self) -> bool:
        """Whether something was given that may not be used as it was given."""
        return any(KINDS[kind].severity == "refused" for kind, count in self.counts.items() if count)

    def as_json(self) -> dict[str, Any]:
        """Every kind, found or not, with its severity, its count and the occurrences kept."""
        return {
            name: {
                "severity": kind.severity,
                "count": self.counts[name],
                "rows": [{key: value for key, value in asdict(row).items() if key != "kind"} for row in self.of(name)],
            }
            for name, kind in KINDS.items()
        }
