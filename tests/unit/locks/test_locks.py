from __future__ import annotations

import asyncio
import re
import threading

import pytest

from ostler.clock import SystemClock
from ostler.errors import (
    Cancelled,
    Conflict,
    DeadlineExceeded,
    Deadlock,
    Draining,
    FeatureNotSupported,
    InvalidInput,
    LockTimeout,
)
from ostler.locks import Locks, LockTable
from ostler.messaging.wire.request_context import Context, serving, serving_to_end
from support.waiting import wait_until


class Parts:
    """The locks of two services of one host, and threads that hold some."""

    def __init__(self):
        self.table = LockTable(SystemClock())
        self.locks = Locks(self.table, "volume", "node1", self._cluster)
        self.image_locks = Locks(self.table, "image", "node1", self._cluster)
        self.threads = []

    def _cluster(self):
        raise AssertionError("nothing here is shared with other hosts")

    def start(self, work):
        """Run work on a thread; what it raises is in `errors` of what is returned."""
        thread = ThreadWithError(work)
        self.threads.append(thread)
        thread.start()
        return thread

    def rows(self):
        return [(row.name, "held" if row.is_held else "waiting", row.method) for row in self.table.list("node1")]

    def wait_for(self, count):
        wait_until(lambda: sum(not row.is_held for row in self.table.list("node1")) == count)


class ThreadWithError(threading.Thread):
    def __init__(self, work):
        super().__init__(daemon=True)
        self._work = work
        self.error = None

    def run(self):
        try:
            self._work()
        except BaseException as error:
            self.error = error

    def result(self):
        self.join(10)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error


def take_and_release(hold):
    with hold:
        pass


@pytest.fixture
def parts():
    made = Parts()
    yield made
    for thread in made.threads:
        thread.join(10)
    assert made.table.list("node1") == []


def test_names_come_from_templates_and_are_taken_in_order_once(parts):
    hold = parts.locks.hold("volume-{name}", "image-{image}", "volume-{name}", name="b", image=7)
    assert hold.names == ["image-7", "volume-b"]
    with hold:
        assert [row.name for row in parts.table.list("node1")] == ["image-7", "volume-b"]


@pytest.mark.parametrize(
    ("names", "values"),
    [(["volume-{name}"], {}), ([], {}), ([""], {}), (["a" * 256], {}), (["{name.x}"], {"name": 1}), (["{"], {})],
)
def test_names_that_cannot_be_are_refused_when_they_are_asked_for(parts, names, values):
    with pytest.raises(InvalidInput):
        parts.locks.hold(*names, **values)


@pytest.mark.parametrize("timeout", [-1, float("nan")])
def test_a_time_limit_below_zero_is_refused(parts, timeout):
    with pytest.raises(InvalidInput):
        parts.locks.hold("a", timeout=timeout)


def test_one_waits_for_the_other_and_an_error_releases(parts):
    order = []

    def first():
        with parts.locks.hold("a"):
            parts.start(second)
            parts.wait_for(1)
            order.append("first")
            raise ZeroDivisionError

    def second():
        with parts.locks.hold("a"):
            order.append("second")

    with pytest.raises(ZeroDivisionError):
        first()
    parts.threads[0].result()
    assert order == ["first", "second"]


def test_services_have_names_of_their_own(parts):
    with parts.locks.hold("a"):
        parts.start(lambda: take_and_release(parts.image_locks.hold("a", timeout=0))).result()


def test_a_time_limit_names_the_lock_and_its_holder(parts):
    ctx = Context("volume", "clone", request_id="r-1")

    def wait(timeout):
        with parts.locks.hold("volume-{name}", name="a\x1b", timeout=timeout):
            raise AssertionError

    with serving(ctx), parts.locks.hold("volume-a\x1b"):
        with pytest.raises(LockTimeout) as at_once:
            parts.start(lambda: wait(0)).result()
        with pytest.raises(LockTimeout) as late:
            parts.start(lambda: wait(0.05)).result()
    expected = (
        r"lock volume-a\\x1b of service volume could not be taken {}: held by volume.clone \(request r-1\) for .*"
    )
    assert re.fullmatch(expected.format("at once"), at_once.value.message)
    assert re.fullmatch(expected.format(r"within 50ms"), late.value.message)


def test_the_wait_of_a_request_ends_with_its_deadline_and_its_cancel(parts):
    def wait(ctx):
        with serving(ctx), parts.locks.hold("a"):
            raise AssertionError

    late = Context("volume", "clone")
    late.deadline = SystemClock().monotonic() + 0.05
    cancelled = Context("volume", "move")
    with parts.locks.hold("a"):
        with pytest.raises(DeadlineExceeded, match=r"volume\.clone passed while it waited for lock a of"):
            parts.start(lambda: wait(late)).result()
        thread = parts.start(lambda: wait(cancelled))
        parts.wait_for(1)
        cancelled.cancel()
        with pytest.raises(Cancelled, match=r"volume\.move was cancelled while waiting for lock a"):
            thread.result()


def test_a_request_takes_a_lock_again_but_not_more_of_it(parts):
    with parts.locks.hold("a"), parts.locks.hold("a"), parts.locks.hold("a", shared=True):
        assert len(parts.table.list("node1")) == 1
    with parts.locks.hold("a", shared=True), pytest.raises(Conflict, match="cannot have it exclusively"):
        parts.locks.hold("a").__enter__()


def test_another_thread_of_a_request_waits_like_anybody_else(parts):
    ctx = Context("volume", "clone")

    def other():
        with serving(ctx), parts.locks.hold("a", timeout=0):
            raise AssertionError

    with serving(ctx), parts.locks.hold("a"), pytest.raises(LockTimeout):
        parts.start(other).result()


def test_one_who_shares_waits_behind_one_who_does_not(parts):
    order = []

    def take(name, shared):
        with parts.locks.hold("a", shared=shared):
            order.append(name)

    with parts.locks.hold("a", shared=True):
        alone = parts.start(lambda: take("alone", shared=False))
        parts.wait_for(1)
        sharer = parts.start(lambda: take("shared", shared=True))
        parts.wait_for(2)
        assert order == []
    alone.result()
    sharer.result()
    assert order == ["alone", "shared"]


def test_sharers_hold_it_together(parts):
    with parts.locks.hold("a", shared=True):
        parts.start(lambda: take_and_release(parts.locks.hold("a", shared=True, timeout=0))).result()


def test_a_waiter_that_gives_up_lets_those_behind_it_pass(parts):
    ctx, order = Context("volume", "move"), []

    def alone():
        with serving(ctx), parts.locks.hold("a"):
            raise AssertionError

    def share():
        with parts.locks.hold("a", shared=True):
            order.append("shared")

    with parts.locks.hold("a", shared=True):
        first = parts.start(alone)
        parts.wait_for(1)
        second = parts.start(share)
        parts.wait_for(2)
        ctx.cancel()
        second.result()
        with pytest.raises(Cancelled):
            first.result()
    assert order == ["shared"]


@pytest.mark.parametrize("count", [2, 5])
def test_a_circle_is_refused_when_it_would_close_and_names_everybody(parts, count):
    ready = threading.Barrier(count + 1)
    contexts = [Context("volume", f"m{number}", request_id=f"r{number}") for number in range(count)]

    def work(number):
        with serving(contexts[number]), parts.locks.hold(f"l{number}"):
            ready.wait(10)
            if number < count - 1:
                with parts.locks.hold(f"l{number + 1}"):
                    return
            closing.wait(10)
            with parts.locks.hold("l0"):
                raise AssertionError

    closing = threading.Event()
    threads = [parts.start(lambda number=number: work(number)) for number in range(count)]
    ready.wait(10)
    parts.wait_for(count - 1)
    closing.set()
    with pytest.raises(Deadlock) as found:
        threads[-1].result()
    for thread in threads[:-1]:
        thread.result()
    last = count - 1
    assert found.value.message.startswith("waiting for lock l0 of service volume would never end")
    assert found.value.details["cycle"][0] == (
        f"volume.m{last} (request r{last}) waits for l0, which volume.m0 (request r0) holds"
    )
    assert len(found.value.details["cycle"]) == count


def test_a_call_that_needs_what_its_caller_holds_is_a_deadlock(parts):
    caller = Context("volume", "clone", request_id="r1")
    with serving(caller), parts.locks.hold("a"):
        call = Context("image", "copy", request_id="r1.1")
        call.inherit(caller)
        call.caller = threading.current_thread()

        def work(shared=False):
            with serving(call), parts.locks.hold("a", shared=shared):
                raise AssertionError

        with pytest.raises(Deadlock, match=r"image\.copy \(request r1\.1\) waits for a, which volume\.clone"):
            parts.start(work).result()


def test_a_call_may_share_what_its_caller_shares_whoever_waits(parts):
    caller, call = Context("volume", "clone"), Context("image", "copy")
    call.inherit(caller)
    call.caller = threading.current_thread()

    def alone():
        with parts.locks.hold("a"):
            return

    def share():
        with serving(call), parts.locks.hold("a", shared=True):
            return

    with serving(caller), parts.locks.hold("a", shared=True):
        parts.start(alone)
        parts.wait_for(1)
        parts.start(share).result()


def test_a_request_that_ends_with_a_lock_loses_it(parts, caplog):
    with serving_to_end(Context("volume", "clone", request_id="r1")):
        parts.locks.hold("a").__enter__()
    assert "volume.clone (request r1) ended without releasing its locks (a)" in caplog.text


def test_a_thread_that_ends_with_a_lock_loses_it(parts):
    parts.start(lambda: parts.locks.hold("a").__enter__()).result()
    assert len(parts.rows()) == 1
    with parts.locks.hold("a", timeout=0):
        pass


def test_a_service_that_stops_loses_its_locks_and_ends_all_waits(parts):
    def wait():
        with parts.locks.hold("a"):
            raise AssertionError

    with parts.locks.hold("a"):
        thread = parts.start(wait)
        parts.wait_for(1)
        assert parts.table.release_service("image") == []
        assert parts.table.release_service("volume") == ["a by volume (MainThread)"]
        with pytest.raises(Draining):
            thread.result()


def test_who_holds_and_who_waits_can_be_asked_for(parts):
    ctx = Context("volume", "clone", request_id="r1")
    with serving(ctx), parts.locks.hold("volume-{name}", name="a"):
        thread = parts.start(lambda: take_and_release(parts.locks.hold("volume-a")))
        parts.wait_for(1)
        held, waiting = parts.locks.holders("volume-{name}", name="a")
        assert (held.is_held, held.method, held.request_id, held.thread) == (True, "volume.clone", "r1", "MainThread")
        assert not waiting.is_held
        assert parts.locks.holders("volume-b") == []
    thread.result()


def test_a_hold_is_for_one_block_at_a_time(parts):
    hold = parts.locks.hold("a")
    with hold, pytest.raises(RuntimeError, match="in use"):
        hold.__enter__()
    with hold:
        pass


def test_what_is_taken_before_a_failure_is_released(parts):
    with parts.locks.hold("b"):
        with pytest.raises(LockTimeout):
            parts.start(lambda: parts.locks.hold("a", "b", timeout=0).__enter__()).result()
        assert [row.name for row in parts.table.list("node1")] == ["b"]


def test_locks_of_a_manager_without_a_service_are_its_own():
    locks = Locks.private()
    with locks.hold("a"):
        pass
    with pytest.raises(FeatureNotSupported):
        locks.hold("a", cluster=True)


async def test_tasks_wait_without_blocking_the_loop(parts):
    order, held = [], asyncio.Event()

    async def first():
        async with parts.locks.hold("a"):
            held.set()
            while not any(not row.is_held for row in parts.table.list("node1")):
                await asyncio.sleep(0)
            order.append("first")

    async def second():
        await held.wait()
        async with parts.locks.hold("a"):
            order.append("second")

    await asyncio.gather(first(), second())
    assert order == ["first", "second"]


async def test_a_task_that_is_cancelled_while_it_waits_leaves_the_queue(parts):
    async with parts.locks.hold("a"):
        task = asyncio.ensure_future(parts.locks.hold("a").__aenter__())
        while len(parts.rows()) < 2:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(parts.rows()) == 1


async def test_a_task_that_is_cancelled_with_a_lock_releases_it(parts):
    async def work():
        async with parts.locks.hold("a"):
            await asyncio.Event().wait()

    task = asyncio.ensure_future(work())
    while not parts.rows():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert parts.rows() == []


async def test_a_task_is_refused_after_its_time_limit(parts):
    async with parts.locks.hold("a"):
        with pytest.raises(LockTimeout, match=r"within 10ms"):
            await asyncio.ensure_future(parts.locks.hold("a", timeout=0.01).__aenter__())


async def test_a_thread_and_a_task_exclude_each_other(parts):
    released = threading.Event()

    def hold():
        with parts.locks.hold("a"):
            released.wait(10)

    parts.start(hold)
    while not parts.rows():
        await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(released.set)
    async with parts.locks.hold("a", timeout=10):
        assert len(parts.rows()) == 1


async def test_the_loop_is_never_blocked_by_a_lock(parts):
    with pytest.raises(RuntimeError, match="async with"):
        parts.locks.hold("a").__enter__()
