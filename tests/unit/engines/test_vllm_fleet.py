"""Work dealt out over servers: nobody asks a server that another thread has given up."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from mm_agrae.engines.vllm_fleet import Fleet
from mm_agrae.engines.vllm_http import Server, ServerGoneError
from mm_agrae.errors import EngineError

ITEMS = list(range(16))


@pytest.mark.parametrize("kind", [ServerGoneError, EngineError])
def test_those_who_wait_behind_a_failure_do_not_repeat_it(kind: type[EngineError]) -> None:
    """A server that takes requests and answers none would cost its deadline once per prompt."""
    calls: list[str] = []
    all_came, given_up = threading.Barrier(len(ITEMS) + 1), threading.Event()

    def make_ready(server: Server) -> None:
        calls.append(server.base_url)
        if len(calls) == 1:
            all_came.wait(5)
        else:  # who held the lock before is telling the others at this moment
            given_up.wait(5)
        raise kind("no answer in time")

    server = Server("http://127.0.0.1:9", api_key=None, timeout_s=1.0)
    fleet = Fleet([server], recover_timeout_s=0, make_ready=make_ready, log=lambda line: None)
    fleet._drop = after(fleet._drop, given_up.set)
    server.abort = after(server.abort, given_up.set)
    patiently = fleet._patiently
    fleet._patiently = lambda member, attempt: patiently(member, told_once(attempt, all_came))
    with pytest.raises(EngineError, match="no answer in time"):
        fleet.map(lambda server, item: item, ITEMS)
    assert len(calls) <= 2


def after(action: Callable[..., Any], tell: Callable[[], None]) -> Callable[..., Any]:
    def told(*arguments: Any) -> None:
        try:
            action(*arguments)
        finally:
            tell()

    return told


def told_once(attempt: Callable[[], Any], all_came: threading.Barrier) -> Callable[[], Any]:
    """The attempt; that it begins is told by a thread of its own, since the barrier holds who tells."""
    threading.Thread(target=all_came.wait, args=(5,), daemon=True).start()
    return attempt
