"""The command line. `mm-agrae --help` imports no torch; every command imports what it needs when it runs."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import Annotated

import typer

from mm_agrae.cli.arguments import Out, Overrides, Recipe, Resume, check, say
from mm_agrae.cli.checkpoints import export, verify_resume
from mm_agrae.cli.data import data_app
from mm_agrae.cli.doctor import doctor
from mm_agrae.cli.evaluate import eval_diff, evaluate, rescore
from mm_agrae.cli.lab import lab_app
from mm_agrae.cli.verify import verify
from mm_agrae.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    EngineError,
    LostProcessError,
    ShortOfMemoryError,
)

app = typer.Typer(
    help="Reinforcement learning with verifiable rewards for vision-language and text models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
model_app = typer.Typer(help="Make models.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(model_app, name="model")
app.add_typer(lab_app, name="lab")
app.command()(doctor)
app.command()(verify)
app.command(name="eval")(evaluate)
app.command()(rescore)
app.command(name="eval-diff")(eval_diff)
app.command(name="verify-resume")(verify_resume)
app.command()(export)


@app.command()
def train(recipe: Recipe, overrides: Overrides = None, out: Out = None, resume: Resume = False) -> None:
    """Reinforcement learning, measured before and after; ends with a report."""
    check(recipe, overrides)
    from mm_agrae.cli.jobs import run_train

    run_train(recipe, overrides or [], out, resume, say)


@app.command()
def sft(recipe: Recipe, overrides: Overrides = None, out: Out = None, resume: Resume = False) -> None:
    """Warm start: supervised fine-tuning on worked solutions."""
    check(recipe, overrides)
    from mm_agrae.cli.jobs import run_sft
    from mm_agrae.store.checkpoint import latest_checkpoint
    from mm_agrae.train.session import MODEL_FOLDER

    run = run_sft(recipe, overrides or [], out, resume, say)
    say(f"model: {(latest_checkpoint(run.checkpoints) or run.checkpoints) / MODEL_FOLDER}")


@app.command()
def report(run: Annotated[Path, typer.Argument(help="Run directory.")]) -> None:
    """Write report.html of a run."""
    from mm_agrae.report.render import write_report

    say(f"report: {write_report(run)}")


@app.command()
def compare(
    matrix: Annotated[Path, typer.Argument(help="Matrix of algorithms and seeds: a YAML file, see configs/.")],
    out: Annotated[Path, typer.Option(help="Folder of the comparison: a run directory per cell, and the table.")],
    jobs: Annotated[int, typer.Option(help="Runs side by side; they share the cores.", min=1)] = 1,
    table_only: Annotated[bool, typer.Option("--table-only", help="Run nothing; tabulate what is there.")] = False,
) -> None:
    """Compare algorithms over seeds: runs every cell that is not finished, then writes the table with intervals."""
    from mm_agrae.cli.compare import compare as run_comparison

    run_comparison(matrix, out, jobs, table_only)


@model_app.command()
def tiny(
    out: Annotated[Path, typer.Option(help="Model folder to make.")],
    data: Annotated[Path, typer.Option(help="Canonical data set whose words the tokenizer learns.")],
    architecture: Annotated[
        str, typer.Option(help="qwen2_vl, qwen2_5_vl, qwen3_vl, or for text qwen2, qwen3.")
    ] = "qwen2_5_vl",
    size: Annotated[str, typer.Option(help="tiny (1 M parameters), small (25 M) or medium (280 M).")] = "tiny",
    seed: Annotated[int, typer.Option(help="Decides the random weights.", min=0)] = 0,
) -> None:
    """Build an embedded model: a real Qwen architecture with random weights and a tokenizer of its own."""
    from mm_agrae.data.dataset import open_dataset
    from mm_agrae.policy.tiny import build_model_folder, corpus_of

    corpus = corpus_of(open_dataset(data, "train"))
    count = build_model_folder(out, architecture=architecture, size=size, corpus=corpus, seed=seed)
    say(f"model: {out} ({count / 1e6:.2f} M parameters)")


# Errors whose message says what to do.
TOLD = (
    ConfigError,
    DataError,
    CheckpointError,
    EngineError,
    LostProcessError,
    ShortOfMemoryError,
    FloatingPointError,
)


def main() -> None:
    """Run the command line; what a user can mend is told in words, without a traceback."""
    try:
        app()
    except TOLD as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(2) from error
    except OSError as error:
        where = f" at {error.filename}" if error.filename else ""
        if isinstance(error, (FileNotFoundError, PermissionError, NotADirectoryError)):
            print(f"error: {error.strerror}{where}. Name a path that can be used.", file=sys.stderr, flush=True)
            raise SystemExit(2) from error
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"error: the disk is full{where}. Free space and run the same command again, a run with --resume.",
            file=sys.stderr,
            flush=True,
        )
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
