"""Settings of supervision: how long a phase of a step may take, and what a run survives."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field

from mm_agrae.config.section import NonNegativeInt, PositiveFloat, Section

Phase = Literal["render", "rollout", "verify", "log-probs", "update", "sync", "save", "evaluate"]


class SupervisionConfig(Section):
    """When a run counts as stalled, and how many broken updates it skips."""

    deadline_s: PositiveFloat = Field(
        default=3600.0,
        description="Seconds that a phase of a step may take; who waits for other processes between phases has the sum "
        "over all phases. After them every process writes where it stands, and the run ends with an error; --resume "
        "goes on.",
    )
    deadlines_s: dict[Phase, PositiveFloat] = Field(
        default_factory=dict, description="Other deadlines for single phases, by name."
    )
    max_skipped_updates: NonNegativeInt = Field(
        default=3,
        description="Updates in a row whose loss or gradient is not finite that are skipped and counted; one more ends "
        "the run with its batch saved. 0 ends at the first.",
    )

    def limit_s(self, phase: Phase | None) -> float:
        """Deadline of a phase, in seconds.

        Between phases (None) a process waits for others, which may have several phases in a row to go through before
        they meet it: the sum over all phases.
        """
        if phase is None:
            return sum(self.limit_s(name) for name in get_args(Phase))
        return self.deadlines_s.get(phase, self.deadline_s)

    @property
    def shortest_s(self) -> float:
        return min([self.deadline_s, *self.deadlines_s.values()])
