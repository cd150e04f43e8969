"""Out of memory: one message, by phase, with settings that can still help."""

from __future__ import annotations

import pytest
import torch

from mm_agrae.config import RunConfig
from mm_agrae.config.supervision import Phase
from mm_agrae.errors import ShortOfMemoryError
from mm_agrae.train.memory import _REMEDIES, advice, is_shortage, shortage_told

RECIPE = {"name": "x", "model": {"path": "m"}, "data": {}}


def config(**sections: object) -> RunConfig:
    return RunConfig.model_validate(RECIPE | sections)


def told(error: Exception, phase: Phase = "update") -> str:
    with pytest.raises(ShortOfMemoryError) as found, shortage_told(phase, config(), lambda: "in phase x of step 3"):
        raise error
    return str(found.value)


def test_the_message_names_place_reason_and_three_settings() -> None:
    said = told(torch.OutOfMemoryError("CUDA out of memory. Tried\n to allocate 20.00 MiB."))
    assert said.splitlines() == [
        "out of memory in phase x of step 3: CUDA out of memory. Tried to allocate 20.00 MiB.",
        "What helps there: lower train.micro_batch_tokens (now 16384); switch on model.gradient_checkpointing (now "
        "false); set or lower train.micro_batch_targets (now null). A resumed run keeps its settings, so begin a new "
        "one with them, from the model/ folder of the last checkpoint (model.path) if there is one.",
    ]


def test_a_real_allocation_that_the_host_refuses() -> None:
    with pytest.raises(ShortOfMemoryError, match="can't allocate memory"), shortage_told("update", config(), str):
        torch.empty(2**60)


def test_other_errors_pass() -> None:
    for error in (RuntimeError("shapes differ"), ValueError("out of memory"), KeyError("out of memory")):
        assert not is_shortage(error)
        with pytest.raises(type(error)) as found, shortage_told("update", config(), str):
            raise error
        assert found.value is error
    inner = ShortOfMemoryError("out of memory in phase log-probs")
    with pytest.raises(ShortOfMemoryError) as found, shortage_told("update", config(), str):
        raise inner
    assert found.value is inner


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"), RuntimeError("CUDA error: out of memory")]
)
def test_shortages_of_other_libraries(error: Exception) -> None:
    assert is_shortage(error)


def test_what_is_set_already_is_not_advised() -> None:
    small = config(
        model={"path": "m", "gradient_checkpointing": True, "lora": {"rank": 2}},
        train={"micro_batch_targets": 64, "recompute_above_tokens": 9},
    )
    assert advice("update", small) == [
        "lower train.micro_batch_tokens (now 16384)",
        "set or lower train.micro_batch_targets (now 64)",
        "lower train.recompute_above_tokens (now 9)",
    ]
    assert advice("rollout", config()) == [
        "lower rollout.batch_rows (now 256)",
        "lower rollout.max_completion_tokens (now 1024)",
        f"lower images.max_pixels (now {config().images.max_pixels})",
    ]
    assert advice("rollout", config(engine={"kind": "vllm"}))[:2] == [
        "lower engine.memory_fraction (now 0.45)",
        "switch on engine.sleeps (now false)",
    ]


@pytest.mark.parametrize("phase", _REMEDIES)
def test_every_phase_has_settings_that_help(phase: Phase) -> None:
    """Names of settings that do not exist would be an error."""
    assert len(advice(phase, config())) == 3
    assert len(advice(phase, config(engine={"kind": "vllm"}))) == 3
