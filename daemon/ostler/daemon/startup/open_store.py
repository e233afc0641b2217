"""Opens the database at the start, and registers how it is closed at the stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ostler.aio import UndoStack, WorkerPool
from ostler.messaging.wire.request_context import current_account, describe_current_request
from ostler.store import Callers, Store
from ostler.store.records.host_identity import adopt_host_name

if TYPE_CHECKING:
    from pathlib import Path

    from ostler.clock import Clock
    from ostler.config.configuration import Configuration
    from ostler.plugins import PluginHost

_CLOSE_TIMEOUT = 5.0
"""Seconds that the writer has to end at the stop."""


async def open_store(
    database: Path,
    configuration: Configuration,
    plugins: PluginHost,
    clock: Clock,
    undo_stack: UndoStack,
    *,
    on_step: Callable[[str], object],
    keep_lock: bool,
) -> Store:
    """Open and migrate the database, on a thread. On the loop.

    Args:
        database: The file.
        configuration: How it is opened, and the name of this host.
        plugins: What brings tables of its own.
        clock: The source of time.
        undo_stack: Gets how to close it, also when this is cancelled.
        on_step: Called with the step, and with an empty text at the end.
        keep_lock: Whether the state stays locked after the close, until the process ends.

    Raises:
        StoreError: It cannot be opened or migrated.
    """
    options = configuration.store
    migrations = plugins.migrations()

    def open_and_migrate() -> Store:
        store = Store.open(
            database,
            clock=clock,
            synchronous=options.synchronous,
            busy_timeout=options.busy_timeout,
            backups=options.backups,
            migrations=migrations,
            callers=Callers(current_account, describe_current_request),
            later=True,
        )
        store.set_slow_transaction(options.slow_transaction)
        adopt_host_name(store, configuration.daemon.host)
        return store

    on_step("opening the database")
    try:
        return await _run_to_end(open_and_migrate, lambda store: _push_close(undo_stack, store, keep_lock))
    finally:
        on_step("")


async def _run_to_end(open_and_migrate: Callable[[], Store], on_opened: Callable[[Store], None]) -> Store:
    pool = WorkerPool("ostler-open", 1)
    opening = asyncio.ensure_future(pool.run(open_and_migrate, label="open the database"))
    try:
        await asyncio.wait([opening])
    except asyncio.CancelledError:
        # A thread cannot be cancelled, and a migration must not be left running: what it opens must be closed.
        await asyncio.wait([opening])
        raise
    finally:
        pool.close()
        if opening.done() and opening.exception() is None:
            on_opened(opening.result())
    return opening.result()


def _push_close(undo_stack: UndoStack, store: Store, keep_lock: bool) -> None:
    async def close(_seconds: float) -> list[str]:
        pool = WorkerPool("ostler-close", 1)
        try:
            hung = await pool.run(lambda: store.close(_CLOSE_TIMEOUT, keep_lock=keep_lock), label="close the database")
            return [f"the store: {hung}"] if hung else []
        finally:
            pool.close()

    undo_stack.push("store", close)
