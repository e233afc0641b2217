"""Whether clients can still come: the files of the sockets are watched, and bound again when somebody removes them."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress

from ostler.clock import Clock
from ostler.errors import NotRunning, OstlerError
from ostler.messaging import AsyncClient
from ostler.messaging.transport import SocketFiles, Transport
from ostler.store import Outage
from ostler.types import CONTROL_TOPIC

_log = logging.getLogger(__name__)
LOOK_INTERVAL = 5.0
"""Seconds between two looks at the files, which cost a `stat` each."""
_REMEMBER = 600.0
"""Seconds for which `ostler status` says that sockets were bound again."""


class SocketWatch:
    """Watches the sockets of a transport, and proves that a client can connect. On the loop.

    Args:
        transport: Whose sockets they are.
        clock: The source of time.
    """

    def __init__(self, transport: Transport, clock: Clock) -> None:
        self._transport = transport
        self._clock = clock
        self._outage = Outage(_log, "binding the sockets again that somebody has removed", clock)
        self._timer: asyncio.TimerHandle | None = None
        self._restored = ""
        self._restored_at = 0.0
        self._closed = False

    def start(self) -> None:
        """Begin to look at the files."""
        if isinstance(self._transport, SocketFiles):
            self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL, self._look)

    def close(self) -> None:
        """Look no more. May be called twice."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    async def prove(self) -> None:
        """Connect as a client does and be answered: the evidence that the socket can be reached.

        Raises:
            MessagingError: It cannot, also after the sockets were bound again.
        """
        self.restore()
        try:
            await self._call()
        except NotRunning:
            self.restore(unreachable=True)
            await self._call()

    def restore(self, *, unreachable: bool = False) -> None:
        """Bind the sockets again that were removed.

        Raises:
            OstlerError: That is not possible.
        """
        if self._closed or not isinstance(self._transport, SocketFiles):
            return
        try:
            restored = self._transport.restore_sockets(unreachable=unreachable)
        except OstlerError as error:
            self._outage.failed(error)
            raise
        self._outage.worked()
        if restored:
            names = ", ".join(address.removeprefix("ipc://") for address in restored)
            self._restored, self._restored_at = names, self._clock.wall()
            text = "%s: removed or replaced while the daemon runs, and bound again; find out what cleans up there"
            _log.warning(text, names)

    def problems(self) -> list[str]:
        """Return a line for sockets that are gone, or were until a moment ago."""
        if self._outage.active:
            return [f"no client can come: {self._outage.why}"]
        if not self._restored or self._clock.wall() - self._restored_at > _REMEMBER:
            return []
        at = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(self._restored_at))
        return [f"sockets were removed and bound again at {at}: {self._restored}; find out what cleans up there"]

    async def _call(self) -> None:
        # A connection of its own each time: one that stands already proves nothing about the next client.
        client = AsyncClient(transport=self._transport, timeout=None)
        try:
            await client.call(CONTROL_TOPIC, "echo", text="self")
        finally:
            with suppress(OstlerError):
                await client.close()

    def _look(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(LOOK_INTERVAL, self._look)  # first: whatever comes next
        with suppress(OstlerError):
            self.restore()
