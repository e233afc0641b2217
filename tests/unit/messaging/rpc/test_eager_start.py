import asyncio
import contextvars
import time

import pytest

from ostler.aio.round_robin import NORMAL_RANK, DeficitRoundRobin
from ostler.messaging.rpc import eager_start

# private: _turn: the moment at which a task waits for its turn

variable = contextvars.ContextVar("variable", default="outside")


class Owner:
    """Whose work it is, with what it was told of the end."""

    def __init__(self, ended):
        self.on_work_done = ended

    def enter_context(self):
        pass

    def task_name(self):
        return "the work"


def run(work, act=None):
    """Start `work` from a callback, as the server does; return how it ended."""

    async def test():
        loop = asyncio.get_running_loop()
        end = loop.create_future()
        found = []

        def ended(result, error):
            end.set_result((result, error))

        def begin():
            started = eager_start.start_eagerly(work(), loop, Owner(ended))
            found.append(started)
            if started is not None and act is not None:
                act(started)

        loop.call_soon(begin)
        result, error = await asyncio.wait_for(end, 5)
        await asyncio.sleep(0)
        assert len(asyncio.all_tasks()) == 1
        return result, error, found[0]

    return asyncio.run(test())


def test_what_ends_in_its_first_step_needs_no_task():
    async def work():
        return 5

    assert run(work)[:2] == (5, None)
    assert run(work)[2] is None


def test_what_waits_goes_on_in_a_task_where_it_stands():
    steps = []

    async def work():
        steps.append(1)
        await asyncio.sleep(0)
        steps.append(2)
        assert await asyncio.wait_for(asyncio.sleep(0.001, "slept"), 5) == "slept"
        steps.append(3)
        return "end"

    result, error, started = run(work)
    assert (result, error, steps) == ("end", None, [1, 2, 3])
    assert isinstance(started, asyncio.Task)
    assert started.get_name() == "the work"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, ValueError, asyncio.CancelledError, GeneratorExit])
@pytest.mark.parametrize("later", [False, True])
def test_nothing_that_is_raised_reaches_the_loop(kind, later):
    async def work():
        if later:
            await asyncio.sleep(0)
        raise kind

    result, error, _ = run(work)
    assert (result, type(error)) == (None, kind)


def test_there_is_a_current_task_from_the_first_step_on():
    seen = []

    async def work():
        first = asyncio.current_task()
        assert first.get_loop() is asyncio.get_running_loop()
        assert (first.get_name(), first.done(), first.cancelling(), first.uncancel()) == ("starting", False, 0, 0)
        with pytest.raises(AttributeError):
            first.get_stack()
        await asyncio.sleep(0)
        seen.append((first, asyncio.current_task()))
        assert first.get_name() == "the work"
        assert first.get_stack() is not None
        assert first.cancelling() == first.uncancel() == 0
        assert not first.done()

    assert run(work)[1] is None
    assert isinstance(seen[0][1], asyncio.Task)


def test_a_dump_of_the_tasks_shows_where_the_work_stands():
    seen = []

    async def work():
        await asyncio.sleep(0)
        await asyncio.sleep(0.001)

    def look(task):
        seen.append((task.get_stack()[0].f_code.co_name, repr(task)))

    run(work, act=look)
    assert seen[0][0] == "work"
    assert "work() running at" in seen[0][1]


def test_timeouts_and_task_groups_work_in_the_first_step():
    async def times_out():
        async with asyncio.timeout(0.001):
            await asyncio.sleep(30)

    assert isinstance(run(times_out)[1], TimeoutError)

    async def at_once():
        async with asyncio.timeout(-1):
            await asyncio.sleep(30)

    assert isinstance(run(at_once)[1], TimeoutError)

    async def group():
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(asyncio.sleep(0.001, "a"))
        return first.result()

    assert run(group)[0] == "a"

    async def failing_group():
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(asyncio.sleep(30))
            tasks.create_task(fail())

    async def fail():
        raise ValueError

    assert isinstance(run(failing_group)[1], ExceptionGroup)


def test_a_cancel_right_after_the_start_reaches_what_is_waited_for():
    seen = []

    async def inner():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("inner")
            raise

    async def work():
        await asyncio.ensure_future(inner())

    assert isinstance(run(work, act=lambda task: task.cancel())[1], asyncio.CancelledError)
    assert seen in ([], ["inner"]), "what has not begun never begins"


def test_a_cancel_may_be_refused():
    async def work():
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            return "stayed"

    assert run(work, act=lambda task: task.cancel())[0] == "stayed"


def test_context_variables_of_the_work_are_its_own():
    async def work():
        variable.set("inside")
        await asyncio.sleep(0)
        return variable.get()

    assert run(work)[0] == "inside"
    assert variable.get() == "outside"


async def test_inside_another_task_it_is_an_ordinary_task():
    end = asyncio.get_running_loop().create_future()
    ran = []

    async def work():
        ran.append(1)
        return 7

    started = eager_start.start_eagerly(work(), asyncio.get_running_loop(), Owner(lambda *e: end.set_result(e)))
    assert isinstance(started, asyncio.Task)
    assert ran == []
    assert await end == (7, None)


class InTurns(Owner):
    """An owner whose work waits for its turn."""

    takes_turns = True
    account = "caller"


@pytest.mark.parametrize("takes_turns", [True, False])
def test_tasks_that_wake_up_together_share_the_loop_with_everything_else(takes_turns):
    """A hundred that wait for the same go on one after the other, as their caller's turns come."""

    async def test():
        loop, turns = asyncio.get_running_loop(), DeficitRoundRobin()
        opened, ended, most_at_once = asyncio.Event(), [], 0

        async def work():
            await opened.wait()
            until = time.monotonic() + 0.0004
            while time.monotonic() < until:
                pass
            ended.append(None)

        class Mine(InTurns):
            pass

        Mine.takes_turns = takes_turns
        for _ in range(100):
            eager_start.start_eagerly(work(), loop, Mine(lambda result, error: None), turns)
        await asyncio.sleep(0)
        opened.set()
        while len(ended) < 100:
            before = len(ended)
            await asyncio.sleep(0)
            most_at_once = max(most_at_once, len(ended) - before)
        return most_at_once

    most_at_once = asyncio.run(test())
    assert (most_at_once < 30) is takes_turns


async def test_a_task_cancelled_while_it_waits_for_its_turn_ends_and_leaves_nothing():
    loop, turns = asyncio.get_running_loop(), DeficitRoundRobin()
    opened, ends = asyncio.Event(), []

    class Hog:
        account, rank = "hog", NORMAL_RANK

        def run(self, until):
            return not ends

    async def work():
        await opened.wait()
        raise AssertionError("it was cancelled before")

    task = eager_start.start_eagerly(work(), loop, InTurns(lambda result, error: ends.append(error)), turns)
    await asyncio.sleep(0)
    turns.enqueue(Hog())
    opened.set()
    for _ in range(100):
        await asyncio.sleep(0)
        if task.get_coro()._turn is not None:
            break
    task.cancel()
    async with asyncio.timeout(5):
        while not task.done():
            await asyncio.sleep(0)
    assert isinstance(ends[0], asyncio.CancelledError)
    async with asyncio.timeout(5):
        while len(turns):
            await asyncio.sleep(0)
