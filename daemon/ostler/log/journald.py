"""Lines for journald in its own protocol: one datagram of fields for each."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import sys
import time
import weakref
from collections.abc import Mapping
from typing import TextIO

from ostler.log.formats import MAX_FIELD_LENGTH, format_continuation, format_fields, format_message, syslog_priority
from ostler.log.handlers import SafeHandler
from ostler.log.log_writer import LogLine, LogWriter
from ostler.log.message_ids import MESSAGE_IDS
from ostler.log.output_targets import DescriptorTarget, StreamTarget
from ostler.printable import printable, printable_lines, truncate_with_length
from ostler.time_text import format_moment

JOURNALD_SOCKET = "/run/systemd/journal/socket"
SEND_TIMEOUT = 1.0
"""How long a line may wait for a journal that is slow; on the thread of the writer."""
RETRY_DELAY = 5.0
"""After a journal that was too slow lines go to standard error this long before the next try."""


def is_stderr_journal(environ: Mapping[str, str], stream: TextIO | None = None) -> bool:
    """Return whether stderr goes to the journal, as `JOURNAL_STREAM` says (device and inode, for it is inherited)."""
    told = environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat((stream or sys.stderr).fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return bool(told) and told == f"{status.st_dev}:{status.st_ino}"


def encode_fields(values: Mapping[str, str]) -> bytes:
    """Return fields as journald reads them: `NAME=value`, or with a length where a value has several lines."""
    parts = []
    for name, value in values.items():
        data = value.encode("utf-8", "backslashreplace")
        if b"\n" in data:
            parts.append(b"%s\n%s%s\n" % (name.encode("ascii"), len(data).to_bytes(8, "little"), data))
        else:
            parts.append(b"%s=%s\n" % (name.encode("ascii"), data))
    return b"".join(parts)


def journal_field_name(name: str) -> str:
    """Return the journal's name of a field: `OSTLER_` and capitals, digits and underscores."""
    safe = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name)
    return f"OSTLER_{safe.upper()}"[:64]


def journal_fields(record: logging.LogRecord, identifier: str) -> dict[str, str]:
    """Return all fields of a line for the journal."""
    values = {
        "MESSAGE": format_message(record) + format_continuation(record),
        "PRIORITY": str(syslog_priority(record.levelno)),
        "SYSLOG_IDENTIFIER": identifier,
        "CODE_FILE": record.pathname,
        "CODE_LINE": str(record.lineno),
        "CODE_FUNC": record.funcName or "",
        "OSTLER_LOGGER": printable(record.name, MAX_FIELD_LENGTH),
        "OSTLER_THREAD": printable(record.threadName or "", MAX_FIELD_LENGTH),
    }
    shown = format_fields(record)
    if message_id := MESSAGE_IDS.get(str(shown.get("event"))):
        values["MESSAGE_ID"] = message_id
    for name, value in shown.items():  # the record's own fields take precedence
        values.setdefault(journal_field_name(name), printable_lines(truncate_with_length(str(value), MAX_FIELD_LENGTH)))
    return values


class JournalTarget:
    """journald's socket, and standard error for as long as journald cannot be reached or does not read.

    Each datagram names the socket again, so that a restarted journald is found again.

    Args:
        address: The socket of journald.
        identifier: What the lines are filed under.
        fallback: Where lines go meanwhile; None when there is nothing.
    """

    is_direct = False

    def __init__(self, address: str, identifier: str, fallback: DescriptorTarget | StreamTarget | None) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * 1024 * 1024)  # the kernel caps it
        self.socket.settimeout(SEND_TIMEOUT)
        weakref.finalize(self, self.socket.close).atexit = False
        self.identifier = identifier
        self._address = address
        self._fallback = fallback
        self._retry_at = 0.0
        self._failure = ""
        self._failed_since = 0.0
        self._fallback_count = 0

    def send(self, line: LogLine) -> None:
        """Send one line; see `LogTarget`."""
        if time.monotonic() < self._retry_at:
            self._write_fallback(line, self._failure)
            return
        try:
            if self._fallback_count:
                self._send(self._recovery_notice())
                self._fallback_count = 0
            self._send(line.data)
        except TimeoutError:
            self._retry_at = time.monotonic() + RETRY_DELAY
            self._write_fallback(line, "it does not read")
        except OSError as error:
            self._write_fallback(line, error.strerror or type(error).__name__)
        else:
            self._failure = ""

    def problem(self) -> str:
        """See `LogTarget`."""
        if not self._failure:
            return ""
        since = format_moment(self._failed_since)
        instead = "are lost" if self._fallback is None else f"go to {self._fallback} instead"
        return f"cannot write to journald since {since} ({self._failure}); lines {instead}"

    def _recovery_notice(self) -> bytes:
        text = f"writing to journald again; {self._fallback_count} lines went to standard error meanwhile"
        return encode_fields({"MESSAGE": text, "PRIORITY": "4", "SYSLOG_IDENTIFIER": self.identifier})

    def _write_fallback(self, line: LogLine, why: str) -> None:
        """Write a line to standard error, the first one after a line that says why."""
        first = not self._failure
        if first:
            self._failed_since = time.time()
        self._failure = why
        if self._fallback is None:
            raise OSError(errno.ENOTCONN, f"journald: {why}")
        if first:
            self._fallback.write(f"WARNING  ostler.log: {self.problem()}\n".encode())
        self._fallback.write(line.fallback)
        self._fallback_count += 1

    def _send(self, data: bytes) -> None:
        try:
            self.socket.sendto(data, self._address)
        except OSError as error:
            if error.errno not in _TOO_LARGE:
                raise
            self._send_large(data)

    def _send_large(self, data: bytes) -> None:
        """Send a line that no datagram can hold: as a sealed file in memory, whose descriptor is sent."""
        descriptor = os.memfd_create("ostler-log", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(data)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
            # Without payload the descriptor alone is the message; send_fds would put a byte before it.
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptor.to_bytes(4, sys.byteorder))]
            self.socket.sendmsg([], rights, 0, self._address)
        finally:
            os.close(descriptor)


class JournalHandler(SafeHandler):
    """Sends lines to journald with their fields, and to standard error while there is no journald.

    Args:
        address: The socket of journald.
        identifier: What the lines are filed under (`journalctl -t`).
        fallback: Where lines go while journald cannot be reached; None when they are to be counted as lost.
        writer: Writes the lines.
    """

    def __init__(
        self,
        address: str = JOURNALD_SOCKET,
        identifier: str = "ostler",
        fallback: DescriptorTarget | StreamTarget | None = None,
        writer: LogWriter | None = None,
    ) -> None:
        super().__init__(writer)
        self.target = JournalTarget(address, identifier, fallback)
        self.fallback = fallback

    def make_line(self, record: logging.LogRecord) -> LogLine:
        """See `SafeHandler.make_line`."""
        values = journal_fields(record, self.target.identifier)
        when = format_moment(record.created)
        text = f"{when} {record.levelname:<8} {values['OSTLER_LOGGER']}: {values['MESSAGE']}\n" if self.fallback else ""
        return LogLine(self.target, encode_fields(values), text.encode("utf-8", "backslashreplace"))

    def destination(self) -> str:
        """See `SafeHandler.where`."""
        return "journald"

    def problem(self) -> str:
        """See `SafeHandler.problem`."""
        return self.target.problem()


_TOO_LARGE = frozenset({errno.EMSGSIZE, errno.ENOBUFS})
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL
