"""Engine and trainer may part on the way: every step is held against the bound of the check at the start."""

import math
from types import SimpleNamespace
from typing import Any

import pytest

from mm_agrae.cli.engines import check_gap
from mm_agrae.config import RunConfig
from mm_agrae.errors import EngineError


def held(mean_nats: float, precision: str = "fp32", num_tokens: float = 1e6, **engine: Any) -> list[str]:
    """What is logged of a step with that gap."""
    said: list[str] = []
    config = RunConfig.model_validate({"name": "run", "model": {"path": "model"}, "data": {}, "engine": engine})
    session = SimpleNamespace(policy=SimpleNamespace(precision=precision), step=6, log=said.append)
    check_gap(config, session, mean_nats, num_tokens)  # type: ignore[arg-type]
    return said


def test_rounding_is_no_news() -> None:
    assert held(7e-7) == []
    assert held(1.2e-2, "bf16") == []
    assert held(math.nan, num_tokens=0) == []  # nothing was learnt
    assert held(6e-2, "bf16", num_tokens=24) == []  # one token may be off by more than many are on average


def test_a_step_beyond_the_bound_ends_the_run() -> None:
    with pytest.raises(EngineError, match=r"step 7: .* 2\.00e-03 nats off .* within 0\.001 .*--resume"):
        held(2e-3)
    with pytest.raises(EngineError, match=r"within 0\.05 "):
        held(6e-2, "bf16")


def test_a_user_may_set_another_bound_or_be_warned() -> None:
    assert held(2e-3, max_logprob_gap_nats=1e-2) == []
    (line,) = held(2e-3, on_mismatch="warn")
    assert line.startswith("warning: step 7: ")
