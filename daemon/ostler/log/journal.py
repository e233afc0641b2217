"""Lines for journald in its own protocol: one datagram of fields for each."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import sys
import time
from collections.abc import Mapping
from typing import TextIO

from ostler.log.formats import FIELD_LIMIT, further_lines, message_of, priority, shown_fields
from ostler.log.handlers import SafeHandler
from ostler.log.messages import MESSAGE_IDS
from ostler.printable import printable, printable_lines, shortened

SOCKET = "/run/systemd/journal/socket"
SEND_SECONDS = 0.1
"""How long a line may wait for a journal that is slow; it is the loop's time."""
PAUSE_SECONDS = 1.0
"""After a journal that was too slow lines are dropped (and counted) this long before the next try."""


def journal_is_stderr(environ: Mapping[str, str], stream: TextIO | None = None) -> bool:
    """Return whether stderr goes to the journal, as `JOURNAL_STREAM` says (device and inode, for it is inherited)."""
    told = environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat((stream or sys.stderr).fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return bool(told) and told == f"{status.st_dev}:{status.st_ino}"


def encode(values: Mapping[str, str]) -> bytes:
    """Return fields as journald reads them: `NAME=value`, or with a length where a value has several lines."""
    parts = []
    for name, value in values.items():
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode("ascii"), len(data).to_bytes(8, "little"), data))
        else:
            parts.append(b"%s=%s\n" % (name.encode("ascii"), data))
    return b"".join(parts)


def field_name(name: str) -> str:
    """Return the journal's name of a field: `OSTLER_` and capitals, digits and underscores."""
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
    return f"OSTLER_{safe.upper()}"[:64]


def fields_for(record: logging.LogRecord, identifier: str) -> dict[str, str]:
    """Return everything the journal is told about a line."""
    values = {
        "MESSAGE": message_of(record) + further_lines(record),
        "PRIORITY": str(priority(record.levelno)),
        "SYSLOG_IDENTIFIER": identifier,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
        "OSTLER_LOGGER": printable(record.name, FIELD_LIMIT),
        "OSTLER_THREAD": printable(record.threadName or "", FIELD_LIMIT),
    }
    shown = shown_fields(record)
    if message_id := MESSAGE_IDS.get(str(shown.get("event"))):
        values["MESSAGE_ID"] = message_id
    for name, value in shown.items():  # what the record says of itself goes first
        values.setdefault(field_name(name), printable_lines(shortened(str(value), FIELD_LIMIT)))
    return values


class JournalHandler(SafeHandler):
    """Sends lines to journald. A line that cannot be sent is counted, and the count is sent with the next that can.

    Each datagram names the socket anew, so that a restarted journald is found again.

    Args:
        address: The socket of journald.
        identifier: What the lines are filed under (`journalctl -t`).
    """

    def __init__(self, address: str = SOCKET, identifier: str = "ostler") -> None:
        super().__init__()
        self._address = address
        self._identifier = identifier
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024 * 1024)  # the kernel caps it
        self._socket.settimeout(SEND_SECONDS)
        self._not_before = 0.0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()

    def write(self, record: logging.LogRecord) -> bool:
        """Send one line; see `SafeHandler.write`."""
        if time.monotonic() < self._not_before:
            return False
        data = encode(fields_for(record, self._identifier))
        try:
            self._socket.sendto(data, self._address)
        except TimeoutError:
            self._not_before = time.monotonic() + PAUSE_SECONDS
            return False
        except OSError as error:
            return error.errno in _TOO_LARGE and self._send_large(data)
        return True

    def _send_large(self, data: bytes) -> bool:
        """Send a line that no datagram can hold: as a sealed file in memory, whose descriptor is sent."""
        descriptor = os.memfd_create("ostler-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(data)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            # Without payload the descriptor alone is the message; send_fds would put a byte before it.
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder))]
            self._socket.sendmsg([], rights, 0, self._address)
        except OSError:
            return False
        finally:
            os.close(descriptor)
        return True


_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
