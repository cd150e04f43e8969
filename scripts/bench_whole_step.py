"""A whole step, rollout and verdict and update: our training loop beside TRL's GRPOTrainer.

    python scripts/bench_whole_step.py                both models, pictures of 64 and 256 visual tokens, 10 minutes
    python scripts/bench_whole_step.py --quick        one model, fewer steps, one setting of TRL
    python scripts/bench_whole_step.py --json         the table as JSON, and nothing else, on standard output
    python scripts/bench_whole_step.py --journal FILE keep what is measured; a second call goes on from there
    python scripts/bench_whole_step.py --profile      where our step spends its time, nothing else
    python scripts/bench_whole_step.py --without-peer without TRL (which needs `pip install -e '.[bench]'`)

The same for both: model folder, fp32, threads; the problems of the visual gym, none of them twice; 8 prompts x 8
completions x 64 tokens, sampled at temperature 1 with placeholders never drawn and no end before the last token; every
answer judged by our verifier; GRPO without a reference, one AdamW step on all 64 completions, every weight trained.
Random weights solve nothing, so every second completion is given the reward of a correct one: each group has a gradient
and nothing can be skipped. Rewards aside, each side runs its own unchanged training loop.

    trl stock       GRPOTrainer with its default settings but for what is said above (gradient checkpointing, 8 rows)
    trl best        without checkpointing, the faster of 16 and 64 rows at a time
    repeated        ours, with the prompt and picture of every completion computed anew in the update
    ours            our default settings

A step lasts from the end of one update to the end of the next, so everything in between is in it: on our side rendering
too, which computes rotary positions that TRL computes in its forward passes. Every way runs in a process of its own;
ours, repeated and trl best are visited a second time, in the reverse order. A time is the median of all steps without
the first of each visit. Theory is how many times more operations a step takes, sampling and update, where both repeat
every prompt and picture, as TRL does; "repeated" repeats them in its update alone.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import bench_equality as equality
import bench_inputs
import numpy as np
import torch
from bench_runs import Runs, add_arguments_of_runs, arguments, check_arguments, with_peak

from data_processors.visual_gym.write import write_gym
from mm_agrae.config.schema import RunConfig
from mm_agrae.data.dataset import open_dataset
from mm_agrae.engines.transformers_engine import TransformersEngine
from mm_agrae.policy import tiny
from mm_agrae.policy.load import Policy, load_renderer
from mm_agrae.policy.tiny import corpus_of
from mm_agrae.prompts import make_prompt
from mm_agrae.records import Completion, RenderedPrompt, Rollout, Sample, Sampling
from mm_agrae.rollout import Judge
from mm_agrae.train.loop import Parts, train
from mm_agrae.train.session import Session, open_session
from mm_agrae.verify import Question, VerifierPool

# They can be read at every size of picture.
FAMILIES = ("charts/tallest_bar", "charts/red_bar")
INSTRUCTION = "boxed"
PROMPTS, GROUP, LENGTH = 8, 8, 64
ARCHITECTURES = ("qwen2_5_vl", "qwen3_vl")
VISUAL = (64, 256)
WARM_UP = 1
PEER_ROWS = (16, 64)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model and one size of picture, measured one way for so many steps; equality, `with_peer` or without."""

    architecture: str
    size: str
    visual: int
    steps: int
    way: str
    visit: int
    threads: int
    with_peer: bool = False


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The model and the problems of a case, in a folder of their own."""

    folder: Path
    samples: list[Sample]

    @property
    def model(self) -> Path:
        return self.folder / "model"


def main() -> int:
    parser = arguments(__doc__, quick="Qwen2.5-VL only, one visit, TRL at 16 rows")
    add_arguments_of_runs(parser)
    parser.add_argument("--architecture", choices=ARCHITECTURES, action="append", help="one or several of them")
    parser.add_argument("--visual", type=int, action="append", help="visual tokens of a picture, a square number")
    parser.add_argument("--size", default="tiny", help="tiny or toy")
    chosen = parser.parse_args()
    if chosen.one:
        print(json.dumps(measure_one(Case(**json.loads(chosen.one)))))
        return 0
    check_arguments(parser, chosen)
    report = (lambda line: None) if chosen.json else partial(print, flush=True)
    runs = Runs(script=Path(__file__), journal=chosen.journal, threads=chosen.threads)
    ways = ["ours", "repeated"] + ([] if chosen.without_peer else peer_ways(quick=chosen.quick))
    architectures = chosen.architecture or (ARCHITECTURES[:1] if chosen.quick else ARCHITECTURES)
    everything: equality.Entries = {}
    table = []
    for architecture in architectures:
        for visual in chosen.visual or VISUAL:
            case = {"architecture": architecture, "size": chosen.size, "visual": visual, "steps": 2}
            if chosen.profile:
                report(runs.measure({**case, "way": "profile", "visit": 0})["table"])
                continue
            with_peer = not chosen.without_peer
            entries = runs.measure({**case, "way": "equality", "visit": 0, "with_peer": with_peer})
            entries = {f"{name}, {architecture}, {visual} visual tokens": entry for name, entry in entries.items()}
            everything |= entries
            for line in equality.lines_of(entries):
                report(line)
            if not equality.equal(entries):
                report("The sides do not compute the same, so timings would mean nothing.")
                continue
            table.append(row_of(runs, case, ways, visits=1 if chosen.quick else 2))
            report(line_of(table[-1]))
    equal = equality.equal(everything)
    if chosen.json:
        names = {"repeated": "ours repeated", "peer": "TRL best"}
        printed = {"equal": equal, "equality": everything, "threads": chosen.threads, **names, "points": table}
        print(json.dumps(printed))
    return 0 if equal else 1


def peer_ways(*, quick: bool) -> list[str]:
    return ["trl 16"] if quick else ["trl stock", *(f"trl {rows}" for rows in PEER_ROWS)]


def row_of(runs: Runs, case: dict[str, Any], ways: Sequence[str], *, visits: int) -> dict[str, Any]:
    """The row of the table for one case; the ways take turns, the second time in reverse and TRL's best alone."""
    found = {way: [runs.measure({**case, "way": way, "visit": 0})] for way in ways}
    tried = {way: medians_of(found[way]) for way in ways if way.startswith("trl") and way != "trl stock"}
    best = min(tried, key=lambda way: tried[way], default=None)
    if visits == 2:
        for way in [way for way in (best, "repeated", "ours") if way]:
            found[way].append(runs.measure({**case, "way": way, "visit": 1}))
    seconds = {way: medians_of(of) for way, of in found.items()}
    ours = seconds["ours"]
    return {
        "architecture": case["architecture"],
        "size": case["size"],
        "P": found["ours"][0]["prompt_tokens"],
        "visual": case["visual"],
        "C": LENGTH,
        "G": GROUP,
        "prompts": PROMPTS,
        "theory": found["ours"][0]["theory"],
        "seconds": seconds,
        "phases": found["ours"][0]["phases"],
        "peak_bytes": {way: max(visit["peak_bytes"] for visit in of) for way, of in found.items()},
        "peer_best": best,
        "ratio_to_repeated": seconds["repeated"] / ours,
        "ratio_to_peer": seconds[best] / ours if best else None,
        "ratio_to_peer_stock": seconds["trl stock"] / ours if "trl stock" in seconds else None,
    }


def medians_of(visits: Sequence[dict[str, Any]]) -> float:
    return statistics.median(seconds for visit in visits for seconds in visit["seconds"])


def line_of(row: dict[str, Any]) -> str:
    times = "  ".join(f"{way} {seconds:.3f} s" for way, seconds in row["seconds"].items())
    ratios = f"to repeated {row['ratio_to_repeated']:.2f}"
    if row["ratio_to_peer"]:
        ratios += f"  to trl best {row['ratio_to_peer']:.2f}"
    phases = ", ".join(f"{name} {seconds:.3f}" for name, seconds in row["phases"].items())
    return f"{row['architecture']} P {row['P']} ({row['visual']} visual)  {ratios}  {times}  (ours: {phases})"


def measure_one(case: Case) -> dict[str, Any]:
    """Run in a process of its own."""
    torch.set_num_threads(case.threads)
    bench = build(case)
    if case.way == "equality":
        return check_equality(bench, with_peer=case.with_peer)
    if case.way.startswith("trl"):
        return measure_peer(bench, case)
    if case.way == "profile":
        import bench_profile

        session = open_ours(bench, case, sharing=True)
        table = bench_profile.table(session.policy, lambda: run_ours(session, bench.samples))
        return {"table": f"{case.architecture}, {case.visual} visual tokens\n{table}"}
    return measure_ours(bench, case)


def build(case: Case) -> Bench:
    """Problems with pictures of the wanted size, and a model with random weights."""
    tiny.SIZES["toy"] = bench_inputs.TOY
    folder = Path(tempfile.mkdtemp(prefix="mm-agrae-bench-"))
    side = round(case.visual**0.5) * 2 * tiny.SIZES[case.size].patch
    num = PROMPTS * (case.steps + WARM_UP)
    write_gym(folder / "gym", num=num, seed=0, families=FAMILIES, size=side, held_out=0, num_processes=1)
    samples = list(open_dataset(folder / "gym", "train"))
    tiny.build_model_folder(
        folder / "model", architecture=case.architecture, size=case.size, corpus=corpus_of(samples), seed=0
    )
    return Bench(folder=folder, samples=samples)


def check_equality(bench: Bench, *, with_peer: bool) -> equality.Entries:
    """One update of random completions of the first problems, and how TRL itself renders these problems."""
    policy = bench_inputs.policy_of(bench.model)
    prompts = [bench_inputs.rendered(policy, sample, instruction=INSTRUCTION) for sample in bench.samples[:4]]
    point = bench_inputs.Point(visual=0, text=0, completion=LENGTH, group=GROUP, prompts=len(prompts))
    rng = np.random.default_rng(0)
    groups = equality.groups_of(
        prompts, [bench_inputs.make_completions(policy, point, rng, ragged=True) for _ in prompts]
    )
    found = equality.compare(
        bench.model, groups, [equality.Setting()], length=LENGTH, reference=bench.model, with_peer=with_peer
    )
    if with_peer:
        import bench_peer

        token_ids, pixels = bench_peer.rendered(bench.model, [peer_sample(sample) for sample in bench.samples[:4]])
        same_ids = token_ids == [list(prompt.token_ids) for prompt in prompts]
        apart = float((pixels - torch.cat([prompt.pixel_values for prompt in prompts])).abs().max())
        found["prompt tokens, trl"] = {"value": float(not same_ids), "limit": 0.0}
        found["pixels, trl"] = {"value": apart, "limit": 0.0}
    return found


def config_of(bench: Bench, case: Case, *, sharing: bool) -> RunConfig:
    """Our defaults, but for the size of the step and what the docstring above fixes for both sides."""
    return RunConfig.model_validate(
        {
            "name": "whole-step",
            "output_dir": str(bench.folder / "runs"),
            "model": {"path": str(bench.model), "device": "cpu", "precision": "fp32"},
            "data": {},
            "prompt": {"instruction": INSTRUCTION},
            "images": {"min_pixels": 1, "max_pixels": 10**8},
            "rollout": {"num_prompts": PROMPTS, "group_size": GROUP, "max_completion_tokens": LENGTH},
            "train": {"num_steps": case.steps + WARM_UP, "checkpoint_every": 0, "share_prompts": sharing},
        }
    )


@dataclass(frozen=True, kw_only=True)
class EverySecond(Judge):
    """Judges every answer, then takes every second one for correct."""

    def __call__(self, completions: Sequence[Completion], questions: Sequence[Question]) -> list[Rollout]:
        return [
            replace(
                rollout,
                verdict=replace(rollout.verdict, status="correct" if number % 2 else "wrong"),
                reward=float(number % 2),
            )
            for number, rollout in enumerate(super().__call__(completions, questions))
        ]


@dataclass(frozen=True, kw_only=True)
class WatchedEngine:
    """Marks the rollout in a profile, and takes the time at the end of every step."""

    engine: TransformersEngine
    ends: list[float]

    @property
    def weights_version(self) -> int:
        return self.engine.weights_version

    def generate(
        self, prompts: Sequence[RenderedPrompt], sampling: Sampling, seeds: Sequence[Sequence[int]]
    ) -> list[list[Completion]]:
        import bench_profile

        with bench_profile.phase("rollout"):
            return self.engine.generate(prompts, sampling, seeds)

    def sync_weights(self, policy: Policy, *, version: int) -> None:
        self.engine.sync_weights(policy, version=version)
        self.ends.append(time.perf_counter())

    def close(self) -> None:
        self.engine.close()


def open_ours(bench: Bench, case: Case, *, sharing: bool) -> Session:
    config = config_of(bench, case, sharing=sharing)
    session = open_session(config, recipe="", job="train", out=None, resume=False, log=lambda line: None)
    session.policy = replace(session.policy, eos_token_ids=(-1,))  # no token ends a completion before its bound
    return session


def run_ours(session: Session, samples: Sequence[Sample]) -> tuple[list[dict[str, float]], list[float]]:
    """Our training loop; returns the metrics of every step, and when each ended."""
    config = session.config
    plain = TransformersEngine(session.policy, batch_rows=config.rollout.batch_rows)
    engine = WatchedEngine(engine=plain, ends=[])
    with VerifierPool(num_workers=config.verifier.num_workers) as verifier:
        judge = EverySecond(verifier=verifier, correct_weight=1.0, format_weight=0.0)
        nothing: dict[str, float] = {}
        parts = Parts(
            samples=samples,
            engine=engine,
            judge=judge,
            evaluate=lambda step: nothing,
            check_gap=lambda gap, tokens: None,
        )
        train(session, parts)
    session.close()
    lines = session.run_dir.metrics.read_text(encoding="utf-8").splitlines()
    return [metrics for metrics in map(json.loads, lines) if "time/step_s" in metrics], engine.ends


def lengths_of(ends: Sequence[float]) -> list[float]:
    """Seconds from the end of a step to the end of the next, without the first ones."""
    return [later - earlier for earlier, later in zip(ends[WARM_UP - 1 :], ends[WARM_UP:], strict=False)]


def measure_ours(bench: Bench, case: Case) -> dict[str, Any]:
    session = open_ours(bench, case, sharing=case.way == "ours")
    policy, found = session.policy, []
    peak = with_peak(lambda: found.extend(run_ours(session, bench.samples)))
    metrics, ends = found
    steps, seconds = metrics[WARM_UP:], lengths_of(ends)
    assert {(step["rollout/length_mean_tokens"], step["group/skipped_frac"]) for step in steps} == {(LENGTH, 0)}
    prompts = [bench_inputs.rendered(policy, sample, instruction=INSTRUCTION) for sample in bench.samples[:PROMPTS]]
    groups = [(prompt, [(0,) * LENGTH] * GROUP) for prompt in prompts]
    phases = {
        name: statistics.median(step[f"time/{name}_s"] for step in steps) for name in ("rollout", "verify", "update")
    }
    phases["other"] = statistics.median(seconds) - sum(phases.values())
    return {
        "seconds": seconds,
        "phases": phases,
        "peak_bytes": peak,
        "prompt_tokens": round(statistics.mean(len(prompt.token_ids) for prompt in prompts)),
        "theory": bench_inputs.theory(policy, groups, with_rollout=True),
    }


def measure_peer(bench: Bench, case: Case) -> dict[str, Any]:
    import bench_peer

    policy = load_renderer(str(bench.model))
    setting = case.way.removeprefix("trl ")
    with VerifierPool() as verifier:
        questions = {sample.id: Question.of(sample) for sample in bench.samples}

        def judged(completions: Sequence[Any], identity: Sequence[str], **columns: Any) -> list[float]:
            texts = [message[0]["content"] for message in completions]
            verifier.verify_all(texts, [questions[one] for one in identity])
            return [float(number % 2) for number in range(len(texts))]

        trainer = bench_peer.make_whole_trainer(
            bench.model,
            [peer_sample(sample) for sample in bench.samples],
            bench_peer.StepShape(prompts=PROMPTS, group=GROUP, length=LENGTH, steps=case.steps + WARM_UP),
            reward=judged,
            micro_batch_rows=8 if setting == "stock" else int(setting),
            checkpointing=setting == "stock",
            banned=policy.banned_token_ids,
        )
        clock = bench_peer.Clock()
        trainer.add_callback(clock.callback())
        peak = with_peak(trainer.train)
    assert trainer.state.log_history[-1]["completions/min_length"] == LENGTH
    return {"seconds": lengths_of(clock.ends), "peak_bytes": peak}


def peer_sample(sample: Sample) -> dict[str, Any]:
    """The same messages and picture, as its data sets hold them."""
    import io

    from PIL import Image

    messages = make_prompt(sample, system="none", instruction=INSTRUCTION).messages
    return {
        "prompt": [dict(message) for message in messages],
        "images": [Image.open(io.BytesIO(data)) for data in sample.images],
        "identity": sample.id,
    }


if __name__ == "__main__":
    sys.exit(main())
