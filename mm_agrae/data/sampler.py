"""The endless order of samples: one permutation per epoch, and one integer says where a run stands in it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from mm_agrae.errors import DataError
from mm_agrae.seeding import seed_for


@dataclass(frozen=True)
class PromptSampler:
    """Draws sample indices without replacement within an epoch. Holds no state: the caller keeps the cursor.

    Attributes:
        num_samples: Size of the data set, at least 1.
        seed: The seed of the run.
    """

    num_samples: int
    seed: int

    def __post_init__(self) -> None:
        if self.num_samples < 1:
            raise DataError(
                f"the data set has {self.num_samples} samples, but drawing prompts needs at least 1. "
                "Check the path, the split and the token budget that samples are refused by."
            )

    def indices(self, cursor: int, count: int) -> list[int]:
        """Items [cursor, cursor + count) of the endless sequence; a batch may span epochs.

        Raises:
            ValueError: If the cursor or the count is negative.
        """
        if cursor < 0 or count < 0:
            raise ValueError(f"cursor is {cursor} and count is {count}, but neither can be negative.")
        return [self._item(position) for position in range(cursor, cursor + count)]

    def _item(self, position: int) -> int:
        epoch, place = divmod(position, self.num_samples)
        return int(_permutation(self.num_samples, self.seed, epoch)[place])


# Two epochs are live at once in a batch that spans them.
@lru_cache(maxsize=2)
def _permutation(num_samples: int, seed: int, epoch: int) -> np.ndarray:
    # PCG64 is named because default_rng may change its generator in a later numpy.
    return np.random.Generator(np.random.PCG64(seed_for(seed, "order", epoch))).permutation(num_samples)
