"""Remembers that the database is damaged, although other parts of it can still be read and written."""

from __future__ import annotations

import logging
import time

from ostler.clock import Clock
from ostler.errors import StoreCorrupt, error_line
from ostler.log import message_id

_log = logging.getLogger(__name__)


class Damage:
    """The first damage that was found, until the whole database is found intact. Any thread.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._line = ""

    def found(self, error: StoreCorrupt) -> None:
        """Record damage; log it if none was known."""
        if self._line:
            return
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self._clock.wall()))
        self._line = f"damage was found at {since}: {error_line(error)}"
        _log.error("%s", self._line, extra=message_id("outage"))

    def repaired(self) -> None:
        """Record that a check of the whole database has found it intact."""
        if self._line:
            self._line = ""
            _log.warning("the database was checked and is intact", extra=message_id("outage-over"))

    def problems(self) -> list[str]:
        """Return the damage as a line for `ostler status`."""
        line = self._line
        return [line] if line else []
