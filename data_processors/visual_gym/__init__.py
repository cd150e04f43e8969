"""Procedural visual mathematics: drawn with Pillow, exact answers, five levels, the same from the same seed."""

from data_processors.visual_gym.families import ALL, FAMILIES, as_text, make_problem

__all__ = ["ALL", "FAMILIES", "as_text", "make_problem"]
