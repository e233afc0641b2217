"""Asks the daemon for its health, one question at a time, however many ask here."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import msgspec

from ostler import Clock, ConnectionLost, DeadlineExceeded, OstlerError, format_seconds

_MAX_AGE = 0.25
"""Seconds for which an answer is given to others as well."""


class ServiceHealth(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a service can work; see the control method `health`."""

    topic: str
    state: str
    ready: bool
    required: bool
    why: str = ""
    evidence: dict[str, str] = {}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The health of the daemon; see the control method `health`. Its state is unknown when it does not say."""

    state: str = "unknown"
    live: bool = False
    started: bool = False
    ready: bool = False
    stale: list[str] = []
    waiting_for: list[str] = []
    why: list[str] = []
    services: list[ServiceHealth] = []


class DaemonHealth:
    """Asks the daemon, and says after a time limit that it does not answer. On the loop of the HTTP service.

    Args:
        gateway: The way into the daemon.
        timeout: Seconds after which the daemon counts as hanging.
        clock: The source of time.
    """

    def __init__(self, gateway: Any, timeout: float, clock: Clock) -> None:
        self._gateway = gateway
        self._timeout = timeout
        self._clock = clock
        self._asking: asyncio.Task[Health] | None = None
        self._asked_at = 0.0

    async def read(self) -> Health:
        """Return the health of the daemon."""
        now = self._clock.monotonic()
        asking = self._asking
        if asking is None or (asking.done() and now - self._asked_at > _MAX_AGE):
            asking = self._asking = asyncio.get_running_loop().create_task(self._ask(), name="health of the daemon")
            self._asked_at = now
        return await asyncio.shield(asking)

    def stop(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()

    async def _ask(self) -> Health:
        try:
            caller = self._gateway.caller_of_user(os.geteuid(), os.getegid(), os.getpid())
            found = await self._gateway.client(caller).call("ostler", "health", timeout=self._timeout)
            return msgspec.convert(found, Health)
        except (DeadlineExceeded, ConnectionLost):  # the latter when it shows no sign of life for some seconds
            seconds = self._clock.monotonic() - self._asked_at
            return Health(why=[f"the event loop of the daemon has not answered for {format_seconds(round(seconds))}"])
        except OstlerError as error:  # whoever refuses is alive, and not to be restarted for it
            return Health(live=True, why=[f"the daemon has refused to tell its health: {error.message}"])
