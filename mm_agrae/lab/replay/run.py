"""Recorded rollouts through any set of algorithms side by side: what another estimator would have made of them.

    read_log -> [P, G] facts -> replay_all -> advantages and bounds of each algorithm -> summarise -> page and JSON

No model is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.errors import ConfigError
from mm_agrae.lab.replay.algorithms import (
    DEFAULT_NAMES,
    REFERENCE,
    RUN,
    RunSettings,
    parse_algorithm,
    read_settings,
    replay_all,
)
from mm_agrae.lab.replay.page import lead, sections
from mm_agrae.lab.replay.read import Log, read_log
from mm_agrae.lab.replay.summary import MEANINGS, Summary, summarise, to_json
from mm_agrae.lab.replay.tables import main_table, text_lines
from mm_agrae.report.page import write_page
from mm_agrae.store.atomic import write_json

PAGE, FIGURES = "replay.html", "replay.json"


def run_replay(
    run: Path,
    *,
    algorithms: Sequence[str] = (),
    out: Path | None = None,
    num_groups: int = 12,
    log: Callable[[str], None],
) -> Path:
    """Replay the rollouts of a run and write replay.html and replay.json.

    Args:
        run: A run directory, or a single file of rollouts.
        algorithms: Names such as "run", "dr_grpo" or "gspo+agrae+elastic", each once; DEFAULT_NAMES when empty.
        out: Folder of the two files, which are replaced; default `replay` in the run directory, or
            `<file>_replay` beside a file.
        num_groups: Groups shown one by one, at most; 0 shows none.
        log: Takes the lines of the text table and of what was left out.

    Returns:
        The path of replay.html.

    Raises:
        ConfigError: An algorithm is unknown, or asks for the run's settings where there are none.
        DataError: The rollouts cannot be read; the message names file and line.
    """
    run = Path(run)
    summary = replay(run, algorithms=algorithms, num_groups=num_groups)
    for note in summary.notes:
        log(f"note: {note}")
    for line in text_lines(main_table(summary)):
        log(line)
    folder = Path(out) if out else run / "replay" if run.is_dir() else run.with_name(f"{run.stem}_replay")
    write_json(folder / FIGURES, {"meanings": MEANINGS, **to_json(summary)})
    write_page(folder / PAGE, f"Replay of {summary.name}", lead(summary), sections(summary))
    return folder / PAGE


def replay(run: Path, *, algorithms: Sequence[str] = (), num_groups: int = 12) -> Summary:
    """All figures of a replay; nothing is written. Args and Raises as `run_replay`."""
    if num_groups < 0:
        raise ConfigError(f"num_groups is {num_groups}, but must be 0 or more.")
    settings = read_settings(run)
    # Names before rollouts: a mistyped one is told at once.
    configs, notes = _configs(algorithms, settings)
    return _summary(read_log(run), configs, settings, notes, num_groups)


def _configs(names: Sequence[str], settings: RunSettings) -> tuple[dict[str, AlgorithmConfig], list[str]]:
    """Settings by name, and what had to be left out."""
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ConfigError(f"algorithms {twice} are named twice. Name each once.")
    if names:
        return {name: parse_algorithm(name, settings) for name in names}, []
    known = [name for name in DEFAULT_NAMES if name != RUN or settings.algorithm is not None]
    notes = [] if RUN in known else [f"The run's own algorithm is left out: {settings.problem}."]
    return {name: parse_algorithm(name, settings) for name in known}, notes


def _summary(
    log: Log, configs: dict[str, AlgorithmConfig], settings: RunSettings, notes: list[str], num_groups: int
) -> Summary:
    bound = settings.max_completion_tokens
    if bound is None:
        bound = int(log.lengths.max())
        users = [name for name, config in configs.items() if config.overlong == "shape"]
        if users:
            notes = [
                *notes,
                f"The bound on completion tokens is not known ({settings.problem}): {', '.join(users)} "
                f"price{'s' if len(users) == 1 else ''} long answers as if it were {bound}, the longest in the log.",
            ]
    if settings.algorithm is not None and settings.algorithm.dynamic_sampling:
        notes = [
            *notes,
            "The run sampled again in place of groups with equal flags: the log has those only where the rounds ran "
            "out. Batch accuracies "
            + ("count them all the same." if log.accuracies else "cannot count them, as there is no metrics.jsonl."),
        ]
    samplers = [name for name, config in configs.items() if config.dynamic_sampling and name.split("+")[0] != RUN]
    if samplers:
        notes = [*notes, f"{', '.join(samplers)} would sample again in place of groups with equal flags; a log cannot."]
    log = replace(log, notes=(*log.notes, *notes))
    wanted = configs if REFERENCE in configs else {**configs, REFERENCE: parse_algorithm(REFERENCE, settings)}
    replayed = replay_all(log, wanted, max_completion_tokens=max(1, bound))
    return summarise(log, {name: replayed[name] for name in configs}, replayed[REFERENCE], num_groups=num_groups)
