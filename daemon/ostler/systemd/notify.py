"""Telling systemd how the daemon does: ready, reloading, stopping, alive, and in words."""

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
_SHORTENED = "…"


class Notifier(Protocol):
    """A seam to whoever supervises the daemon. Any thread; never raises, and does nothing when nobody supervises."""

    def send(self, **fields: object) -> None:
        """Send fields in one datagram, in the order given: `send(READY=1, STATUS="well")`."""
        ...

    def ready(self, status: str = "") -> None:
        """Say that work is possible, after a start or after a reload."""
        ...

    def status(self, text: str) -> None:
        """Say in words what goes on; one line, shown by `systemctl status`."""
        ...

    def reloading(self, monotonic_usec: int, status: str = "") -> None:
        """Say that a reload begins; ended by `ready`.

        Args:
            monotonic_usec: Now, in microseconds of CLOCK_MONOTONIC. `Type=notify-reload` waits for it, and only
                believes one that was taken after the signal had been sent.
            status: What goes on, in words.
        """
        ...

    def stopping(self, status: str = "") -> None:
        """Say that the daemon is on its way out."""
        ...

    def extend_timeout(self, seconds: float, status: str = "") -> None:
        """Ask for `seconds` more, counted from now, for the start, reload or stop under way."""
        ...

    def watchdog(self) -> None:
        """Say that the daemon is alive. Only on evidence: see `WatchdogGuard`."""
        ...


class _Phrases:
    """What each phrase of the protocol consists of; what belongs together goes in one datagram."""

    def send(self, **fields: object) -> None:
        raise NotImplementedError

    def ready(self, status: str = "") -> None:
        """See `Notifier.ready`."""
        self.send(READY=1, **_worded(status))

    def status(self, text: str) -> None:
        """See `Notifier.status`."""
        self.send(STATUS=text)

    def reloading(self, monotonic_usec: int, status: str = "") -> None:
        """See `Notifier.reloading`."""
        # In two datagrams, or without the time, a reload under notify-reload waits until it times out.
        self.send(RELOADING=1, MONOTONIC_USEC=monotonic_usec, **_worded(status))

    def stopping(self, status: str = "") -> None:
        """See `Notifier.stopping`."""
        self.send(STOPPING=1, **_worded(status))

    def extend_timeout(self, seconds: float, status: str = "") -> None:
        """See `Notifier.extend_timeout`."""
        self.send(EXTEND_TIMEOUT_USEC=max(1, round(seconds * 1_000_000)), **_worded(status))

    def watchdog(self) -> None:
        """See `Notifier.watchdog`."""
        self.send(WATCHDOG=1)


class SystemdNotifier(_Phrases):
    """Notifies systemd through the socket that it named in `NOTIFY_SOCKET`; without one, does nothing.

    The name is taken out of the environment, so that no child process speaks in the daemon's name.

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
        """Whether somebody listens: False when the daemon was not started by systemd."""
        return self._connection is not None

    def send(self, **fields: object) -> None:
        """See `Notifier.send`."""
        if self._connection is None:
            return
        # sdnotify encodes as Latin-1 and drops what does not fit; these are the same bytes as UTF-8.
        text = encode(fields).decode("latin-1")
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
        import sdnotify

        connection = sdnotify.SystemdNotifier()
        address = environ.pop("NOTIFY_SOCKET")
        if connection.socket is None or connection.socket.fileno() < 0:
            _log.warning("systemd cannot be told anything: its socket %s takes no connection", address)
            return
        # A supervisor that reads no more must not hold up the loop for ever.
        connection.socket.settimeout(_SEND_TIMEOUT)
        connection.debug = True  # errors are ours to report, not to be lost
        self._connection = connection

    def _failed(self, error: OSError) -> None:
        if not self._failing:  # said once, and again after it has worked meanwhile
            _log.warning("systemd could not be told how the daemon does: %s", error)
        self._failing = True


class FakeNotifier(_Phrases):
    """Records what it is told: `datagrams` has one dictionary for each, oldest first."""

    def __init__(self) -> None:
        self.datagrams: list[dict[str, str]] = []

    def send(self, **fields: object) -> None:
        """See `Notifier.send`."""
        self.datagrams.append({name: str(value) for name, value in fields.items()})

    @property
    def statuses(self) -> list[str]:
        """All that was said in words, oldest first."""
        return [datagram["STATUS"] for datagram in self.datagrams if "STATUS" in datagram]

    def count(self, field: str) -> int:
        """Return how many datagrams have a field, such as `"WATCHDOG"`."""
        return sum(field in datagram for datagram in self.datagrams)


def encode(fields: dict[str, object]) -> bytes:
    """Return fields as one datagram that systemd accepts.

    A value is one line by the protocol, so line breaks in it become spaces; what a terminal is not to be shown, which
    `systemctl status` would, is escaped. A `STATUS` that is too long for a datagram
    is cut, at a whole character; the other fields are short by nature and never cut.
    """
    lines = {name: printable(" ".join(redact(str(value)).splitlines())) for name, value in fields.items()}
    if "STATUS" in lines:
        others = len(_joined({**lines, "STATUS": ""}))
        lines["STATUS"] = _cut(lines["STATUS"], MAX_DATAGRAM - others)
    return _joined(lines)


def _joined(lines: dict[str, str]) -> bytes:
    return "\n".join(f"{name}={value}" for name, value in lines.items()).encode("utf-8", "replace")


def _cut(text: str, room: int) -> str:
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= room:
        return text
    kept = encoded[: max(0, room - len(_SHORTENED.encode()))]
    return kept.decode("utf-8", "ignore") + _SHORTENED


def _worded(status: str) -> dict[str, object]:
    # An empty STATUS would wipe what was said before.
    return {"STATUS": status} if status else {}
