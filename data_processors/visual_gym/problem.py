"""What a family of the gym makes: a problem with its picture, before it becomes a sample."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from data_processors.visual_gym.answers import Answer, letter

DIFFICULTIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One drawn problem.

    Attributes:
        question: Question text, without the image mark and without options.
        answer: The exact answer.
        working: Steps that lead to the answer, without the box.
        picture: RGB, square, of the size that was asked for.
        description: Plain text that states everything the picture shows and the question needs.
        facts: The numbers behind the picture, enough to compute the answer again; JSON values only.
        mistakes: Answers that typical mistakes give; a problem that has some may be put as a multiple choice.
        options: Texts of the options of a choice; empty otherwise.
    """

    question: str
    answer: Answer
    working: str
    picture: Image.Image
    description: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    mistakes: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


Level = Callable[[random.Random, int], Problem]


def by_level(*levels: Level) -> Callable[[random.Random, int, int], Problem]:
    """A family's maker from one function per difficulty."""

    def make(rng: random.Random, difficulty: int, size: int) -> Problem:
        return levels[difficulty - 1](rng, size)

    return make


@dataclass(frozen=True, kw_only=True)
class Family:
    """How problems of one kind are made.

    Attributes:
        make: (random source, difficulty 1-5, size in pixels) -> problem. Takes all its randomness from the source.
        min_size: Smallest picture side in pixels at which everything in the picture can be read.
    """

    make: Callable[[random.Random, int, int], Problem]
    min_size: int


def offer_choices(problem: Problem, rng: random.Random, options: Sequence[str]) -> Problem:
    """The same problem as a multiple choice; the options, which hold the answer once, are put in random order.

    Raises:
        ValueError: If the options are not distinct or do not hold the answer.
    """
    if len(set(options)) != len(options) or problem.answer.text not in options:
        raise ValueError(f"options are {list(options)}, but they must be distinct and hold {problem.answer.text!r}")
    shuffled = list(options)
    rng.shuffle(shuffled)
    right = letter(shuffled.index(problem.answer.text))
    return replace(
        problem,
        options=tuple(shuffled),
        answer=Answer(right, "choice"),
        working=f"{problem.working} This is option {right}.",
        facts={**problem.facts, "right_option": problem.answer.text},
    )
