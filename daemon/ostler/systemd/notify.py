"""Notifies systemd of the daemon's state: ready, reloading, stopping, alive, and a status text."""

from __future__ import annotations

import logging
import os
from collections.abc import MutableMapping
from typing import Any, Protocol

from ostler.printable import printable
from ostler.redaction import redact

_log = logging.getLogger(__name__)

MAX_DATAGRAM = 4096
"""Bytes; systemd throws away a longer message whole, the READY=1 in it included."""

_SEND_TIMEOUT = 0.5
_ELLIPSIS = "…"


class ServiceNotifier(Protocol):
    """The interface to the daemon's supervisor. Any thread; never raises, and does nothing without one."""

    def send(self, **fields: object) -> None:
        """Send fields in one datagram, in the order given: `send(READY=1, STATUS="well")`."""
        ...

    def ready(self, status: str = "") -> None:
        """Report that the daemon is ready, after a start or after a reload."""
        ...

    def status(self, text: str) -> None:
        """Set the status text; one line, shown by `systemctl status`."""
        ...

    def reloading(self, monotonic_usec: int, status: str = "") -> None:
        """Report that a reload starts; ended by `ready`.

        Args:
            monotonic_usec: Now, in microseconds of CLOCK_MONOTONIC. `Type=notify-reload` waits for it, and only
                believes one that was taken after the signal had been sent.
            status: The status text.
        """
        ...

    def stopping(self, status: str = "") -> None:
        """Report that the daemon is stopping."""
        ...

    def extend_timeout(self, seconds: float, status: str = "") -> None:
        """Ask for `seconds` more, counted from now, for the current start, reload or stop."""
        ...

    def watchdog(self) -> None:
        """Send a watchdog ping. Only on evidence: see `WatchdogGuard`."""
        ...


class _NotifierBase:
    """What each phrase of the protocol consists of; what belongs together goes in one datagram."""

    def send(self, **fields: object) -> None:
        raise NotImplementedError

    def ready(self, status: str = "") -> None:
        """See `Notifier.ready`."""
        self.send(READY=1, **_status_field(status))

    def status(self, text: str) -> None:
        """See `Notifier.status`."""
        self.send(STATUS=text)

    def reloading(self, monotonic_usec: int, status: str = "") -> None:
        """See `Notifier.reloading`."""
        # In two datagrams, or without the time, a reload under notify-reload waits until it times out.
        self.send(RELOADING=1, MONOTONIC_USEC=monotonic_usec, **_status_field(status))

    def stopping(self, status: str = "") -> None:
        """See `Notifier.stopping`."""
        self.send(STOPPING=1, **_status_field(status))

    def extend_timeout(self, seconds: float, status: str = "") -> None:
        """See `Notifier.extend_timeout`."""
        self.send(EXTEND_TIMEOUT_USEC=max(1, round(seconds * 1_000_000)), **_status_field(status))

    def watchdog(self) -> None:
        """See `Notifier.watchdog`."""
        self.send(WATCHDOG=1)


class SystemdNotifier(_NotifierBase):
    """Notifies systemd through the socket that it named in `NOTIFY_SOCKET`; without one, does nothing.

    The name is taken out of the environment, so that no child process can notify on the daemon's behalf.

    Args:
        environ: The environment of this process, where sdnotify looks; changed.
    """

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._connection: Any = None
        self._failing = False
        if environ.get("NOTIFY_SOCKET"):
            self._connect(environ)

    @property
    def connected(self) -> bool:
        """Whether there is a supervisor: False when the daemon was not started by systemd."""
        return self._connection is not None

    def send(self, **fields: object) -> None:
        """See `Notifier.send`."""
        if self._connection is None:
            return
        # sdnotify encodes as Latin-1 and drops what does not fit; these are the same bytes as UTF-8.
        text = encode_datagram(fields).decode("latin-1")
        try:
            self._connection.notify(text)
        except OSError as error:
            self._failed(error)
        else:
            self._failing = False

    def close(self) -> None:
        """Close the socket; what is sent later is dropped."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.socket.close()

    def _connect(self, environ: MutableMapping[str, str]) -> None:
        import sdnotify  # only under systemd

        connection = sdnotify.SystemdNotifier()
        address = environ.pop("NOTIFY_SOCKET")
        if connection.socket is None or connection.socket.fileno() < 0:
            _log.warning("cannot notify systemd: its socket %s does not accept connections", address)
            return
        # A supervisor that stops reading must not block the loop.
        connection.socket.settimeout(_SEND_TIMEOUT)
        connection.debug = True  # errors are ours to report, not to be lost
        self._connection = connection

    def _failed(self, error: OSError) -> None:
        if not self._failing:  # logged once, and again only after it has worked meanwhile
            _log.warning("could not notify systemd: %s", error)
        self._failing = True


class FakeNotifier(_NotifierBase):
    """Records what it is told: `datagrams` has one dictionary for each, oldest first."""

    def __init__(self) -> None:
        self.datagrams: list[dict[str, str]] = []

    def send(self, **fields: object) -> None:
        """See `Notifier.send`."""
        self.datagrams.append({name: str(value) for name, value in fields.items()})

    @property
    def statuses(self) -> list[str]:
        """All status texts, oldest first."""
        return [datagram["STATUS"] for datagram in self.datagrams if "STATUS" in datagram]

    def count(self, field: str) -> int:
        """Return how many datagrams have a field, such as `"WATCHDOG"`."""
        return sum(field in datagram for datagram in self.datagrams)


def encode_datagram(fields: dict[str, object]) -> bytes:
    """Return fields as one datagram that systemd accepts.

    A value is one line by the protocol, so line breaks in it become spaces; what a terminal is not to be shown, which
    `systemctl status` would, is escaped. A `STATUS` that is too long for a datagram
    is cut, at a whole character; the other fields are short by nature and never cut.
    """
    lines = {name: printable(" ".join(redact(str(value)).splitlines())) for name, value in fields.items()}
    if "STATUS" in lines:
        others = len(_join_lines({**lines, "STATUS": ""}))
        lines["STATUS"] = _truncate(lines["STATUS"], MAX_DATAGRAM - others)
    return _join_lines(lines)


def _join_lines(lines: dict[str, str]) -> bytes:
    return "\n".join(f"{name}={value}" for name, value in lines.items()).encode("utf-8", "replace")


def _truncate(text: str, room: int) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= room:
        return text
    kept = encoded[: max(0, room - len(_ELLIPSIS.encode()))]
    return kept.decode("utf-8", "ignore") + _ELLIPSIS


def _status_field(status: str) -> dict[str, object]:
    # An empty STATUS would clear the one before.
    return {"STATUS": status} if status else {}
