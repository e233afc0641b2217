"""The database is opened on a thread, and whatever was opened is closed."""

import asyncio
import logging
import threading
from types import SimpleNamespace

import pytest

from ostler.aio import UndoStack
from ostler.clock import SystemClock
from ostler.config import load_text
from ostler.config.validation import validate
from ostler.daemon.startup.open_store import open_store
from ostler.store import Store

LOG = logging.getLogger("ostler.test")


class Opening:
    """What `open_store` is given, with a gate on the thread that opens."""

    def __init__(self, database) -> None:
        self.database, self.undo_stack, self.steps = database, UndoStack(LOG), []
        self.gate, self.entered = threading.Event(), asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._configuration = validate(load_text('[daemon]\nhost = "node1"\n'), {}, {})

    def run(self, keep_lock=False):
        return open_store(
            self.database,
            self._configuration,
            SimpleNamespace(migrations=list),
            self,
            self.undo_stack,
            on_step=self.steps.append,
            keep_lock=keep_lock,
        )

    # A clock, the first thing that the thread asks.
    def wall(self) -> float:
        self._loop.call_soon_threadsafe(self.entered.set)
        self.gate.wait(20)
        return SystemClock().wall()

    def __getattr__(self, name):
        return getattr(SystemClock(), name)


async def test_it_is_opened_in_a_named_step_and_closed_by_the_stack(tmp_path) -> None:
    opening = Opening(tmp_path / "ostler.db")
    opening.gate.set()
    store = await opening.run()
    assert opening.steps == ["opening the database", ""]
    assert store.stats()["commits"] > 0
    assert await opening.undo_stack.run(5.0) == []
    Store.open(opening.database).close()  # the lock has been given back


async def test_a_cancelled_start_waits_for_the_thread_and_can_close_what_it_opened(tmp_path) -> None:
    opening = Opening(tmp_path / "ostler.db")
    running = asyncio.ensure_future(opening.run())
    await opening.entered.wait()
    running.cancel()
    asyncio.get_running_loop().call_soon(opening.gate.set)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(opening.undo_stack) == 1
    await opening.undo_stack.run(5.0)
    Store.open(opening.database).close()


async def test_what_cannot_be_opened_leaves_nothing_to_close(tmp_path) -> None:
    opening = Opening(tmp_path)
    opening.gate.set()
    with pytest.raises(Exception, match=str(tmp_path)):
        await opening.run()
    assert len(opening.undo_stack) == 0
    assert opening.steps == ["opening the database", ""]
