"""Measure a policy on held-out problems: rollouts, verifier and rendering of training, and numbers with intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mm_agrae.config import RunConfig
from mm_agrae.engines.base import Engine
from mm_agrae.errors import DataError
from mm_agrae.evaluate.statistics import ProblemResult, summarise
from mm_agrae.policy.feed import Feed
from mm_agrae.records import RolloutGroup, Sample, Sampling
from mm_agrae.rollout import Judge, rollout
from mm_agrae.seeding import seed_for
from mm_agrae.store.atomic import write_json
from mm_agrae.store.rollout_log import group_lines, write_lines

T = TypeVar("T")

# Problems rendered and sampled at a time: bounds the images in memory.
CHUNK = 64


class Ranks(Protocol):
    """The processes that share the work."""

    @property
    def is_main(self) -> bool: ...
    @property
    def size(self) -> int: ...
    def share(self, items: Sequence[T]) -> list[T]: ...
    def collect(self, mine: Sequence[T]) -> list[T]: ...


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Everything an evaluation needs besides the sets.

    Attributes:
        thumbnails: Folder that receives the pictures.
    """

    config: RunConfig
    engine: Engine
    judge: Judge
    feed: Feed
    ranks: Ranks
    thumbnails: Path

    def measure(
        self, name: str, samples: Sequence[Sample], folder: Path, *, step: int, advance: Callable[[int], None]
    ) -> dict[str, Any]:
        """Measure one set and save its completions and its summary.

        Samples over the token budget are refused, named in the log, counted in the summary and in no figure.

        Args:
            name: Name of the set.
            samples: Its problems.
            folder: Where the files go.
            step: Updates behind the weights.
            advance: Called with the number of problems just measured by all ranks, for a progress bar.

        Returns:
            The summary (see statistics.summarise), with "refused".

        Raises:
            DataError: Every problem was refused, or a sample cannot be used.
        """
        settings = self.config.evaluate
        prompts = [prompt for prompt in map(self.feed.admit, samples) if prompt]
        if not prompts:
            raise DataError(
                f"all {len(samples)} problems of set {name!r} are over rollout.max_prompt_tokens "
                f"{self.config.rollout.max_prompt_tokens}, so there is nothing to measure. Raise it, or lower "
                "images.max_pixels."
            )
        results: list[ProblemResult] = []
        sampled_lines: list[str] = []
        greedy_lines: list[str] = []
        mine = self.ranks.share(prompts)
        for start in range(0, len(mine), CHUNK):
            rendered = [self.feed.render(prompt) for prompt in mine[start : start + CHUNK]]
            sampled = self._groups(name, rendered, settings.num_samples, settings.temperature)
            greedy = self._groups(name, rendered, 1, 0.0) if settings.greedy else [None] * len(rendered)
            results.extend(_result(group, best) for group, best in zip(sampled, greedy, strict=True))
            sampled_lines.extend(self._lines(sampled, step))
            greedy_lines.extend(self._lines([group for group in greedy if group], step))
            advance(min(CHUNK * self.ranks.size, len(prompts) - start * self.ranks.size))
        results = self.ranks.collect(results)
        sampled_lines, greedy_lines = self.ranks.collect(sampled_lines), self.ranks.collect(greedy_lines)
        summary = summarise(results, set_name=name, step=step, ks=settings.ks, seed=self.config.seed)
        summary["refused"] = len(samples) - len(prompts)
        if self.ranks.is_main:
            folder.mkdir(parents=True, exist_ok=True)
            write_lines(folder / f"{name}.jsonl", sampled_lines)
            if settings.greedy:
                write_lines(folder / f"{name}.greedy.jsonl", greedy_lines)
            write_json(folder / f"{name}.json", summary)
        return summary

    def _groups(self, name: str, rendered: Sequence, count: int, temperature: float) -> list[RolloutGroup]:
        settings = self.config.evaluate
        sampling = Sampling(
            num_completions=count,
            max_new_tokens=settings.max_completion_tokens or self.config.rollout.max_completion_tokens,
            temperature=temperature,
            top_p=settings.top_p,
        )
        # The same seeds at every step: before and after differ by the weights alone.
        seeds = [
            [seed_for(self.config.seed, "evaluate", name, prompt.sample.id, number) for number in range(count)]
            for prompt in rendered
        ]
        return rollout(self.engine, self.judge, rendered, sampling, seeds).groups

    def _lines(self, groups: Sequence[RolloutGroup], step: int) -> list[str]:
        return group_lines(groups, step=step, advantages=None, thumbnails=self.thumbnails)


def metrics_of(summary: dict[str, Any]) -> dict[str, float]:
    """The headline figures of a summary, as catalogue keys."""
    return {f"eval/{summary['set']}/{name}": interval["value"] for name, interval in summary["overall"].items()}


def _result(group: RolloutGroup, greedy: RolloutGroup | None) -> ProblemResult:
    sample, rollouts = group.prompt.sample, group.rollouts
    return ProblemResult(
        sample_id=sample.id,
        family=sample.family,
        difficulty=sample.difficulty,
        num_correct=sum(r.verdict.correct for r in rollouts),
        num_samples=len(rollouts),
        num_formatted=sum(r.verdict.formatted for r in rollouts),
        num_truncated=sum(r.completion.stop_reason == "length" for r in rollouts),
        greedy_correct=greedy.rollouts[0].verdict.correct if greedy else None,
    )
