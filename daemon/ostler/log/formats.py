"""How log lines look: text for people, JSON for programs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from ostler.bounds import MESSAGE_LIMIT, TEXT_LIMIT, cut
from ostler.errors import OstlerError, describe
from ostler.log.fields import fields_of, secrets_of
from ostler.log.messages import MESSAGE_IDS
from ostler.log.secrets import mask_deep, mask_text, mask_values, masked

_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_TRACEBACK_LIMIT = 64_000
_DUMP_LIMIT = 4_000_000
_PLAIN = "\x1b[0m"
# A name that somebody chose must not move the cursor, ring the bell or forge a line.
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def message_of(record: logging.LogRecord) -> str:
    """Return the message, with an expected error that came as `exc_info` added as one line; never raises.

    Arguments that do not fit the message are a slip of its author; what there is is shown then.
    """
    try:
        text = record.getMessage()
    except Exception:  # noqa: BLE001 - a __str__ of a plugin can raise anything
        text = f"{record.msg!s} (its arguments do not fit)"
    error = _expected(record)
    if error is not None and error.message not in text:
        text = f"{text}: {describe(error)}" if text else describe(error)
    secrets = secrets_of(record)
    text = mask_text(mask_values(cut(text, _limit_of(record), secrets), secrets))
    return text if text.isprintable() else text.translate(_CONTROL)


def traceback_of(record: logging.LogRecord) -> str:
    """Return the traceback of an unexpected error, empty for none and for errors that were expected."""
    if not record.exc_info or record.exc_info[0] is None or _expected(record) is not None:
        return ""
    # The stock formatter caches this text in the record; other handlers may rely on that.
    if not record.exc_text:
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    secrets = secrets_of(record)
    return mask_text(mask_values(cut(record.exc_text, _TRACEBACK_LIMIT, secrets), secrets))


def shown_fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a line as they may be written: secrets masked, empty ones left out."""
    secrets = secrets_of(record)
    found = {name: _short_value(value, secrets) for name, value in fields_of(record).items()}
    shown = {name: masked(name, value) for name, value in found.items() if value not in ("", None)}
    if secrets:
        shown = {name: mask_deep(value, secrets) for name, value in shown.items()}
    return shown


def _limit_of(record: logging.LogRecord) -> int:
    """Return how long a line may be: a dump of all threads and tasks is, and nobody but the daemon writes it."""
    return _DUMP_LIMIT if fields_of(record).get("event") in ("dump", "watchdog") else MESSAGE_LIMIT


def _short_value(value: object, secrets: Sequence[str]) -> object:
    """Return the value of a field, cut when it is long; a structure that is long is shown as text."""
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else str(value)
    return cut(text, TEXT_LIMIT, secrets) if len(text) > TEXT_LIMIT else value


def _expected(record: logging.LogRecord) -> OstlerError | None:
    error = record.exc_info[1] if record.exc_info else None
    return error if isinstance(error, OstlerError) else None


class TextFormatter(logging.Formatter):
    """One line for people: time, level, logger, message, fields; further lines of a message are set off.

    Args:
        colours: Whether levels are coloured, for terminals.
        times: Whether the line begins with the time; not where journald puts its own.
        priorities: Whether the line begins with `<N>`, by which systemd knows its level.
    """

    def __init__(self, *, colours: bool = False, times: bool = True, priorities: bool = False) -> None:
        super().__init__()
        self._colours = colours
        self._times = times
        self._priorities = priorities

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = f"{_local_time(record.created, record.msecs)} " if self._times else ""
        level = f"{record.levelname:<8}"
        if self._colours and record.levelname in _COLOURS:
            level = f"{_COLOURS[record.levelname]}{level}{_PLAIN}"
        shown = shown_fields(record)
        shown.pop("event", None)  # it is for programs; the message says the same
        extra = " ".join(f"{name}={_short(value)}" for name, value in shown.items())
        line = f"{when}{level} {record.name}: {message_of(record)}"
        if extra:
            line = f"{line} [{extra}]"
        if trace := traceback_of(record):
            line = f"{line}\n{trace}"
        line = line.replace("\n", "\n    ")
        if not self._priorities:
            return line
        mark = f"<{priority(record.levelno)}>"
        return mark + line.replace("\n", f"\n{mark}")


class JsonFormatter(logging.Formatter):
    """One JSON object on a line: `time`, `level`, `logger`, `message`, the fields, `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": _local_time(record.created, record.msecs),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": message_of(record),
        }
        extra = shown_fields(record)
        if message_id := MESSAGE_IDS.get(str(extra.get("event"))):
            line["message_id"] = message_id
        if extra:
            line["fields"] = extra
        if trace := traceback_of(record):
            line["traceback"] = trace
        return json.dumps(line, default=str, ensure_ascii=False)


def priority(level: int) -> int:
    """Return syslog's number for a level of `logging`."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7


def _local_time(created: float, milliseconds: float) -> str:
    moment = time.localtime(created)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', moment)}.{int(milliseconds):03d}{time.strftime('%z', moment)}"


def _short(value: object) -> str:
    text = str(value)
    if " " in text or '"' in text or "\n" in text or "=" in text:
        text = json.dumps(text, ensure_ascii=False)
    return text.translate(_CONTROL)
