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
from tests.unit.engines.fake_llm import LinearBase, ParallelLMHead, WeightTransferEngineFactory, installed


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
        weight.data[slice(0, 2) if shard == "q" else slice(2, 4)] = loaded

    def load_weights(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        for name, tensor in weights:
            self.loaded.append(name)
            if name in ("q", "k"):
                self.qk.weight.weight_loader(self.qk.weight, tensor, name)
            elif name == "embed":
                getattr(self.embed, "weight_loader", lambda weight, new: weight.data.copy_(new))(self.embed, tensor)
            elif not name.endswith(".bias"):
                raise ValueError(f"no parameter named {name}")


SHAPES = {"q": [2, 2], "k": [2, 2], "embed": [3, 2]}


def test_names_that_fill_every_weight_match(worker: ModuleType) -> None:
    model = Fused()
    loader = model.qk.weight.weight_loader
    assert worker.match(model, SHAPES) == {"unknown": [], "missing": [], "cut": []}
    assert model.qk.weight.weight_loader == loader
    assert "weight_loader" not in vars(model.embed)
    assert not model.qk.weight.any()


def test_unknown_and_missing_names_are_told_apart(worker: ModuleType) -> None:
    # A bias that the model skips without a word is unknown too.
    shapes = {"q": [2, 2], "layers.0.bias": [2], "stranger": [1], "k": [2, 2]}
    found = worker.match(Fused(), shapes)
    assert found == {"unknown": ["layers.0.bias", "stranger"], "missing": ["embed"], "cut": []}


def test_a_linear_layer_that_is_too_small_is_found(worker: ModuleType) -> None:
    """It would take the first rows and say nothing; its packed weight does not show how large it was."""
    model, larger = Fused(), SHAPES | {"k": [4, 2]}
    model.qk.weight.data = torch.empty(0)
    assert worker.match(model, SHAPES)["cut"] == []
    assert worker.match(model, larger)["cut"] == ["qk.weight"]
    model.qk.tp_size = 2  # another worker holds as much
    assert worker.match(model, larger)["cut"] == []


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
            model_config = SimpleNamespace(multimodal_config=SimpleNamespace(mm_device_do_normalize=True))

    engine.start_weight_update()
    engine.update_weights({"weights": [("q", torch.ones(2, 2))]})
    assert Worker().mm_agrae_received() == {"digests": [], "num_weights": 1}
    found = Worker().mm_agrae_match({"q": [2, 2]})
    assert found == {"unknown": [], "missing": ["embed"], "cut": [], "normalizes": True}
    Worker.model_runner.model_config.multimodal_config = None  # of a model that takes text only
    assert not Worker().mm_agrae_match({"q": [2, 2]})["normalizes"]
