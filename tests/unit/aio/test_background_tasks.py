"""Background tasks of managers: coroutines and threads, restarted or not, and ended with their service."""

import asyncio
import threading

import pytest

from ostler.aio import LoopQueue
from ostler.aio.background_tasks import BackgroundTasks
from ostler.errors import Busy, Conflict, InvalidInput
from ostler.testing.virtual_time import virtual_clock
from support.async_tests import loop_fixture
from support.waiting import until, wait_until


class Bench:
    """Background tasks on the running loop."""

    def __init__(self, **options):
        self.changes = 0
        self.tasks = BackgroundTasks("lamp", LoopQueue(asyncio.get_running_loop()), self.changed, **options)

    def changed(self):
        self.changes += 1

    def states(self):
        return {status.name: status.state for status in self.tasks.statuses()}


@loop_fixture
async def bench():
    made = Bench()
    yield made
    assert await made.tasks.stop(5) == []


async def test_a_coroutine_and_a_thread_run_with_their_arguments_and_end_with_the_stop(bench):
    seen, begun = [], threading.Event()

    async def watch(what):
        seen.append(what)
        try:
            await asyncio.sleep(3600)
        finally:
            seen.append("cancelled")

    def read(stop, what):
        seen.append((what, threading.current_thread().name))
        begun.set()
        stop.wait(60)

    bench.tasks.spawn("watch", watch, "a")
    handle = await asyncio.to_thread(bench.tasks.spawn, "read", read, "b")
    await until(lambda: begun.is_set() and "a" in seen)
    rows = {row.name: (row.kind, row.state, row.restart) for row in bench.tasks.statuses()}
    assert rows == {"watch": ("coroutine", "running", "never"), "read": ("thread", "running", "never")}
    assert bench.tasks.running() == ["background task read of lamp", "background task watch of lamp"]
    assert await bench.tasks.stop(5) == []
    assert handle.ended.is_set()
    assert set(seen) == {"a", ("b", "lamp-read"), "cancelled"}
    assert bench.states() == {}
    with pytest.raises(Conflict, match="service lamp is being stopped: again was not started"):
        bench.tasks.spawn("again", watch, "c")


@pytest.mark.parametrize("kind", ["thread", "coroutine"])
async def test_one_that_returns_has_ended_and_its_name_is_free(bench, kind):
    def in_thread(_stop): ...

    async def on_loop(): ...

    work = in_thread if kind == "thread" else on_loop
    for _ in range(3):
        bench.tasks.spawn("once", work)
        await until(lambda: bench.states() == {})
    assert bench.tasks.problems() == {}


@pytest.mark.failure_mode("Periodic", "a background task that ends or fails")
@pytest.mark.parametrize("kind", ["thread", "coroutine"])
@pytest.mark.parametrize("error", [OSError("no lamp"), SystemExit(3), KeyboardInterrupt()])
async def test_one_that_fails_is_a_problem_until_one_of_its_name_is_started(bench, kind, error, caplog):
    failing = True

    def in_thread(_stop):
        if failing:
            raise error

    async def on_loop():
        if failing:
            raise error

    work = in_thread if kind == "thread" else on_loop
    bench.tasks.spawn("watch", work)
    await until(lambda: bench.states() == {"watch": "failed"})
    text = bench.tasks.problems()["watch"]
    assert text.startswith("background task watch of lamp failed: ")
    assert type(error).__name__ in text
    assert "background task watch of lamp failed" in caplog.text
    assert bench.changes
    failing = False
    bench.tasks.spawn("watch", work)
    await until(lambda: bench.states() == {})
    assert bench.tasks.problems() == {}


@pytest.mark.failure_mode("Periodic", "a background task that ends or fails")
@pytest.mark.parametrize("kind", ["thread", "coroutine"])
@pytest.mark.parametrize(("restart", "raises"), [("always", False), ("always", True), ("on failure", True)])
async def test_one_that_is_to_be_restarted_is(bench, kind, restart, raises, caplog):
    rounds = []

    def work():
        rounds.append(1)
        if raises:
            raise OSError(f"no lamp {len(rounds)}")

    def in_thread(_stop):
        work()

    async def on_loop():
        work()

    bench.tasks.spawn("watch", in_thread if kind == "thread" else on_loop, restart=restart, backoff=(0.001, 0.002))
    await until(lambda: len(rounds) >= 4)
    assert "failed and is restarted" in bench.tasks.problems()["watch"]
    assert bench.tasks.statuses()[0].restarts >= 2
    assert await bench.tasks.stop(5) == []
    assert caplog.text.count("background task watch of lamp failed") == 1, "one that repeats is logged once"


async def test_one_that_is_restarted_on_failure_ends_when_it_returns(bench):
    async def work(): ...

    bench.tasks.spawn("watch", work, restart="on failure")
    await until(lambda: bench.states() == {})


@pytest.mark.virtual_time
async def test_restarts_come_later_each_time_and_are_forgotten_when_it_runs_for_a_minute():
    clock, begun = virtual_clock(), []
    bench = Bench(monotonic=clock.monotonic, wall=clock.wall)

    async def work():
        begun.append(round(clock.monotonic() - start))
        if len(begun) in (1, 2, 3, 5):
            raise OSError("no lamp")
        await asyncio.sleep(100)
        raise OSError("no lamp either")

    start = clock.monotonic()
    bench.tasks.spawn("watch", work, restart="on failure", backoff=(2, 60))
    await asyncio.sleep(50)
    assert begun == [0, 2, 6, 14]
    assert bench.tasks.problems() == {
        "watch": "background task watch of lamp failed and is restarted: OSError: no lamp"
    }
    await asyncio.sleep(30)
    assert bench.tasks.problems() == {}, "it has been running for more than a minute"
    await asyncio.sleep(45)
    assert begun == [0, 2, 6, 14, 116, 120], "the back-off began again"
    assert await bench.tasks.stop(5) == []


async def test_a_cancellation_by_other_code_is_a_failure_like_others(bench):
    running, rounds = asyncio.Event(), []

    async def work():
        rounds.append(asyncio.current_task())
        running.set()
        await asyncio.sleep(3600)

    bench.tasks.spawn("watch", work, restart="on failure", backoff=(0.001, 0.001))
    await running.wait()
    rounds[0].cancel()
    await until(lambda: len(rounds) == 2)
    assert bench.states() == {"watch": "running"}


async def test_a_handle_stops_its_task_which_is_not_restarted(bench):
    begun = threading.Event()

    def read(stop):
        begun.set()
        stop.wait(60)

    async def watch():
        await asyncio.sleep(3600)

    one = bench.tasks.spawn("read", read, restart="always", backoff=(0.001, 0.001))
    other = bench.tasks.spawn("watch", watch, restart="always", backoff=(0.001, 0.001))
    await until(begun.is_set)
    assert await asyncio.to_thread(one.stop, 15)
    assert await asyncio.to_thread(other.stop, 15)
    assert (one.state, other.state, bench.states()) == ("ended", "ended", {})


async def test_one_that_does_not_end_is_named_at_the_stop():
    bench, gate = Bench(), threading.Event()

    def deaf(_stop):
        gate.wait(60)

    async def stubborn():
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            await asyncio.to_thread(gate.wait, 60)

    begun = [bench.tasks.spawn("deaf", deaf), bench.tasks.spawn("stubborn", stubborn)]
    await until(lambda: begun[1].task is not None)
    await asyncio.sleep(0)
    assert await bench.tasks.stop(0.05) == [
        "background task deaf of lamp",
        "background task stubborn of lamp",
    ]
    gate.set()
    assert await bench.tasks.stop(5) == []


async def test_one_that_is_stopped_before_it_began_has_ended(bench):
    async def work():
        raise AssertionError

    task = bench.tasks.spawn("watch", work)
    assert await bench.tasks.stop(5) == []
    assert task.ended.is_set()


async def test_what_cannot_be_started_is_refused():
    bench = Bench(limit=2)

    async def work():
        await asyncio.sleep(3600)

    def items(_stop):
        yield 1

    for name, function, options, said in (
        ("", work, {}, "not a valid name"),
        ("a\nb", work, {}, "not a valid name"),
        ("x" * 300, work, {}, "limit"),
        ("a", 5, {}, "5 is not a function"),
        ("a", items, {}, "is not a function"),
        ("a", work, {"restart": "maybe"}, "restart is 'maybe'"),
        ("a", work, {"backoff": (5, 1)}, "the least and the most seconds"),
        ("a", work, {"backoff": (0, 1)}, "the least and the most seconds"),
    ):
        with pytest.raises(InvalidInput, match=said):
            bench.tasks.spawn(name, function, **options)
    bench.tasks.spawn("one", work)
    with pytest.raises(Conflict, match="has a background task one already"):
        bench.tasks.spawn("one", work)
    bench.tasks.spawn("two", work)
    with pytest.raises(Conflict, match="has 2 background tasks, the most there may be"):
        bench.tasks.spawn("three", work)
    assert await bench.tasks.stop(5) == []


@pytest.mark.failure_mode("Machine", "no memory for a thread")
async def test_no_memory_for_a_thread_is_said_and_leaves_nothing(bench, monkeypatch):
    def refuse(_self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)  # what the kernel does when there are too many
    with pytest.raises(Busy, match="background task read of lamp could not be started: no thread"):
        bench.tasks.spawn("read", lambda _stop: None)
    assert bench.states() == {}


def test_without_a_loop_there_are_threads_only():
    tasks = BackgroundTasks("lamp")

    async def work(): ...

    with pytest.raises(InvalidInput, match="needs an event loop"):
        tasks.spawn("watch", work)
    done = threading.Event()
    tasks.spawn("read", lambda _stop: done.set())
    wait_until(done.is_set)
