"""What runs inside vLLM's worker, against a small stand-in for the package."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mm_agrae.engines.vllm_contract import BACKEND, file_digest
from mm_agrae.engines.vllm_sync import MISMATCHES
from tests.unit.engines.fake_llm import (
    LinearBase,
    ParallelLMHead,
    QKVParallelLinear,
    WeightTransferEngineFactory,
    installed,
    pack,
)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    with installed(monkeypatch):
        import mm_agrae.engines.vllm_worker as module

        yield module


class Fused(nn.Module):
    """q and k in one weight, a bias that is silently ignored when unknown, and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.qk = LinearBase(4, 2)
        self.qk.weight.weight_loader = self._load_half
        self.embed = nn.Parameter(torch.zeros(3, 2))
        self.lm_head = ParallelLMHead(self.embed)
        self.loading = False
        self.loaded: list[str] = []

    def _load_half(self, weight: Tensor, loaded: Tensor, shard: str) -> None:
        place = weight.data.narrow(0, 0 if shard == "q" else 2, 2)
        loaded = loaded.narrow(0, 0, 2)  # the first rows, if more come
        assert place.shape == loaded.shape
        place.copy_(loaded)

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in weights:
            self.loaded.append(name)
            if name in ("q", "k"):
                self.qk.weight.weight_loader(self.qk.weight, tensor, name)
            elif name == "embed":
                getattr(self.embed, "weight_loader", lambda weight, new: weight.data.copy_(new))(self.embed, tensor)
            elif not name.endswith(".bias"):
                raise ValueError(f"no parameter named {name}")


NOTHING: dict[str, list[str]] = {kind: [] for kind in MISMATCHES}
SHAPES = {"q": [2, 2], "k": [2, 2], "embed": [3, 2]}


def test_names_that_fill_every_weight_match(worker: ModuleType) -> None:
    model = Fused()
    loader = model.qk.weight.weight_loader
    assert worker.match(model, SHAPES) == NOTHING
    assert model.qk.weight.weight_loader == loader
    assert "weight_loader" not in vars(model.embed)
    assert not model.qk.weight.any()


def test_unknown_and_missing_names_are_told_apart(worker: ModuleType) -> None:
    # A bias that the model skips without a word is unknown too.
    shapes = {"q": [2, 2], "layers.0.bias": [2], "stranger": [1], "k": [2, 2]}
    found = worker.match(Fused(), shapes)
    assert found == NOTHING | {"unknown": ["layers.0.bias", "stranger"], "missing": ["embed"]}


def test_a_linear_layer_that_is_too_small_is_found(worker: ModuleType) -> None:
    """It would take the first rows and say nothing; its packed weight does not show how large it was."""
    model, larger = Fused(), SHAPES | {"k": [4, 2]}
    pack(model.qk)
    assert worker.match(model, SHAPES) == NOTHING
    assert worker.match(model, larger) == NOTHING | {"cut": ["qk.weight"]}
    model.qk.tp_size = 2  # another worker holds as much
    assert worker.match(model, larger)["cut"] == []


@pytest.mark.parametrize("packed", [False, True])
def test_layers_of_another_size_are_found(worker: ModuleType, packed: bool) -> None:
    """A linear layer whose rows do not come, one with other columns, and a plain weight."""
    model = Fused()
    if packed:
        pack(model.qk)
    assert worker.match(model, SHAPES | {"q": [1, 2]}) == NOTHING | {"misfit": ["qk.weight"]}
    assert worker.match(model, SHAPES | {"k": [2, 1]})["misfit"] == ["qk.weight"]
    assert worker.match(model, SHAPES | {"embed": [2, 2]}) == NOTHING | {"misfit": ["embed"]}


def test_experts_are_loaded_by_name(worker: ModuleType) -> None:
    model, said = Fused(), []

    def load_expert(param: Tensor, loaded_weight: Tensor, shard_id: str) -> bool:
        said.append((param.is_meta, shard_id))
        assert loaded_weight.shape == (2, 2)
        return True

    def load_weights(weights: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in weights:
            if name in "qk":
                model.qk.weight.weight_loader(param=model.qk.weight, loaded_weight=tensor, shard_id=name)
            else:
                model.embed.weight_loader(model.embed, tensor)

    model.qk.weight.weight_loader = load_expert
    model.load_weights = load_weights
    assert worker.match(model, SHAPES) == NOTHING
    assert said == [(True, "q"), (True, "k")]
    assert worker.match(model, SHAPES | {"k": [1, 2]})["misfit"] == ["qk.weight"]


def test_key_and_value_heads_that_several_workers_hold_count_once(worker: ModuleType) -> None:
    """4 workers, 8 query heads and 2 of keys and values each, of one row: every worker has 2 + 1 + 1 rows of 3."""
    layer = QKVParallelLinear(4, 3, output_sizes=[8, 4, 4], tp_size=4, num_kv_head_replicas=2)
    model = nn.ModuleDict({"qkv": layer})
    assert worker._room(model, worker._recorded(model)) == {id(layer.weight): (8 + 2 + 2) * 3}


def test_loaders_are_put_back_when_a_model_fails(worker: ModuleType) -> None:
    model = Fused()
    loader = model.qk.weight.weight_loader
    model.load_weights = lambda weights: 1 / 0
    with pytest.raises(ZeroDivisionError):
        worker.match(model, SHAPES)
    assert model.qk.weight.weight_loader == loader


@pytest.fixture
def engine(worker: ModuleType) -> Any:
    return WeightTransferEngineFactory._registry[BACKEND](None, None, torch.device("cpu"), Fused())


def written(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    tensors = {"q": torch.full((2, 2), 1.0), "k": torch.full((2, 2), 2.0), "embed": torch.full((3, 2), 3.0)}
    save_file(tensors, path)
    return tensors, {"path": str(path), "digest": file_digest(path)}


def assert_holds(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    assert torch.equal(model.qk.weight, torch.cat([tensors["q"], tensors["k"]]))
    assert torch.equal(model.embed, tensors["embed"])
    assert torch.equal(model.lm_head.packed, tensors["embed"])  # the copy that the tied head multiplies with
    assert not model.loading


def test_a_file_is_loaded_and_tied_heads_follow(engine: Any, tmp_path: Path) -> None:
    tensors, info = written(tmp_path / "weights.safetensors")
    engine.start_weight_update()
    engine.update_weights(info)
    engine.finish_weight_update()
    assert_holds(engine.model, tensors)
    assert engine.received == {"digests": [info["digest"]], "num_weights": 3}


def test_weights_in_memory_are_loaded_one_by_one(engine: Any, tmp_path: Path) -> None:
    tensors, _ = written(tmp_path / "weights.safetensors")
    seen = []

    def stream() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in tensors.items():
            seen.append((name, list(engine.model.loaded)))
            yield name, tensor

    engine.start_weight_update()
    engine.update_weights({"weights": stream()})
    engine.finish_weight_update()
    assert_holds(engine.model, tensors)
    assert seen == [("q", []), ("k", ["q"]), ("embed", ["q", "k"])]
    assert engine.received == {"digests": [], "num_weights": 3}


def test_a_file_that_is_not_the_one_announced_changes_nothing(engine: Any, tmp_path: Path) -> None:
    _, info = written(tmp_path / "weights.safetensors")
    content = bytearray(Path(info["path"]).read_bytes())
    content[-1] ^= 1
    Path(info["path"]).write_bytes(content)
    for wrong, told in ((info, "was announced"), (info | {"path": str(tmp_path / "none")}, "No such file")):
        engine.start_weight_update()
        with pytest.raises((ValueError, OSError), match=told):
            engine.update_weights(wrong)
        assert not engine.model.loading
        assert not engine.model.qk.weight.any()


def test_weights_that_break_off_leave_no_open_update(engine: Any, tmp_path: Path) -> None:
    tensors, info = written(tmp_path / "weights.safetensors")
    engine.start_weight_update()
    with pytest.raises(ValueError, match="no parameter named stranger"):
        engine.update_weights({"weights": [("q", tensors["q"]), ("stranger", torch.ones(1))]})
    assert not engine.model.loading
    engine.start_weight_update()
    engine.update_weights(info)
    engine.finish_weight_update()
    assert_holds(engine.model, tensors)


def test_the_methods_of_the_worker_answer_for_its_model(worker: ModuleType, engine: Any) -> None:
    class Worker(worker.WeightExtension):
        weight_transfer_engine = engine

        class model_runner:  # noqa: N801 - vLLM's name
            get_model = staticmethod(lambda: engine.model)
            model_config = SimpleNamespace(
                multimodal_config=SimpleNamespace(mm_device_do_normalize=True), max_model_len=64
            )

        vllm_config = SimpleNamespace(
            weight_transfer_config=SimpleNamespace(backend="nccl"),
            scheduler_config=SimpleNamespace(max_num_seqs=2, max_num_batched_tokens=127),
            device_config=SimpleNamespace(device_type="cpu"),
        )

    engine.start_weight_update()
    engine.update_weights({"weights": [("q", torch.ones(2, 2))]})
    assert Worker().mm_agrae_received() == {"digests": [], "num_weights": 1}
    found = Worker().mm_agrae_match({"q": [2, 2]})
    told = {"normalizes": True, "backend": "nccl", "tokens_needed": 128}
    assert found == NOTHING | {"missing": ["embed"]} | told
    Worker.model_runner.model_config.multimodal_config = None  # of a model that takes text only
    Worker.vllm_config.scheduler_config.max_num_batched_tokens = 128
    Worker.vllm_config.weight_transfer_config = None
    assert Worker().mm_agrae_match(SHAPES) == NOTHING | {"normalizes": False, "backend": None, "tokens_needed": 0}
    Worker.vllm_config.scheduler_config.max_num_batched_tokens = 100
    Worker.vllm_config.device_config.device_type = "cuda"  # where prompts may be cut
    assert Worker().mm_agrae_match(SHAPES)["tokens_needed"] == 0
