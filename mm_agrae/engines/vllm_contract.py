"""What trainer and engine agree on when weights change hands. Read on both sides, so it imports neither."""

from __future__ import annotations

import hashlib
from pathlib import Path

from mm_agrae.errors import EngineError

# What the engine is started with: the transfer backend for files and memory, and the methods added to its workers.
BACKEND = "mm_agrae"
WORKER_EXTENSION = "mm_agrae.engines.vllm_worker.WeightExtension"
MATCH, RECEIVED = "mm_agrae_match", "mm_agrae_received"

# Releases of vLLM whose calls and routes are known: start_weight_update, update_weights, finish_weight_update with a
# label, the resets of the caches, and a trainer side that is made once (trainer_init) and sends on every rank. 0.31 has
# all that, but does not tell which weights sampled a token.
RELEASES = ("0.32",)


def check_version(version: str) -> None:
    """Refuse a vLLM whose weight transfer is not known.

    Raises:
        EngineError: Its release is not in the table.
    """
    if ".".join(version.split(".")[:2]) not in RELEASES:
        raise EngineError(
            f"vLLM is of version {version}, but must be of {' or '.join(RELEASES)}. Install it: "
            "pip install 'mm-agrae[vllm]'."
        )


def file_digest(path: Path) -> str:
    """BLAKE2b of a file, 128 bit."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
