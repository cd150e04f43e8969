"""Reinforcement learning with verifiable rewards for models that see, and for models that only read."""

__version__ = "0.1.0"
