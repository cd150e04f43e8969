"""maj@k: does the answer that most of k samples agree on win?

Samples vote with classes of equivalent answers. A sample without an answer is one of the n that are drawn from and
takes up one of the k draws, but casts no vote and never wins; if nobody votes, the credit is 0. The other convention
removes such samples before the draw. The two agree for k = n; below that the other one speaks of a model that always
answers (its maj@1 is c over the answered samples, not pass@1 = c/n), and it has no value where fewer than k samples are
answered.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb, exp, log, log1p

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class AnswerClasses:
    """How the samples of one problem vote.

    Attributes:
        sizes: Samples of each class of equivalent answers, each at least 1.
        correct: Whether the answer of that class is correct.
        num_unanswered: Samples without an answer.
    """

    sizes: tuple[int, ...]
    correct: tuple[bool, ...]
    num_unanswered: int = 0


def maj_at_k(classes: AnswerClasses, k: int) -> float:
    """Expected credit of a majority vote among k samples, drawn without replacement from all n.

    The largest class of the draw wins; t classes that tie for it share the credit, 1/t for each that is correct. The
    mean runs over all C(n, k) draws, not over a sample of them (self-consistency: Wang et al. 2022, arXiv 2203.11171).

    Where the winners have m votes, the draws are counted by a product over classes: each draws fewer than m or, as one
    of the tied, exactly m. The draws of a class are weighted as Binomial(size, k/n); given that they add up to k that
    is the draw without replacement, and no number grows with n.

    Args:
        classes: Votes of the problem, with at least one sample.
        k: Samples that vote, in [1, n].

    Returns:
        A number in [0, 1]; c/n for k = 1.

    Raises:
        ValueError: If a count is out of range.
    """
    n = _check(classes, k)
    if k == n:
        return _vote(classes)
    credit = sum(_credit_with(classes, votes, k, n) for votes in range(1, min(k, max(classes.sizes, default=0)) + 1))
    return min(1.0, credit / float(_binomial(n, k / n, k)[k]))


def cons_at_n(classes: AnswerClasses) -> float:
    """Credit of one vote among all samples: maj@k with k = n.

    Raises:
        ValueError: If a count is out of range.
    """
    return maj_at_k(classes, sum(classes.sizes) + classes.num_unanswered)


def pairs_to_compare(answers: Sequence[str | None], correct: Sequence[bool]) -> list[tuple[str, str]]:
    """The pairs of different wrong answers whose equivalence `answer_classes` needs to know, each once."""
    return list(combinations(sorted(set(_wrong_answers(answers, correct))), 2))


def answer_classes(
    answers: Sequence[str | None], correct: Sequence[bool], same: Collection[tuple[str, str]]
) -> AnswerClasses:
    """Classes of equivalent answers of one problem.

    All correct samples are one class: what is equivalent to the target is equivalent. Wrong answers are one class
    if a chain of equivalences connects them, which does not depend on their order.

    Args:
        answers: Extracted answer of each sample; None without one.
        correct: Whether it is correct, one per sample.
        same: Those of `pairs_to_compare` that are equivalent.

    Returns:
        The correct class first, then the wrong ones from large to small.

    Raises:
        ValueError: If the lengths differ.
    """
    wrong = Counter(_wrong_answers(answers, correct))
    leader = {answer: answer for answer in wrong}
    for one, other in sorted(same):
        old, new = leader[other], leader[one]
        leader = {answer: new if head == old else head for answer, head in leader.items()}
    sizes: Counter[str] = Counter()
    for answer, count in wrong.items():
        sizes[leader[answer]] += count
    num_correct = sum(map(bool, correct))
    return AnswerClasses(
        sizes=(*([num_correct] if num_correct else []), *sorted(sizes.values(), reverse=True)),
        correct=(*([True] if num_correct else []), *[False] * len(sizes)),
        num_unanswered=len(answers) - num_correct - wrong.total(),
    )


def _wrong_answers(answers: Sequence[str | None], correct: Sequence[bool]) -> list[str]:
    return [a for a, right in zip(answers, correct, strict=True) if a is not None and not right]


def _vote(classes: AnswerClasses) -> float:
    most = max(classes.sizes, default=0)
    winners = [right for size, right in zip(classes.sizes, classes.correct, strict=True) if size == most]
    return sum(winners) / len(winners) if winners else 0.0


def _credit_with(classes: AnswerClasses, votes: int, k: int, n: int) -> float:
    """Weight of the draws in which the winners have `votes` votes, times their credit."""
    able = [(s, right) for s, right in zip(classes.sizes, classes.correct, strict=True) if s >= votes]
    rest = n - sum(size for size, _ in able)  # cannot win with so many votes: drawn like the unanswered
    num_tied = min(len(able), k // votes)
    # ways[0, t, d]: d samples drawn, t classes with `votes` of them; ways[1]: one correct class of the t is marked.
    ways = np.zeros((2, num_tied + 1, k + 1))
    ways[0, 0] = _binomial(rest, k / n, k)
    for size, right in able:
        weights = _binomial(size, k / n, votes)
        after = np.zeros_like(ways)
        for drawn in range(votes):
            after[..., drawn:] += weights[drawn] * ways[..., : k + 1 - drawn]
        tied = weights[votes] * ways[:, :-1, : k + 1 - votes]
        after[:, 1:, votes:] += tied
        if right:
            after[1, 1:, votes:] += tied[0]
        ways = after
    return float(sum(ways[1, t, k] / t for t in range(1, num_tied + 1)))


def _binomial(size: int, p: float, most: int) -> NDArray[np.float64]:
    """[most + 1] probabilities of 0..most of `size`; 0 < p < 1."""
    logs = [log(comb(size, j)) + j * log(p) + (size - j) * log1p(-p) for j in range(min(size, most) + 1)]
    return np.array([*map(exp, logs), *[0.0] * (most + 1 - len(logs))])


def _check(classes: AnswerClasses, k: int) -> int:
    """The number of samples."""
    sizes, unanswered = classes.sizes, classes.num_unanswered
    if len(sizes) != len(classes.correct) or min(sizes, default=1) < 1 or unanswered < 0:
        raise ValueError(
            f"sizes are {sizes}, correct {classes.correct} and num_unanswered {unanswered}, but there must be one flag "
            "per class, classes of 1 or more and 0 or more unanswered samples."
        )
    n = sum(sizes) + unanswered
    if not 1 <= k <= n:
        raise ValueError(
            f"k is {k}, but there are n = {n} samples and k must be in [1, n]. Draw more samples or lower k."
        )
    return n
