"""The pool of named daemon threads."""

import asyncio
import contextvars
import logging
import random
import threading
import time

import pytest

from ostler.aio import WorkerPool, as_exception, waiting_for
from ostler.errors import Busy, Draining


class Outcome:
    """Receives what `submit` reports, and waits for it."""

    def __init__(self):
        self.event = threading.Event()
        self.result = None
        self.error = None
        self.thread = ""

    def __call__(self, result, error):
        self.result, self.error, self.thread = result, error, threading.current_thread().name
        self.event.set()

    def wait(self):
        assert self.event.wait(10)
        return self


@pytest.fixture
def own_pool():
    made = []

    def make(**more):
        made.append(WorkerPool("test", 2, queue_limit=3, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()
        each.join(5)


@pytest.fixture
def pool(own_pool):
    return own_pool()


def occupy(pool, gate, count):
    started = [threading.Event() for _ in range(count)]
    for begun in started:
        pool.submit(lambda begun=begun: (begun.set(), gate.wait(10)), lambda *_: None, label="occupied")
    for begun in started:
        assert begun.wait(10)


def test_work_runs_on_a_named_daemon_thread_and_its_result_is_reported(pool):
    done = Outcome()
    pool.submit(lambda: threading.current_thread().daemon, done, label="ask")
    assert done.wait().result is True
    assert done.thread == "test-1"
    assert done.error is None


def test_no_thread_is_started_before_there_is_work(pool):
    assert pool.thread_count == 0


def test_an_idle_thread_is_used_before_another_is_started(pool):
    for _ in range(20):
        done = Outcome()
        pool.submit(lambda: 1, done, label="one")
        done.wait()
        while pool.in_flight_numbers():  # the thread is idle again when its job has left the set
            threading.Event().wait(0.001)
    assert pool.thread_count <= 2


def test_there_are_never_more_threads_than_the_size_and_the_rest_waits(pool, gate):
    occupy(pool, gate, 2)
    done = Outcome()
    pool.submit(lambda: "third", done, label="third")
    assert (pool.thread_count, pool.queued_count) == (2, 1)
    gate.set()
    assert done.wait().result == "third"


def test_a_full_queue_refuses_with_the_time_to_come_again(pool, gate):
    occupy(pool, gate, 2)
    for _ in range(3):
        pool.submit(lambda: None, lambda *_: None, label="waits")
    with pytest.raises(Busy, match="queue of test is full") as refused:
        pool.submit(lambda: None, lambda *_: None, label="one too many")
    assert (refused.value.retry_after, refused.value.is_own_share) == (1.0, False)


def test_a_caller_that_has_used_its_share_of_a_queue_is_told_so(pool, gate):
    occupy(pool, gate, 2)
    pool.submit(lambda: None, lambda *_: None, label="waits", client="greedy")
    pool.submit(lambda: None, lambda *_: None, label="waits", client="other")
    with pytest.raises(Busy, match="this caller has used its share") as refused:
        pool.submit(lambda: None, lambda *_: None, label="one too many", client="greedy")
    assert refused.value.is_own_share


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_whatever_the_work_raises_is_reported_and_the_thread_goes_on(pool, kind):
    def fail():
        raise kind("no")

    for _ in range(5):
        done = Outcome()
        pool.submit(fail, done, label="fails")
        assert type(done.wait().error) is kind
    assert 1 <= pool.thread_count <= 2


@pytest.mark.parametrize("kind", [ValueError, SystemExit])
def test_a_report_that_raises_is_logged_and_the_thread_goes_on(pool, caplog, kind):
    def report(result, error):
        raise kind("nobody listens")

    pool.submit(lambda: None, report, label="lost")
    done = Outcome()
    pool.submit(lambda: "next", done, label="next")
    assert done.wait().result == "next"
    while pool.in_flight_numbers():
        threading.Event().wait(0.001)
    assert "the result of lost in test could not be delivered" in caplog.text
    assert pool.thread_count >= 1


def test_context_variables_of_the_caller_go_along(pool):
    variable = contextvars.ContextVar("variable", default="unset")
    variable.set("from the caller")
    done = Outcome()
    pool.submit(variable.get, done, label="read")
    assert done.wait().result == "from the caller"


def test_running_tells_label_thread_and_seconds(pool, gate):
    occupy(pool, gate, 1)
    (row,) = pool.running_jobs()
    assert (row.label, row.thread) == ("occupied", "test-1")
    assert row.seconds >= 0


def test_a_job_that_does_several_things_says_which(pool, gate):
    renamed = threading.Event()

    def work():
        pool.set_label("second thing")
        renamed.set()
        gate.wait(10)

    pool.submit(work, lambda *_: None, label="first thing")
    assert renamed.wait(10)
    assert [row.label for row in pool.running_jobs()] == ["second thing"]


def test_a_job_is_in_flight_from_submit_until_its_end_has_been_reported(pool, gate):
    seen = []
    ended = threading.Event()

    def report(result, error):
        seen.append(len(pool.in_flight_numbers()))
        ended.set()

    pool.submit(lambda: gate.wait(10), report, label="long")
    assert len(pool.in_flight_numbers()) == 1
    gate.set()
    assert ended.wait(10)
    assert seen == [1]
    while pool.in_flight_numbers():
        threading.Event().wait(0.001)


def test_close_refuses_new_work_and_reports_what_waited_as_draining(pool, gate):
    occupy(pool, gate, 2)
    done = Outcome()
    pool.submit(lambda: None, done, label="waits")
    assert pool.close() == ["waits"]
    assert isinstance(done.wait().error, Draining)
    with pytest.raises(Draining):
        pool.submit(lambda: None, done, label="late")
    assert len(pool.in_flight_numbers()) == 2


def test_join_returns_what_still_runs(pool, gate):
    occupy(pool, gate, 2)
    pool.close()
    assert [row.label for row in pool.join(0.01)] == ["occupied", "occupied"]
    gate.set()
    assert pool.join(10) == []
    assert pool.thread_count == 0


def test_a_thread_of_the_pool_that_joins_it_does_not_wait_for_itself(pool):
    done = Outcome()
    pool.submit(lambda: (pool.close(), pool.join(0.01)), done, label="closes")
    assert done.wait().error is None


@pytest.fixture
def no_threads(monkeypatch):
    """The machine refuses threads, as it does at the limit of tasks."""
    import ostler.aio.worker_pool as module

    class Refused(module.Worker):
        def start(self):
            raise RuntimeError("can't start new thread")

    # The limit of tasks is that of the user, and would hold for the whole run of the tests.
    monkeypatch.setattr(module, "Worker", Refused)


@pytest.mark.failure_mode("Machine", "no memory for a thread")
def test_no_memory_for_a_thread_refuses_the_job_and_keeps_nothing_of_it(pool, no_threads):
    with pytest.raises(Busy, match="cannot start a thread"):
        pool.submit(lambda: None, lambda *_: None, label="first")
    assert (pool.queued_count, pool.thread_count, len(pool.in_flight_numbers())) == (0, 0, 0)


def test_no_memory_for_another_thread_goes_on_with_those_there_are(pool, gate, caplog, request):
    occupy(pool, gate, 1)
    request.getfixturevalue("no_threads")
    done = Outcome()
    with caplog.at_level(logging.WARNING):
        pool.submit(lambda: "later", done, label="second")
    assert "continues with 1" in caplog.text
    gate.set()
    assert done.wait().result == "later"


async def test_run_waits_on_the_loop_and_returns_the_result(pool):
    assert await pool.run(lambda: threading.current_thread().name, label="ask") == "test-1"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, StopIteration, asyncio.CancelledError])
async def test_run_turns_what_would_stop_the_loop_into_a_runtime_error(pool, kind):
    def fail():
        raise kind("no")

    with pytest.raises(RuntimeError, match=kind.__name__) as caught:
        await pool.run(fail, label="fails")
    assert isinstance(caught.value.__cause__, kind)


async def test_run_passes_ordinary_errors_as_they_are(pool):
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0, label="divides")


async def test_a_cancelled_wait_does_not_stop_the_thread(pool, gate):
    ended = threading.Event()

    task = asyncio.ensure_future(pool.run(lambda: (gate.wait(10), ended.set()), label="long"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not ended.is_set()
    gate.set()
    assert await asyncio.to_thread(ended.wait, 10)


def test_work_that_ends_after_the_loop_has_closed_harms_nobody(pool, gate, caplog):
    async def main():
        asyncio.ensure_future(pool.run(lambda: gate.wait(10), label="long")).cancel()
        await asyncio.sleep(0)
        task = asyncio.ensure_future(pool.run(lambda: gate.wait(10), label="long"))
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    gate.set()
    pool.close()
    assert pool.join(10) == []
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_contained_leaves_exceptions_alone():
    error = ValueError("plain")
    assert as_exception(error) is error


def test_a_thousand_jobs_from_many_threads_all_end(pool):
    count, lock, every = [0], threading.Lock(), threading.Event()
    wide = WorkerPool("wide", 4, queue_limit=100_000)

    def report(result, error):
        with lock:
            count[0] += 1
            if count[0] == 4000:
                every.set()

    def feed():
        for _ in range(1000):
            wide.submit(lambda: None, report, label="tiny")

    feeders = [threading.Thread(target=feed) for _ in range(4)]
    for feeder in feeders:
        feeder.start()
    for feeder in feeders:
        feeder.join()
    assert every.wait(20)
    wide.close()
    assert wide.join(5) == []
    assert wide.in_flight_numbers() == frozenset()


def test_close_reports_what_waited_while_a_thread_is_on_its_way_to_stand_by(gate):
    for _ in range(50):
        pool, dropped = WorkerPool("test", 2), Outcome()
        meeting = threading.Barrier(3)
        for _ in range(2):
            pool.submit(lambda meeting=meeting: meeting.wait(10), lambda *_: None, label="meet")
        meeting.wait(10)
        while pool.in_flight_numbers():
            pass
        pool.submit(lambda: gate.wait(10), lambda *_: None, label="occupied")
        pool.submit(lambda: None, dropped, label="short")  # wakes the other thread, which has not come yet
        pool.close()
        dropped.wait()
        gate.set()
        assert pool.join(10) == []
        assert not pool.thread_count


@pytest.mark.parametrize("size", range(2, 9))
def test_no_job_is_left_behind_by_threads_that_sleep(size):
    pool = WorkerPool("test", size)
    chance = random.Random(size)
    for _ in range(150):
        jobs = [Outcome() for _ in range(chance.randrange(2, 2 * size))]
        blocked = chance.randrange(0, min(size, len(jobs)))
        freed = threading.Barrier(blocked + 1)
        for number, job in enumerate(jobs[:-1]):
            # Those that block are freed by the last of all, which has to find a thread while they hold theirs.
            work = (lambda freed=freed: freed.wait(10)) if number < blocked else (lambda: None)
            pool.submit(work, job, label="job")
        if chance.random() < 0.2:
            time.sleep(chance.random() * 0.003)
        pool.submit(lambda freed=freed: freed.wait(10), jobs[-1], label="last")
        for job in jobs:
            assert job.wait().error is None
    pool.close()
    assert pool.join(10) == []


@pytest.mark.parametrize("size", range(1, 9))
def test_every_job_ends_or_is_told_so_when_the_pool_is_closed_at_any_moment(size):
    chance = random.Random(size)
    for _ in range(60):
        pool = WorkerPool("test", size)
        jobs = []
        for _ in range(chance.randrange(1, 12)):
            jobs.append(Outcome())
            seconds = chance.choice((0, 0, 0, 0.0005, 0.002))
            pool.submit(lambda seconds=seconds: time.sleep(seconds), jobs[-1], label="job")
            if chance.random() < 0.3:
                time.sleep(chance.random() * 0.002)
        pool.close()
        for job in jobs:
            assert job.wait().error is None or isinstance(job.error, Draining)
        assert pool.join(10) == []
        assert not pool.thread_count


class Waits:
    """A job that waits for a reason until it is let go."""

    def __init__(self, pool, reason="disk"):
        self.begun, self.gate, self.done = threading.Event(), threading.Event(), Outcome()
        self.replaced = None
        pool.submit(lambda: self._run(reason), self.done, label=f"waits for {reason}")
        assert self.begun.wait(10)

    def _run(self, reason):
        with waiting_for(reason) as self.replaced:
            self.begun.set()
            self.gate.wait(10)
        return threading.current_thread().name

    def end(self):
        self.gate.set()
        return self.done.wait().result


def test_waiting_threads_are_replaced_so_one_hung_device_takes_none_from_others(pool):
    waiting = [Waits(pool) for _ in range(6)]
    done = Outcome()
    pool.submit(lambda: 1, done, label="other")
    assert done.wait().result == 1
    assert pool.thread_count == 6 + 1 or pool.thread_count == 6 + 2
    assert len(pool.running_jobs()) == 6
    assert pool.running_jobs(include_replaced=False) == []
    for each in waiting:
        each.end()


def test_threads_that_come_back_while_there_are_enough_others_end(pool):
    waiting = [Waits(pool) for _ in range(6)]
    for each in waiting:
        each.end()
    done = Outcome()
    pool.submit(lambda: 1, done, label="other")
    done.wait()
    until = time.monotonic() + 10
    while pool.thread_count > 2 and time.monotonic() < until:
        time.sleep(0.001)
    assert pool.thread_count <= 2


def test_a_job_queued_while_all_threads_work_is_taken_when_one_begins_to_wait(pool, gate):
    occupy(pool, gate, 1)
    wait, waits = threading.Event(), threading.Event()

    def work():
        wait.wait(10)
        with waiting_for("disk"):
            waits.set()
            gate.wait(10)

    pool.submit(work, lambda *_: None, label="work")
    done = Outcome()
    pool.submit(lambda: 1, done, label="queued")
    assert not done.event.is_set()
    wait.set()
    assert done.wait().result == 1


def test_one_reason_gets_no_more_than_half_of_the_threads_that_may_wait(own_pool):
    pool = own_pool(max_replaced=4)
    waiting = [Waits(pool) for _ in range(2)]
    third = Waits(pool)
    assert [each.replaced for each in (*waiting, third)] == [True, True, False]
    other = Waits(pool, "network")
    assert other.replaced is True
    for each in (*waiting, third, other):
        each.end()


def test_a_thread_may_wait_again_and_again_in_one_job(pool):
    begun, done = threading.Event(), Outcome()
    others = [Waits(pool) for _ in range(2)]

    def work():
        begun.set()
        for _ in range(3):
            with waiting_for("disk") as replaced:
                assert replaced
        with waiting_for("disk") as first, waiting_for("disk") as second:
            return first, second

    pool.submit(work, done, label="work")
    assert done.wait().result == (True, False)
    for each in others:
        each.end()


def test_waiting_on_a_thread_of_nobodys_pool_is_no_more_than_waiting():
    with waiting_for("disk") as replaced:
        assert replaced is False


def test_threads_that_wait_when_the_pool_is_closed_are_named_and_end(pool):
    waiting = Waits(pool)
    pool.close()
    assert [row.label for row in pool.join(0.01)] == ["waits for disk"]
    waiting.end()
    assert pool.join(10) == []
