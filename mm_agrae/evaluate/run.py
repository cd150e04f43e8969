"""Measure a policy on held-out problems: rollouts, verifier and rendering of training, and numbers with intervals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mm_agrae.config.protocol import Plan, protocol_hash
from mm_agrae.data.columns import content_hash
from mm_agrae.engines.base import Engine
from mm_agrae.errors import CheckpointError, DataError
from mm_agrae.evaluate.journal import Entry, Journal
from mm_agrae.evaluate.results import with_classes
from mm_agrae.evaluate.summary import Measured, ScoredProblems, check_measurable
from mm_agrae.policy.feed import Feed
from mm_agrae.prompts.texts import may_ask_for_box
from mm_agrae.records import Prompt, RenderedPrompt, Sample, Sampling
from mm_agrae.rollout import Judge, rollout
from mm_agrae.seeding import seed_for
from mm_agrae.store.atomic import write_json, write_stream
from mm_agrae.store.rollout_log import group_records, json_line

T = TypeVar("T")

# Problems rendered, sampled and saved at a time, per process: bounds the pictures in memory. Fewer where a problem has
# many samples, because what is not saved yet is lost with an interruption.
MAX_PROBLEMS, MAX_COMPLETIONS = 64, 1024


class Ranks(Protocol):
    """The processes that share the work."""

    @property
    def rank(self) -> int: ...
    @property
    def is_main(self) -> bool: ...
    @property
    def size(self) -> int: ...
    def share(self, items: Sequence[T]) -> list[T]: ...
    def collect(self, mine: Sequence[T]) -> list[T]: ...
    def everywhere(self, act: Callable[[], T]) -> T: ...
    def on_main(self, act: Callable[[], T]) -> T: ...


@dataclass(frozen=True, kw_only=True)
class Task:
    """One set to measure.

    Attributes:
        plan: How.
        samples: Its problems.
        data: Where they came from, for the summary.
        blind: "grey" or "swap" where the pictures were replaced; None where they are shown.
    """

    plan: Plan
    samples: Sequence[Sample]
    data: dict[str, Any]
    blind: str | None = None

    @property
    def name(self) -> str:
        return self.plan.name


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Everything an evaluation needs besides the sets.

    Attributes:
        thumbnails: Folder that receives the pictures.
        model: Digest of the model (see identity.model_digest), on the main process; "" where nothing is resumed.
        resume: Go on with what an interrupted evaluation left behind, instead of measuring anew.
    """

    engine: Engine
    judge: Judge
    feed: Feed
    ranks: Ranks
    thumbnails: Path
    model: str = ""
    resume: bool = False

    def measure(self, task: Task, folder: Path, *, step: int, advance: Callable[[int], None]) -> dict[str, Any]:
        """Measure one set and save its completions and its summary.

        Samples over the token budget are refused, named in the log, counted in the summary and in no figure. Problems
        are saved as they are finished. Every completion has a seed of its own and problems are sampled in the same
        batches, so an evaluation that was interrupted and resumed ends with the figures of one that was not. That
        holds for the same number of processes: with another one batches are others, and so is rounding.

        Args:
            task: The set.
            folder: Where the files go.
            step: Updates behind the weights.
            advance: Called with the number of problems just measured by all ranks, for a progress bar.

        Returns:
            The summary (see statistics.summarise), with "refused", "fingerprint", "aggregate" and "measured".

        Raises:
            CheckpointError: What is to be resumed was measured on other problems, by other settings or with another
                model, or is damaged.
            DataError: Every problem was refused, or a sample cannot be used.
        """
        feed = replace(self.feed, config=task.plan.config)
        prompts, problems = self.ranks.everywhere(lambda: _admitted(feed, task.samples))
        self._check_alike(task.name, len(prompts), problems)
        if not prompts:
            raise DataError(
                f"all {len(task.samples)} problems of set {task.name!r} are over rollout.max_prompt_tokens "
                f"{task.plan.config.rollout.max_prompt_tokens}, so there is nothing to measure. Raise it, or lower "
                "images.max_pixels."
            )
        measured = self._measured(task, problems, num_refused=len(task.samples) - len(prompts))
        check_measurable(measured, task.samples, [prompt.sample for prompt in prompts])
        fingerprint = _fingerprint(measured, step, self.model)
        journal = Journal(path=folder / f"{task.name}.partial.jsonl", fingerprint=fingerprint)
        summary_file = folder / f"{task.name}.json"
        num_done = self.ranks.on_main(lambda: self._begin(journal, summary_file))
        if num_done is None:
            advance(len(prompts))
            return json.loads(summary_file.read_text(encoding="utf-8"))
        work = _Work(task=task, feed=feed, judge=replace(self.judge, profile=measured.profile), step=step)
        self._sample(work, prompts, journal, num_done, advance)

        def finish() -> dict[str, Any]:
            scored = ScoredProblems(measured)
            for entry in journal.entries():
                scored.add(entry.sampled, entry.greedy)
            summary = scored.summary(task.name, step=step)
            summary |= {"refused": len(task.samples) - len(prompts), "fingerprint": journal.fingerprint}
            _save(journal, folder, task.name, greedy=task.plan.config.evaluate.greedy)
            write_json(summary_file, summary)  # last, because it says that the set is finished
            journal.path.unlink()
            return summary

        return self.ranks.on_main(finish)

    def _check_alike(self, name: str, num_prompts: int, problems: str) -> None:
        """Processes that share out different sets would wait for each other, or measure a mixture."""
        everyone = self.ranks.collect([(num_prompts, problems)])
        other = next((rank for rank, found in enumerate(everyone) if found != everyone[0]), None)
        if other is not None:
            raise DataError(
                f"rank {other} holds other problems in set {name!r} than rank 0: {everyone[other][0]} of them can be "
                f"used, against {everyone[0][0]}, and their contents differ. Give every process a copy of one set."
            )

    def _measured(self, task: Task, problems: str, *, num_refused: int) -> Measured:
        plan, settings = task.plan, task.plan.config.evaluate
        refused = (f"{num_refused} problems refused for long prompts",) if plan.card and num_refused else ()
        return Measured(
            seed=plan.config.seed,
            profile=plan.config.verifier.profile,
            timeout_s=plan.config.verifier.timeout_s,
            ks=settings.ks,
            g_pass_ks=settings.g_pass_ks,
            aggregate=None if task.blind else plan.aggregate,
            categories=plan.categories,
            correct_weight=self.judge.correct_weight,
            format_weight=self.judge.format_weight,
            boxed=may_ask_for_box(plan.config.prompt.instruction),
            protocol=plan.card.name if plan.card else None,
            protocol_profile=plan.card.profile if plan.card else None,
            protocol_hash=protocol_hash(plan.card) if plan.card else None,
            departures=(*plan.departures, *refused),
            settings={
                "prompt": plan.config.prompt.model_dump(mode="json"),
                "images": plan.config.images.model_dump(mode="json"),
                "evaluate": settings.model_dump(mode="json"),
                "max_prompt_tokens": plan.config.rollout.max_prompt_tokens,
            },
            data={**task.data, "problems": problems},
            blind=task.blind,
        )

    def _begin(self, journal: Journal, summary_file: Path) -> int | None:
        """Problems that are finished already; None when the whole set is."""
        if not self.resume:
            journal.begin()
            return 0
        if not summary_file.exists():
            return journal.resume()
        found = json.loads(summary_file.read_text(encoding="utf-8"))["fingerprint"]
        if found != journal.fingerprint:
            raise CheckpointError(
                f"{summary_file} was measured on other problems, by other settings or with another model than now. "
                "Restore the data, the protocol card and the model, or start a new run."
            )
        journal.path.unlink(missing_ok=True)  # a kill between the summary and this line leaves it behind
        return None

    def _sample(
        self, work: _Work, prompts: Sequence[Prompt], journal: Journal, num_done: int, advance: Callable[[int], None]
    ) -> None:
        num_samples = work.task.plan.config.evaluate.num_samples
        size = self.ranks.size * max(1, min(MAX_PROBLEMS, MAX_COMPLETIONS // num_samples))
        for start in range(0, len(prompts), size):
            chunk = prompts[start : start + size]
            # A chunk of which a part is saved is sampled again as a whole: in another batch, rounding is another.
            if start + len(chunk) > num_done:
                entries = self.ranks.collect(self._entries(work, self.ranks.share(chunk)))
                if self.ranks.is_main:
                    journal.append(entries[max(0, num_done - start) :])
            advance(len(chunk))

    def _entries(self, work: _Work, prompts: Sequence[Prompt]) -> list[Entry]:
        settings = work.task.plan.config.evaluate
        rendered = [work.feed.render(prompt) for prompt in prompts]
        sampled = self._records(work, rendered, settings.num_samples, settings.temperature)
        sampled = with_classes(sampled, work.judge.verifier, work.judge.profile)
        greedy = self._records(work, rendered, 1, 0.0) if settings.greedy else [None] * len(rendered)
        return [Entry(sampled=record, greedy=best) for record, best in zip(sampled, greedy, strict=True)]

    def _records(
        self, work: _Work, rendered: Sequence[RenderedPrompt], count: int, temperature: float
    ) -> list[dict[str, Any]]:
        plan = work.task.plan
        settings = plan.config.evaluate
        sampling = Sampling(
            num_completions=count,
            max_new_tokens=settings.max_completion_tokens or plan.config.rollout.max_completion_tokens,
            temperature=temperature,
            top_p=settings.top_p,
        )
        # The same seeds at every step, and with or without pictures: what differs is the weights, or the pictures.
        seeds = [
            [seed_for(plan.config.seed, "evaluate", plan.name, prompt.sample.id, number) for number in range(count)]
            for prompt in rendered
        ]
        groups = rollout(self.engine, work.judge, rendered, sampling, seeds).groups
        return group_records(groups, work.step, None, self.thumbnails)


@dataclass(frozen=True, kw_only=True)
class _Work:
    """What is the same for all problems of a set."""

    task: Task
    feed: Feed
    judge: Judge
    step: int


def metrics_of(summary: dict[str, Any]) -> dict[str, float]:
    """The headline figures of a summary, as catalogue keys."""
    figures = {**summary["overall"], **summary.get("aggregate", {}).get("figures", {})}
    return {f"eval/{summary['set']}/{name}": interval["value"] for name, interval in figures.items() if interval}


def _save(journal: Journal, folder: Path, name: str, *, greedy: bool) -> None:
    write_stream(folder / f"{name}.jsonl", (json_line(entry.sampled) for entry in journal.entries()))
    if greedy:
        best = (entry.greedy for entry in journal.entries())
        write_stream(folder / f"{name}.greedy.jsonl", (json_line(record) for record in best if record))


def _admitted(feed: Feed, samples: Iterable[Sample]) -> tuple[list[Prompt], str]:
    """The prompts within the token budget, and a hash of all problems."""
    digest, prompts = hashlib.blake2b(digest_size=16), []
    for sample in samples:
        digest.update(f"{sample.id}\x1f{content_hash(sample)}\x1e".encode())
        if prompt := feed.admit(sample):
            prompts.append(prompt)
    return prompts, digest.hexdigest()


def _fingerprint(measured: Measured, step: int, model: str) -> str:
    """Hash of everything that decides the completions and the figures."""
    decides = json.dumps([measured.to_json(), step, model], sort_keys=True)
    return hashlib.blake2b(decides.encode(), digest_size=16).hexdigest()
