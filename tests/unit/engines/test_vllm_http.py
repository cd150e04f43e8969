"""Requests to one server: deadlines, refusals, and a key that is never shown."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from mm_agrae.engines import vllm_http
from mm_agrae.engines.vllm_http import SHOWN_CHARACTERS, Server, ServerFailedError, ServerGoneError
from mm_agrae.errors import EngineError
from tests.unit.engines.fake_vllm import FakeVllm, RefusedError

KEY = "sk-very-secret"
PATH = "/inference/v1/generate"
BODY = {"token_ids": [1], "sampling_params": {"max_tokens": 1, "allowed_token_ids": [1]}}


@pytest.fixture
def fake() -> Iterator[FakeVllm]:
    server = FakeVllm(key=KEY)
    yield server
    server.stop()


def make(fake: FakeVllm, *, key: str | None = KEY, timeout_s: float = 5.0) -> Server:
    return Server(fake.url, api_key=key, timeout_s=timeout_s)


def refuse(status: int, message: str) -> Any:
    def before(path: str, body: dict) -> None:
        raise RefusedError(status, message)

    return before


def test_the_key_is_sent_and_answers_are_read(fake: FakeVllm) -> None:
    server = make(fake)
    assert server.get("/version") == {"version": "0.32.0"}
    assert server.post(PATH, BODY)["choices"][0]["token_ids"] == [1]
    assert server.post("/reset_encoder_cache") is None
    assert fake.keys == [f"Bearer {KEY}"] * 3


def test_without_a_key_none_is_sent_and_the_variable_is_named(fake: FakeVllm) -> None:
    with pytest.raises(EngineError, match=r"status 401: .*Unauthorized.* engine\.api_key_variable") as caught:
        make(fake, key=None).post(PATH, BODY)
    assert not isinstance(caught.value, ServerGoneError)
    assert fake.keys == [None]


@pytest.mark.parametrize(("status", "kind"), [(400, EngineError), (500, ServerFailedError), (503, ServerFailedError)])
def test_only_failures_within_the_server_may_pass(fake: FakeVllm, status: int, kind: type) -> None:
    fake.before = refuse(status, "max_tokens is too large")
    with pytest.raises(EngineError, match=f"{fake.url} answers {PATH} with status {status}: .*too large") as caught:
        make(fake).post(PATH, BODY)
    assert type(caught.value) is kind


def test_a_route_that_is_switched_off_names_the_script(fake: FakeVllm) -> None:
    with pytest.raises(EngineError, match=r"serve_vllm\.sh"):
        make(fake).post("/no_such_route")


def test_the_key_is_never_shown(fake: FakeVllm) -> None:
    for status in (400, 401, 500):
        fake.before = refuse(status, f"you sent {KEY}, " + "x" * 2 * SHOWN_CHARACTERS)
        with pytest.raises(EngineError, match=r"you sent \*\*\*") as caught:
            make(fake).post(PATH, BODY)
        assert KEY not in str(caught.value)
        assert len(str(caught.value)) < 2 * SHOWN_CHARACTERS


def test_a_server_that_is_not_there_is_gone(fake: FakeVllm) -> None:
    fake.stop()
    with pytest.raises(ServerGoneError, match=f"{fake.url} cannot be reached for /version: .*refused"):
        make(fake).get("/version")
    fake.start()


def test_a_server_that_hangs_is_gone_after_the_deadline(fake: FakeVllm) -> None:
    forever = threading.Event()
    fake.before = lambda path, body: forever.wait() and None
    with pytest.raises(ServerGoneError, match=r"did not answer /version in time \(engine\.request_timeout_s=0\.2\)"):
        make(fake, timeout_s=0.2).get("/version")
    forever.set()


def test_what_is_not_computed_has_a_deadline_of_its_own(fake: FakeVllm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_http, "QUICK_S", 0.2)
    forever = threading.Event()
    fake.before = lambda path, body: forever.wait() and None
    with pytest.raises(ServerGoneError, match=r"did not answer /weight_info in time \(0\.2 s\)"):
        make(fake, timeout_s=60).get("/weight_info")
    forever.set()


def test_a_host_that_takes_no_connection_is_told_from_a_slow_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_http, "CONNECT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        waiting = [socket.socket() for _ in range(3)]
        for one in waiting:  # fill its queue
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        server = Server(f"http://127.0.0.1:{full.getsockname()[1]}", api_key=None, timeout_s=60)
        with pytest.raises(ServerGoneError, match=r"cannot be reached for /version: no connection within 0\.2 s"):
            server.get("/version")
        for one in waiting:
            one.close()


def test_a_server_that_trickles_has_no_longer(fake: FakeVllm) -> None:
    stopped = threading.Event()
    fake.server.RequestHandlerClass = type(
        "Trickling", (fake.server.RequestHandlerClass,), {"_send": send_slowly(stopped)}
    )
    with pytest.raises(ServerGoneError, match="did not answer /version in time"):
        make(fake, timeout_s=0.3).get("/version")
    stopped.set()


def send_slowly(stopped: threading.Event) -> Any:
    """A byte every 20 ms for as long as anybody listens."""

    def send(handler: Any, status: int, answer: Any) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", str(10**6))
        handler.end_headers()
        while not stopped.wait(0.02):
            handler.wfile.write(b" ")

    return send


def test_an_answer_that_breaks_off_is_none(fake: FakeVllm) -> None:
    def send(handler: Any, status: int, answer: Any) -> None:
        handler.send_response(status)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"{}")
        handler.close_connection = True

    fake.server.RequestHandlerClass = type("Broken", (fake.server.RequestHandlerClass,), {"_send": send})
    with pytest.raises(ServerGoneError, match="98 bytes early"):
        make(fake).get("/version")


def test_requests_under_way_can_be_ended(fake: FakeVllm) -> None:
    arrived, forever = threading.Event(), threading.Event()

    def before(path: str, body: dict) -> None:
        arrived.set()
        forever.wait()

    fake.before = before
    server = make(fake)
    caught: list[Exception] = []

    def ask() -> None:
        try:
            server.get("/version")
        except ServerGoneError as error:
            caught.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    arrived.wait()
    server.abort()
    thread.join()
    assert len(caught) == 1
    forever.set()
