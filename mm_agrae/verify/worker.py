"""A process that compares forms by computer algebra, one at a time, and may be killed at any moment.

Started by the pool as `python -m mm_agrae.verify.worker FD TIMEOUT_S MEMORY_BYTES`, so that nothing of the parent's
main module is imported again. Speaks JSON over the socket FD: it says {"ready": true}, then answers one comparison
with one outcome. It ends when the socket closes.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from dataclasses import asdict
from multiprocessing.connection import Connection
from types import FrameType


class _DeadlineError(BaseException):
    """The soft deadline. No `Exception`, because sympy and math-verify swallow those."""


def serve(connection: Connection, *, timeout_s: float) -> None:
    """Answer comparisons until the other side closes.

    The alarm ends what Python code can be interrupted in; the pool kills what it cannot (long integers).
    """
    from mm_agrae.verify.equivalence import Comparison
    from mm_agrae.verify.symbolic import compare

    compare(Comparison(answer="\\sqrt{2}", target="x"))  # the first parse builds the grammar's tables
    _silence()
    signal.signal(signal.SIGALRM, _raise_deadline)
    connection.send_bytes(b'{"ready": true}')
    while True:
        try:
            request = json.loads(connection.recv_bytes())
        except EOFError:
            return
        try:
            signal.setitimer(signal.ITIMER_REAL, timeout_s)
            reply = asdict(compare(Comparison(**request)))
            signal.setitimer(signal.ITIMER_REAL, 0)
        except _DeadlineError:
            reply = {"timeout": True}
        connection.send_bytes(json.dumps(reply).encode())


def _raise_deadline(signum: int, frame: FrameType | None) -> None:
    raise _DeadlineError


def _silence() -> None:
    """Start-up errors were for the user; what a grammar has to say about model text is not."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.dup2(nowhere, sys.stderr.fileno())


def main(arguments: list[str]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle; it closes the socket
    descriptor, timeout_s, memory_bytes = int(arguments[0]), float(arguments[1]), int(arguments[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Connection(descriptor) as connection:
        serve(connection, timeout_s=timeout_s)


if __name__ == "__main__":
    main(sys.argv[1:])
