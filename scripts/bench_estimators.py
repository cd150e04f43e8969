"""How long advantages, weightings and bounds take for 4096 groups of 16, on one CPU thread.

    python scripts/bench_estimators.py                  median of 200 repetitions
    python scripts/bench_estimators.py --quick          of 20
    python scripts/bench_estimators.py --json out.json  the table as a file too

Every algorithm is first compared with plain Python loops over a small batch; one that differs fails the script. Times
are of the processor: on an idle machine the time that passes, on a busy one not longer for it.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch

from mm_agrae.algorithms.groups import batch_accuracy, scored_flags
from mm_agrae.config.algorithm import AlgorithmConfig
from mm_agrae.estimator import START, Estimate, Outcomes, assemble, estimate

ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {"preset": "grpo"},
    "rloo": {"preset": "rloo"},
    "grpo + agrae": {"preset": "grpo", "weighting": ["agrae"]},
    "grpo + hadw": {"preset": "grpo", "weighting": ["hadw"]},
    "grpo_lead": {"preset": "grpo_lead"},
    "gspo + elastic": {"preset": "gspo", "trust_region": "elastic"},
    "dapo + agrae + hadw + elastic": {"preset": "dapo", "weighting": ["agrae", "hadw"], "trust_region": "elastic"},
}
NUM_GROUPS, GROUP_SIZE, MAX_LENGTH = 4096, 16, 4096


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 repetitions in place of 200")
    parser.add_argument("--json", type=Path, help="write the table here too")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    different = [name for name, section in ALGORITHMS.items() if not agrees_with_loops(section)]
    if different:
        print(f"differs from the plain loops: {', '.join(different)}. Timings of wrong results mean nothing.")
        return 1
    print(f"all agree with plain loops; {NUM_GROUPS} groups of {GROUP_SIZE}, ms per batch on one thread\n")
    outcomes = drawn(NUM_GROUPS, GROUP_SIZE)
    # Once a process has freed one large tensor, as training does all the time, malloc keeps what is freed later. Before
    # that, the kernel maps every temporary anew, which takes as long as the arithmetic.
    torch.ones(6_000_000)
    repetitions = 20 if chosen.quick else 200
    table = {name: timed(section, outcomes, repetitions=repetitions) for name, section in ALGORITHMS.items()}
    print(f"{'':32}{'median':>8}{'best':>8}")
    for name, row in table.items():
        print(f"{name:32}{row['median_ms']:8.2f}{row['best_ms']:8.2f}")
    if chosen.json:
        chosen.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    return 0


def drawn(num_groups: int, group_size: int) -> Outcomes:
    """Groups of every success rate, some rewards for format alone, some rollouts without a reward."""
    draw = torch.Generator().manual_seed(0)
    shape = (num_groups, group_size)
    correct = torch.rand(shape, generator=draw) < torch.linspace(0, 1, num_groups)[:, None]
    rewards = torch.where(correct, 1.0, torch.where(torch.rand(shape, generator=draw) < 0.5, 0.1, 0.0))
    return Outcomes(
        rewards=rewards.masked_fill(torch.rand(shape, generator=draw) < 0.01, math.nan),
        correct=correct,
        lengths=torch.randint(1, MAX_LENGTH + 1, shape, generator=draw),
        truncated=torch.zeros(shape, dtype=torch.bool),
    )


def run(section: dict[str, Any], outcomes: Outcomes) -> Estimate:
    algorithm = assemble(AlgorithmConfig.model_validate(section), max_completion_tokens=MAX_LENGTH)
    return estimate(algorithm, START, outcomes, batch_accuracy=_accuracy(outcomes))[0]


def timed(section: dict[str, Any], outcomes: Outcomes, *, repetitions: int) -> dict[str, float]:
    algorithm = assemble(AlgorithmConfig.model_validate(section), max_completion_tokens=MAX_LENGTH)
    accuracy = _accuracy(outcomes)
    times = []
    for _ in range(repetitions + 5):
        started = time.process_time()
        estimate(algorithm, START, outcomes, batch_accuracy=accuracy)
        times.append((time.process_time() - started) * 1e3)
    return {"median_ms": statistics.median(times[5:]), "best_ms": min(times[5:])}


def _accuracy(outcomes: Outcomes) -> float:
    return batch_accuracy(scored_flags(outcomes.correct, outcomes.rewards))


def agrees_with_loops(section: dict[str, Any]) -> bool:
    outcomes = drawn(24, 5)
    found = run(section, outcomes)
    config = AlgorithmConfig.model_validate(section)
    rows = zip(outcomes.rewards.tolist(), outcomes.correct.tolist(), outcomes.lengths.tolist(), strict=True)
    expected = torch.tensor([by_loops(config, _accuracy(outcomes), *row) for row in rows], dtype=torch.float64)
    actual = torch.stack([found.advantages, found.bounds.low, found.bounds.high], dim=-1)  # [P, G, 3]
    return torch.allclose(actual.double(), expected, atol=2e-6, rtol=2e-6)


def by_loops(
    config: AlgorithmConfig, accuracy: float, rewards: list[float], correct: list[bool], lengths: list[int]
) -> list[tuple[float, float, float]]:
    """(advantage, low, high) of each rollout of a group, in the first step, where HA-DW's anchor is the accuracy."""
    if config.overlong == "shape":
        buffer = round(config.overlong_buffer_frac * MAX_LENGTH)
        rewards = [
            r - min(max((n - MAX_LENGTH + buffer) / buffer, 0), 1) for r, n in zip(rewards, lengths, strict=True)
        ]
    scored = [i for i, r in enumerate(rewards) if not math.isnan(r)]
    p = sum(correct[i] for i in scored) / len(scored)
    mean = math.fsum(rewards[i] for i in scored) / len(scored)
    std = math.sqrt(math.fsum((rewards[i] - mean) ** 2 for i in scored) / len(scored))
    scale = len(scored) / (len(scored) - 1) if config.baseline == "leave_one_out" else 1 / std if std else 0
    found = []
    for i, reward in enumerate(rewards):
        base = scale * (reward - mean) if i in scored and 0 < p < 1 else 0.0
        advantage = base
        for weighting in config.weighting:
            advantage *= weight(weighting, config, 1 if base > 0 else -1, p, accuracy)
        stretch = 1.0
        if config.trust_region == "elastic":
            stretch += config.elastic.micro * math.tanh(abs(base) - 1)
            stretch *= 1 + config.elastic.macro * (8 * p * (1 - p) - 1)
        found.append((advantage, 1 - config.clip_low * stretch, 1 + config.clip_high * stretch))
    return found


def weight(name: str, config: AlgorithmConfig, sign: int, p: float, accuracy: float) -> float:
    if name == "hadw":
        return config.hadw.scale * math.exp(sign * (accuracy - p))
    if name == "grpo_lead":
        return 0.4 + 1.1 / (1 + math.exp(10 * ((p if sign > 0 else 1 - p) - 0.75)))
    assert name == "agrae"
    held_back = min(1.0, accuracy / config.agrae.alpha) if sign > 0 else 1.0
    shift = accuracy / (2 * math.sqrt(p)) + (1 - accuracy) / (2 * math.sqrt(1 - p)) if 0 < p < 1 else 1.0
    return held_back * shift


if __name__ == "__main__":
    sys.exit(main())
