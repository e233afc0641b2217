import errno
import os
import threading
from pathlib import Path

import pytest

from ostler.aio import WorkerPool
from ostler.aio.worker_pool import ThreadWakeup
from ostler.errors import Draining

# private: _can_wake_waiter, _idle_workers, _lock, _running, _threads: the moment at which all threads of a pool sleep


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.fixture
def pool():
    made = WorkerPool("bell", 3)
    yield made
    made.close()
    assert made.join(5) == []


def submit(pool, work=lambda: None):
    ended = threading.Event()
    pool.submit(work, lambda result, error: ended.set(), label="work", defer_wake=True)
    return ended


def settle(pool):
    """Wait until all threads sleep."""
    until = threading.Event()
    for _ in range(5000):
        with pool._lock:
            if not pool._running and len(pool._idle_workers) + pool._can_wake_waiter() == len(pool._threads):
                return
        until.wait(0.001)
    raise AssertionError("threads do not sleep")


def test_it_wakes_the_thread_that_waits_or_will():
    bell = ThreadWakeup.create()
    bell.wake()
    bell.wait()
    thread = threading.Thread(target=bell.wait)
    thread.start()
    bell.wake()
    thread.join(5)
    assert not thread.is_alive()


def test_without_a_descriptor_there_is_none(monkeypatch):
    def none_left(*_):
        raise OSError(errno.EMFILE, "too many open files")

    # The limit of descriptors would hold for the tests themselves.
    monkeypatch.setattr(os, "eventfd", none_left)
    assert ThreadWakeup.create() is None


def test_what_is_left_for_later_begins_with_the_wake_and_not_before(pool):
    assert submit(pool).wait(5), "there was no thread yet: one was started"
    settle(pool)
    jobs = [submit(pool) for _ in range(20)]
    assert not jobs[0].wait(0.02)
    pool.wake()
    assert all(job.wait(5) for job in jobs)


def test_no_wake_up_is_lost_whoever_sleeps_where(pool):
    for turn in range(500):
        jobs = [submit(pool) for _ in range(turn % 4)]
        pool.wake()
        direct = threading.Event()
        pool.submit(lambda: None, lambda result, error, direct=direct: direct.set(), label="direct")
        assert all(job.wait(5) for job in [*jobs, direct]), turn
        if turn % 7 == 0:
            settle(pool)


def test_a_thread_that_is_held_up_does_not_hold_up_what_comes_later(pool):
    go_on = threading.Event()
    held = submit(pool, go_on.wait)
    for _ in range(5):
        job = submit(pool)
        pool.wake()
        assert job.wait(5)
    go_on.set()
    assert held.wait(5)


def test_a_pool_that_is_closed_ends_the_thread_at_the_bell_and_frees_its_descriptor():
    before = descriptors()
    for _ in range(20):
        pool = WorkerPool("bell", 2)
        for _ in range(2):
            job = submit(pool)
            pool.wake()
            assert job.wait(5)
        settle(pool)
        pool.close()
        assert pool.join(5) == []
        with pytest.raises(Draining):
            submit(pool)
        pool.wake()
        del pool
    assert descriptors() <= before + 1
