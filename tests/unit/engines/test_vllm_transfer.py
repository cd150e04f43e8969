"""Weights from GPU to GPU, as far as a CPU can see: the calls, the ranks, the bodies."""

import base64
import itertools
import pickle
import socket
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mm_agrae.engines import vllm_transfer
from mm_agrae.engines.vllm_sync import weight_shapes, weights_of
from mm_agrae.engines.vllm_transfer import GpuTransfer, Servers, WeightStream, as_json, meeting_point
from mm_agrae.errors import ConfigError, EngineError
from mm_agrae.policy.load import Policy
from tests.unit.engines.fake_llm import installed


class Recorder:
    """What one server is posted."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, Any]] = []

    def __call__(self, path: str, body: Any) -> None:
        self.posted.append((path, body))


@pytest.fixture
def listening() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def on_gpu(policy_of: Callable[[str], Policy], monkeypatch: pytest.MonkeyPatch) -> Iterator[Policy]:
    """A policy that says it is on CUDA, with weights that stay where they are."""
    policy = policy_of("qwen3")
    monkeypatch.setattr(Policy, "device", SimpleNamespace(type="cuda"))
    monkeypatch.setattr(WeightStream, "__iter__", lambda self: weights_of(self.policy, self.part))
    with installed(monkeypatch):
        yield policy


def test_nccl_gives_every_worker_of_every_server_a_rank_of_its_own(on_gpu: Policy, listening: str) -> None:
    recorders = [Recorder(), Recorder(), Recorder()]
    servers = Servers(recorders, [2, 1, 4])
    transfer = GpuTransfer(on_gpu, servers, kind="nccl", rank=0, url=listening, num_workers=7)
    transfer.send("all", "ab.5")
    infos = [recorder.posted[0][1]["init_info"] for recorder in recorders]
    assert [info["rank_offset"] for info in infos] == [1, 3, 4]
    assert {info["world_size"] for info in infos} == {8}
    assert {info["master_address"] for info in infos} == {"127.0.0.1"}
    for recorder in recorders:
        paths = ["/init_weight_transfer_engine", "/start_weight_update", "/update_weights", "/finish_weight_update"]
        assert [path for path, _ in recorder.posted] == paths
        assert recorder.posted[-1][1] == {"weight_version": "ab.5"}


def test_other_ranks_iterate_and_post_nothing(on_gpu: Policy, listening: str) -> None:
    recorder = Recorder()
    transfer = GpuTransfer(on_gpu, Servers([recorder], [1]), kind="nccl", rank=1, url=listening, num_workers=1)
    transfer.send("trained", "ab.6")
    assert recorder.posted == []
    assert transfer.engine.info.master_address == ""


@pytest.mark.parametrize("taken", [0, 3, None])
def test_where_sending_breaks_the_rest_is_gathered(
    taken: int | None, on_gpu: Policy, listening: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under sharding the other processes gather every weight of the update, and wait for this one in each."""
    transfer = GpuTransfer(on_gpu, Servers([Recorder()], [1]), kind="nccl", rank=0, url=listening, num_workers=1)
    gathered: list[str] = []

    def gather(policy: Policy, part: Any) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in weights_of(policy, part):
            gathered.append(name)
            yield name, tensor

    def send_weights() -> None:
        if taken != 0:
            list(itertools.islice(transfer.stream, taken))
        raise RuntimeError("NCCL")

    monkeypatch.undo()  # the stream's own iterator
    monkeypatch.setattr(vllm_transfer, "weights_of", gather)
    monkeypatch.setattr(Policy, "device", torch.device("cpu"))
    monkeypatch.setattr(transfer.engine, "send_weights", send_weights)
    for update in range(2):
        gathered.clear()
        with pytest.raises(EngineError, match="did not reach the servers from GPU to GPU: NCCL"):
            transfer.send("all", f"ab.{update}")
        assert gathered == list(weight_shapes(on_gpu))


def test_ipc_handles_are_pickled_for_the_body(on_gpu: Policy, listening: str) -> None:
    recorder = Recorder()
    transfer = GpuTransfer(on_gpu, Servers([recorder], [1]), kind="ipc", rank=0, url=listening, num_workers=1)
    assert transfer.engine.info.packed
    assert "rank_offset" in recorder.posted[0][1]["init_info"]
    transfer.send("all", "ab.7")
    body = dict(recorder.posted)["/update_weights"]["update_info"]
    assert pickle.loads(base64.b64decode(body["ipc_handles_pickled"])) == {"gpu": (1, b"2")}
    assert "ipc_handles" not in body


def test_a_body_without_handles_is_left_alone() -> None:
    assert as_json({"names": ["a"]}) == {"names": ["a"]}


def test_a_policy_on_a_cpu_is_refused(policy_of: Callable[[str], Policy]) -> None:
    with pytest.raises(ConfigError, match=r"engine\.sync is nccl, but the policy is on cpu.*engine\.sync=files"):
        GpuTransfer(policy_of("qwen3"), Servers([], []), kind="nccl", rank=0, url="", num_workers=0)


def test_the_stream_tells_what_it_will_send(policy_of: Callable[[str], Policy]) -> None:
    stream = WeightStream(policy_of("qwen3"))
    told = [(one.name, one.dtype, one.shape) for one in stream.metadata()]
    assert told == [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in stream]
    stream.begin("frozen")
    assert stream.metadata() == list(stream) == []


def test_the_meeting_point_is_where_the_server_sees_this_machine(listening: str) -> None:
    address, port = meeting_point(listening)
    assert address == "127.0.0.1"
    with socket.create_server((address, port)):
        pass


def test_a_refusal_by_one_server_is_told() -> None:
    def refuse(path: str, body: Any) -> None:
        raise RuntimeError(f"no {path}")

    with pytest.raises(RuntimeError, match="no /start_weight_update"):
        Servers([cast(Any, Recorder()), refuse], [1, 1]).start_weight_update()


def test_weights_go_to_the_device_of_the_policy(policy_of: Callable[[str], Policy]) -> None:
    policy = policy_of("qwen3")
    assert {tensor.device for _, tensor in WeightStream(policy)} == {torch.device("cpu")}
