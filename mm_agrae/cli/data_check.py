"""`mm-agrae data check`: what can be wrong with data sets, before anything is trained or measured on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from mm_agrae.config.schema import ImageConfig, PromptConfig, RolloutConfig
from mm_agrae.errors import ConfigError

if TYPE_CHECKING:
    from mm_agrae.preflight.lengths import Budget

_IMAGES, _ROLLOUT = ImageConfig(), RolloutConfig()


def check(
    training: Annotated[Optional[list[Path]], typer.Argument(help="Data sets to train on.")] = None,  # noqa: UP045
    out: Annotated[Path, typer.Option(help="Folder for check.html and check.json.")] = Path("check"),
    against: Annotated[
        Optional[list[Path]],  # noqa: UP045
        typer.Option(help="Data set to measure on; repeat it for several. Training rows that stand in it are leaks."),
    ] = None,
    processor: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Model folder (weights are not read): count prompt tokens as this model sees them."),
    ] = None,
    max_prompt_tokens: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help=f"Budget that prompts are counted against; default {_ROLLOUT.max_prompt_tokens}.", min=1),
    ] = None,
    min_pixels: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help=f"As images.min_pixels of a recipe; default {_IMAGES.min_pixels}.", min=1),
    ] = None,
    max_pixels: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(help=f"As images.max_pixels of a recipe; default {_IMAGES.max_pixels}.", min=1),
    ] = None,
) -> None:
    """Look for broken answer keys, duplicates, leaks into benchmarks, bad images and licences that bar training.

    Ends with code 1 when a set may not be used as it was given.
    """
    from mm_agrae.cli.progress import progress_bar
    from mm_agrae.preflight.check import check as run_check
    from mm_agrae.preflight.check import count_rows
    from mm_agrae.preflight.page import summary, write_check
    from mm_agrae.verify import VerifierPool

    if not training and not against:
        raise ConfigError("no data set was named, but there must be one to check. Give folders, or --against FOLDER.")
    if not processor and (max_prompt_tokens or min_pixels or max_pixels):
        raise ConfigError(
            "--max-prompt-tokens, --min-pixels or --max-pixels was given without --processor, but only a model counts "
            "tokens. Add --processor, or leave them out."
        )
    folders = [*(training or ()), *(against or ())]
    pixels = (min_pixels or _IMAGES.min_pixels, max_pixels or _IMAGES.max_pixels)
    budget = _budget(processor, max_prompt_tokens or _ROLLOUT.max_prompt_tokens, *pixels) if processor else None
    with VerifierPool() as pool, progress_bar("checking", count_rows(folders)) as advance:
        report = run_check(training or [], against or [], budget=budget, pool=pool, on_rows=advance)
    write_check(out, report)
    for line in summary(report):
        print(line, flush=True)
    print(f"page: {out / 'check.html'}", flush=True)
    if report.findings.refused:
        raise typer.Exit(code=1)


def _budget(processor: str, max_prompt_tokens: int, min_pixels: int, max_pixels: int) -> Budget:
    from mm_agrae.policy.load import load_renderer
    from mm_agrae.preflight.lengths import Budget

    if min_pixels > max_pixels:
        raise ConfigError(f"--min-pixels is {min_pixels}, above --max-pixels {max_pixels}. Change one of them.")
    return Budget(
        policy=load_renderer(processor),
        prompt=PromptConfig(),
        images=ImageConfig(min_pixels=min_pixels, max_pixels=max_pixels),
        max_prompt_tokens=max_prompt_tokens,
    )
