"""`mm-agrae eval` and what is done with its results. Needs no torch before a model is measured."""

from __future__ import annotations

from mm_agrae.cli.arguments import Out, Overrides, Recipe, Resume, check, say


def evaluate(recipe: Recipe, overrides: Overrides = None, out: Out = None, resume: Resume = False) -> None:
    """Measure a model on the evaluation sets of a recipe: pass@k, avg@k, maj@k and more, with intervals."""
    check(recipe, overrides)
    from mm_agrae.cli.jobs import run_evaluate

    run_evaluate(recipe, overrides or [], out, say, resume=resume)
