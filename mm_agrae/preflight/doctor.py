"""Is everything there that a run needs? One line per thing looked at, before a machine is rented for it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mm_agrae.config import RunConfig
from mm_agrae.errors import DataError
from mm_agrae.preflight.answers import check_answers
from mm_agrae.preflight.findings import KINDS, Findings, Place
from mm_agrae.preflight.lengths import Budget, Lengths
from mm_agrae.preflight.twin import TwinReport
from mm_agrae.records import Sample
from mm_agrae.verify import VerifierPool

Level = Literal["fine", "warning", "wrong"]

# Problems that are looked at; `mm-agrae data check` looks at all of them.
NUM_PROBLEMS = 64


@dataclass(frozen=True, kw_only=True)
class Line:
    """What was seen, and where it is not fine, what to do."""

    level: Level
    topic: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<8}{self.topic}: {self.text}"


@dataclass(frozen=True, kw_only=True)
class Size:
    """Weights of a model.

    Attributes:
        num_weights: All of them.
        num_trained: Those that are trained.
        num_frozen_pieces, num_trained_pieces: Of both kinds, those of which a process holds its piece (see
            policy.fsdp).
        adapters_only: A checkpoint holds the trained ones alone.
    """

    num_weights: int
    num_trained: int
    num_frozen_pieces: int = 0
    num_trained_pieces: int = 0
    adapters_only: bool

    @property
    def checkpoint_bytes(self) -> int:
        """Weights and the two moments of AdamW, all of them fp32."""
        return 4 * (self.num_trained if self.adapters_only else self.num_weights) + 8 * self.num_trained

    def training_bytes(self, stored_weights: str, *, num_processes: int) -> int:
        """Weights, gradients and moments of one process, without activations; see model.stored_weights."""
        frozen = self.num_weights - self.num_trained
        per_trained, per_frozen = (16, 4) if stored_weights == "fp32" else (18, 2)
        whole = per_trained * (self.num_trained - self.num_trained_pieces)
        whole += per_frozen * (frozen - self.num_frozen_pieces)
        # A trained piece is fp32, and its own master.
        return whole + (16 * self.num_trained_pieces + per_frozen * self.num_frozen_pieces) // num_processes


def recipe_lines(config: RunConfig) -> Iterator[Line]:
    """Settings that do nothing."""
    warnings = config.warnings()
    for warning in warnings:
        yield Line(level="warning", topic="recipe", text=warning)
    if not warnings:
        yield Line(level="fine", topic="recipe", text=f"{config.name}: no setting is without effect")


def software_line(environment: Mapping[str, Any]) -> Line:
    """Versions; see store.provenance.environment."""
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    text = f"mm-agrae {environment['version']}, Python {environment['python']}, {packages}"
    return Line(level="fine", topic="software", text=text)


def model_line(size: Size, device: str, arithmetic: Mapping[str, str]) -> Line:
    """What was loaded, and how it computes; see train.session.arithmetic_of."""
    how = ", ".join(f"{name} {value}" for name, value in arithmetic.items())
    text = f"{size.num_weights / 1e6:.1f} M weights, {size.num_trained / 1e6:.1f} M of them trained, on {device}: {how}"
    return Line(level="fine", topic="model", text=text)


def launch_lines(config: RunConfig, *, num_processes: int, num_devices: int) -> Iterator[Line]:
    """Processes against prompts and devices.

    Args:
        config: The recipe.
        num_processes: Started for this run, on all hosts.
        num_devices: CUDA devices that are visible here.
    """
    prompts, sharding = config.rollout.num_prompts, config.train.sharding
    if num_processes > prompts:
        yield Line(
            level="wrong",
            topic="launch",
            text=f"{num_processes} processes share rollout.num_prompts {prompts}, so some would have no prompt. Raise "
            "rollout.num_prompts, or start fewer processes.",
        )
    elif prompts % num_processes:
        yield Line(
            level="warning",
            topic="launch",
            text=f"{num_processes} processes do not share rollout.num_prompts {prompts} evenly, so some wait for "
            f"others. Take a multiple of {num_processes}.",
        )
    else:
        text = f"processes: {num_processes}, with {prompts // num_processes} prompts each; train.sharding: {sharding}"
        yield Line(level="fine", topic="launch", text=text)
    if num_devices > 1 and num_processes == 1:
        yield Line(
            level="warning",
            topic="launch",
            text=f"{num_devices} CUDA devices are visible, but one process uses one of them. Start `torchrun "
            f"--nproc_per_node {num_devices} -m mm_agrae.cli.main train ...`.",
        )


def memory_line(size: Size, stored_weights: str, *, num_processes: int, device_bytes: int | None) -> Line:
    """What training needs on a device before any activation.

    Args:
        size: Of the model.
        stored_weights: See model.stored_weights.
        num_processes: That share what is in pieces.
        device_bytes: Memory of the device; None on a CPU.
    """
    needed = size.training_bytes(stored_weights, num_processes=num_processes)
    # Layers in pieces are whole while they compute.
    least = "at least " if size.num_trained_pieces else ""
    text = f"weights, gradients and moments take {least}{needed / 2**30:.1f} GiB per process, activations come on top"
    if device_bytes is None:
        return Line(level="fine", topic="memory", text=text)
    text = f"{text}; the device has {device_bytes / 2**30:.1f} GiB"
    if needed < device_bytes:
        return Line(level="fine", topic="memory", text=text)
    remedy = "Train adapters (model.lora), freeze parts (model.freeze), or shard (train.sharding=fsdp2)."
    return Line(level="wrong", topic="memory", text=f"{text}. {remedy}")


def disk_line(config: RunConfig, size: Size, *, free_bytes: int) -> Line:
    """Room for the checkpoints: those that are kept, and one that is being written before an old one goes."""
    num_kept = config.train.keep_checkpoints + 1 + (config.train.keep_best is not None)
    needed = num_kept * size.checkpoint_bytes
    text = (
        f"{num_kept} checkpoints of {size.checkpoint_bytes / 2**30:.2f} GiB are {needed / 2**30:.2f} GiB; "
        f"{config.output_dir} has {free_bytes / 2**30:.2f} GiB free"
    )
    if needed < free_bytes:
        return Line(level="fine", topic="disk", text=text)
    return Line(
        level="wrong", topic="disk", text=f"{text}. Free space, lower train.keep_checkpoints, or move output_dir."
    )


def length_lines(budget: Budget, samples: Sequence[Sample]) -> Iterator[Line]:
    """Prompt lengths of the first problems against rollout.max_prompt_tokens.

    Raises:
        ConfigError: A problem has pictures and the model takes none.
    """
    lengths, limit, broken = Lengths(), budget.max_prompt_tokens, []
    for index in range(min(NUM_PROBLEMS, len(samples))):
        try:
            lengths.add(*budget.count(samples[index]), limit=limit)
        except DataError as error:
            broken.append(str(error))
    if broken:
        yield Line(
            level="wrong",
            topic="prompts",
            text=f"{len(broken)} problems cannot be used, and training would stop at them; the first: {broken[0]}",
        )
    count = lengths.total.total()
    if not count:
        return
    text = (
        f"the first {count} prompts have a median of {lengths.quantile(0.5)} tokens and a maximum of "
        f"{max(lengths.total)}; rollout.max_prompt_tokens is {limit}"
    )
    if not lengths.num_over:
        yield Line(level="fine", topic="prompts", text=text)
        return
    text = f"{text}, so {lengths.num_over} of them are left out. Raise it, or lower images.max_pixels."
    yield Line(level="wrong" if lengths.num_over == count else "warning", topic="prompts", text=text)


def answer_lines(samples: Sequence[Sample], pool: VerifierPool, profile: str) -> Iterator[Line]:
    """Whether the verifier takes the reference answers of the first problems for correct."""
    rows = [(Place(dataset="data.train", id=sample.id), sample) for sample in _first(samples)]
    findings = Findings()
    check_answers(rows, profile=profile, pool=pool, findings=findings)
    faults = [kind for kind, count in findings.counts.items() if count and KINDS[kind].severity == "fault"]
    num_bad = len({one.place.id for kind in faults for one in findings.of(kind)})
    if not num_bad:
        text = f"{len(rows)} of {len(rows)} reference answers are judged correct under profile {profile}"
        yield Line(level="fine", topic="answers", text=text)
        return
    first = findings.of(faults[0])[0]
    yield Line(
        level="wrong" if num_bad == len(rows) else "warning",
        topic="answers",
        text=f"{num_bad} of {len(rows)} reference answers can never or not safely be rewarded under profile {profile}; "
        f"the first: sample {first.place.id!r}, {first.note}. Run `mm-agrae data check`, or set verifier.profile.",
    )


def twin_lines(report: TwinReport, *, refuses: bool) -> Iterator[Line]:
    """The twin check in lines.

    Args:
        report: What was found.
        refuses: Whether a run would refuse to start (engine.on_mismatch).
    """
    if not report.findings:
        yield Line(level="fine", topic="twins", text=report.line())
    for finding in report.findings:
        yield Line(level="wrong" if refuses else "warning", topic="twins", text=finding.text)
    for note in report.notes:
        yield Line(level="warning" if report.num_pictured else "fine", topic="twins", text=note)


def _first(samples: Sequence[Sample]) -> Iterator[Sample]:
    """The first problems that can be read; the others are named with the prompts."""
    for index in range(min(NUM_PROBLEMS, len(samples))):
        try:
            yield samples[index]
        except DataError:
            continue
