"""The engine over HTTP where weights go from GPU to GPU: what the servers are told around the transfer."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mm_agrae.config.engine import EngineConfig
from mm_agrae.engines import vllm_fleet, vllm_server
from mm_agrae.engines.vllm_server import VllmServerEngine
from mm_agrae.errors import EngineError
from mm_agrae.policy.load import Policy
from mm_agrae.records import RenderedPrompt, Sampling
from tests.unit.engines.fake_vllm import Alone, FakeVllm
from tests.unit.engines.serving import Shared

SAMPLING = Sampling(num_completions=2, max_new_tokens=4)


class Transfer:
    """In the place of GpuTransfer, which needs GPUs: notes what is sent."""

    made: ClassVar[list[dict[str, Any]]] = []
    failing = False
    unmet = False

    def __init__(self, policy: Policy, servers: Any, *, kind: str, rank: int, url: str, num_workers: int) -> None:
        if self.unmet and rank == 0:
            raise ConnectionError("nobody came to the meeting")
        self.made.append(
            {"kind": kind, "rank": rank, "url": url, "num_workers": num_workers, "offsets": servers.offsets}
        )
        self.servers = servers

    def send(self, part: str, label: str) -> None:
        if self.failing:
            raise EngineError("the broadcast broke")
        for post in self.servers.posts:
            post("/start_weight_update", {})
            post("/finish_weight_update", {})
        self.made.append({"part": part, "label": label})

    def close(self) -> None:
        self.made.append({"closed": True})


@pytest.fixture
def fakes() -> Iterator[list[FakeVllm]]:
    servers = [FakeVllm(), FakeVllm()]
    for server in servers:
        server.match["backend"] = "nccl"
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def engine(
    fakes: list[FakeVllm], policy_of: Callable[[str], Policy], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> VllmServerEngine:
    monkeypatch.delenv("MM_AGRAE_VLLM_API_KEY", raising=False)
    monkeypatch.setattr(vllm_fleet, "FIRST_WAIT_S", 0.01)
    monkeypatch.setattr(vllm_server, "GpuTransfer", Transfer)
    monkeypatch.setattr(Transfer, "made", [])
    return VllmServerEngine(settings_for(fakes), policy_of("qwen2_5_vl"), folder=tmp_path, ranks=Alone(), log=print)


def settings_for(fakes: list[FakeVllm]) -> EngineConfig:
    urls = tuple(fake.url for fake in fakes)
    return EngineConfig(kind="vllm_server", base_urls=urls, sync="nccl", recover_timeout_s=0)


def test_servers_are_met_and_wait_while_weights_travel(engine: VllmServerEngine, fakes: list[FakeVllm]) -> None:
    assert Transfer.made == [
        {"kind": "nccl", "rank": 0, "url": fakes[0].url, "num_workers": 4, "offsets": [1, 3]},
        {"part": "all", "label": f"{engine.run}.0"},
    ]
    assert fakes[1].paths() == [
        "/version",
        "/collective_rpc",
        "/get_world_size",
        "/pause?mode=keep&clear_cache=true",
        "/start_weight_update",
        "/finish_weight_update",
        "/reset_prefix_cache?reset_running_requests=true",
        "/reset_encoder_cache",
        "/update_weight_version",
        "/resume",
        "/inference/v1/generate",
    ]
    assert not engine.folder.path.exists()


def test_an_update_sends_what_is_trained_and_completions_follow(
    engine: VllmServerEngine, fakes: list[FakeVllm], rendered: Callable[..., RenderedPrompt]
) -> None:
    engine.sync_weights(engine.policy, version=1)
    assert Transfer.made[-1] == {"part": "trained", "label": f"{engine.run}.1"}
    assert {fake.label for fake in fakes} == {f"{engine.run}.1"}
    prompts = [rendered(engine.policy, seed=seed) for seed in range(2)]
    assert len(engine.generate(prompts, SAMPLING, [[0, 1], [2, 3]])) == 2
    engine.close()
    assert Transfer.made[-1] == {"closed": True}


def test_a_server_that_lost_its_weights_ends_the_run(
    engine: VllmServerEngine, fakes: list[FakeVllm], rendered: Callable[..., RenderedPrompt]
) -> None:
    engine.fleet.recover_timeout_s = 30
    fakes[0].stop()
    fakes[0].start()
    with pytest.raises(EngineError, match=r"lost its weights, and engine\.sync=nccl cannot.*engine\.sync=files"):
        engine.generate([rendered(engine.policy)], SAMPLING, [[0, 1]])


def test_a_server_that_was_started_anew_gets_no_part_of_the_weights(
    engine: VllmServerEngine, fakes: list[FakeVllm]
) -> None:
    """It would hold the frozen ones of whatever it was started from."""
    fakes[1].stop()
    fakes[1].start()
    with pytest.raises(EngineError, match=r"lost its weights, and engine\.sync=nccl cannot.*engine\.sync=files"):
        engine.sync_weights(engine.policy, version=1)
    assert Transfer.made[-1] == {"part": "all", "label": f"{engine.run}.0"}
    assert fakes[1].label == "default"
    assert not fakes[1].paused


def test_servers_of_another_backend_are_not_met(
    engine: VllmServerEngine, fakes: list[FakeVllm], tmp_path: Path
) -> None:
    Transfer.made.clear()
    fakes[1].match["backend"] = "mm_agrae"
    with pytest.raises(EngineError, match=r"by mm_agrae, but engine\.sync sends them by nccl"):
        VllmServerEngine(settings_for(fakes), engine.policy, folder=tmp_path, ranks=Alone(), log=print)
    assert Transfer.made == []


def test_a_meeting_that_fails_on_the_main_process_ends_the_others(
    engine: VllmServerEngine, fakes: list[FakeVllm], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transfer, "unmet", True)
    said: list[Any] = []
    for rank, kind in ((0, ConnectionError), (1, EngineError)):
        ranks = Shared(said, rank=rank)
        with pytest.raises(kind, match="nobody came to the meeting"):
            VllmServerEngine(settings_for(fakes), engine.policy, folder=tmp_path, ranks=ranks, log=print)
    assert said == []


def test_all_servers_take_an_update_or_none(engine: VllmServerEngine, fakes: list[FakeVllm]) -> None:
    fakes[1].stop()
    with pytest.raises(EngineError, match="weights reach all servers or none"):
        engine.sync_weights(engine.policy, version=1)
    assert len(Transfer.made) == 2
    fakes[1].start()


def test_a_transfer_that_breaks_leaves_the_servers_paused(
    engine: VllmServerEngine, fakes: list[FakeVllm], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Transfer, "failing", True)
    with pytest.raises(EngineError, match="the broadcast broke"):
        engine.sync_weights(engine.policy, version=1)
    assert [fake.paused for fake in fakes] == [True, True]
