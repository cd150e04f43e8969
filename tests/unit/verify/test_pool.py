import os
import resource
import signal
import subprocess
import sys
import threading
import time

import pytest

from mm_agrae.errors import EngineError
from mm_agrae.verify import Question, VerifierPool

ROOT = Question(target="2\\sqrt{3}", answer_kind="expression")
RIGHT = "\\boxed{\\sqrt{12}}"
WRONG = "\\boxed{\\sqrt{13}}"
# Passes the guards, and sympy does not come back from simplifying the difference.
ENDLESS = "\\boxed{x\\sqrt{3.5\\sqrt{\\sqrt{2}}}}"
ENDLESS_QUESTION = Question(target="x\\ln(7)", answer_kind="expression")


@pytest.fixture(scope="module")
def pool():
    with VerifierPool(num_workers=2, timeout_s=5.0) as shared:
        yield shared


def statuses(pool, *texts, question=ROOT):
    return [verdict.status for verdict in pool.verify_all(texts, [question] * len(texts))]


def is_running(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_until_gone(pid):
    """A killed worker is gone as soon as its parent has been scheduled."""
    limit = time.monotonic() + 30
    while is_running(pid):
        assert time.monotonic() < limit, f"process {pid} is still there"


def test_plain_answers_never_start_a_process():
    with VerifierPool() as lazy:
        question = Question(target="5", answer_kind="integer")
        assert statuses(lazy, "\\boxed{5}", "\\boxed{6}", "none", question=question) == ["correct", "wrong", "unparsed"]
        assert lazy._staff.workers == []


def test_verdicts_keep_the_order_of_the_texts(pool):
    texts = [RIGHT if index % 3 == 0 else f"\\boxed{{{index}\\sqrt{{5}}}}" for index in range(12)] + [
        "\\boxed{2\\sqrt3}"
    ]
    verdicts = pool.verify_all(texts, [ROOT] * 13)
    assert [verdict.correct for verdict in verdicts] == [index % 3 == 0 for index in range(13)]
    assert [verdict.answer for verdict in verdicts] == [text[7:-1] for text in texts]
    assert verdicts[0].rule == "box/value"
    assert verdicts[0].formatted


def test_each_text_has_its_own_question(pool):
    other = Question(target="\\sqrt{13}", answer_kind="expression")
    verdicts = pool.verify_all([RIGHT, RIGHT, WRONG], [ROOT, other, ROOT])
    assert [verdict.correct for verdict in verdicts] == [True, False, False]


def test_an_item_that_hangs_times_out_and_the_rest_is_unharmed():
    with VerifierPool(num_workers=2, timeout_s=0.5) as strict:
        statuses(strict, RIGHT, WRONG)  # start-up has a deadline of its own
        staff = {worker.pid for worker in strict._staff.workers}
        begun = time.perf_counter()
        verdicts = strict.verify_all([RIGHT, ENDLESS, WRONG, RIGHT], [ROOT, ENDLESS_QUESTION, ROOT, ROOT])
        assert time.perf_counter() - begun < 1.5
        assert [verdict.status for verdict in verdicts] == ["correct", "timeout", "wrong", "correct"]
        assert verdicts[1].rule == "box/timeout"
        assert not verdicts[1].correct
        # The alarm ended the item, which is cheaper than a kill and a new import of sympy.
        assert staff <= {worker.pid for worker in strict._staff.workers}


def test_a_worker_that_does_not_react_is_killed_and_replaced():
    with VerifierPool(num_workers=1, timeout_s=0.3) as strict:
        statuses(strict, RIGHT)
        frozen = strict._staff.workers[0].pid
        os.kill(frozen, signal.SIGSTOP)  # deaf to its alarm, as in the middle of a long multiplication
        begun = time.perf_counter()
        verdicts = strict.verify_all([RIGHT], [ROOT])
        assert time.perf_counter() - begun < 1.3
        assert (verdicts[0].status, verdicts[0].rule) == ("timeout", "box/timeout")
        wait_until_gone(frozen)
        assert statuses(strict, RIGHT, WRONG) == ["correct", "wrong"]


def test_a_worker_that_dies_at_work_costs_its_item_only():
    with VerifierPool(num_workers=1, timeout_s=20.0) as strict:
        statuses(strict, RIGHT)
        doomed = strict._staff.workers[0].pid
        os.kill(doomed, signal.SIGSTOP)
        killer = threading.Timer(0.1, os.kill, (doomed, signal.SIGKILL))
        killer.start()
        verdicts = strict.verify_all([RIGHT, WRONG], [ROOT] * 2)
        killer.join()
        assert [verdict.rule for verdict in verdicts] == ["box/worker_died", "box/value"]
        assert verdicts[0].status == "timeout"


def test_a_worker_that_died_while_idle_costs_nothing():
    with VerifierPool(num_workers=1) as calm:
        statuses(calm, RIGHT)
        os.kill(calm._staff.workers[0].pid, signal.SIGKILL)
        assert calm._staff.workers[0].connection.poll(30)  # the end of its socket: it is dead
        assert statuses(calm, RIGHT) == ["correct"]


def test_bombs_end_within_the_deadline(pool):
    bombs = [
        "\\boxed{9^{9^{9^9}}}",
        "\\boxed{1000000!}",
        "\\boxed{((9!)!)!}",
        "\\boxed{" + "(" * 3000 + "1" + ")" * 3000 + "}",
        "\\boxed{" * 50_000,
        "\\boxed{2^{999\\cdot999}\\sqrt{3}}",
        "\\boxed{" + "\\frac{1}{1+" * 9 + "2" + "}" * 9 + "}",
    ]
    begun = time.perf_counter()
    found = statuses(pool, RIGHT, *bombs, WRONG)
    assert time.perf_counter() - begun < 5.0 + 1.0
    assert found[0] == "correct"
    assert found[-1] == "wrong"
    assert set(found[1:-1]) <= {"wrong", "unparsed", "timeout"}


def test_close_ends_the_workers_and_may_be_repeated():
    pool = VerifierPool(num_workers=1)
    statuses(pool, RIGHT)
    pid = pool._staff.workers[0].pid
    pool.close()
    pool.close()
    assert not is_running(pid)  # a zombie would still be there
    with pytest.raises(EngineError, match="closed"):
        pool.verify_all([RIGHT], [ROOT])


def test_a_worker_that_cannot_start_is_an_error_and_no_verdict():
    with VerifierPool(num_workers=1, memory_bytes=2**25) as poor, pytest.raises(EngineError, match="memory_bytes"):
        poor.verify_all([RIGHT], [ROOT])


def test_workers_hold_to_their_memory():
    with VerifierPool(num_workers=1, memory_bytes=2**29) as modest:
        assert statuses(modest, RIGHT) == ["correct"]
        pid = modest._staff.workers[0].pid
        assert resource.prlimit(pid, resource.RLIMIT_AS) == (2**29, 2**29)


@pytest.mark.parametrize("wrong", [{"num_workers": 0}, {"timeout_s": 0.0}, {"memory_bytes": 0}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        VerifierPool(**wrong)


def test_texts_and_questions_must_match(pool):
    with pytest.raises(ValueError, match="2 texts and 1 questions"):
        pool.verify_all([RIGHT, WRONG], [ROOT])


def test_it_works_from_a_bare_script_in_another_folder_and_leaves_nobody_behind(tmp_path):
    script = tmp_path / "job.py"
    script.write_text(
        "from mm_agrae.verify import Question, VerifierPool\n"
        "pool = VerifierPool(num_workers=1)\n"  # no main guard and no close
        f"verdicts = pool.verify_all([{RIGHT!r}], [Question(target={ROOT.target!r})])\n"
        "print(verdicts[0].status, pool._staff.workers[0].pid)\n"
    )
    shown = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    status, pid = shown.stdout.split()
    assert status == "correct"
    assert not is_running(int(pid))


def test_a_fork_of_the_process_leaves_the_workers_alone(tmp_path):
    script = tmp_path / "forks.py"
    script.write_text(
        "import os, sys\n"
        "from mm_agrae.verify import Question, VerifierPool\n"
        "pool = VerifierPool(num_workers=1)\n"
        f"item = ([{RIGHT!r}], [Question(target={ROOT.target!r})])\n"
        "pool.verify_all(*item)\n"
        "before = pool._staff.workers[0].pid\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    sys.exit()\n"
        "os.waitpid(child, 0)\n"
        "print(pool.verify_all(*item)[0].status, pool._staff.workers[0].pid == before)\n"
    )
    shown = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert shown.stdout.split() == ["correct", "True"]
