"""Turning the log on, and changing its levels while the daemon runs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from ostler.errors import InvalidInput
from ostler.log import journal
from ostler.log.fields import About
from ostler.log.formats import JsonFormatter, TextFormatter
from ostler.log.handlers import SafeHandler, SafeStreamHandler

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
        stream: Where text and JSON go; stderr by default.
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
    handler, chosen = _handler(format, stream or sys.stderr, os.environ if environ is None else environ)
    root = logging.getLogger()
    earlier = _installed(root)
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
    return chosen


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
        return levels()
    logging.getLogger(logger).setLevel(_level(level))
    handler = _installed(logging.getLogger())
    if handler is not None:
        handler.levelled.add(logger)
    return levels()


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


def _handler(chosen: str, stream: TextIO, environ: Mapping[str, str]) -> tuple[SafeHandler, str]:
    to_journal = journal.journal_is_stderr(environ, stream)
    if chosen == "auto":
        chosen = "journal" if to_journal and Path(journal.SOCKET).exists() else "text"
    if chosen == "journal":
        return journal.JournalHandler(), chosen
    handler = SafeStreamHandler(stream)
    if chosen == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(
            TextFormatter(colours=_colours(stream, environ), times=not to_journal, priorities=to_journal)
        )
    return handler, chosen


def _colours(stream: TextIO, environ: Mapping[str, str]) -> bool:
    try:
        return stream.isatty() and "NO_COLOR" not in environ and environ.get("TERM", "dumb") != "dumb"
    except ValueError:  # it is closed
        return False


def _installed(root: logging.Logger) -> SafeHandler | None:
    return next((handler for handler in root.handlers if isinstance(handler, SafeHandler)), None)
