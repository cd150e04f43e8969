"""Scores of benchmarks whose figures compare questions with each other: variants, steps, pictures of one question.

A score is a quotient of two sums over clusters, the units that stay together when problems are resampled: the groups of
a benchmark, or single questions where nothing groups them. With n samples per question a group is judged at each sample
index by itself (all first samples, all second samples ...), and its counts are averaged over the indices; quotients are
formed of the averages, so that robustness is the printed worst case over the printed average.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from mm_agrae.errors import ConfigError, DataError

# Numerator and denominator of one figure.
Share = tuple[float, float]
# What each cluster adds to each figure.
Tallies = dict[str, dict[str, Share]]

DYNAMATH_VARIANTS = tuple(str(number) for number in range(1, 11))

# Disciplines of MMMU (Yue et al. 2023, arXiv 2311.16502) and the figures that they have.
MMMU_DISCIPLINES = {
    "Art and Design": "art_and_design",
    "Business": "business",
    "Science": "science",
    "Health and Medicine": "health_and_medicine",
    "Humanities and Social Science": "humanities_and_social_science",
    "Technology and Engineering": "technology_and_engineering",
}


@dataclass(frozen=True, kw_only=True)
class Scored:
    """One question and how its samples went.

    Attributes:
        sample_id: Id of the sample.
        group: What it is scored together with; "" when nothing is.
        keys: Where it stands in its group ({"variant": "3"}).
        correct: One flag per sampled completion, in the order of sampling.
    """

    sample_id: str
    group: str
    keys: Mapping[str, str]
    correct: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class Aggregate:
    """How a benchmark is scored.

    Attributes:
        figures: Names of its figures, in the order of the report.
        keys: Keys that every question must have.
        tally: What each cluster adds to each figure.
        grouped: Whether a group counts only as a whole, so that a part of the set has no score.
        means: Figures that are the plain mean of others.
    """

    figures: tuple[str, ...]
    keys: tuple[str, ...]
    tally: Callable[[Sequence[Scored]], Tallies]
    grouped: bool = False
    means: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def aggregate_named(name: str) -> Aggregate:
    """The aggregate of that name.

    Raises:
        ConfigError: If there is none; the message names the nearest.
    """
    if name not in AGGREGATES:
        nearest = get_close_matches(name, AGGREGATES, n=1, cutoff=0.0)[0]
        raise ConfigError(
            f"aggregate is {name!r}, but must be one of {', '.join(AGGREGATES)}. The nearest is {nearest!r}."
        )
    return AGGREGATES[name]


def tally(name: str, scored: Sequence[Scored]) -> Tallies:
    """What each cluster adds to each figure of a benchmark.

    Args:
        name: Name of the aggregate.
        scored: All questions, each once, with the same number of samples.

    Returns:
        Clusters in sorted order; counts are averaged over the sample indices. A figure that a cluster says nothing
        about is absent.

    Raises:
        ConfigError: If there is no such aggregate.
        DataError: If a question lacks a key, occurs twice or has another number of samples, or a group is incomplete;
            the message names it and what is missing.
    """
    aggregate = aggregate_named(name)
    _check_questions(name, aggregate, scored)
    return dict(sorted(aggregate.tally(scored).items()))


def figures(name: str, tallies: Tallies) -> dict[str, float | None]:
    """The figures of a benchmark, all in [0, 1].

    Args:
        name: Name of the aggregate.
        tallies: Of `tally`.

    Returns:
        Value by name; None where the denominator is 0 (nothing of the kind was asked or, for a quotient of scores,
        nothing was right).
    """
    aggregate = aggregate_named(name)
    values: dict[str, float | None] = {}
    for figure in aggregate.figures:
        if figure in aggregate.means:
            parts = [values[part] for part in aggregate.means[figure]]
            defined = [part for part in parts if part is not None]
            values[figure] = sum(defined) / len(defined) if len(defined) == len(parts) else None
        else:
            shares = [added[figure] for added in tallies.values() if figure in added]
            denominator = sum(share[1] for share in shares)
            values[figure] = sum(share[0] for share in shares) / denominator if denominator else None
    return values


def check_complete(scored: Iterable[Scored], groups: Mapping[str, str]) -> None:
    """Refuse a set in which some question of a group was scored and another was not (refused, or cut off by a limit).

    Args:
        scored: The questions that were scored.
        groups: Group by sample id of the whole data set; "" when nothing groups a sample.

    Raises:
        DataError: If a group is incomplete; the message names it and the missing samples.
    """
    found = {question.sample_id for question in scored}
    begun = {groups[sample_id] for sample_id in found if groups.get(sample_id)}
    missing = [sample_id for sample_id, group in groups.items() if group in begun and sample_id not in found]
    if missing:
        group = groups[missing[0]]
        _refuse(group, [sample_id for sample_id in missing if groups[sample_id] == group])


def _dynamath(scored: Sequence[Scored]) -> Tallies:
    """Average, worst case over the ten variants, and their quotient: Zou et al. 2024, arXiv 2411.00836."""
    tallies: Tallies = {}
    for group, variants in _places(scored, "variant", set(DYNAMATH_VARIANTS)).items():
        _require(group, DYNAMATH_VARIANTS, variants)
        average = _mean(_mean(flags) for flags in variants.values())
        worst = _mean(map(all, zip(*variants.values(), strict=True)))
        tallies[group] = {"average": (average, 1.0), "worst_case": (worst, 1.0), "robustness": (worst, average)}
    return tallies


def _we_math(scored: Sequence[Scored]) -> Tallies:
    """The four cases of We-Math, Qiao et al. 2024, arXiv 2407.01284.

    With the steps of a problem and the problem itself: insufficient knowledge (ik) some step wrong, problem wrong;
    insufficient generalisation (ig) all steps right, problem wrong; complete mastery (cm) all steps right, problem
    right; rote memorisation (rm) some step wrong, problem right. The loose reading calls a right problem mastered if
    any step is right. score = cm + ig / 2, which is 1 - ig / 2 - rm - ik; rm_rate = rm / (rm + cm).
    """
    steps_of = {number: tuple(f"{number}steps_{i}" for i in (*range(1, number + 1), "multi")) for number in (2, 3)}
    known = {key for keys in steps_of.values() for key in keys}
    tallies: Tallies = {}
    for group, places in _places(scored, "key", known).items():
        numbers = {int(key[0]) for key in places}
        if len(numbers) > 1:
            raise DataError(
                f"group {group} has keys {', '.join(sorted(places))}, but a problem has either 2 or 3 steps."
            )
        keys = steps_of[numbers.pop()]
        _require(group, keys, places)
        indices = list(zip(*(places[key] for key in keys), strict=True))
        added = {
            "ik": _mean(not all(steps) and not whole for *steps, whole in indices),
            "ig": _mean(all(steps) and not whole for *steps, whole in indices),
        }
        for reading, enough in (("strict", all), ("loose", any)):
            added[f"cm_{reading}"] = cm = _mean(enough(steps) and whole for *steps, whole in indices)
            added[f"rm_{reading}"] = _mean(not enough(steps) and whole for *steps, whole in indices)
            added[f"score_{reading}"] = cm + added["ig"] / 2
        tallies[group] = {name: (value, 1.0) for name, value in added.items()}
        for reading in ("strict", "loose"):
            rote, mastered = added[f"rm_{reading}"], added[f"cm_{reading}"]
            tallies[group][f"rm_rate_{reading}"] = (rote, rote + mastered)
    return tallies


def _hallusionbench(scored: Sequence[Scored]) -> Tallies:
    """Accuracy per question, per figure (all its questions) and per question over figures: arXiv 2310.14566.

    A group is a set of figures and questions, "figure" is "<group>/<number>", and number 0 the original. A question
    without a picture (visual_input "0") belongs to no figure. Every question is also asked of its original; in category
    VS that is the question without a picture, and all of these may be left out (the split with images alone).
    """
    with_text = any(question.keys["visual_input"] == "0" for question in scored)
    tallies: Tallies = {}
    for group, members in _by_group(scored).items():
        figures: defaultdict[str, list[tuple[bool, ...]]] = defaultdict(list)
        questions: defaultdict[str, dict[str, tuple[bool, ...]]] = defaultdict(dict)
        for member in members:
            figure, question = member.keys["figure"], member.keys["question"]
            if figure in questions[question]:
                raise DataError(f"question {question} occurs twice with figure {figure}. Keep one of them.")
            questions[question][figure] = member.correct
            if member.keys["visual_input"] != "0":
                figures[figure].append(member.correct)
        if with_text or members[0].keys["category"] != "VS":
            for question, asked in questions.items():
                _require(question, (f"{group}/0",), asked)
        tallies[group] = {
            "a_acc": (sum(_mean(member.correct) for member in members), len(members)),
            "f_acc": (sum(map(_all_right, figures.values())), len(figures)),
            "q_acc": (sum(_all_right(asked.values()) for asked in questions.values()), len(questions)),
        }
    return tallies


def _chartqa(scored: Sequence[Scored]) -> Tallies:
    """Accuracy overall and of questions by people and by a model, Masry et al. 2022, arXiv 2203.10244."""
    return _by_kind(scored, "family", {"human": "human", "augmented": "augmented"})


def _mmmu(scored: Sequence[Scored]) -> Tallies:
    """Accuracy over all questions and over those of each discipline."""
    return _by_kind(scored, "discipline", MMMU_DISCIPLINES)


def _by_kind(scored: Sequence[Scored], key: str, kinds: Mapping[str, str]) -> Tallies:
    """Each question counts overall and for its kind."""
    tallies: Tallies = {}
    for question in scored:
        _check_value(question, key, kinds)
        share = (_mean(question.correct), 1.0)
        tallies[question.sample_id] = {"accuracy": share, kinds[question.keys[key]]: share}
    return tallies


def _by_group(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    groups: defaultdict[str, list[Scored]] = defaultdict(list)
    for question in scored:
        if not question.group:
            raise DataError(f"{question.sample_id} has no group, but must say what it is scored together with.")
        groups[question.group].append(question)
    return groups


def _places(scored: Sequence[Scored], key: str, known: Iterable[str]) -> dict[str, dict[str, tuple[bool, ...]]]:
    """Flags by group and value of a key."""
    places: dict[str, dict[str, tuple[bool, ...]]] = {}
    for group, members in _by_group(scored).items():
        places[group] = {}
        for member in members:
            _check_value(member, key, known)
            if member.keys[key] in places[group]:
                raise DataError(f"group {group} has {key} {member.keys[key]} twice. Keep one of them.")
            places[group][member.keys[key]] = member.correct
    return places


def _check_value(question: Scored, key: str, known: Iterable[str]) -> None:
    if question.keys[key] not in known:
        raise DataError(
            f"{key} of {question.sample_id} is {question.keys[key]!r}, but must be one of {', '.join(sorted(known))}."
        )


def _require(group: str, needed: Iterable[str], found: Iterable[str]) -> None:
    missing = [name for name in needed if name not in found]
    if missing:
        _refuse(group, missing)


def _refuse(group: str, missing: Sequence[str]) -> None:
    raise DataError(
        f"group {group} lacks {', '.join(missing)}, but its questions are scored together. Evaluate the whole set, "
        "with a token budget that refuses none of them."
    )


def _all_right(members: Iterable[tuple[bool, ...]]) -> float:
    return _mean(map(all, zip(*members, strict=True)))


def _mean(flags: Iterable[float]) -> float:
    values = list(flags)
    return sum(values) / len(values)


def _check_questions(name: str, aggregate: Aggregate, scored: Sequence[Scored]) -> None:
    if not scored:
        raise DataError(f"there are 0 questions to score as {name}. Check that the set is not empty.")
    seen: set[str] = set()
    for question in scored:
        if len(question.correct) != len(scored[0].correct) or not question.correct:
            raise DataError(
                f"{question.sample_id} has {len(question.correct)} samples and {scored[0].sample_id} "
                f"{len(scored[0].correct)}, but all must have the same number, at least 1. Evaluate the missing ones."
            )
        absent = [key for key in aggregate.keys if key not in question.keys]
        if absent:
            raise DataError(
                f"{question.sample_id} lacks {', '.join(absent)}, which {name} is scored by. Convert it again."
            )
        if question.sample_id in seen:
            raise DataError(f"{question.sample_id} occurs twice, but every question counts once. Keep one of them.")
        seen.add(question.sample_id)


AGGREGATES: dict[str, Aggregate] = {
    "dynamath": Aggregate(
        figures=("average", "worst_case", "robustness"), keys=("variant",), tally=_dynamath, grouped=True
    ),
    "we_math": Aggregate(
        figures=(
            *("score_strict", "score_loose", "ik", "ig", "cm_strict", "cm_loose", "rm_strict", "rm_loose"),
            *("rm_rate_strict", "rm_rate_loose"),
        ),
        keys=("key",),
        tally=_we_math,
        grouped=True,
    ),
    "hallusionbench": Aggregate(
        figures=("a_acc", "f_acc", "q_acc"),
        keys=("category", "figure", "question", "visual_input"),
        tally=_hallusionbench,
        grouped=True,
    ),
    "chartqa": Aggregate(
        figures=("accuracy", "human", "augmented", "macro"),
        keys=("family",),
        tally=_chartqa,
        means={"macro": ("human", "augmented")},
    ),
    "mmmu": Aggregate(figures=("accuracy", *MMMU_DISCIPLINES.values()), keys=("discipline",), tally=_mmmu),
}
