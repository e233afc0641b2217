"""The event handlers of all services of a host, and the positions that they store."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ostler.aio import TaskOwner, WorkerPool
from ostler.clock import Clock
from ostler.errors import StoreError
from ostler.manager.on_event import event_handlers_of
from ostler.manager_types import EventHandlerStatus
from ostler.service.event_handlers.event_sources import EventSource, LocalEvents, PeerEvents
from ostler.service.event_handlers.handler import EventHandler, HandlerEnvironment
from ostler.service.store_outage import StoreOutage
from ostler.store.records.position_records import EventPosition, PositionRecords

if TYPE_CHECKING:
    from ostler.messaging import Publisher
    from ostler.messaging.network.routing import Router
    from ostler.store import Store

_log = logging.getLogger(__name__)
_SAVE_INTERVAL = 1.0
"""Seconds between two writes of positions; a crash repeats the events of no longer than that."""
_RETRY_DELAY = 1.0
"""Seconds until positions that could not be read are asked for again."""
_PEER_INTERVAL = 2.0
"""Seconds between two looks which hosts are peers."""


class EventHandlers:
    """Runs the event handlers of the services of a host. Created and used on the loop's thread.

    Args:
        publisher: What publishes the events of this host.
        router: Has the links to other daemons.
        store: Where the positions are.
        clock: The source of time.
        owner: Owns the tasks.
    """

    def __init__(self, publisher: Publisher, router: Router, store: Store, clock: Clock, owner: TaskOwner) -> None:
        self._local = LocalEvents(publisher, store, clock)
        self._router = router
        self._owner = owner
        self._records = PositionRecords(store, publisher.host)
        self._outage = StoreOutage(store, "writing the positions of event handlers", clock)
        self._environment = HandlerEnvironment(clock, self._on_moved)
        self._handlers: dict[str, list[EventHandler]] = {}
        self._stopping: dict[str, list[EventHandler]] = {}
        self._moved: dict[tuple[str, ...], EventPosition] = {}
        self._save_task: asyncio.Task[Any] | None = None
        self._save_lock = asyncio.Lock()
        self._peer_task: asyncio.Task[Any] | None = None

    def add(self, service: str, manager: object, pool: WorkerPool) -> None:
        """Start the handlers of a manager.

        Args:
            service: The topic of its service.
            manager: The manager.
            pool: The threads for `def` methods.
        """
        self.remove(service)
        self._handlers[service] = [
            EventHandler(service, name, getattr(manager, name), settings, pool, self._environment)
            for name, settings in event_handlers_of(type(manager)).items()
        ]
        for handler in self._handlers[service]:
            self._follow(handler, self._local.host, self._local)
        if self._peer_task is None:
            self._peer_task = self._owner.supervise(self._follow_peers, name="event handlers of other hosts")

    def _follow(self, handler: EventHandler, host: str, source: EventSource) -> None:
        if not handler.settings.follows(host) or host in handler.tasks:
            return
        work = self._restore_and_follow(handler, source)
        handler.tasks[host] = self._owner.spawn(work, name=f"events of {host} for {handler.service}.{handler.name}")

    async def _restore_and_follow(self, handler: EventHandler, source: EventSource) -> None:
        rows = await self._load(handler)
        handler.restore(row for row in rows if row.source == source.host)
        await handler.follow(source)

    async def _load(self, handler: EventHandler) -> list[EventPosition]:
        """Return the stored positions of a handler; wait until they can be read."""
        while True:
            try:
                # What a handler that has just stopped has moved on to must be there first.
                await self._save()
                return await self._records.load(handler.service, handler.name)
            except StoreError as error:
                self._outage.failed(error)
                await asyncio.sleep(_RETRY_DELAY)

    async def _follow_peers(self) -> None:
        """Follow the events of hosts that have become peers, and those of others no longer."""
        while True:
            peers = set(self._router.peers.peers) if self._router.peers is not None else set()
            for handler in [handler for group in self._handlers.values() for handler in group]:
                for host in peers:
                    self._follow(handler, host, PeerEvents(self._router, host))
                for host in set(handler.tasks) - peers - {self._local.host}:
                    handler.tasks.pop(host).cancel()
            await asyncio.sleep(_PEER_INTERVAL)

    async def wait_following(self) -> None:
        """Wait until each handler gets what this host publishes: after a start that takes a moment."""
        for handler in self.all_handlers():
            if handler.settings.follows(self._local.host):
                await handler.is_following.wait()

    def remove(self, service: str) -> None:
        """Stop the handlers of a service; calls in progress continue to their end."""
        handlers = self._handlers.pop(service, [])
        for handler in handlers:
            handler.note_all_progress()
            handler.stop()
        if handlers:
            self._stopping[service] = handlers

    async def stop(self, service: str) -> None:
        """Stop the handlers of a service, cancel the calls in progress, and store their positions."""
        self.remove(service)
        handlers = self._stopping.pop(service, [])
        for handler in handlers:
            handler.cancel()
        tasks = [task for handler in handlers for task in handler.tasks.values()]
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self._save()
        except StoreError as error:
            self._outage.failed(error)

    def running(self, service: str) -> list[str]:
        """Return the handlers of a service that are handling an event, also after `remove`."""
        groups = (*self._handlers.get(service, ()), *self._stopping.get(service, ()))
        return sorted(handler.name for handler in groups if handler.is_running)

    def all_handlers(self) -> list[EventHandler]:
        """Return every handler that runs, by service and name."""
        return [handler for name in sorted(self._handlers) for handler in self._handlers[name]]

    def unhealthy(self, service: str) -> dict[str, str]:
        """Return the handlers of a service that make it degraded, by name, and the reason."""
        found = {handler.name: handler.health() for handler in self._handlers.get(service, ())}
        return {name: text for name, text in found.items() if text}

    def statuses(self) -> list[EventHandlerStatus]:
        """Return every handler as an operator sees it, by service and name."""
        return [handler.status() for handler in self.all_handlers()]

    # ---------------------------------------------------------------- positions

    def _on_moved(self, position: EventPosition) -> None:
        self._moved[position[:4]] = position
        if self._save_task is None:
            self._save_task = self._owner.spawn(self._save_soon(), name="store positions of event handlers")

    async def _save_soon(self) -> None:
        """Store positions once a second for as long as there are new ones."""
        try:
            while self._moved:
                await asyncio.sleep(_SAVE_INTERVAL)
                for handler in [handler for group in self._handlers.values() for handler in group]:
                    handler.note_all_progress()
                try:
                    await self._save()
                except StoreError as error:
                    self._outage.failed(error)
                else:
                    self._outage.worked()
        finally:
            self._save_task = None

    async def _save(self) -> None:
        async with self._save_lock:
            moved, self._moved = self._moved, {}
            if not moved:
                return
            try:
                await self._records.save(moved.values())
            except BaseException:
                self._moved = moved | self._moved
                raise
