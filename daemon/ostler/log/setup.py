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
from ostler.log.fields import LogFields
from ostler.log.formats import JsonFormatter, TextFormatter
from ostler.log.guard import GuardedLogger, LogGuard
from ostler.log.handlers import LogOutput, SafeHandler, SafeStreamHandler
from ostler.log.journald import JOURNALD_SOCKET, JournalHandler, is_stderr_journal
from ostler.log.log_writer import LogWriter
from ostler.log.output_targets import DescriptorTarget, make_target
from ostler.manager_types import LogLevel
from ostler.time_text import format_duration

_log = logging.getLogger(__name__)
LEVELS: Mapping[str, int] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
    "critical": logging.CRITICAL,
}
FORMATS = ("auto", "journal", "text", "json")
INHERIT_LEVEL = "inherit"
"""Instead of a level: the logger is to follow the one above it again."""
_LIBRARY_LEVELS: Mapping[str, str] = {"peewee": "info", "asyncio": "info"}
# At debug peewee prints every query with its values, secrets among them, and asyncio its selector.


def set_up(
    level: str = "info",
    format: str = "auto",  # noqa: A002 - it is called that in the configuration
    levels: Mapping[str, str] | None = None,
    stream: TextIO | None = None,
    environ: Mapping[str, str] | None = None,
    about: Callable[[], LogFields | None] | None = None,
    journald_socket: str = JOURNALD_SOCKET,
) -> str:
    """Turn the log on, or change it: what an earlier call set is replaced, whatever else listens is left alone.

    Args:
        level: The level of all loggers: debug, info, warning, error or critical.
        format: `journal` (journald's own protocol), `text`, `json`, or `auto`: journal when stderr goes there, else
            text.
        levels: Levels of single loggers, by name.
        stream: Where text and JSON go; by default what an earlier call named, else stderr; it may be closed later.
        environ: The environment; the process's by default.
        about: Returns the request that the calling thread or task serves, whose fields every line gets; by default what
            an earlier call named.
        journald_socket: The path of journald's socket.

    Returns:
        The format in force, for `auto` has chosen.

    Raises:
        InvalidInput: The level or format does not exist; nothing was changed.
    """
    wanted = {**_LIBRARY_LEVELS, **(levels or {})}
    numbers = {
        "": parse_level(level),
        **{name: parse_level(text) for name, text in wanted.items() if text != INHERIT_LEVEL},
    }
    if format not in FORMATS:
        raise InvalidInput(f"log format {format!r} not found", hint=f"choose one of {', '.join(FORMATS)}")
    root = logging.getLogger()
    earlier = _installed_handler(root) or _guarded_handler()
    output = _find_output(stream, earlier, os.environ if environ is None else environ)
    writer = earlier.writer if earlier is not None else LogWriter()
    handler, chosen = _make_handler(format, output, writer, journald_socket)
    handler.output = output
    handler.get_log_fields = about or (earlier.get_log_fields if earlier is not None else None)
    for name in set(() if earlier is None else earlier.levelled_loggers) - set(numbers):
        logging.getLogger(name).setLevel(logging.NOTSET)
    for name, number in numbers.items():
        logging.getLogger(name).setLevel(number)
    handler.levelled_loggers = set(numbers)
    root.addHandler(handler)
    if earlier is not None:
        root.removeHandler(earlier)
        earlier.close()
    if GuardedLogger.guard is not None:
        GuardedLogger.guard.configure(handler, numbers)
    return chosen


def start_guard() -> LogGuard:
    """Protect the daemon's own lines from what other code does to `logging`, until `LogGuard.end`.

    Raises:
        LookupError: The log has not been set up.
    """
    handler = _installed_handler(logging.getLogger())
    if handler is None:
        raise LookupError("the log has not been set up")
    guard = LogGuard(
        handler, {"": logging.getLogger().level, **{n: logging.getLogger(n).level for n in handler.levelled_loggers}}
    )
    guard.start()
    return guard


def flush(seconds: float) -> bool:
    """Wait until what was logged is written; return whether it is. Gives up early when nobody reads it. Any thread."""
    handler = _installed_handler(logging.getLogger()) or _guarded_handler()
    return handler is None or handler.writer.flush(seconds)


def log_status() -> tuple[str, list[str]]:
    """Return where the log is, with what happened to it, and what is wrong with it now, a line each. Any thread."""
    handler = _guarded_handler() or _installed_handler(logging.getLogger())
    if handler is None:
        return "", []
    writer, guard = handler.writer, GuardedLogger.guard
    problems = [problem] if (problem := handler.problem()) else []
    if seconds := writer.stalled_time():
        problems.append(
            f"the log has not been read for {format_duration(seconds)} ({handler.destination()}); "
            f"{writer.queued_count} lines are waiting"
        )
    if writer.poll_failure:
        problems.append(f"cannot check whether plugins change how this process logs: {writer.poll_failure}")
    losses = writer.losses
    if losses.total and not writer.is_loss_reported:
        problems.append(losses.describe())
    notes = [handler.destination()]
    if losses.total:
        notes.append(f"{losses.total} lines lost, of these {losses.describe()}")
    if guard is not None and (changed := guard.describe()):
        notes.append(changed)
    return "; ".join(notes), problems


def set_level(level: str, logger: str = "", seconds: float = 0.0) -> list[LogLevel]:
    """Change the level of a logger, of all loggers by default, for a time or until the next `set_up`. Any thread.

    Args:
        level: debug, info, warning, error, critical, or `inherit` for a logger that is to follow the one above it.
        logger: Its name; empty for the root.
        seconds: After how long the level of before is valid again; 0 for until the next `set_up`. Only with a guard.

    Returns:
        What is in force now: see `effective_levels`.

    Raises:
        InvalidInput: The level does not exist.
    """
    if level == INHERIT_LEVEL and logger:
        logging.getLogger(logger).setLevel(logging.NOTSET)
        _apply_level(logger, logging.NOTSET)
        return effective_levels()
    number = parse_level(level)
    _apply_level(logger, number, seconds)
    logging.getLogger(logger).setLevel(number)
    handler = _installed_handler(logging.getLogger())
    if handler is not None:
        handler.levelled_loggers.add(logger)
    return effective_levels()


def _apply_level(logger: str, number: int, seconds: float = 0.0) -> None:
    if GuardedLogger.guard is not None:
        GuardedLogger.guard.set_level(logger, number, seconds)


def effective_levels() -> list[LogLevel]:
    """Return the levels in force: of the root logger under the empty name, and of each that has one of its own."""
    root = logging.getLogger()
    remaining = GuardedLogger.guard.remaining_times() if GuardedLogger.guard is not None else {}
    found = {"": root.level}
    for name, logger in sorted(root.manager.loggerDict.copy().items()):
        if isinstance(logger, logging.Logger) and logger.level != logging.NOTSET:
            found[name] = logger.level
    return [
        LogLevel(logger=name, level=logging.getLevelName(level).lower(), seconds_left=remaining.get(name))
        for name, level in found.items()
    ]


def parse_level(text: str) -> int:
    """Return the number of a level.

    Raises:
        InvalidInput: It does not exist.
    """
    number = LEVELS.get(text.lower())
    if number is None:
        raise InvalidInput(f"log level {text!r} not found", hint=f"choose one of {', '.join(LEVELS)}")
    return number


def _find_output(stream: TextIO | None, earlier: SafeHandler | None, environ: Mapping[str, str]) -> LogOutput:
    """Return where text goes; what an earlier set-up found stays, though `sys.stderr` may be another or closed now."""
    if stream is None and earlier is not None and earlier.output is not None:
        return earlier.output
    stream = stream or sys.stderr
    return LogOutput(make_target(stream), is_stderr_journal(environ, stream), _has_colours(stream, environ))


def _make_handler(chosen: str, output: LogOutput, writer: LogWriter, journald_socket: str) -> tuple[SafeHandler, str]:
    target, to_journal, colours = output
    closed = isinstance(target, DescriptorTarget) and target.closed
    if chosen == "auto":
        chosen = "journal" if (to_journal or closed) and Path(journald_socket).exists() else "text"
    if chosen == "journal":
        return JournalHandler(journald_socket, fallback=None if closed else target, writer=writer), chosen
    handler = SafeStreamHandler(target, writer)
    if chosen == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(TextFormatter(colours=colours, times=not to_journal, priorities=to_journal))
    return handler, chosen


def _has_colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    try:
        return stream.isatty() and "NO_COLOR" not in environ and environ.get("TERM", "dumb") != "dumb"
    except ValueError:  # it is closed
        return False


def _installed_handler(root: logging.Logger) -> SafeHandler | None:
    return next((handler for handler in root.handlers if isinstance(handler, SafeHandler)), None)


def _guarded_handler() -> SafeHandler | None:
    return GuardedLogger.guard.handler if GuardedLogger.guard is not None else None


def install_excepthooks() -> None:
    """Log errors that end a thread or are raised where nothing can handle them, and warnings.

    For a process that is a daemon: the hooks are the process's own. On the main thread.
    """
    threading.excepthook = _on_thread_error
    sys.unraisablehook = _on_unraisable
    logging.captureWarnings(True)


def _on_thread_error(found: threading.ExceptHookArgs) -> None:
    if found.exc_value is None or is_a(found.exc_value, SystemExit):
        return
    name = found.thread.name if found.thread is not None else "unknown"
    _log.error("the thread %s ended with an error", name, exc_info=found.exc_value)


def _on_unraisable(found: sys.UnraisableHookArgs) -> None:
    what = found.err_msg or "an error was raised where nothing can handle it"
    _log.error("%s: %r", what, found.object, exc_info=found.exc_value)
