"""The progress of one call on its way to the caller."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from ostler.messaging.context import Progress
from ostler.messaging.envelope import VERSION, Advance, encode_message

if TYPE_CHECKING:
    from ostler.messaging.rpc.server import WireCall

_SPACING = 0.05
"""Seconds between two reports of a call."""


class ProgressLine:
    """Sends the newest report, at most twenty times a second.

    Args:
        call: Whose progress it is.
    """

    def __init__(self, call: WireCall) -> None:
        self._call = call
        self._newest: Progress | None = None
        self._posted = False
        self._sent_at = 0.0

    def put(self, progress: Progress) -> None:
        """Take a report. Any thread."""
        self._newest = progress
        if self._posted:
            return
        server = self._call.server
        if threading.get_ident() == server.thread:
            self._due()
        else:
            self._posted = True
            server.inbox.post(self._due)

    def _due(self) -> None:
        wait = self._sent_at + _SPACING - self._call.server.clock.monotonic()
        self._posted = wait > 0
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._late)
        elif not self._call.settled:
            self.flush()

    def _late(self) -> None:
        self._posted = False
        if not self._call.settled:
            self.flush()

    def flush(self) -> None:
        """Send the newest report, if it has not been. On the loop's thread."""
        progress, self._newest = self._newest, None
        if progress is None:
            return
        self._sent_at = self._call.server.clock.monotonic()
        advance = Advance(
            VERSION, self._call.request.id, float(progress.done), float(progress.total), str(progress.text)
        )
        self._call.server.send(self._call.client, encode_message(advance))
