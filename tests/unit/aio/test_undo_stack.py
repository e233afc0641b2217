"""What was set up is undone in reverse order, whatever one step does."""

import asyncio
import logging

import pytest

from ostler.aio import UndoStack

pytestmark = pytest.mark.virtual_time

LOG = logging.getLogger("ostler.test")


class Steps:
    """Steps that record what they are told, and do what a test wants."""

    def __init__(self, owner: str = "") -> None:
        self.stack = UndoStack(LOG, owner)
        self.undone: list[tuple[str, float]] = []

    def push(self, name, *, hung=None, takes=0.0, error=None) -> None:
        async def undo(seconds: float):
            self.undone.append((name, seconds))
            await asyncio.sleep(takes)
            if error is not None:
                raise error
            return hung

        self.stack.push(name, undo)


async def test_steps_are_undone_last_first_and_named_before():
    steps, named = Steps(), []
    for name in ("store", "sockets", "services"):
        steps.push(name)
    assert len(steps.stack) == 3
    assert await steps.stack.run(5.0, on_step=named.append) == []
    assert [name for name, _ in steps.undone] == named == ["services", "sockets", "store"]
    assert len(steps.stack) == 0


async def test_what_hung_is_returned_of_all_steps():
    steps = Steps()
    steps.push("store", hung=["the writer"])
    steps.push("sockets")
    steps.push("services", hung=["lamp", "door"])
    assert await steps.stack.run(5.0) == ["lamp", "door", "the writer"]


async def test_a_step_that_fails_is_logged_and_the_rest_is_undone(caplog):
    steps = Steps("service lamp")
    steps.push("threads", hung=["a thread"])
    steps.push("endpoint", error=OSError("no"))
    assert await steps.stack.run(5.0) == ["a thread"]
    assert [record.getMessage() for record in caplog.records] == [
        "stopping endpoint of service lamp failed: OSError: no"
    ]


async def test_each_step_is_told_what_is_left_but_never_less_than_the_least():
    steps = Steps()
    for name in ("last", "second", "first"):
        steps.push(name, takes=3.0)
    await steps.stack.run(4.0, min_step_time=0.5)
    assert steps.undone == [("first", 4.0), ("second", 1.0), ("last", 0.5)]


async def test_a_step_that_is_recorded_during_the_run_is_undone_too():
    steps = Steps()
    steps.stack.push_call("early", lambda: steps.push("late"))
    await steps.stack.run(1.0)
    assert [name for name, _ in steps.undone] == ["late"]


async def test_a_cancelled_run_leaves_the_rest_for_the_next_one():
    steps = Steps()
    steps.push("store")
    steps.push("services", takes=10.0)
    running = asyncio.ensure_future(steps.stack.run(20.0))
    await asyncio.sleep(1)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await steps.stack.run(1.0)
    assert [name for name, _ in steps.undone] == ["services", "store"]
