"""Large results are encoded one after the other, with pauses."""

import threading
from types import SimpleNamespace

import pytest

from ostler.messaging.rpc.endpoint import MethodStats
from ostler.messaging.rpc.thread_replies import LARGE_RESULT_SIZE, LargeResults


class Time:
    def __init__(self):
        self.now = 100.0
        self.slept = []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(round(seconds, 6))
        self.now += seconds


class Call:
    """A request whose result takes some time to encode."""

    def __init__(self, time, size, seconds):
        self.method = SimpleNamespace(stats=MethodStats())
        self._time, self._size, self._seconds = time, size, seconds

    def pack(self, result):
        self._time.now += self._seconds
        return bytes(self._size)


def test_results_of_a_method_that_returns_much_are_encoded_a_third_of_the_time():
    time = Time()
    results = LargeResults(time.sleep, time)
    call = Call(time, LARGE_RESULT_SIZE + 1, 0.010)
    for _ in range(4):
        assert len(results.pack(call, None)) == LARGE_RESULT_SIZE + 1
    # The first one showed that it is such a method; the second one began at once.
    assert time.slept == [0.020, 0.020]


def test_a_pause_has_an_end_and_who_comes_later_does_not_wait():
    time = Time()
    results = LargeResults(time.sleep, time)
    call = Call(time, LARGE_RESULT_SIZE + 1, 3.0)
    for _ in range(3):
        results.pack(call, None)
    assert time.slept == [0.05]
    time.now += 1.0
    results.pack(call, None)
    assert time.slept == [0.05]


def test_small_results_wait_for_nothing():
    time = Time()
    results = LargeResults(time.sleep, time)
    call = Call(time, 100, 0.010)
    for _ in range(5):
        results.pack(call, None)
    assert time.slept == []


def test_an_encoding_that_fails_lets_the_next_one_begin():
    time = Time()
    results = LargeResults(time.sleep, time)
    call = Call(time, LARGE_RESULT_SIZE + 1, 0.010)
    results.pack(call, None)

    class Unfit(Call):
        def pack(self, result):
            raise TypeError("no")

    unfit = Unfit(time, 0, 0)
    unfit.method.stats.has_large_results = True
    with pytest.raises(TypeError):
        results.pack(unfit, None)
    assert len(results.pack(call, None)) == LARGE_RESULT_SIZE + 1


def test_an_encoding_that_does_not_end_holds_up_nobody_for_ever():
    time = Time()
    results = LargeResults(time.sleep, time, lock_timeout=0.01)
    begun, over = threading.Event(), threading.Event()

    class Hangs(Call):
        def pack(self, result):
            begun.set()
            over.wait(10)
            return bytes(LARGE_RESULT_SIZE + 1)

    hangs = Hangs(time, 0, 0)
    hangs.method.stats.has_large_results = True
    thread = threading.Thread(target=results.pack, args=(hangs, None))
    thread.start()
    try:
        assert begun.wait(5)
        call = Call(time, LARGE_RESULT_SIZE + 1, 0.010)
        call.method.stats.has_large_results = True
        assert len(results.pack(call, None)) == LARGE_RESULT_SIZE + 1
    finally:
        over.set()
        thread.join(5)
