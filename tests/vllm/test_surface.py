"""The stand-in for vLLM in the default tests has the names and signatures of the real one."""

import dataclasses
import importlib
import inspect
from typing import Any

import pytest
import vllm
from vllm.distributed.weight_transfer.base import VLLMWeightSyncClient, WeightSource
from vllm.distributed.weight_transfer.factory import WeightTransferTrainerFactory as RealTrainerFactory
from vllm.engine.arg_utils import EngineArgs

from mm_agrae.engines.vllm_contract import check_version
from mm_agrae.engines.vllm_transfer import Servers, WeightInfo, WeightStream
from tests.unit.engines.fake_llm import MODULES

NAMES = [(module, name) for module, content in MODULES.items() for name in content if name != "__version__"]


def methods(thing: Any) -> dict[str, Any]:
    """Public functions that the fake class itself defines, and how it is made."""
    own = {name: value for name, value in vars(thing).items() if inspect.isroutine(value) and not name.startswith("_")}
    return own | ({"__init__": thing.__init__} if "__init__" in vars(thing) else {})


def parameters(function: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


@pytest.mark.parametrize(("module", "name"), NAMES, ids=[f"{module}.{name}" for module, name in NAMES])
def test_every_name_and_argument_is_there(module: str, name: str) -> None:
    fake, real = MODULES[module][name], getattr(importlib.import_module(module), name)
    if not inspect.isclass(fake):
        assert parameters(fake).keys() <= parameters(real).keys() or "args" in parameters(real)
        return
    if dataclasses.is_dataclass(fake):
        assert {field.name for field in dataclasses.fields(fake)} <= parameters(real).keys()
    made_otherwise = dataclasses.is_dataclass(fake) or name in (
        "LLM",
        "LinearBase",
        "QKVParallelLinear",
        "ParallelLMHead",
    )
    for method in methods(fake):
        if method == "__init__" and made_otherwise:
            continue
        wanted, found = parameters(getattr(fake, method)), parameters(getattr(real, method))
        assert wanted.keys() <= found.keys(), f"{name}.{method}"


def test_the_engine_takes_our_arguments() -> None:
    fields = {field.name for field in dataclasses.fields(EngineArgs)}
    ours = {"max_num_seqs", "enable_sleep_mode", "logprobs_mode", "limit_mm_per_prompt", "mm_processor_cache_gb"}
    ours |= {"worker_extension_cls", "weight_transfer_config", "max_num_batched_tokens", "gpu_memory_utilization"}
    assert ours | {"distributed_executor_backend", "enforce_eager", "max_model_len"} <= fields
    assert "reset_encoder_cache" in dir(vllm.v1.engine.llm_engine.LLMEngine)
    check_version(vllm.__version__)


def test_the_trainer_side_takes_our_stream_and_our_servers() -> None:
    assert parameters(RealTrainerFactory.trainer_init).keys() == {"init_info", "client", "source"}
    assert isinstance(Servers([], []), VLLMWeightSyncClient)
    # What a backend that broadcasts calls of its source; the rest is for sources that are split over ranks.
    assert WeightSource.__abstractmethods__ <= set(dir(WeightStream))
    real = importlib.import_module("vllm.distributed.weight_transfer.base").ParamMeta
    assert {field.name for field in dataclasses.fields(real)} == {
        field.name for field in dataclasses.fields(WeightInfo)
    }
    for method in ("start_weight_update", "update_weights", "finish_weight_update", "init_weight_transfer_engine"):
        ours = parameters(getattr(Servers, method))
        assert ours.keys() == parameters(getattr(VLLMWeightSyncClient, method)).keys()
