"""Updates that are left out because their loss or gradient is not finite, and how many of them end a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(kw_only=True)
class Skips:
    """Counts updates that were left out, the same on every rank.

    Attributes:
        limit: Updates in a row that may be left out; see supervision.max_skipped_updates.
        in_a_row: Updates left out since the last one that was taken. A checkpoint keeps it.
        is_over: Whether there were ever more in a row than the limit allows.
    """

    limit: int
    in_a_row: int = 0
    is_over: bool = False

    def note(self, *, taken: bool) -> None:
        """Count one update."""
        self.in_a_row = 0 if taken else self.in_a_row + 1
        self.is_over |= self.in_a_row > self.limit

    def error(self, run: Path, *, step: int, batch: str) -> FloatingPointError:
        """Why a run ends.

        Args:
            run: Its folder.
            step: Steps done and saved.
            batch: Where what it learnt from last is found, in a sentence.
        """
        return FloatingPointError(
            f"loss or gradient was not finite in more than {self.limit} updates in a row "
            f"(supervision.max_skipped_updates), the last of them in step {step}. They were left out, and {run} is "
            f"saved up to step {step} with the weights of before. {batch} Begin a new run from the model/ folder of "
            "the last checkpoint (model.path) with a lower learning rate, or raise the bound and go on with --resume."
        )
