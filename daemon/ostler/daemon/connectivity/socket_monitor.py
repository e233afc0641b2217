"""Whether clients can still connect: the socket files are watched, and bound again when they were removed."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from ostler.clock import Clock
from ostler.errors import DaemonNotRunning, OstlerError
from ostler.messaging import AsyncClient
from ostler.messaging.wire.transport import SupportsSocketRestore, Transport
from ostler.store import Outage
from ostler.time_text import format_moment
from ostler.types import CONTROL_TOPIC

_log = logging.getLogger(__name__)
CHECK_INTERVAL = 5.0
"""Seconds between two checks of the files, which cost a `stat` each."""
_RESTORED_NOTICE_TIME = 600.0
"""Seconds for which `ostler status` reports that sockets were bound again."""


class SocketMonitor:
    """Watches the sockets of a transport, and verifies that a client can connect. On the loop.

    Args:
        transport: The owner of the sockets.
        clock: The source of time.
    """

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._outage = Outage(_log, "binding removed sockets again", clock)
        self._timer: asyncio.TimerHandle | None = None
        self._restored_text = ""
        self._restored_at = 0.0
        self._is_closed = False

    def start(self) -> None:
        """Start checking the files."""
        if isinstance(self._transport, SupportsSocketRestore):
            self._timer = asyncio.get_running_loop().call_later(CHECK_INTERVAL, self._check)

    def close(self) -> None:
        """Stop checking. May be called twice."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()

    async def self_check(self) -> None:
        """Connect as a client does and wait for the answer: evidence that the socket is reachable.

        Raises:
            MessagingError: It is not, even after the sockets were bound again.
        """
        self.restore()
        try:
            await self._call_self()
        except DaemonNotRunning:
            self.restore(unreachable=True)
            await self._call_self()

    def restore(self, *, unreachable: bool = False) -> None:
        """Bind removed sockets again.

        Raises:
            OstlerError: That is not possible.
        """
        if self._is_closed or not isinstance(self._transport, SupportsSocketRestore):
            return
        try:
            restored = self._transport.restore_sockets(unreachable=unreachable)
        except OstlerError as error:
            self._outage.failed(error)
            raise
        self._outage.worked()
        if restored:
            names = ", ".join(address.removeprefix("ipc://") for address in restored)
            self._restored_text, self._restored_at = names, self._clock.wall()
            text = "%s was removed or replaced while the daemon was running; bound again, find out what removes it"
            _log.warning(text, names)

    def problems(self) -> list[str]:
        """Return a line for sockets that are missing, or were until recently."""
        if self._outage.is_active:
            return [f"clients cannot connect: {self._outage.why}"]
        if not self._restored_text or self._clock.wall() - self._restored_at > _RESTORED_NOTICE_TIME:
            return []
        at = format_moment(self._restored_at)
        return [f"sockets were removed, and bound again at {at}: {self._restored_text}; find out what removes them"]

    async def _call_self(self) -> None:
        # A new connection each time: an established one proves nothing about the next client.
        client = AsyncClient(transport=self._transport, timeout=None)
        try:
            await client.call(CONTROL_TOPIC, "echo", text="self")
        finally:
            with suppress(OstlerError):
                await client.close()

    def _check(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(
            CHECK_INTERVAL, self._check
        )  # first: errors must not stop the checks
        with suppress(OstlerError):
            self.restore()
