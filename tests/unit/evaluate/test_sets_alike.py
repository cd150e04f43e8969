"""Processes that measure one set together hold the same problems."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mm_agrae.config import RunConfig
from mm_agrae.config.protocol import plan_sets
from mm_agrae.errors import DataError
from mm_agrae.evaluate.run import Evaluator, Task
from mm_agrae.policy.feed import Feed
from mm_agrae.policy.load import Policy
from mm_agrae.records import Sample
from tests.thread_ranks import on_ranks

SAMPLES = [Sample(id=f"sum{n}", question=f"What is {n} and 1?", target=str(n + 1)) for n in range(4)]
OTHERS = {
    "fewer": SAMPLES[:3],
    "another answer": [*SAMPLES[:2], replace(SAMPLES[2], target="7"), SAMPLES[3]],
    "another order": SAMPLES[::-1],
}


@pytest.mark.parametrize("others", OTHERS.values(), ids=OTHERS)
def test_a_process_with_another_copy_stops_all(
    others: list[Sample], policy_of: Callable[[str], Policy], tmp_path: Path
) -> None:
    """They would wait for each other, or measure a mixture."""
    sets = {"eval": {"sums": {"path": "sums"}}}
    config = RunConfig.model_validate({"name": "run", "model": {"path": "model"}, "data": sets, "rollout": {}})
    (plan,) = plan_sets(config)
    feed = Feed(policy=policy_of("qwen3"), config=config, log=lambda line: None)

    def measure(rank: Any) -> None:
        evaluator = Evaluator(
            engine=None,  # type: ignore[arg-type] - nothing is sampled
            judge=None,  # type: ignore[arg-type]
            feed=feed,
            ranks=rank,
            thumbnails=tmp_path,
        )
        task = Task(plan=plan, samples=others if rank.rank else SAMPLES, data={})
        evaluator.measure(task, tmp_path, step=0, advance=lambda count: None)

    for error in on_ranks(2, measure, stops=(DataError,)):
        told = f"rank 1 holds other problems in set 'sums' than rank 0: {len(others)} of them can be used, against 4"
        assert str(error).startswith(told)
    assert list(tmp_path.iterdir()) == []
