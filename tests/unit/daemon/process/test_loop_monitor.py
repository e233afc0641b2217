"""What blocks the event loop is named with its line."""

import asyncio
import logging
import threading

import pytest

from ostler.daemon.process.loop_monitor import LOG_INTERVAL, PROBLEM_LIFETIME, LoopMonitor, TurnSelector

HERE = __name__.partition(".")[0]


class Bench:
    """A loop on a thread of its own, whose monitor looks when the test says so."""

    def __init__(self):
        self.now = 1000.0
        self.inside, self.go_on = threading.Event(), threading.Event()
        started = threading.Event()

        def run():
            selector = TurnSelector()
            self.loop = asyncio.SelectorEventLoop(selector)
            self.monitor = LoopMonitor(selector, self.loop, lambda: {HERE}, lambda: self.now)
            self.loop.call_soon(started.set)
            self.loop.run_forever()
            self.loop.close()

        self.thread = threading.Thread(target=run)
        self.thread.start()
        started.wait(10)

    def look(self, seconds=0.05):
        self.now += seconds
        return self.monitor.look()

    def block(self, looks):
        """Have a task block the loop for so many looks."""
        self.inside.clear()
        self.go_on.clear()
        asyncio.run_coroutine_threadsafe(self._block(), self.loop)
        assert self.inside.wait(10)
        for _ in range(looks):
            self.look()
        self.go_on.set()
        done = threading.Event()
        self.loop.call_soon_threadsafe(done.set)
        assert done.wait(10)
        self.look()

    async def _block(self):
        asyncio.current_task().set_name("slow task")
        self.inside.set()
        self.go_on.wait(10)

    def close(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(10)


@pytest.fixture
def bench():
    made = Bench()
    yield made
    made.close()


@pytest.mark.failure_mode("Plugins", "one that blocks the event loop")
def test_a_turn_that_takes_long_is_named_with_its_line_and_task(bench, caplog):
    caplog.set_level(logging.INFO)
    bench.block(looks=4)
    (line,) = bench.monitor.problems()
    assert line.startswith("the event loop was blocked once, for up to 200ms, by ")
    assert f"{__file__}:" in line
    assert "in _block, within " in line
    assert "threading.py:" in line
    assert line.endswith(", task slow task")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "move that to a method that is not async, or await it" in record.message


def test_a_turn_that_does_not_end_is_logged_once_with_the_stacks_of_all_threads(bench, caplog):
    bench.block(looks=210)
    hung = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(hung) == 1
    assert hung[0].message.startswith("the event loop has been blocked for 5s by ")
    assert f"{__file__}:" in hung[0].message
    assert "MainThread" in str(vars(hung[0]))
    bench.block(looks=210)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2


def test_turns_that_are_short_are_not_named(bench):
    for _ in range(5):
        bench.block(looks=2)
    assert bench.monitor.problems() == []


def test_one_place_is_counted_and_logged_once_a_minute(bench, caplog):
    for _ in range(3):
        bench.block(looks=4)
    (line,) = bench.monitor.problems()
    assert "blocked 3 times" in line
    assert len(caplog.records) == 1
    bench.now += LOG_INTERVAL
    bench.block(looks=6)
    assert "(4 times so far)" in caplog.records[-1].message
    assert "for up to 300ms" in bench.monitor.problems()[0]


def test_blocked_turns_and_their_time_are_counted_whoever_blocked(bench):
    bench.monitor.plugin_packages = set
    for _ in range(2):
        bench.block(looks=4)
    assert bench.monitor.blocked_count == 2
    assert 0.3 < bench.monitor.blocked_seconds < 0.7


def test_what_was_long_ago_is_no_problem(bench):
    bench.block(looks=4)
    bench.now += PROBLEM_LIFETIME + 1
    assert bench.monitor.problems() == []


def test_code_of_no_plugin_is_logged_and_is_no_problem_of_the_host(bench, caplog):
    caplog.set_level(logging.INFO)
    bench.monitor.plugin_packages = set
    bench.block(looks=4)
    assert bench.monitor.problems() == []
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_a_loop_at_rest_is_looked_at_less_often(bench):
    bench.look()
    assert bench.look() == pytest.approx(0.2)
    assert bench.monitor.problems() == []
