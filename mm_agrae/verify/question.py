"""What an answer is judged against."""

from __future__ import annotations

from dataclasses import dataclass

from mm_agrae.records import AnswerKind, Sample, Tolerance
from mm_agrae.verify.profiles import Profile, profile_named


@dataclass(frozen=True, kw_only=True)
class Question:
    """What an answer is judged against: fields as in `Sample`, and the name of the scoring profile.

    Raises:
        ConfigError: If no profile has that name.
    """

    target: str
    answer_kind: AnswerKind = "math"
    options: tuple[str, ...] = ()
    tolerance: Tolerance | None = None
    profile: str = "generic"

    def __post_init__(self) -> None:
        profile_named(self.profile)

    @property
    def rules(self) -> Profile:
        """The profile that `profile` names."""
        return profile_named(self.profile)

    @classmethod
    def of(cls, sample: Sample, *, profile: str = "generic") -> Question:
        return cls(
            target=sample.target,
            answer_kind=sample.answer_kind,
            options=sample.options,
            tolerance=sample.tolerance,
            profile=profile,
        )
