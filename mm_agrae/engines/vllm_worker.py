"""What runs inside vLLM's worker: it loads weights from a file or from memory, and says what it cannot serve.

vLLM imports this module when it is started with `--worker-extension-cls mm_agrae.engines.vllm_worker.WeightExtension`,
and that registers the transfer backend. Written against vLLM 0.32, vllm/distributed/weight_transfer/base.py.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.linear import LinearBase, QKVParallelLinear
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload
from vllm.model_executor.model_loader.reload.layerwise import _get_original_loader, get_layerwise_info
from vllm.model_executor.model_loader.reload.meta import to_meta_tensor
from vllm.model_executor.model_loader.reload.sanitize import restore_layer_refs

from mm_agrae.engines.vllm_contract import BACKEND, file_digest


@dataclass
class NoMeeting(WeightTransferInitInfo):
    """Files and memory need no meeting point."""


@dataclass
class HandOver(WeightTransferUpdateInfo):
    """Where new weights are.

    Attributes:
        path: A safetensors file, and
        digest: what it must hash to; or
        weights: the weights themselves, in the engine's own process.
    """

    path: str | None = None
    digest: str | None = None
    weights: Iterable[tuple[str, Tensor]] | None = None


class HandOverEngine(WeightTransferEngine):
    """Loads weights by the model's own rules, layer by layer, into the memory of the old ones."""

    init_info_cls = NoMeeting
    update_info_cls = HandOver

    def init_transfer_engine(self, init_info: NoMeeting) -> None:
        """Nothing to prepare."""

    def start_weight_update(self) -> None:
        self.received: dict[str, Any] = {"digests": [], "num_weights": 0}
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: HandOver) -> None:
        try:
            weights = self._opened(update_info) if update_info.weights is None else update_info.weights
            with torch.no_grad():
                self.model.load_weights(self._counted(weights))
        except Exception:
            # Layers that nothing has come for get their old weights back, and the next update finds none open.
            self.finish_weight_update()
            raise

    def finish_weight_update(self) -> None:
        with _quiet_about_frozen_layers():
            finalize_layerwise_reload(self.model, self.model_config)
        refresh_heads(self.model)

    def shutdown(self) -> None:
        """Nothing is held."""

    def _opened(self, update_info: HandOver) -> Iterable[tuple[str, Tensor]]:
        path = Path(str(update_info.path))
        digest = file_digest(path)
        if digest != update_info.digest:
            raise ValueError(f"{path} hashes to {digest}, but {update_info.digest} was announced")
        self.received["digests"].append(digest)
        return _read(path)

    def _counted(self, weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in weights:
            self.received["num_weights"] += 1
            yield name, tensor


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        for name in file.keys():  # noqa: SIM118 - no dict
            yield name, file.get_tensor(name)


@contextlib.contextmanager
def _quiet_about_frozen_layers() -> Iterator[None]:
    """vLLM warns of every layer that got no weights; frozen ones get none."""
    log = logging.getLogger("vllm.model_executor.model_loader.reload.layerwise")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def refresh_heads(model: nn.Module) -> None:
    """Let every language-model head prepare its weight anew.

    On a CPU a head multiplies with a packed copy. One that is tied to the embedding loads nothing itself, so the
    update does not reach its copy.
    """
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


class WeightExtension:
    """Methods that vLLM's worker gets, called through collective_rpc."""

    def mm_agrae_match(self, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
        """What keeps this engine from serving weights of these names and shapes; nothing is loaded.

        Returns:
            "unknown": names that the model has no place for. "missing": weights of it that no name fills. "cut": layers
            that would take a part of what comes. "misfit": those that take nothing of that shape. "normalizes": whether
            it normalises patches itself. "backend": by which it takes weights. "tokens_needed": of a batch, where the
            engine was started for fewer and would die of a prompt that it cuts in two; else 0.
        """
        runner, config = self.model_runner, self.vllm_config  # type: ignore[attr-defined]
        pictures, transfer = runner.model_config.multimodal_config, config.weight_transfer_config
        batch = config.scheduler_config
        needed = batch.max_num_seqs * runner.model_config.max_model_len
        # Only on a CPU: there vLLM cannot take back what it draws for a seeded prompt whose end is still to come.
        dies = config.device_config.device_type == "cpu" and batch.max_num_batched_tokens < needed
        return match(runner.get_model(), shapes) | {
            "normalizes": pictures is not None and bool(pictures.mm_device_do_normalize),
            "backend": transfer and transfer.backend,
            "tokens_needed": needed if dies else 0,
        }

    def mm_agrae_received(self) -> dict[str, Any]:
        """Of the last update: the digests of the files that were read, and how many weights were loaded."""
        return dict(self.weight_transfer_engine.received)  # type: ignore[attr-defined]


@dataclass
class Notes:
    """What came for the weights of a model, by the id of each.

    Attributes:
        filled: Elements that came.
        refused: Weights whose own loaders do not take that shape.
    """

    filled: Counter[int] = field(default_factory=Counter)
    refused: set[int] = field(default_factory=set)


def match(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> dict[str, list[str]]:
    """See WeightExtension.mm_agrae_match. Every name goes the model's own way, to loaders that only take note."""
    weights = dict(model.named_parameters())
    dtype = next(iter(weights.values())).dtype
    recorded, notes, unknown = _recorded(model), Notes(), []
    with torch.no_grad(), _noting(weights.values(), recorded, notes):
        for name, shape in shapes.items():
            before = notes.filled.total()
            with contextlib.suppress(KeyError, ValueError):  # how models say that they know no such name
                model.load_weights([(name, torch.empty(tuple(shape), dtype=dtype, device="meta"))])  # type: ignore[operator]
            if notes.filled.total() == before:
                unknown.append(name)
    room = _room(model, recorded)
    return {
        "unknown": unknown,
        "missing": [name for name, weight in weights.items() if id(weight) not in notes.filled],
        "cut": [name for name, weight in weights.items() if notes.filled[id(weight)] > room.get(id(weight), math.inf)],
        "misfit": [name for name, weight in weights.items() if id(weight) in notes.refused],
    }


def _recorded(model: nn.Module) -> dict[int, Tensor]:
    """The weights as they were before packing, without content and with the loaders that they had, by id.

    On a CPU packing empties the weights of linear layers, and takes the loaders of experts away.
    """
    return {
        id(weight): restore_layer_refs(
            to_meta_tensor(get_layerwise_info(layer).restore_metadata[0].get(name, weight)), layer
        )
        for layer in model.modules()
        for name, weight in layer.named_parameters(recurse=False)
    }


def _room(model: nn.Module, recorded: Mapping[int, Tensor]) -> dict[int, Fraction]:
    """Elements that the weights of linear layers hold in all their shards, by id.

    These layers cut their shard out of what comes, and would take the first rows of a weight that is too large without
    a word. All other loaders, and theirs where too little comes, refuse by themselves.
    """
    return {
        id(weight): recorded[id(weight)].numel() * _shards(layer)
        for layer in model.modules()
        if isinstance(layer, LinearBase)
        for weight in layer.parameters(recurse=False)
    }


def _shards(layer: LinearBase) -> Fraction:
    """How many times its elements a layer has in all workers, where no element counts twice.

    With fewer key and value heads than workers, several workers hold the same one.
    """
    if not isinstance(layer, QKVParallelLinear):
        return Fraction(layer.tp_size)
    query, *copied = layer.output_sizes
    return layer.tp_size * (query + Fraction(sum(copied), layer.num_kv_head_replicas)) / (query + sum(copied))


@contextlib.contextmanager
def _noting(weights: Iterable[Any], recorded: Mapping[int, Tensor], notes: Notes) -> Iterator[None]:
    """Give every weight a loader that tries the weight's own on what is recorded of it, and changes nothing."""

    # Layers of experts name these two; the rest is for the weight's own loader.
    def noting_loader(param: Tensor, loaded_weight: Tensor, *rest: object, **named: object) -> bool:
        notes.filled[id(param)] += loaded_weight.numel()
        like = recorded[id(param)]
        try:
            _get_original_loader(like)(like, loaded_weight, *rest, **named)
        except Exception as error:  # whatever a loader says of a shape
            if "meta tensor" not in str(error):  # and not of weights without content, which come here alone
                notes.refused.add(id(param))
        return True

    kept: list[tuple[Any, Callable | None]] = []
    try:
        for weight in weights:
            # vLLM's own kind of parameter keeps its loader behind a property.
            kept.append((weight, vars(weight).get("weight_loader") or vars(weight).get("_weight_loader")))
            weight.weight_loader = noting_loader
        yield
    finally:
        for weight, loader in kept:
            if loader is None:
                del weight.weight_loader
            else:
                weight.weight_loader = loader


WeightTransferEngineFactory.register_engine(BACKEND, HandOverEngine)
