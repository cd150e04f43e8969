"""Rows of the fault table for what a run depends on: the verifier's workers, and servers of rollouts."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from functools import cache, partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import patch

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "unit" / "engines"))

import same_run
from fault_rows import Bench, Row, await_step, difference, how
from faults import Ended
from processes import free_port

from mm_agrae.records import Verdict
from mm_agrae.store.run_dir import RunDir
from mm_agrae.verify import Question, VerifierPool
from mm_agrae.verify.outcome import Comparison
from mm_agrae.verify.staff import Worker

TIMEOUT_S = 1.0
DEAD_S, HUNG_S = 1.0, 4.0
ROOTS = Question(target="2\\sqrt{3}", answer_kind="expression")
TEXTS = [f"\\boxed{{\\sqrt{{{number}}}}}" for number in (12, 13, 48, 12, 3)]
# Passes the guards, and sympy does not come back from simplifying the difference.
ENDLESS = "\\boxed{x\\sqrt{3.5\\sqrt{\\sqrt{2}}}}", Question(target="x\\ln(7)", answer_kind="expression")
WAITED = "It is waited for"
FAULT = 2  # the item that meets the fault


def judged(pool: VerifierPool, *, endless: bool = False) -> tuple[list[Verdict], float]:
    """Verdicts of all texts, and the seconds they took."""
    items = [(text, ROOTS) for text in TEXTS]
    if endless:
        items[FAULT] = ENDLESS
    begun = time.perf_counter()
    verdicts = pool.verify_all(*map(list, zip(*items, strict=True)))
    return verdicts, time.perf_counter() - begun


def verifier_row(bench: Bench, name: str, harm: Callable[[VerifierPool, Worker], None] | None) -> Row:
    """Judge undisturbed, with a fault at the first answer that a worker gets, and again.

    Without harm, the fault is an answer whose comparison never ends.
    """
    with VerifierPool(num_workers=1, timeout_s=TIMEOUT_S) as pool:
        judged(pool)  # the first start of a worker is none of the fault
        expected, undisturbed_s = judged(pool)
        if harm is None:
            found, seconds = judged(pool, endless=True)
        else:
            with patch.object(Worker, "send", _harmed(partial(harm, pool))):
                found, seconds = judged(pool)
        again, _ = judged(pool)
    unjudged = [verdict for verdict in found if verdict.status == "timeout"]
    same = [one.status == other.status for one, other in zip(found, expected, strict=True)]
    holds = len(unjudged) == same.count(False) > 0
    holds = holds and [verdict.status for verdict in again] == [verdict.status for verdict in expected]
    return Row(
        fault=name,
        ended="goes on",
        lost=f"verdicts of {len(unjudged)} of {len(found)} answers, counted as unscored",
        repeated=0,
        recover_s=seconds - undisturbed_s,
        holds=holds,
    )


def _harmed(harm: Callable[[Worker], None]) -> Callable[[Worker, Comparison], None]:
    """Worker.send whose first answer meets its end in a worker that could not have judged it yet."""
    real, calls = Worker.send, iter(range(sys.maxsize))

    def send(worker: Worker, comparison: Comparison) -> None:
        assert worker.pid is not None
        if next(calls):
            return real(worker, comparison)
        os.kill(worker.pid, signal.SIGSTOP)
        real(worker, comparison)
        return harm(worker)

    return send


def kill_worker(pool: VerifierPool, worker: Worker) -> None:
    os.kill(worker.pid or 0, signal.SIGKILL)


def kill_pool(pool: VerifierPool, worker: Worker) -> None:
    """The process that forks the workers dies with its worker."""
    assert pool._staff._parent is not None
    pool._staff._parent.process.kill()
    kill_worker(pool, worker)


def serve(port: int) -> None:
    """A stand-in for a vLLM server, in a process of its own, that answers two runs alike."""
    from fake_vllm import Body, FakeVllm

    class Steady(FakeVllm):
        def _choice(self, index: int, params: Body) -> Body:
            # The label begins with what no other run has, and would be part of the seed.
            run, _, _ = self.label.rpartition(".")
            return super()._choice(index, {**params, "seed": params.get("seed", 0) - sum(map(ord, run))})

    fake = Steady()
    fake.stop()
    fake.port = port
    fake.start()
    threading.Event().wait()


Harm = Callable[[BaseProcess, Callable[[], BaseProcess]], BaseProcess]


def server_row(bench: Bench, name: str, harm: Harm) -> Row:
    """Harm the server of a run once step 2 is made; the run goes on by itself, and is that of a server left alone."""
    straight, alone_s, _ = left_alone(bench)
    run, seconds, ended = served(bench, name, harm)
    lost = difference(run, straight) if ended.status == 0 else "the run does not go on"
    if not lost and same_run.groups(run) != same_run.groups(straight):
        lost = "completions differ"
    # Without this line the fault never reached the run.
    holds = not lost and WAITED in ended.said and "answers again" in ended.said
    return Row(
        fault=name,
        ended="goes on" if ended.status == 0 else how(ended),
        lost=lost or "nothing",
        repeated=0,
        recover_s=seconds - alone_s,
        holds=holds,
    )


@cache
def left_alone(bench: Bench) -> tuple[RunDir, float, Ended]:
    return served(bench, "server left alone", lambda server, start: server)


def served(bench: Bench, name: str, harm: Harm) -> tuple[RunDir, float, Ended]:
    """A run with rollouts from a server: what it left, the seconds from the harm after step 2 to step 4, its end."""
    port = free_port()

    def start() -> BaseProcess:
        process = bench.launcher.context.Process(target=serve, args=(port,))
        process.start()
        return process

    out = bench.out(name)
    settings = [
        "engine.kind=vllm_server",
        f"engine.base_urls=[http://127.0.0.1:{port}]",
        "engine.sync=files",
        "engine.on_mismatch=warn",
        "engine.request_timeout_s=1",
        "engine.recover_timeout_s=60",
    ]
    server = start()
    running = bench.launcher.start(*bench.words(out, *settings))
    await_step(running, 2)
    harmed = time.time()
    server = harm(server, start)
    made = await_step(running, 4)
    ended = running.end()
    server.kill()
    return RunDir.open(out), made - harmed, ended


def restart(server: BaseProcess, start: Callable[[], BaseProcess]) -> BaseProcess:
    server.kill()
    server.join()
    time.sleep(DEAD_S)
    return start()


def freeze(server: BaseProcess, start: Callable[[], BaseProcess]) -> BaseProcess:
    """Stop it for a while."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)
    time.sleep(HUNG_S)
    os.kill(server.pid, signal.SIGCONT)
    return server
