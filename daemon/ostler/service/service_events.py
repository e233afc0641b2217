"""The event handlers of one service, which most services do not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ostler.manager.on_event import event_handlers_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from ostler.aio import WorkerPool
    from ostler.manager import Manager
    from ostler.service.event_handlers.event_handlers import EventHandlers


class ServiceEvents:
    """Starts and stops the event handlers of a service. On the loop.

    Args:
        topic: The topic of the service.
        get_handlers: Returns what runs the handlers of all services; None on a host without events.
        pool: The threads for `def` handlers.
    """

    def __init__(self, topic: str, get_handlers: Callable[[], EventHandlers | None], pool: WorkerPool) -> None:
        self._topic = topic
        self._get_handlers = get_handlers
        self._pool = pool
        self._handlers: EventHandlers | None = None

    def start(self, manager: Manager) -> None:
        """Call the handlers of the manager from now on: at the start of the service, and after a drain."""
        if event_handlers_of(type(manager)) and (handlers := self._get_handlers()) is not None:
            self._handlers = handlers
            handlers.add(self._topic, manager, self._pool)

    def drain(self) -> None:
        """Take no further events; calls in progress continue to their end."""
        if self._handlers is not None:
            self._handlers.remove(self._topic)

    async def stop(self, _timeout: float = 0.0) -> None:
        """Take no further events, cancel the calls in progress, and store how far the handlers are."""
        if self._handlers is not None:
            await self._handlers.stop(self._topic)

    def unhealthy(self) -> dict[str, str]:
        """Return the handlers that make the service degraded, by name, and the reason."""
        return self._handlers.unhealthy(self._topic) if self._handlers is not None else {}

    def in_progress(self) -> set[str]:
        """Return the names of the handlers that are handling an event."""
        return set(self._handlers.running(self._topic)) if self._handlers is not None else set()
