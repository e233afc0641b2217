"""Turning the log on, and changing its levels while the daemon runs."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from ostler.errors import InvalidInput, is_a
from ostler.log import journal
from ostler.log.fields import About
from ostler.log.formats import JsonFormatter, TextFormatter
from ostler.log.guard import LogGuard, OwnLogger
from ostler.log.handlers import Output, SafeHandler, SafeStreamHandler
from ostler.log.streams import DescriptorTarget, target_of
from ostler.log.writer import LogWriter

_log = logging.getLogger(__name__)
LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
FORMATS = ("auto", "journal", "text", "json")
INHERIT = "inherit"
"""Instead of a level: the logger is to follow the one above it again."""
_QUIET: Mapping[str, str] = {"peewee": "info", "asyncio": "info"}
# At debug peewee prints every query with its values, secrets among them, and asyncio its selector.


def set_up(
    level: str = "info",
    format: str = "auto",  # noqa: A002 - it is called that in the configuration
    levels: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    about: Callable[[], About | None] | None = None,
) -> str:
    """Turn the log on, or change it: what an earlier call set is replaced, whatever else listens is left alone.

    Args:
        level: The level of all loggers: debug, info, warning, error or critical.
        format: `journal` (journald's own protocol), `text`, `json`, or `auto`: journal when stderr goes there, else
            text.
        levels: Levels of single loggers, by name.
        stream: Where text and JSON go; by default what an earlier call named, else stderr; it may be closed later.
        environ: The environment; the process's by default.
        about: Tells the request that the calling thread or task serves, whose fields every line gets; by default what
            an earlier call named.

    Returns:
        The format in force, for `auto` has chosen.

    Raises:
        InvalidInput: There is no such level or format; nothing was changed.
    """
    wanted = {**_QUIET, **(levels or {})}
    numbers = {"": _level(level), **{name: _level(text) for name, text in wanted.items() if text != INHERIT}}
    if format not in FORMATS:
        raise InvalidInput(f"there is no log format {format!r}", hint=f"choose one of {', '.join(FORMATS)}")
    root = logging.getLogger()
    earlier = _installed(root) or _guarded_handler()
    output = _output(stream, earlier, os.environ if environ is None else environ)
    handler, chosen = _handler(format, output, earlier.writer if earlier is not None else LogWriter())
    handler.output = output
    handler.about = about or (earlier.about if earlier is not None else None)
    for name in set(() if earlier is None else earlier.levelled) - set(numbers):
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, number in numbers.items():
        logging.getLogger(name).setLevel(number)
    handler.levelled = set(numbers)
    root.addHandler(handler)
    if earlier is not None:
        root.removeHandler(earlier)
        earlier.close()
    if OwnLogger.guard is not None:
        OwnLogger.guard.take(handler, numbers)
    return chosen


def protect() -> LogGuard:
    """See to it that the daemon's own lines come, whatever others do to `logging`, until `LogGuard.end`.

    Raises:
        LookupError: The log has not been set up.
    """
    handler = _installed(logging.getLogger())
    if handler is None:
        raise LookupError("the log has not been set up")
    guard = LogGuard(
        handler, {"": logging.getLogger().level, **{n: logging.getLogger(n).level for n in handler.levelled}}
    )
    guard.begin()
    return guard


def flush(seconds: float) -> bool:
    """Wait until what was logged is written; return whether it is. Gives up early when nobody reads it. Any thread."""
    handler = _installed(logging.getLogger()) or _guarded_handler()
    return handler is None or handler.writer.flush(seconds)


def log_status() -> tuple[str, list[str]]:
    """Return where the log is, with what happened to it, and what is wrong with it now, a line each. Any thread."""
    handler = _guarded_handler() or _installed(logging.getLogger())
    if handler is None:
        return "", []
    writer, guard = handler.writer, OwnLogger.guard
    problems = [problem] if (problem := handler.problem()) else []
    if seconds := writer.stalled():
        problems.append(
            f"the log has not been read for {seconds:.0f} s ({handler.where()}); {writer.waiting} lines wait"
        )
    if writer.poll_failure:
        problems.append(f"whether somebody changes how this process logs cannot be seen: {writer.poll_failure}")
    losses = writer.losses
    if losses.total and not writer.told:
        problems.append(losses.text())
    notes = [handler.where()]
    if losses.total:
        notes.append(f"{losses.total} lines lost, of these {losses.text()}")
    if guard is not None and (changed := guard.text()):
        notes.append(changed)
    return "; ".join(notes), problems


def set_level(level: str, logger: str = "") -> dict[str, str]:
    """Change the level of a logger, of all loggers by default, until the next `set_up`. Any thread.

    Args:
        level: debug, info, warning, error, critical, or `inherit` for a logger that is to follow the one above it.
        logger: Its name; empty for the root.

    Returns:
        What is in force now: see `levels`.

    Raises:
        InvalidInput: There is no such level.
    """
    if level == INHERIT and logger:
        logging.getLogger(logger).setLevel(logging.NOTSET)
        _take_level(logger, logging.NOTSET)
        return levels()
    logging.getLogger(logger).setLevel(_level(level))
    _take_level(logger, _level(level))
    handler = _installed(logging.getLogger())
    if handler is not None:
        handler.levelled.add(logger)
    return levels()


def _take_level(logger: str, number: int) -> None:
    if OwnLogger.guard is not None:
        OwnLogger.guard.take_level(logger, number)


def levels() -> dict[str, str]:
    """Return the levels in force: of the root logger under the empty name, and of each that has one of its own."""
    root = logging.getLogger()
    found = {"": logging.getLevelName(root.level).lower()}
    for name, logger in sorted(root.manager.loggerDict.copy().items()):
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET:
            found[name] = logging.getLevelName(logger.level).lower()
    return found


def _level(text: str) -> int:
    number = LEVELS.get(text.lower())
    if number is None:
        raise InvalidInput(f"there is no log level {text!r}", hint=f"choose one of {', '.join(LEVELS)}")
    return number


def _output(stream: TextIO | None, earlier: SafeHandler | None, environ: Mapping[str, str]) -> Output:
    """Return where text goes; what an earlier set-up found stays, though `sys.stderr` may be another or closed now."""
    if stream is None and earlier is not None and earlier.output is not None:
        return earlier.output
    stream = stream or sys.stderr
    return Output(target_of(stream), journal.journal_is_stderr(environ, stream), _colours(stream, environ))


def _handler(chosen: str, output: Output, writer: LogWriter) -> tuple[SafeHandler, str]:
    target, to_journal, colours = output
    closed = isinstance(target, DescriptorTarget) and target.closed
    if chosen == "auto":
        chosen = "journal" if (to_journal or closed) and Path(journal.SOCKET).exists() else "text"
    if chosen == "journal":
        return journal.JournalHandler(fallback=None if closed else target, writer=writer), chosen
    handler = SafeStreamHandler(target, writer)
    if chosen == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter(colours=colours, times=not to_journal, priorities=to_journal))
    return handler, chosen


def _colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    try:
        return stream.isatty() and "NO_COLOR" not in environ and environ.get("TERM", "dumb") != "dumb"
    except ValueError:  # it is closed
        return False


def _installed(root: logging.Logger) -> SafeHandler | None:
    return next((handler for handler in root.handlers if isinstance(handler, SafeHandler)), None)


def _guarded_handler() -> SafeHandler | None:
    return OwnLogger.guard.handler if OwnLogger.guard is not None else None


def install_hooks() -> None:
    """Have the log told of errors that end a thread or are raised where nobody can take them, and of warnings.

    For a process that is a daemon: the hooks are the process's own. On the main thread.
    """
    threading.excepthook = _thread_ended
    sys.unraisablehook = _unraisable
    logging.captureWarnings(True)


def _thread_ended(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is None or is_a(found.exc_value, SystemExit):
        return
    name = found.thread.name if found.thread is not None else "unknown"
    _log.error("the thread %s ended with an error", name, exc_info=found.exc_value)


def _unraisable(found: sys.UnraisableHookArgs) -> None:
    what = found.err_msg or "an error was raised where nobody can take it"
    _log.error("%s: %r", what, found.object, exc_info=found.exc_value)
