"""Endless input, back-pressure, workers whose job is dropped, whose memory is full, whose parents die."""

import itertools
import os
import signal
import subprocess
import sys

import pytest

from mm_agrae.errors import EngineError
from mm_agrae.verify import Question, VerifierPool
from mm_agrae.verify.equivalence import Comparison, Outcome
from mm_agrae.verify.pool import _Desk, _Result
from tests.unit.verify.test_pool import ENDLESS, ENDLESS_QUESTION, RIGHT, ROOT, WRONG, is_running, wait_until_gone

FIVE = Question(target="5", answer_kind="integer")


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(num_workers=2, timeout_s=5.0) as shared:
        yield shared


class Source:
    """An endless source that counts what was taken from it."""

    def __init__(self, *items):
        self.items = itertools.cycle(items)
        self.num_taken = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.num_taken += 1
        return next(self.items)


def test_an_endless_source_is_read_no_further_than_allowed(pool):
    source = Source((RIGHT, ROOT), (WRONG, ROOT), ("\\boxed{5}", FIVE))
    stream = pool.verify_stream(source, num_in_flight=7)
    ahead = []
    for expected in [True, False, True] * 20:
        assert next(stream).correct is expected
        ahead.append(source.num_taken)
    assert all(taken - given <= 6 for given, taken in enumerate(ahead, start=1))
    stream.close()


def test_a_verdict_that_needs_no_algebra_comes_before_the_next_item_is_read():
    with VerifierPool() as lazy:
        source = Source(("\\boxed{5}", FIVE))
        stream = lazy.verify_stream(source)
        for given in range(1, 4):
            assert next(stream).correct
            assert source.num_taken == given
        assert lazy._staff.workers == []


def test_many_items_with_few_in_flight_keep_their_order(pool):
    texts = [f"\\boxed{{{index % 9}\\sqrt{{3}}}}" if index % 4 else f"\\boxed{{{index}}}" for index in range(60)]
    items = [(text, ROOT if index % 4 else FIVE) for index, text in enumerate(texts)]
    verdicts = list(pool.verify_stream(items, num_in_flight=3))
    assert [verdict.answer for verdict in verdicts] == [text[7:-1] for text in texts]
    assert [verdict.correct for verdict in verdicts] == [
        index % 9 == 2 if index % 4 else index == 5 for index in range(60)
    ]


def test_a_dropped_stream_leaves_no_reply_for_the_next_job():
    with VerifierPool(num_workers=1, timeout_s=20.0) as pool:
        stream = pool.verify_stream([(RIGHT, ROOT), (ENDLESS, ENDLESS_QUESTION), (WRONG, ROOT)], num_in_flight=2)
        assert next(stream).correct
        busy = [worker.pid for worker in pool._staff.workers]
        stream.close()
        assert [verdict.correct for verdict in pool.verify_all([WRONG, RIGHT], [ROOT] * 2)] == [False, True]
        wait_until_gone(busy[0])  # it held the endless item


def test_an_error_in_the_source_reaches_the_caller_and_frees_the_pool(pool):
    def broken():
        yield RIGHT, ROOT
        raise RuntimeError("no more data")

    with pytest.raises(RuntimeError, match="no more data"):
        list(pool.verify_stream(broken()))
    assert pool.verify_all([RIGHT], [ROOT])[0].correct


def test_one_job_at_a_time(pool):
    stream = pool.verify_stream(Source((RIGHT, ROOT)), num_in_flight=2)
    next(stream)
    with pytest.raises(EngineError, match="one job at a time"):
        pool.verify_all([RIGHT], [ROOT])
    stream.close()
    assert pool.verify_all([RIGHT], [ROOT])[0].correct


def test_a_pool_that_is_closed_ends_its_stream():
    pool = VerifierPool(num_workers=1)
    stream = pool.verify_stream(Source(("\\boxed{5}", FIVE)))
    next(stream)
    pool.close()
    with pytest.raises(EngineError, match="closed"):
        next(stream)


def test_something_must_be_in_flight(pool):
    with pytest.raises(ValueError, match="num_in_flight is 0"):
        next(pool.verify_stream([], num_in_flight=0))


def test_the_desk_keeps_a_result_for_as_long_as_somebody_waits_for_it():
    desk, comparison = _Desk(), Comparison(answer="x", target="y")
    desk.add(comparison)
    desk.add(comparison)
    assert len(desk.waiting) == 1
    desk.waiting.clear()
    result = _Result(Outcome(equal=False, rule="algebra"), "", 0.1)
    desk.results[comparison] = result
    assert desk.take(comparison) is result
    assert desk.results == {comparison: result}
    desk.take(comparison)
    assert desk.results == {}
    desk.add(comparison)
    assert list(desk.waiting) == [comparison]


def test_a_worker_that_has_used_half_of_its_memory_is_replaced_before_the_next_item():
    with VerifierPool(num_workers=1, memory_bytes=2**27) as small:  # what is imported takes more than half of this
        first = small.verify_all([RIGHT], [ROOT])
        assert small._staff.workers == []
        second = small.verify_all([RIGHT, WRONG], [ROOT, ROOT])
    assert [verdict.status for verdict in (*first, *second)] == ["correct", "correct", "wrong"]


def test_the_parent_of_the_workers_may_die():
    with VerifierPool(num_workers=1) as pool:
        assert pool.verify_all([RIGHT], [ROOT])[0].correct
        (worker,) = pool._staff.workers
        pool._staff._parent.process.kill()
        pool._staff._parent.process.wait()
        assert pool.verify_all([WRONG], [ROOT])[0].rule == "box/value"  # the worker is still there
        os.kill(worker.pid, signal.SIGKILL)
        assert worker.connection.poll(30)
        assert pool.verify_all([RIGHT], [ROOT])[0].correct
        wait_until_gone(worker.pid)


def test_workers_that_are_deaf_end_with_a_process_that_is_killed(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "from mm_agrae.verify import Question, VerifierPool\n"
        "pool = VerifierPool(num_workers=1)\n"
        f"pool.verify_all([{RIGHT!r}], [Question(target={ROOT.target!r})])\n"
        "print(pool._staff.workers[0].pid, flush=True)\n"
        "input()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, str(script)], **pipes, text=True, cwd=tmp_path) as job:
        pid = int(job.stdout.readline())
        assert is_running(pid)
        os.kill(pid, signal.SIGSTOP)  # it will not see that its socket has closed
        job.kill()
    wait_until_gone(pid)


def test_a_parent_that_starts_no_worker_any_more_is_replaced():
    """It was asked for two workers when it froze: neither comes, and the one at work goes on."""
    with VerifierPool(num_workers=3, timeout_s=20.0) as pool:
        assert pool.verify_all([RIGHT], [ROOT])[0].correct
        parent = pool._staff._parent.process
        os.kill(parent.pid, signal.SIGSTOP)
        for _ in range(2):
            pool._staff.hire()
        for worker in pool._staff.workers[1:]:
            worker.sent_at -= 1000  # longer than a start may take
        verdicts = pool.verify_all([RIGHT, WRONG, "\\boxed{\\sqrt{14}}"], [ROOT] * 3)
        assert [verdict.status for verdict in verdicts] == ["correct", "wrong", "wrong"]
        assert parent.poll() == -signal.SIGKILL
        os.kill(pool._staff.workers[0].pid, signal.SIGKILL)
        assert pool._staff.workers[0].connection.poll(30)
        assert pool.verify_all([RIGHT], [ROOT])[0].correct  # by a worker of another parent
