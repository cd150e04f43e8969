"""Typed, validated settings. Importing this room imports no torch."""

from mm_agrae.config.load import config_hash, load_config, numbers_hash, parse_config
from mm_agrae.config.schema import RunConfig

__all__ = ["RunConfig", "config_hash", "load_config", "numbers_hash", "parse_config"]
