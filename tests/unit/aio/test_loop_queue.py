"""From threads to the loop, in batches."""

import asyncio
import contextvars
import threading
import time

import pytest

from ostler.aio import LoopQueue

# private: _queue: what piles up in a closed loop shows in nothing else
# private: _is_waiting: the moment at which a thread waits


class CountingLoop(asyncio.SelectorEventLoop):
    """Counts how often it is woken from outside."""

    def __init__(self):
        super().__init__()
        self.wakes = 0

    def call_soon_threadsafe(self, *args, **kwargs):
        self.wakes += 1
        return super().call_soon_threadsafe(*args, **kwargs)


pytestmark = pytest.mark.loop(factory=CountingLoop)


async def test_callbacks_run_on_the_loop_in_the_order_they_came():
    inbox, seen, end = LoopQueue(asyncio.get_running_loop()), [], asyncio.Event()
    home = threading.get_ident()

    def feed():
        for number in range(100):
            inbox.post(lambda number=number: seen.append((number, threading.get_ident() == home)))
        inbox.post(end.set)

    threading.Thread(target=feed).start()
    await asyncio.wait_for(end.wait(), 10)
    assert seen == [(number, True) for number in range(100)]


async def test_one_wake_up_serves_the_whole_batch():
    loop = asyncio.get_running_loop()
    inbox, seen = LoopQueue(loop), []
    before = loop.wakes
    for number in range(1000):
        inbox.post(lambda number=number: seen.append(number))
    assert loop.wakes - before == 1
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(seen) == 1000


async def test_what_is_posted_while_the_batch_runs_is_not_lost():
    inbox, end = LoopQueue(asyncio.get_running_loop()), asyncio.Event()
    inbox.post(lambda: inbox.post(end.set))
    # Passing is the assertion: what is lost is a TimeoutError.
    await asyncio.wait_for(end.wait(), 10)


async def test_a_callback_that_raises_does_not_stop_the_rest_of_the_batch(caplog):
    inbox, end = LoopQueue(asyncio.get_running_loop()), asyncio.Event()

    def fail(kind):
        raise kind("no")

    inbox.post(lambda: fail(ValueError))
    inbox.post(lambda: fail(SystemExit))
    inbox.post(end.set)
    await asyncio.wait_for(end.wait(), 10)
    assert caplog.text.count("a callback handed over to the loop failed") == 2


def test_after_the_loop_has_closed_posts_are_dropped_and_nothing_piles_up():
    loop = asyncio.new_event_loop()
    inbox = LoopQueue(loop)
    loop.close()
    for _ in range(100):
        inbox.post(lambda: None)
    assert len(inbox._queue) == 0


async def test_nothing_is_lost_when_many_threads_post():
    inbox, seen, end = LoopQueue(asyncio.get_running_loop()), [0], asyncio.Event()

    def count():
        seen[0] += 1
        if seen[0] == 20_000:
            end.set()

    def feed():
        for _ in range(5000):
            inbox.post(count)

    for _ in range(4):
        threading.Thread(target=feed).start()
    # Passing is the assertion: when one of them is lost, this is a TimeoutError.
    await asyncio.wait_for(end.wait(), 20)


async def test_what_is_posted_runs_in_nobodys_context_variables():
    """Or the lines of one request would carry the id of another, whose thread happened to wake the loop."""
    variable = contextvars.ContextVar("variable", default="nobody")
    seen = []

    inbox = LoopQueue(asyncio.get_running_loop())
    done = asyncio.Event()

    def work():
        variable.set("somebody")
        inbox.post(lambda: seen.append(variable.get()))
        inbox.post(done.set)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,))
    thread.start()
    await asyncio.wait_for(done.wait(), 5)
    thread.join()
    assert seen == ["nobody"]


async def test_what_is_called_around_each_batch_is_called_no_more_when_that_is_undone():
    inbox, seen = LoopQueue(asyncio.get_running_loop()), []
    for name in ("one", "two"):
        undo = inbox.add_batch_hooks(
            lambda name=name: seen.append(f"before {name}"), lambda name=name: seen.append(name)
        )
    inbox.post(lambda: seen.append("work"))
    await asyncio.sleep(0)
    undo()
    inbox.post(lambda: seen.append("more"))
    await asyncio.sleep(0)
    assert seen == ["before one", "before two", "work", "one", "two", "before one", "more", "one"]


async def test_a_wait_ends_when_somebody_says_so_and_a_sleeping_loop_is_left_alone():
    loop = asyncio.get_running_loop()
    inbox = LoopQueue(loop)
    before = loop.wakes
    inbox.end_wait()
    assert not inbox.wait_and_run(0.001), "nobody waited when it was said"

    def say():
        while not inbox._is_waiting:
            time.sleep(0.0001)
        inbox.end_wait()

    thread = threading.Thread(target=say)
    thread.start()
    assert inbox.wait_and_run(10)
    thread.join()
    assert loop.wakes == before
