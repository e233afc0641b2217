"""Handlers that never fail or block the caller: a line is formatted, redacted and queued, or counted as lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, TextIO

from ostler.errors import error_line
from ostler.log.fields import REQUEST_ATTRIBUTE, LogFields
from ostler.log.followers import FOLLOWERS
from ostler.log.log_writer import LogLine, LogWriter
from ostler.log.output_targets import DescriptorTarget, StreamTarget, make_target


class LogOutput(NamedTuple):
    """Where text goes.

    Args:
        target: Writes it.
        is_journal: Whether journald reads it.
        has_colours: Whether a terminal shows it.
    """

    target: DescriptorTarget | StreamTarget
    is_journal: bool
    has_colours: bool


class SafeHandler(logging.Handler):
    """The base of our handlers: queues a line for the writer, or counts it as lost; never raises to the caller.

    Lines are formatted and redacted on the caller's thread, for only there is it known which request they
    belong to, and what their arguments are may change later. Without a lock: a `__str__` that hangs holds up its own
    thread alone.

    Args:
        writer: Writes the lines; its own by default.
    """

    def __init__(self, writer: LogWriter | None = None) -> None:
        super().__init__()
        self.writer = writer or LogWriter()
        self.writer.make_line = self.make_line
        self.output: LogOutput | None = None
        """Where text goes, for the next set-up."""
        self.levelled_loggers: set[str] = set()
        """Loggers that were given levels when this handler was set up, for the next set-up to undo."""
        self.get_log_fields: Callable[[], LogFields | None] | None = None
        """Returns the request that the calling thread or task serves; called for each line."""

    def createLock(self) -> None:  # noqa: N802 - its name in `logging`
        """Have no lock: the writer's queue is safe on any thread, and a forked child cannot find it held."""
        self.lock = None

    @property
    def lost_count(self) -> int:
        """How many lines were lost since the start."""
        return self.writer.losses.total

    def make_line(self, record: logging.LogRecord) -> LogLine:
        """Return what is to be written of a record."""
        raise NotImplementedError

    def destination(self) -> str:
        """Return where lines go, for people."""
        raise NotImplementedError

    def problem(self) -> str:
        """Return why lines do not go where they should; empty when they do."""
        raise NotImplementedError

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record in, unless a filter does not want it."""
        if FOLLOWERS.are_present:
            self.offer(record, is_logged=True)
        wanted: object = self.filter(record)  # since 3.12 a filter may return another record
        if wanted:
            self.emit(wanted if isinstance(wanted, logging.LogRecord) else record)
        return bool(wanted)

    def offer(self, record: logging.LogRecord, *, is_logged: bool) -> None:
        """Pass a record on to those who follow the log; `is_logged` says that the log has it as well."""
        if not FOLLOWERS.are_present:
            return
        if self.get_log_fields is not None:
            setattr(record, REQUEST_ATTRIBUTE, self.get_log_fields())
        FOLLOWERS.offer(record, is_logged=is_logged)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line."""
        try:
            if self.get_log_fields is not None:
                setattr(record, REQUEST_ATTRIBUTE, self.get_log_fields())
            line = self.make_line(record)
        except BaseException as error:  # noqa: BLE001 - what a line is about may be a plugin's, and raise anything
            self._emit_bare(record, error)
        else:
            self.writer.enqueue(line)

    def _emit_bare(self, record: logging.LogRecord, error: BaseException) -> None:
        """Queue a line in the place of one that cannot be formatted, or count that as lost."""
        text = f"a line of {record.module}:{record.lineno} could not be formatted: {error_line(error)}"
        bare = logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, text, (), None)
        try:
            line = self.make_line(bare)
        except BaseException:  # noqa: BLE001 - where could it be logged?
            self.writer.count_lost("a line could not be formatted")
        else:
            self.writer.enqueue(line)

    def close(self) -> None:
        """Leave the registry of `logging`; lines still come: libraries close the handlers of others."""
        super().close()


class SafeStreamHandler(SafeHandler):
    """Writes lines to a stream and survives anything: a full disk, a closed stream, a reader that went away.

    Args:
        stream: Where lines go, or the target that an earlier handler had.
        writer: Writes the lines.
    """

    def __init__(self, stream: TextIO | DescriptorTarget | StreamTarget, writer: LogWriter | None = None) -> None:
        super().__init__(writer)
        self.target = stream if isinstance(stream, DescriptorTarget | StreamTarget) else make_target(stream)

    def make_line(self, record: logging.LogRecord) -> LogLine:
        """See `SafeHandler.make_line`."""
        return LogLine(self.target, f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))

    def destination(self) -> str:
        """See `SafeHandler.where`."""
        return str(self.target)

    def problem(self) -> str:
        """See `SafeHandler.problem`."""
        return self.target.problem()
