"""The engine over HTTP where a server fails midway, refuses for good, or answers like another program."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_agrae.config.engine import EngineConfig
from mm_agrae.engines import vllm_server
from mm_agrae.engines.vllm_folder import HandoverFolder
from mm_agrae.engines.vllm_requests import GENERATE
from mm_agrae.engines.vllm_server import VllmServerEngine
from mm_agrae.errors import EngineError
from tests.unit.engines.fake_vllm import FakeVllm, RefusedError
from tests.unit.engines.serving import KEY, SAMPLING, Setup, Shared


def once(path: str, status: int) -> Callable[[str, dict], None]:
    """The first request of that path fails."""
    failed: list[str] = []

    def before(came: str, body: dict) -> None:
        if came == path and not failed:
            failed.append(came)
            raise RefusedError(status, "busy")

    return before


def test_a_server_whose_resume_failed_is_resumed(setup: Setup) -> None:
    engine = setup.engine(request_timeout_s=2, recover_timeout_s=2)
    expected = setup.generate(engine)
    setup.fake.stop()
    setup.fake.start()  # so it gets its weights between two updates
    setup.fake.before = once("/resume", 500)
    assert setup.generate(engine) == expected
    assert not setup.fake.paused


def test_a_server_that_comes_back_with_another_view_of_pictures_is_refused(setup: Setup) -> None:
    engine = setup.engine(request_timeout_s=2, recover_timeout_s=2)
    setup.generate(engine)
    setup.fake.stop()
    setup.fake.match["normalizes"] = True
    setup.fake.start()
    with pytest.raises(EngineError, match="would normalise pictures"):
        setup.generate(engine)


@pytest.mark.parametrize("path", [GENERATE, "/resume"])
def test_a_server_is_probed_before_it_counts_as_ready(setup: Setup, path: str) -> None:
    setup.fake.logprobs_mode = "raw_logprobs"
    setup.fake.before = once(path, 503)
    with pytest.raises(EngineError, match="processed_logprobs"):
        setup.engine()


def test_weights_that_change_between_two_answers_are_told_by_token(setup: Setup) -> None:
    engine = setup.engine()
    answered, synced = threading.Event(), threading.Event()
    late = setup.prompts[1].token_ids

    def sync_between(path: str, body: dict, answer: Any) -> Any:
        if path == GENERATE and tuple(body["token_ids"]) == setup.prompts[0].token_ids:
            answered.set()
        if path == GENERATE and tuple(body["token_ids"]) == late:
            synced.wait(5)  # it was sampled before, and arrives after
        return answer

    def sync() -> None:
        answered.wait(5)
        engine.sync_weights(setup.policy, version=1)
        synced.set()

    setup.fake.spoil = sync_between
    other = threading.Thread(target=sync)
    other.start()
    groups = engine.generate(setup.prompts[:2], SAMPLING, [[0, 1], [2, 3]])
    other.join()
    told = [set(one.weights_versions or (engine.weights_version,)) for group in groups for one in group]
    assert told[2:] == [{0}, {0}]
    assert told[0] == {0}


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/update_weights", r"busy.*refuse again\. Does it see .*trained-.*engine\.sync_folder"),
        ("/collective_rpc", r"busy.*refuse again\. Start it by scripts/serve_vllm\.sh"),
    ],
)
def test_a_server_that_lives_and_refuses_is_not_waited_for(setup: Setup, path: str, told: str) -> None:
    setup.fake.before = once(path, 500)
    with pytest.raises(EngineError, match=told):
        setup.engine()
    assert setup.told == []


def test_a_server_that_dies_over_new_weights_is_waited_for(setup: Setup) -> None:
    deaths: list[str] = []

    def before(path: str, body: dict) -> None:
        if (path == "/update_weights" and not deaths) or len(deaths) == 1:
            deaths.append(path)
            raise RefusedError(500, "EngineDeadError")

    setup.fake.before = before
    setup.engine()
    assert deaths == ["/update_weights", "/weight_info"]


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/weight_info", {}),
        ("/version", ["0.32.0"]),
        ("/collective_rpc", {"results": None}),
        (GENERATE, {"choices": []}),
    ],
)
def test_a_reply_without_what_is_asked_for_names_server_and_path(setup: Setup, path: str, answer: Any) -> None:
    setup.fake.spoil = lambda came, body, given: answer if came == path else given
    with pytest.raises(EngineError, match=rf"{setup.fake.url} answers {path} without "):
        setup.engine()


def test_a_model_that_does_not_match_is_left_running(setup: Setup) -> None:
    setup.fake.match["unknown"] = ["model.layers.9.mlp.weight"]
    with pytest.raises(EngineError, match="has no place for"):
        setup.engine()
    assert not setup.fake.paused


@pytest.mark.parametrize("error", [EngineError("the disk is full"), MemoryError("the disk is full")])
def test_weights_that_cannot_be_written_fail_every_process(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    settings = EngineConfig(kind="vllm_server", base_urls=(setup.fake.url,), recover_timeout_s=0)
    said: list[Any] = []
    write = vllm_server.write_weights

    def fail(*arguments: Any, is_main: bool, **named: Any) -> Any:
        if is_main:
            raise error
        return write(*arguments, is_main=is_main, **named)

    monkeypatch.setattr(vllm_server, "write_weights", fail)
    for rank, kind in ((0, type(error)), (1, EngineError)):
        with pytest.raises(kind, match="the disk is full"):
            VllmServerEngine(settings, setup.policy, folder=setup.folder, ranks=Shared(said, rank=rank), log=setup.log)
    assert said == []


def test_an_engine_that_cannot_start_leaves_no_file(setup: Setup) -> None:
    setup.fake.logprobs_mode = "raw_logprobs"
    with pytest.raises(EngineError, match="processed_logprobs"):
        setup.engine()
    assert list(setup.folder.rglob("*.safetensors")) == []


def test_files_of_runs_that_are_gone_are_removed_and_of_others_not(setup: Setup, tmp_path: Path) -> None:
    alive, gone = HandoverFolder(tmp_path, "alive"), HandoverFolder(tmp_path, "gone")
    strange = tmp_path / "strange" / "model.safetensors"
    strange.parent.mkdir()
    strange.write_text("of somebody else")
    for folder in (alive, gone):
        folder.open()
        (folder.path / "trained-x.0.safetensors").write_text("weights")
    gone._held.close()  # as when its process is killed
    engine = setup.engine()
    assert not gone.path.exists()
    assert (alive.path / "trained-x.0.safetensors").exists()
    assert strange.exists()
    engine.close()
    alive.close()
    assert not alive.path.exists()


def test_servers_are_waited_for_before_weights_travel_between_gpus(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    class MetError(Exception):
        """Far enough."""

    def transfer(*_: Any, num_workers: int, **__: Any) -> None:
        raise MetError(num_workers)

    monkeypatch.setattr(vllm_server, "GpuTransfer", transfer)
    setup.fakes.append(FakeVllm(key=KEY))
    for fake in setup.fakes:
        fake.match["backend"] = "nccl"
    urls = tuple(fake.url for fake in setup.fakes)
    settings = EngineConfig(kind="vllm_server", base_urls=urls, sync="nccl", recover_timeout_s=30)
    setup.fakes[1].stop()
    setup.on_log = lambda line: setup.fakes[1].start() if "waited for" in line else None
    with pytest.raises(MetError, match="4"):
        VllmServerEngine(settings, setup.policy, folder=setup.folder, ranks=Shared([], rank=0), log=setup.log)
