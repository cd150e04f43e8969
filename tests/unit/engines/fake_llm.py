"""The part of vLLM that the engine in process and the worker touch, small enough to read.

`installed` puts it in the place of the package. tests/vllm holds the names and signatures in MODULES against the real
one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from mm_agrae.config.schema import ModelConfig
from mm_agrae.policy.load import load_policy

# --- vllm.distributed.weight_transfer -------------------------------------------------------------------------------


@dataclass
class WeightTransferInitInfo:
    pass


@dataclass
class WeightTransferUpdateInfo:
    pass


class WeightTransferEngine:
    init_info_cls: type
    update_info_cls: type

    def __init__(self, config: Any, vllm_config: Any, device: torch.device, model: nn.Module) -> None:
        self.model, self.model_config = model, None

    def update_weights(self, update_info: dict[str, Any]) -> None:
        self.receive_weights(self.update_info_cls(**update_info))  # type: ignore[attr-defined]


class WeightTransferEngineFactory:
    _registry: ClassVar[dict[str, type[WeightTransferEngine]]] = {}

    @classmethod
    def register_engine(cls, name: str, module_path_or_cls: type) -> None:
        cls._registry[name] = module_path_or_cls


@dataclass
class NCCLTrainerInitInfo:
    master_address: str
    master_port: int
    world_size: int
    rank: int = field(kw_only=True)


@dataclass
class IPCTrainerInitInfo:
    packed: bool = False
    rank: int = field(kw_only=True)


class TrainerEngine:
    """Drives its client as vLLM's do; only rank 0 talks."""

    def __init__(self, info: Any, client: Any, source: Any) -> None:
        self.info, self.client, self.source = info, client, source
        if info.rank == 0:
            client.init_weight_transfer_engine(asdict(info) | {"rank_offset": 1})

    def send_weights(self) -> None:
        promised = self.source.metadata()
        sent = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in self.source]
        assert sent == [(one.name, one.dtype, one.shape) for one in promised]
        if self.info.rank == 0:
            self.client.start_weight_update()
            handles = {"names": [name for name, _, _ in sent], "ipc_handles": {"gpu": (1, b"2")}}
            self.client.update_weights(handles)
            self.client.finish_weight_update()

    def shutdown(self) -> None:
        pass


class WeightTransferTrainerFactory:
    @classmethod
    def trainer_init(cls, init_info: Any, *, client: Any, source: Any = None) -> TrainerEngine:
        return TrainerEngine(init_info, client, source)


# --- vllm.model_executor --------------------------------------------------------------------------------------------


class LinearBase(nn.Module):
    """A linear layer of tp_size shards that cuts its own out of what comes."""

    def __init__(self, *shape: int, tp_size: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(*shape))
        self.tp_size = tp_size


class QKVParallelLinear(LinearBase):
    """Rows of queries, keys and values, of which several shards may hold the same."""

    def __init__(self, *shape: int, output_sizes: list[int], tp_size: int, num_kv_head_replicas: int) -> None:
        super().__init__(*shape, tp_size=tp_size)
        self.output_sizes, self.num_kv_head_replicas = output_sizes, num_kv_head_replicas


def pack(layer: LinearBase) -> None:
    """As vLLM does after loading on a CPU: a record is left of the weight, and nothing in it."""
    layer.record = to_meta_tensor(layer.weight)
    layer.weight.data = torch.empty(0)


def get_layerwise_info(layer: Any) -> Any:
    return SimpleNamespace(restore_metadata=({"weight": layer.record} if "record" in vars(layer) else {}, {}))


def to_meta_tensor(tensor: Tensor) -> Tensor:
    meta = tensor.data.to("meta")
    vars(meta).update(vars(tensor))
    return meta


def restore_layer_refs(tensor: Tensor, layer: nn.Module) -> Tensor:
    return tensor


def default_weight_loader(param: Tensor, loaded_weight: Tensor) -> None:
    assert param.shape == loaded_weight.shape
    param.data.copy_(loaded_weight)


def _get_original_loader(tensor: Tensor) -> Any:
    return vars(tensor).get("weight_loader", default_weight_loader)


class Packing:
    """A head on a CPU multiplies with a copy of its weight."""

    def process_weights_after_loading(self, layer: nn.Module) -> None:
        layer.packed = layer.weight.detach().clone()


class ParallelLMHead(nn.Module):
    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight
        self.quant_method = Packing()
        self.quant_method.process_weights_after_loading(self)


def initialize_layerwise_reload(model: nn.Module) -> None:
    assert not model.loading
    model.loading = True


def finalize_layerwise_reload(model: nn.Module, model_config: Any = None) -> None:
    assert model.loading
    model.loading = False


class Model(nn.Module):
    """A transformers model that loads as vLLM's do: every weight by its own loader, unknown names refused."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.inner = load_policy(ModelConfig(path=path, device="cpu"), trained=False).inner
        self.lm_head = ParallelLMHead(self.inner.get_output_embeddings().weight)
        self.loading = False

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        held = dict(self.inner.named_parameters())
        for name, tensor in weights:
            if name not in held:
                raise ValueError(f"There is no module or parameter named {name!r}")
            loader = getattr(held[name], "weight_loader", None)
            if loader is None:
                assert self.loading
                held[name].copy_(tensor)
            else:
                loader(held[name], tensor)


# --- vllm, vllm.inputs, vllm.multimodal.inputs, vllm.sampling_params ------------------------------------------------


class RequestOutputKind:
    FINAL_ONLY = "final only"


@dataclass
class SamplingParams:
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    logprobs: int | None = None
    detokenize: bool = True
    output_kind: str = ""
    stop_token_ids: list[int] | None = None
    logit_bias: dict[int, float] | None = None


def tokens_input(prompt_token_ids: list[int]) -> dict[str, Any]:
    return {"type": "token", "prompt_token_ids": prompt_token_ids}


def mm_input(prompt_token_ids: list[int], mm_kwargs: Any, mm_hashes: Any, mm_placeholders: Any) -> dict[str, Any]:
    pictures = {"mm_kwargs": mm_kwargs, "mm_hashes": mm_hashes, "mm_placeholders": mm_placeholders}
    return {"type": "multimodal", "prompt_token_ids": prompt_token_ids} | pictures


class MultiModalFieldConfig:
    @staticmethod
    def flat_from_sizes(modality: str, size_per_item: Tensor) -> Any:
        return lambda batch: batch.split(size_per_item.tolist())

    @staticmethod
    def batched(modality: str, *, keep_on_cpu: bool = False) -> Any:
        return list


class MultiModalKwargsItems:
    @staticmethod
    def from_hf_inputs(hf_inputs: Any, config_by_key: Any) -> list[dict[str, Tensor]]:
        parts = {key: config_by_key[key](hf_inputs[key]) for key in config_by_key}
        return [dict(zip(parts, item, strict=True)) for item in zip(*parts.values(), strict=True)]


@dataclass
class PlaceholderRange:
    offset: int
    length: int


class LLM:
    """An engine that answers every prompt with `answer` and notes what is done to it in `calls`.

    Attributes:
        answer: Ids of every completion.
        logprob: Of each of them.
        asked: (input, parameters) of every request that waits; requests: of those answered last.
        fault: Changes what comes back; for tests.
    """

    def __init__(self, **arguments: Any) -> None:
        self.arguments = arguments
        self.calls: list[Any] = []
        self.asked: list[tuple[dict[str, Any], SamplingParams]] = []
        self.requests = self.asked
        self.answer: tuple[int, ...] = ()
        self.logprob = -1.0
        self.version = "default"
        self.fault: Any = lambda outputs: outputs
        self.model = Model(arguments["model"])
        module, _, name = arguments["worker_extension_cls"].rpartition(".")
        extension = getattr(__import__(module, fromlist=[name]), name)
        backend = WeightTransferEngineFactory._registry[arguments["weight_transfer_config"]["backend"]]
        self.worker = extension()
        said = SimpleNamespace(**arguments)
        model_config = SimpleNamespace(multimodal_config=said, max_model_len=said.max_model_len)
        self.worker.model_runner = SimpleNamespace(get_model=lambda: self.model, model_config=model_config)
        self.worker.vllm_config = SimpleNamespace(
            weight_transfer_config=SimpleNamespace(**said.weight_transfer_config),
            scheduler_config=said,
            device_config=SimpleNamespace(device_type="cpu"),
        )
        self.worker.weight_transfer_engine = backend(None, None, torch.device("cpu"), self.model)
        self.llm_engine = SimpleNamespace(
            add_request=self._add_request,
            reset_encoder_cache=lambda: self.calls.append("reset encoder"),
            engine_core=SimpleNamespace(shutdown=lambda: self.calls.append("shutdown")),
        )

    def _add_request(self, request_id: str, prompt: dict[str, Any], params: SamplingParams) -> str:
        assert request_id == str(len(self.asked))
        self.asked.append((prompt, params))
        return request_id

    def wait_for_completion(self, *, use_tqdm: bool = True) -> list[Any]:
        self.calls.append("generate")
        self.requests, self.asked = self.asked, []
        outputs = [self._output(str(n), prompt, params) for n, (prompt, params) in enumerate(self.requests)]
        return self.fault(outputs)

    def _output(self, request_id: str, prompt: dict[str, Any], params: SamplingParams) -> Any:
        ids = list(self.answer)
        output = {
            "token_ids": ids,
            "logprobs": [{token: SimpleNamespace(logprob=self.logprob)} for token in ids],
            "finish_reason": "stop",
            "weight_versions": [SimpleNamespace(version=self.version, start=0, end=len(ids))],
        }
        outputs = [SimpleNamespace(index=index, **output) for index in reversed(range(params.n))]
        return SimpleNamespace(
            request_id=request_id, prompt_token_ids=list(prompt["prompt_token_ids"]), outputs=outputs
        )

    def collective_rpc(self, method: str, timeout: float | None = None, args: tuple = (), kwargs: Any = None) -> list:
        return [getattr(self.worker, method)(*args)]

    def start_weight_update(self) -> None:
        self.calls.append("start")
        self.worker.weight_transfer_engine.start_weight_update()

    def update_weights(self, request: dict[str, Any]) -> None:
        self.worker.weight_transfer_engine.update_weights(request["update_info"])

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        self.worker.weight_transfer_engine.finish_weight_update()
        self.calls.append("finish")
        self.version = weight_version or self.version

    def get_weight_version(self) -> str:
        return self.version

    def reset_prefix_cache(self, reset_running_requests: bool = False, reset_connector: bool = False) -> bool:
        self.calls.append("reset prefix")
        return True

    def sleep(self, level: int = 1, mode: str = "abort") -> None:
        self.calls.append(f"sleep {level}")

    def wake_up(self, tags: list[str] | None = None) -> bool:
        self.calls.append(f"wake {tags}")
        return True


MODULES: dict[str, dict[str, Any]] = {
    "vllm": {"LLM": LLM, "SamplingParams": SamplingParams, "__version__": "0.32.0"},
    "vllm.inputs": {"tokens_input": tokens_input, "mm_input": mm_input},
    "vllm.multimodal": {},
    "vllm.multimodal.inputs": {
        "MultiModalFieldConfig": MultiModalFieldConfig,
        "MultiModalKwargsItems": MultiModalKwargsItems,
        "PlaceholderRange": PlaceholderRange,
    },
    "vllm.sampling_params": {"RequestOutputKind": RequestOutputKind},
    "vllm.distributed": {},
    "vllm.distributed.weight_transfer": {"WeightTransferTrainerFactory": WeightTransferTrainerFactory},
    "vllm.distributed.weight_transfer.base": {
        "WeightTransferEngine": WeightTransferEngine,
        "WeightTransferInitInfo": WeightTransferInitInfo,
        "WeightTransferUpdateInfo": WeightTransferUpdateInfo,
    },
    "vllm.distributed.weight_transfer.factory": {"WeightTransferEngineFactory": WeightTransferEngineFactory},
    "vllm.distributed.weight_transfer.nccl_engine": {"NCCLTrainerInitInfo": NCCLTrainerInitInfo},
    "vllm.distributed.weight_transfer.ipc_engine": {"IPCTrainerInitInfo": IPCTrainerInitInfo},
    "vllm.model_executor": {},
    "vllm.model_executor.layers": {},
    "vllm.model_executor.layers.linear": {
        "LinearBase": LinearBase,
        "QKVParallelLinear": QKVParallelLinear,
    },
    "vllm.model_executor.layers.vocab_parallel_embedding": {"ParallelLMHead": ParallelLMHead},
    "vllm.model_executor.model_loader": {},
    "vllm.model_executor.model_loader.reload": {
        "initialize_layerwise_reload": initialize_layerwise_reload,
        "finalize_layerwise_reload": finalize_layerwise_reload,
    },
    "vllm.model_executor.model_loader.reload.layerwise": {
        "_get_original_loader": _get_original_loader,
        "get_layerwise_info": get_layerwise_info,
    },
    "vllm.model_executor.model_loader.reload.meta": {"to_meta_tensor": to_meta_tensor},
    "vllm.model_executor.model_loader.reload.sanitize": {"restore_layer_refs": restore_layer_refs},
}


@contextmanager
def installed(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The fake in the place of the package; what was imported beside it is forgotten afterwards."""
    worker = "mm_agrae.engines.vllm_worker"
    for name, content in MODULES.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    monkeypatch.delitem(sys.modules, worker, raising=False)
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "1")
    yield sys.modules["vllm"]
    sys.modules.pop(worker, None)
    package = sys.modules["mm_agrae.engines"]
    vars(package).pop("vllm_worker", None)
    WeightTransferEngineFactory._registry.clear()
