"""Work dealt out over servers, any of which may die and come back."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from functools import partial
from typing import TypeVar

from mm_agrae.engines.vllm_http import Server, ServerGoneError
from mm_agrae.errors import EngineError

T = TypeVar("T")
R = TypeVar("R")

# Requests under way at a time, per server: it has its own queue, and this much fills it.
IN_FLIGHT = 64
# Seconds before a request is tried again, doubled with every try.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 15.0


class Member:
    """A server, and what is known of it.

    Attributes:
        ready: It answered last time, with the weights that it should have.
        missed: It has been said that it does not answer.
        dropped: It is not asked any more.
        lock: Held by the thread that makes it ready.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.ready = False
        self.missed = False
        self.dropped = False
        self.lock = threading.Lock()


class Fleet:
    """Several servers that do the same."""

    def __init__(
        self,
        servers: Sequence[Server],
        *,
        recover_timeout_s: float,
        make_ready: Callable[[Server], None],
        log: Callable[[str], None],
    ) -> None:
        """Nothing is asked yet.

        Args:
            servers: At least one.
            recover_timeout_s: Seconds that a piece of work is tried for on a server that does not answer.
            make_ready: Called before the first work on a server, and again after every failure. Raises ServerGoneError
                when the server is not there yet.
            log: Is told once when a server is missed, when it is back, and when it is given up.
        """
        self.members = [Member(server) for server in servers]
        self.recover_timeout_s = recover_timeout_s
        self.make_ready = make_ready
        self.log = log
        self.stopping = threading.Event()
        self.telling = threading.Lock()
        self.end = ""  # why no server is left

    @property
    def live(self) -> list[Member]:
        return [member for member in self.members if not member.dropped]

    def map(self, work: Callable[[Server, T], R], items: Sequence[T], *, first: int = 0) -> list[R]:
        """work(server, item) for every item, in order; item i goes to server first + i, or to the next that lives.

        Raises:
            EngineError: A piece of work failed, or no server is left.
        """
        return self._together(
            [partial(self._anywhere, work, item, place) for place, item in enumerate(items, start=first)]
        )

    def each(self, work: Callable[[Server], None]) -> None:
        """work(server) on every server that lives, at the same time. Servers need not be ready, and are afterwards.

        Raises:
            EngineError: It was refused, or no server is left.
        """

        self._together([partial(self._on_one, work, member) for member in self.live])

    def _together(self, tasks: Sequence[Callable[[], R]]) -> list[R]:
        self.stopping.clear()
        with ThreadPoolExecutor(max_workers=IN_FLIGHT * len(self.members)) as pool:
            futures: list[Future[R]] = [pool.submit(task) for task in tasks]
            try:
                for future in as_completed(futures):
                    future.result()  # the first failure ends the rest
                return [future.result() for future in futures]
            except BaseException:
                # Also where the user interrupts: nothing may be waited for that nobody wants any more.
                self.stopping.set()
                for future in futures:
                    future.cancel()
                for member in self.members:
                    member.server.abort()
                raise

    def _anywhere(self, work: Callable[[Server, T], R], item: T, place: int) -> R:
        while live := self.live:
            member = live[place % len(live)]
            try:
                return self._patiently(member, partial(self._on_ready, member, work, item))
            except ServerGoneError as error:
                self._drop(member, error)
        raise EngineError(self.end)

    def _on_ready(self, member: Member, work: Callable[[Server, T], R], item: T) -> R:
        with self._held(member):
            if not member.ready:
                self.make_ready(member.server)
                member.ready = True
        return work(member.server, item)

    def _on_one(self, work: Callable[[Server], None], member: Member) -> None:
        try:
            self._patiently(member, partial(self._alone, work, member))
        except ServerGoneError as error:
            self._drop(member, error)

    def _alone(self, work: Callable[[Server], None], member: Member) -> None:
        with self._held(member):
            work(member.server)
            member.ready = True

    @contextlib.contextmanager
    def _held(self, member: Member) -> Iterator[None]:
        """One thread at a time. Those that waited while the server was given up do not find out by themselves.

        Raises:
            ServerGoneError: It was given up, or the work is being cancelled.
        """
        with member.lock:
            if member.dropped or self.stopping.is_set():
                raise ServerGoneError(f"server {member.server.base_url} is not asked any more.")
            yield

    def _patiently(self, member: Member, attempt: Callable[[], R]) -> R:
        """The attempt, again and again while the server is gone and there is time."""
        first_failure: float | None = None
        wait = FIRST_WAIT_S
        while True:
            try:
                made = attempt()
            except ServerGoneError as error:
                member.ready = False
                now = time.monotonic()
                first_failure = first_failure or now
                left = first_failure + self.recover_timeout_s - now
                if left <= 0 or member.dropped or self.stopping.is_set():
                    raise
                self._miss(member, error)
                self.stopping.wait(min(wait, left))
                wait = min(2 * wait, LONGEST_WAIT_S)
            else:
                self._meet(member)
                return made

    def _miss(self, member: Member, error: ServerGoneError) -> None:
        with self.telling:
            if not member.missed:
                member.missed = True
                self.log(f"{error} It is waited for, {self.recover_timeout_s:g} s at most (engine.recover_timeout_s).")

    def _meet(self, member: Member) -> None:
        with self.telling:
            if member.missed and member.ready:
                member.missed = False
                self.log(f"server {member.server.base_url} answers again.")

    def _drop(self, member: Member, error: ServerGoneError) -> None:
        """Go on without a server.

        Raises:
            EngineError: It was the last one, or the work is being cancelled.
        """
        if self.stopping.is_set():
            raise EngineError("the request was cancelled.") from error
        with self.telling:
            if not member.dropped:
                member.dropped = True
                self.end = (
                    f"{error} It was waited for for {self.recover_timeout_s:g} s (engine.recover_timeout_s), and no "
                    "other server is left. Start it again, then resume the run."
                )
                if self.live:
                    self.log(f"{error} It is given up; the run goes on with {len(self.live)} other servers.")
        if not self.live:
            raise EngineError(self.end) from error
