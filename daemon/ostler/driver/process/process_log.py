"""Logs what the process of a driver prints and logs: with the driver's name, and within bounds."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from ostler.bounds import safe_str
from ostler.clock import Clock
from ostler.driver.process.messages import LogLine
from ostler.log.fields import DETAIL_ATTRIBUTE, FIELDS_ATTRIBUTE
from ostler.messaging.wire.request_context import Context, serving

_LINE_LIMIT = 4096
"""Bytes of a line; a longer one is cut."""
_BURST = 1000
_LINES_PER_SECOND = 100
"""A driver can log a burst of lines at once, and so many a second for long; the rest is counted and left out."""
_REPORT_INTERVAL = 5.0
"""Seconds between two lines that say how many were left out."""
_LEVELS = {"stdout": logging.INFO, "stderr": logging.WARNING}


class ProcessLog:
    """Writes lines of a driver's process to the driver's log. On the loop.

    Args:
        log: The driver's log.
        clock: The source of time.
        loop: For the line that says how much was left out.
    """

    def __init__(
        self, log: logging.LoggerAdapter[logging.Logger], clock: Clock, loop: asyncio.AbstractEventLoop
    ) -> None:
        self._logger = log.logger
        self._fields: dict[str, Any] = dict(getattr(log, "fields", None) or log.extra or {})
        self._clock = clock
        self._allowance = float(_BURST)
        self._refilled_at = clock.monotonic()
        self._loop = loop
        self._dropped = 0
        self._report_timer: asyncio.TimerHandle | None = None
        self._partial: dict[str, bytes] = {}

    def write(self, line: LogLine, context: Context | None) -> None:
        """Write a record of the driver's own log, or that of a library, as written in a request."""
        name = line.logger
        prefix = "" if name in ("", self._logger.name) else f"{name}: "
        if context is None:
            self._write(line.level, f"{prefix}{line.text}", line.fields, line.traceback)
            return
        with serving(context):
            self._write(line.level, f"{prefix}{line.text}", line.fields, line.traceback)

    def add_output(self, stream: str, data: bytes) -> None:
        """Write the lines in what was printed to `stdout` or `stderr`; the last one waits for its end."""
        rest = self._partial.get(stream, b"") + data
        while (end := rest.find(b"\n")) >= 0:
            if not self._may_write():  # megabytes are not split into lines that nobody sees
                self._drop(rest.count(b"\n"))
                rest = rest[rest.rfind(b"\n") + 1 :]
                break
            self._write_output(stream, rest[:end])
            rest = rest[end + 1 :]
        self._partial[stream] = rest[-_LINE_LIMIT:] if len(rest) > 2 * _LINE_LIMIT else rest

    def end(self) -> None:
        """Write what was printed without a line's end, and how much was left out. After the end of the process."""
        partial, self._partial = self._partial, {}
        for stream, rest in partial.items():
            if rest:
                self._write_output(stream, rest)
        self._report_dropped()

    def _write_output(self, stream: str, text: bytes) -> None:
        line = safe_str(text[:_LINE_LIMIT].decode("utf-8", "backslashreplace").rstrip("\r"), _LINE_LIMIT)
        if line.strip():
            self._write(_LEVELS[stream], line, {"stream": stream}, "")

    def _may_write(self) -> bool:
        now = self._clock.monotonic()
        self._allowance = min(_BURST, self._allowance + (now - self._refilled_at) * _LINES_PER_SECOND)
        self._refilled_at = now
        return self._allowance >= 1.0

    def _write(self, level: int, text: str, fields: dict[str, str], trace: str) -> None:
        if not self._may_write():
            self._drop(1)
            return
        self._allowance -= 1.0
        extra: dict[str, object] = {FIELDS_ATTRIBUTE: {**self._fields, **fields}}
        if trace:
            extra[DETAIL_ATTRIBUTE] = trace
        self._logger.log(level, "%s", text, extra=extra)

    def _drop(self, count: int) -> None:
        self._dropped += count
        if self._report_timer is None:
            self._report_timer = self._loop.call_later(_REPORT_INTERVAL, self._report_dropped)

    def _report_dropped(self) -> None:
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None
        if self._dropped:
            count, self._dropped = self._dropped, 0
            self._logger.warning(
                "%s more lines of the driver's process were left out",
                f"{count:,}",
                extra={FIELDS_ATTRIBUTE: self._fields},
            )
