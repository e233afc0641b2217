"""Handlers that never harm or hold up who logs: a line is formatted, redacted and queued, or counted as lost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple, TextIO

from ostler.errors import describe
from ostler.log.fields import ABOUT, About
from ostler.log.streams import DescriptorTarget, StreamTarget, target_of
from ostler.log.writer import Line, LogWriter


class Output(NamedTuple):
    """Where text goes.

    Args:
        target: Writes it.
        to_journal: Whether journald reads it.
        colours: Whether a terminal shows it.
    """

    target: DescriptorTarget | StreamTarget
    to_journal: bool
    colours: bool


class SafeHandler(logging.Handler):
    """The base of our handlers: queues a line for the writer, or counts it as lost; nothing ever reaches who logs.

    Lines are formatted and redacted by who logs, for only there is it known which request they belong to, and what
    their arguments are may change later. Without a lock: a `__str__` that hangs holds up its own thread alone.

    Args:
        writer: Writes the lines; its own by default.
    """

    def __init__(self, writer: LogWriter | None = None) -> None:
        super().__init__()
        self.writer = writer or LogWriter()
        self.writer.prepare = self.prepare
        self.output: Output | None = None
        """Where text goes, for the next set-up."""
        self.levelled: set[str] = set()
        """Loggers that were given levels when this handler was set up, for the next set-up to undo."""
        self.about: Callable[[], About | None] | None = None
        """Tells the request that the calling thread or task serves; asked for each line, wherever that comes from."""

    def createLock(self) -> None:  # noqa: N802 - its name in `logging`
        """Have no lock: the writer's queue is safe on any thread, and a forked child cannot find it held."""
        self.lock = None

    @property
    def lost(self) -> int:
        """How many lines were lost since the start."""
        return self.writer.losses.total

    def prepare(self, record: logging.LogRecord) -> Line:
        """Return what is to be written of a record."""
        raise NotImplementedError

    def where(self) -> str:
        """Return where lines go, for people."""
        raise NotImplementedError

    def problem(self) -> str:
        """Return why lines do not go where they should; empty when they do."""
        raise NotImplementedError

    def handle(self, record: logging.LogRecord) -> bool:
        """Take a record in, unless a filter does not want it."""
        wanted: object = self.filter(record)  # since 3.12 a filter may return another record
        if wanted:
            self.emit(wanted if isinstance(wanted, logging.LogRecord) else record)
        return bool(wanted)

    def emit(self, record: logging.LogRecord) -> None:
        """Queue one line."""
        try:
            if self.about is not None:
                setattr(record, ABOUT, self.about())
            line = self.prepare(record)
        except BaseException as error:  # noqa: BLE001 - what a line is about may be a plugin's, and raise anything
            self._emit_bare(record, error)
        else:
            self.writer.put(line)

    def _emit_bare(self, record: logging.LogRecord, error: BaseException) -> None:
        """Queue a line in the place of one that cannot be formatted, or count that as lost."""
        text = f"a line of {record.module}:{record.lineno} could not be formatted: {describe(error)}"
        bare = logging.LogRecord(record.name, record.levelno, record.pathname, record.lineno, text, (), None)
        try:
            line = self.prepare(bare)
        except BaseException:  # noqa: BLE001 - where could it be logged?
            self.writer.lose("a line could not be formatted")
        else:
            self.writer.put(line)

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
        self.target = stream if isinstance(stream, DescriptorTarget | StreamTarget) else target_of(stream)

    def prepare(self, record: logging.LogRecord) -> Line:
        """See `SafeHandler.prepare`."""
        return Line(self.target, f"{self.format(record)}\n".encode("utf-8", "backslashreplace"))

    def where(self) -> str:
        """See `SafeHandler.where`."""
        return str(self.target)

    def problem(self) -> str:
        """See `SafeHandler.problem`."""
        return self.target.problem()
