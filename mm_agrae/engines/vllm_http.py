"""Requests to one server: a deadline for each, the API key, and errors that name the server. Standard library only."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit

from mm_agrae.errors import EngineError

CHUNK_BYTES = 1 << 20
CONNECT_S = 10.0
QUICK_S = 30.0  # for what a server answers without computing
SHOWN_CHARACTERS = 500  # of a server's words in an error


class ServerGoneError(EngineError):
    """No usable answer came: the server is down, hangs, or failed within. Asking again later may help."""


class ServerFailedError(ServerGoneError):
    """The server answered that it failed within (5xx)."""


class Server:
    """One server. Safe to use from several threads: every request has a connection of its own."""

    def __init__(self, base_url: str, *, api_key: str | None, timeout_s: float) -> None:
        """A server at http(s)://host[:port]; nothing is sent yet."""
        self.base_url = base_url
        self.timeout_s = timeout_s
        self._key = api_key
        self._parts = urlsplit(base_url)
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def get(self, path: str) -> Any:
        """What a path shows, from JSON; within QUICK_S seconds, since nothing is computed for it. See post."""
        return self._ask("GET", path, None, min(self.timeout_s, QUICK_S))

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """The server's answer to a body, from JSON; None when it answers with nothing.

        Raises:
            ServerGoneError: It could not be reached, or did not answer in time.
            ServerFailedError: It failed within (5xx).
            EngineError: It refused the request (4xx).
        """
        return self._ask("POST", path, json.dumps(body or {}).encode(), self.timeout_s)

    def abort(self) -> None:
        """End all requests under way, which raise ServerGoneError in their threads."""
        with self._lock:
            for held in self._open:
                with contextlib.suppress(OSError):  # it may have ended by itself
                    held.shutdown(socket.SHUT_RDWR)

    def _ask(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Any:
        try:
            status, content = self._exchange(method, path, body, timeout_s)
        except TimeoutError as error:
            shortened = timeout_s < self.timeout_s
            limit = f"{timeout_s:g} s" if shortened else f"engine.request_timeout_s={timeout_s:g}"
            raise ServerGoneError(f"server {self.base_url} did not answer {path} in time ({limit}).") from error
        except (OSError, HTTPException) as error:
            raise ServerGoneError(
                f"server {self.base_url} cannot be reached for {path}: {self._hide(error)}."
            ) from error
        return self._judge(path, status, content)

    def _exchange(self, method: str, path: str, body: bytes | None, timeout_s: float) -> tuple[int, bytes]:
        deadline = time.monotonic() + timeout_s
        kind = HTTPSConnection if self._parts.scheme == "https" else HTTPConnection
        connection = kind(self._parts.netloc, timeout=min(timeout_s, CONNECT_S))
        headers = {"Content-Type": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        with contextlib.closing(connection):
            _connect(connection)
            held = connection.sock  # the answer may take it away from the connection
            with self._watching(held):
                _wait_until(held, deadline)
                connection.request(method, path, body=body, headers=headers)
                _wait_until(held, deadline)
                with connection.getresponse() as answer:
                    return answer.status, _read(answer, held, deadline)

    @contextlib.contextmanager
    def _watching(self, held: socket.socket) -> Iterator[None]:
        """While a connection is open, abort ends it."""
        with self._lock:
            self._open.add(held)
        try:
            yield
        finally:
            with self._lock:
                self._open.discard(held)

    def _judge(self, path: str, status: int, content: bytes) -> Any:
        if status < 300:
            try:
                return json.loads(content) if content else None
            except ValueError as error:
                raise ServerGoneError(f"server {self.base_url} answers {path} with what is no JSON.") from error
        words = self._hide(content.decode("utf-8", errors="replace"))[:SHOWN_CHARACTERS]
        told = f"server {self.base_url} answers {path} with status {status}: {words}"
        if status >= 500:
            raise ServerFailedError(told)
        if status == 401:
            told += " Put its API key into the environment variable that engine.api_key_variable names."
        if status in (403, 404):
            told += " Start it by scripts/serve_vllm.sh, which switches on the routes that are needed."
        raise EngineError(told)

    def _hide(self, told: object) -> str:
        return str(told).replace(self._key, "***") if self._key else str(told)


def _connect(connection: HTTPConnection) -> None:
    try:
        connection.connect()
    except TimeoutError as error:
        raise OSError(f"no connection within {connection.timeout:g} s") from error


def _read(answer: HTTPResponse, held: socket.socket, deadline: float) -> bytes:
    """The whole body; a server that trickles has no more time than one that is silent."""
    chunks = []
    while not answer.isclosed() and answer.length != 0:
        _wait_until(held, deadline)
        chunks.append(answer.read1(CHUNK_BYTES))
        if not chunks[-1]:
            break
    if answer.length:
        raise HTTPException(f"the answer ends {answer.length} bytes early")
    return b"".join(chunks)


def _wait_until(held: socket.socket, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    held.settimeout(left)
