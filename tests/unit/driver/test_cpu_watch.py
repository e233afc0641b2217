"""The limit of CPU time, by a clock that the test moves."""

import asyncio
import os

import pytest

from ostler.driver.process.cpu_watch import CpuWatch, read_cpu_time
from ostler.testing import VirtualTimeLoop


class Rig:
    """A process that uses the CPU as the test says, in virtual time."""

    def __init__(self):
        self.loop = VirtualTimeLoop()
        self.rate = 0.0
        self.used = 0.0
        self.at = self.loop.time()
        self.excess = []
        self.samples = 0
        self.watch = CpuWatch(self.loop, self.read, self.excess.append)

    def read(self):
        self.samples += 1
        self.use(self.rate)
        return self.used

    def use(self, rate):
        now = self.loop.time()
        self.used += (now - self.at) * self.rate
        self.at, self.rate = now, rate

    def run(self, seconds, rate):
        self.use(rate)
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.use(rate)


@pytest.fixture
def rig():
    made = Rig()
    yield made
    made.watch.stop()
    made.loop.close()


def test_a_process_that_spins_is_reported_after_its_share_of_the_window(rig):
    rig.watch.set_limit(0.5, 60)
    rig.run(29, 1.0)
    assert rig.excess == []
    rig.run(6, 1.0)
    (said,) = rig.excess
    assert said.startswith("it used 33s of CPU time within 1min"), said
    assert said.endswith("more than its `cpu_limit` of 0.5 CPUs allows")


def test_hours_below_the_limit_and_bursts_within_it_are_allowed(rig):
    rig.watch.set_limit(0.5, 60)
    rig.run(10_000, 0.45)
    for _ in range(20):
        rig.run(40, 0.0)
        rig.run(20, 1.0)
    assert rig.excess == []


def test_little_more_than_the_limit_for_long_is_reported(rig):
    rig.watch.set_limit(0.5, 60)
    rig.run(1000, 0.49)
    assert rig.excess == []
    rig.run(200, 0.52)
    assert len(rig.excess) == 1


def test_several_processors_count_each(rig):
    rig.watch.set_limit(2, 10)
    rig.run(60, 2.0)
    assert rig.excess == []
    rig.run(60, 4.0)
    assert len(rig.excess) == 1


class LateLoop:
    """Runs each timer two minutes late."""

    def __init__(self):
        self.now = 0.0

    def time(self):
        return self.now

    def call_later(self, seconds, function):
        self.next = function
        return self

    def cancel(self):
        return


def test_a_loop_that_was_blocked_counts_all_of_the_time(rig):
    late, used = LateLoop(), 0.0
    watch = CpuWatch(late, lambda: late.now * used, rig.excess.append)
    used = 0.45
    watch.set_limit(0.5, 10)
    for _ in range(5):
        late.now += 120
        late.next()
    assert rig.excess == []
    used = 0.7
    late.now += 120
    late.next()
    assert len(rig.excess) == 1


def test_nothing_is_sampled_without_a_limit_nor_after_the_end_of_the_process(rig):
    rig.watch.set_limit(0, 60)
    rig.run(1000, 4.0)
    assert rig.samples == 0

    def ended():
        raise OSError("no such process")

    watch = CpuWatch(rig.loop, ended, rig.excess.append)
    watch.set_limit(0.5, 60)
    rig.run(100, 1.0)
    assert rig.excess == []


def test_the_cpu_time_of_a_process_is_read(rig):
    before = read_cpu_time(os.getpid())
    sum(range(10**6))
    assert before < read_cpu_time(os.getpid()) < before + 60
    with pytest.raises(OSError, match="Invalid argument"):
        read_cpu_time(2**22 + 1)
