"""Reports once that the store cannot be written, and once that it can again."""

from __future__ import annotations

import logging

from ostler.clock import Clock
from ostler.errors import StoreError
from ostler.store import Outage, Store

_log = logging.getLogger(__name__)


class StoreOutage:
    """Logs once that a table is unreachable, and once that it works again.

    Nothing is logged while the store itself has logged an outage: one message for the database, not one per table.

    Args:
        store: The database.
        description: What fails, as the subject of a sentence.
        clock: The source of time.
    """

    def __init__(self, store: Store, description: str, clock: Clock) -> None:
        self._store = store
        self._outage = Outage(_log, description, clock)

    def failed(self, error: StoreError) -> None:
        """Record that a write or a read failed."""
        if not self._store.outage.is_active:
            self._outage.failed(error)

    def worked(self) -> None:
        """Record that it works."""
        self._outage.worked()
