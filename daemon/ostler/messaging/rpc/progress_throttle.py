"""The progress of one call on its way to the caller."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from ostler.messaging.wire.envelope import PROTOCOL_VERSION, ProgressReport, encode_message
from ostler.messaging.wire.request_context import Progress

if TYPE_CHECKING:
    from ostler.messaging.rpc.rpc_server import WireCall

_MIN_INTERVAL = 0.05
"""Seconds between two reports of a call."""


class ProgressThrottle:
    """Sends the newest report, at most twenty times a second.

    Args:
        call: Whose progress it is.
    """

    def __init__(self, call: WireCall) -> None:
        self._call = call
        self._latest: Progress | None = None
        self._is_posted = False
        self._sent_at = 0.0

    def report(self, progress: Progress) -> None:
        """Take a report. Any thread."""
        self._latest = progress
        if self._is_posted:
            return
        server = self._call.server
        if threading.get_ident() == server.thread_id:
            self._send_or_delay()
        else:
            self._is_posted = True
            server.inbox.post(self._send_or_delay)

    def _send_or_delay(self) -> None:
        wait = self._sent_at + _MIN_INTERVAL - self._call.server.clock.monotonic()
        self._is_posted = wait > 0
        if wait > 0:
            asyncio.get_running_loop().call_later(wait, self._send_delayed)
        elif not self._call.is_answered:
            self.flush()

    def _send_delayed(self) -> None:
        self._is_posted = False
        if not self._call.is_answered:
            self.flush()

    def flush(self) -> None:
        """Send the newest report, if it has not been. On the loop's thread."""
        progress, self._latest = self._latest, None
        if progress is None:
            return
        self._sent_at = self._call.server.clock.monotonic()
        advance = ProgressReport(
            PROTOCOL_VERSION, self._call.request.id, float(progress.done), float(progress.total), str(progress.text)
        )
        self._call.server.send(self._call.client, encode_message(advance))
