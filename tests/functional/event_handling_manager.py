"""A manager that publishes events and follows those of all hosts; named in configurations by import path."""

from __future__ import annotations

import threading

from ostler import Context, Event, Gap, Manager, exposed, on_event


class BulbManager(Manager):
    """Publishes on a journaled topic, and remembers what its handler was called with."""

    journal_events = True

    def init_host(self, service_id: int, added_to_cluster: bool) -> None:
        """Begin without events."""
        self._lock = threading.Lock()
        self._seen: list[str] = []

    @exposed(role="operator")
    def switch(self, ctx: Context, number: int) -> None:
        """Publish an event."""
        self.client.publish("switched", number)

    @exposed(role="viewer", changes=False)
    def seen(self, ctx: Context) -> list[str]:
        """Return what the handler was called with, in order."""
        with self._lock:
            return list(self._seen)

    @on_event("bulb.*.switched")
    def on_switched(self, ctx: Context, event: Event | Gap) -> None:
        """Remember an event."""
        with self._lock:
            self._seen.append(f"{event.host} {event.payload if isinstance(event, Event) else 'gap'}")
