"""Out of memory: one message, by phase, with settings that can still help."""

from __future__ import annotations

import pytest
import torch

from mm_agrae.config import RunConfig
from mm_agrae.config.supervision import Phase
from mm_agrae.errors import ShortOfMemoryError
from mm_agrae.train.memory import _REMEDIES, _taken, advice, is_shortage, shortage_told

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
        "What helps there: lower train.micro_batch_tokens (now 16384; with --resume); switch on "
        "model.gradient_checkpointing (now false; with --resume); set or lower train.micro_batch_targets (now null; "
        "with --resume).",
    ]


def test_what_a_resumed_run_cannot_change_needs_a_new_one() -> None:
    """As config/load.py has it: where vLLM works is no part of a run, and how large its pictures are is."""
    last = told(MemoryError(), "render").splitlines()[-1]
    pixels = config().images.max_pixels
    assert f"lower images.max_pixels (now {pixels}; in a new run)" in last
    assert "lower model.vision_cache_gib (now 4.0; with --resume)." in last
    assert last.endswith("A new run begins from the model/ folder of the last checkpoint (model.path) if there is one.")
    assert _taken("supervision.deadline_s") == "with --resume"
    assert _taken("model.path") == "in a new run"


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
        "lower train.micro_batch_tokens (now 16384; with --resume)",
        "set or lower train.micro_batch_targets (now 64; with --resume)",
        "lower train.recompute_above_tokens (now 9; with --resume)",
    ]
    assert advice("rollout", config()) == [
        "lower rollout.batch_rows (now 256; with --resume)",
        "lower rollout.max_completion_tokens (now 1024; in a new run)",
        f"lower images.max_pixels (now {config().images.max_pixels}; in a new run)",
    ]
    assert advice("rollout", config(engine={"kind": "vllm"}))[:2] == [
        "lower engine.memory_fraction (now 0.45; with --resume)",
        "switch on engine.sleeps (now false; with --resume)",
    ]


@pytest.mark.parametrize("phase", _REMEDIES)
def test_every_phase_has_settings_that_help(phase: Phase) -> None:
    """Names of settings that do not exist would be an error."""
    assert len(advice(phase, config())) == 3
    assert len(advice(phase, config(engine={"kind": "vllm"}))) == 3
