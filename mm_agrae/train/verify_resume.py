"""Whether a run goes on from a checkpoint exactly as it went on then: some of its steps once more, and compared.

The run itself is only read. The steps are made in a folder of their own, from a link to the checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_agrae.config import RunConfig
from mm_agrae.errors import CheckpointError, ConfigError
from mm_agrae.metrics.catalogue import MACHINE_UNITS, lookup
from mm_agrae.store.atomic import write_text
from mm_agrae.store.checkpoint import complete_checkpoints, file_marks, read_state
from mm_agrae.store.run_dir import RunDir, step_name
from mm_agrae.store.tracker import read_metrics, truncate_after
from mm_agrae.train.resuming import changed_marks, saved_config
from mm_agrae.train.session import Job

# Of state.json, what decides the future of a run; the rest says where it was computed.
_DECIDES = ("step", "cursor", "estimator", "skipped_in_a_row")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Which steps are made once more.

    Attributes:
        run_dir: The run.
        start: Step of the checkpoint that they start from.
        stop: The last of them.
        job: Of the run.
        computed_on: What it was computed on then.
    """

    run_dir: RunDir
    start: int
    stop: int
    job: Job
    computed_on: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One thing that was compared.

    Attributes:
        what: "step 7", "weights after step 8".
        compared: How many figures or files.
        different: Name, value then, value now, of those that differ.
    """

    what: str
    compared: int
    different: tuple[tuple[str, Any, Any], ...]


def plan_replay(run_dir: RunDir, steps: int | None) -> Plan:
    """Choose a checkpoint of a run with enough recorded steps behind it.

    Args:
        run_dir: The run.
        steps: How many steps to make, to a checkpoint where there is one so many steps after another; None goes from
            the checkpoint before the last to the last, or from the only one to the last recorded step.

    Raises:
        CheckpointError: No checkpoint has so many recorded steps behind it.
    """
    saved = list(complete_checkpoints(run_dir.checkpoints))
    last = max((line["step"] for line in read_metrics(run_dir.metrics)), default=0) if run_dir.metrics.exists() else 0
    if steps is None:
        start, stop = (saved[-2], saved[-1]) if len(saved) > 1 else (saved[0] if saved else last, last)
        found = start < stop
    else:
        # Weights can be compared where the run has a checkpoint, figures everywhere.
        start = max((step for step in saved if step + steps <= last), key=lambda s: (s + steps in saved, s), default=-1)
        stop, found = start + steps, start >= 0
    if not found:
        raise CheckpointError(
            f"{run_dir.path} has checkpoints after steps {saved} and metrics up to step {last}, so none has "
            f"{'a later step' if steps is None else f'{steps} later steps'} to compare with. Ask for fewer --steps, or "
            "save more often (train.checkpoint_every) and keep more (train.keep_checkpoints)."
        )
    state = read_state(run_dir.checkpoints / step_name(start))
    return Plan(run_dir=run_dir, start=start, stop=stop, job=state["job"], computed_on=state["computed_on"])


def replay_config(plan: Plan) -> RunConfig:
    """The configuration of the run, with nothing sent anywhere and nothing saved on the way.

    Raises:
        CheckpointError: This version cannot read it.
        ConfigError: The steps would need the servers of the run.
    """
    config = saved_config(plan.run_dir)
    if plan.job == "train" and config.engine.kind == "vllm_server":
        raise ConfigError(
            f"{plan.run_dir.path} samples from servers ({', '.join(config.engine.base_urls)}), and making its steps "
            "again would load older weights into them, maybe under a run that uses them. What vLLM samples depends on "
            "what it computes together, so its steps need not repeat anyway. Verify a run of the embedded engine."
        )
    # Two: a link to the checkpoint, which must stay, and what is saved at the end.
    train = config.train.model_copy(update={"checkpoint_every": 0, "keep_checkpoints": 2, "keep_best": None})
    tracker = config.tracker.model_copy(update={"wandb": "off"})
    return config.model_copy(update={"train": train, "tracker": tracker})


def make_copy(plan: Plan, folder: Path) -> None:
    """A run directory as it was when the checkpoint was saved; the checkpoint is a link.

    Raises:
        RunDirExistsError: There is something at `folder`.
    """
    copy, run_dir = RunDir.create_at(folder), plan.run_dir
    copy.write_recipe(run_dir.recipe.read_text(encoding="utf-8"))
    # As it stands: its hash binds the checkpoint.
    write_text(copy.config, run_dir.config.read_text(encoding="utf-8"))
    write_text(copy.metrics, run_dir.metrics.read_text(encoding="utf-8"))
    truncate_after(copy.metrics, plan.start)
    name = step_name(plan.start)
    (copy.checkpoints / name).symlink_to((run_dir.checkpoints / name).resolve(), target_is_directory=True)


def compare(plan: Plan, copy: RunDir) -> list[Comparison]:
    """Each step, and weights, moments and state after the last where the run has a checkpoint there.

    Figures must be equal to the last bit; times, throughput and memory are left out.
    """
    before, after = (
        {line["step"]: line for line in read_metrics(run.metrics) if plan.start < line["step"] <= plan.stop}
        for run in (plan.run_dir, copy)
    )
    steps = range(plan.start + 1, plan.stop + 1)
    found = [_compared(f"step {step}", exact(before.get(step, {})), exact(after.get(step, {}))) for step in steps]
    checkpoints = [run.checkpoints / step_name(plan.stop) for run in (plan.run_dir, copy)]
    if plan.stop in complete_checkpoints(plan.run_dir.checkpoints):
        then, now = ({name: m["sha256"] for name, m in file_marks(path).items()} for path in checkpoints)
        for what, suffix in (("weights", "model/"), ("moments", "optimizer")):
            ours, theirs = (
                {name: mark for name, mark in marks.items() if name.startswith(suffix) and _is_tensors(name)}
                for marks in (then, now)
            )
            found.append(_compared(f"{what} after step {plan.stop}", ours, theirs))
        ours, theirs = ({key: read_state(path)[key] for key in _DECIDES} for path in checkpoints)
        found.append(_compared(f"state after step {plan.stop}", ours, theirs))
    return found


def exact(line: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a line of metrics.jsonl that a run repeats to the last bit."""
    return {key: value for key, value in line.items() if key != "step" and lookup(key).unit not in MACHINE_UNITS}


def table(plan: Plan, found: list[Comparison], computed_on: Mapping[str, Any]) -> Iterator[str]:
    """What was compared, a line each, and the verdict."""
    yield f"{plan.run_dir.path}: steps {plan.start + 1} to {plan.stop} again, from checkpoint {step_name(plan.start)}"
    for one in found:
        verdict = "identical" if not one.different else f"{len(one.different)} differ"
        yield f"  {one.what:<22} {one.compared:>4} compared   {verdict}"
        for name, then, now in one.different:
            yield f"      {name}: {then} -> {now}"
    if any(one.different for one in found):
        why = ", ".join(changed_marks(plan.computed_on, computed_on))
        yield "the run does NOT repeat itself" + (f"; it is computed under other conditions now: {why}" if why else "")
    elif any(one.what.startswith("weights") for one in found):
        yield "the run repeats itself to the last bit"
    else:
        yield (
            "the figures repeat themselves to the last bit; weights were not compared, because the run has no "
            f"checkpoint after step {plan.stop}"
        )


def _compared(what: str, then: Mapping[str, Any], now: Mapping[str, Any]) -> Comparison:
    keys = sorted(then.keys() | now.keys())
    absent = "not there"
    different = [
        (key, then.get(key, absent), now.get(key, absent))
        for key in keys
        if then.get(key, absent) != now.get(key, absent)
    ]
    return Comparison(what=what, compared=len(keys), different=tuple(different))


def _is_tensors(name: str) -> bool:
    return name.endswith(".safetensors")
