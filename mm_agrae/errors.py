"""What can go wrong for a user. Each error also is the standard-library error that it refines.

A message says what is, what must be, and what to do.
"""


class ConfigError(ValueError):
    """A setting is unknown, out of range, or does not fit another setting."""


class DataError(ValueError):
    """A data set, a sample or an image cannot be used as it is."""


class EngineError(RuntimeError):
    """A rollout engine or a worker pool failed as a whole (a single failed completion is data, not an error)."""


class CheckpointError(RuntimeError):
    """A checkpoint is missing, incomplete, or belongs to another configuration."""


class ShortOfMemoryError(MemoryError):
    """A device or the host ran out of memory."""


class LostProcessError(RuntimeError):
    """Another process of the run has ended or cannot be reached."""
