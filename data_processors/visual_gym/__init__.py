"""Procedural visual mathematics: drawn with Pillow, exact answers, five levels, the same from the same seed."""

from data_processors.visual_gym.families import ALL, FAMILIES, as_text, make_problem
from data_processors.visual_gym.write import write_gym

__all__ = ["ALL", "FAMILIES", "as_text", "make_problem", "write_gym"]
