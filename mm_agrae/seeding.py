"""One seed for every random decision, derived from what the decision is about.

A seed depends on the run seed and on coordinates such as ("rollout", step, sample id, completion index), never on the
rank, the number of processes or the order of work: the same decision falls the same way however the work is split.
"""

from __future__ import annotations

import hashlib


def seed_for(run_seed: int, *coordinates: str | int) -> int:
    """A 63-bit seed for one random decision of a run.

    Args:
        run_seed: The seed of the run.
        coordinates: What the decision is about, from coarse to fine.

    Returns:
        An integer in [0, 2**63), the same on every machine and Python version.
    """
    words = "\x1f".join([str(run_seed), *(f"{type(c).__name__}:{c}" for c in coordinates)])
    return int.from_bytes(hashlib.blake2b(words.encode(), digest_size=8).digest(), "big") >> 1
