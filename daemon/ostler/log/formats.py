"""How log lines look: text for people, JSON for programs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from ostler.bounds import MESSAGE_LIMIT, TEXT_LIMIT, text_of
from ostler.errors import OstlerError, describe, is_expected
from ostler.log.fields import ABOUT, DETAIL, fields_of, secrets_of
from ostler.log.messages import MESSAGE_IDS
from ostler.log.secrets import mask_text, masked
from ostler.printable import printable, printable_json, printable_lines, shortened
from ostler.redaction import SECRETS, Value

_SIMPLE = {bool, int, float, type(None)}
_STRUCTURES = {dict, list, tuple, set, frozenset}
_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_PLAIN = "\x1b[0m"
FIELD_LIMIT = 2048
_TRACEBACK_LIMIT = 64_000
_DETAIL_LIMIT = 4_000_000
"""The most characters of what somebody else may have written: what is cut off is said."""
_SET_OFF = "\n    "
"""Begins each further line of a record: no line of it can be taken for a record of its own."""
_STREAM_LINE = 40_000
"""Bytes of a line on a stream that journald reads: of a longer one it makes several records, the rest a forged one."""


def message_of(record: logging.LogRecord) -> str:
    """Return the message as one line, with an expected error that came as `exc_info` added; never raises.

    Line breaks and whatever else a name that somebody chose may hold are escapes in it: nothing can forge a line, move
    the cursor or hide. What is of several lines by intent is a `detail`, see `ostler.log.detail`.

    Arguments that do not fit the message are a slip of its author; what there is is shown then.
    """
    try:
        text = str.__str__(record.getMessage())  # whatever a class derived from `str` makes of its methods
    except BaseException:  # noqa: BLE001 - a __str__ of a plugin can raise anything
        text = f"{text_of(record.msg, MESSAGE_LIMIT)} (its arguments do not fit)"
    error = _expected(record)
    if error is not None and text_of(error.message) not in text:
        text = f"{text}: {describe(error)}" if text else describe(error)
    return printable(mask_text(_redacted(record, text, MESSAGE_LIMIT)))


def traceback_of(record: logging.LogRecord) -> str:
    """Return the traceback of an unexpected error, empty for none and for errors that were expected."""
    if not record.exc_info or record.exc_info[0] is None or _expected(record) is not None:
        return ""
    # The stock formatter caches this text in the record; other handlers may rely on that.
    if not record.exc_text:
        record.exc_text = _formatted(record)
    return _several_lines(record, record.exc_text, _TRACEBACK_LIMIT)


def _formatted(record: logging.LogRecord) -> str:
    """Return the traceback of a record's error; of one that cannot be shown, the error alone."""
    from ostler.log.tracebacks import traceback_text  # an idle daemon has none to show

    _, error, trace = record.exc_info or (None, None, None)
    secrets = secrets_of(record)
    if error is None:
        return ""
    try:
        return traceback_text(error, trace, lambda text: SECRETS.cut(text, MESSAGE_LIMIT, also=secrets))
    except BaseException:  # noqa: BLE001 - the source of a plugin cannot be read, the stack is full
        return describe(error)


def detail_of(record: logging.LogRecord) -> str:
    """Return what a record has of further lines by intent, escaped line by line; empty for none."""
    return _several_lines(record, text_of(getattr(record, DETAIL, ""), _DETAIL_LIMIT), _DETAIL_LIMIT)


def further_lines(record: logging.LogRecord) -> str:
    """Return a record's detail and traceback as they stand below its line: each of their lines is set off."""
    text = "\n".join(filter(None, (detail_of(record), traceback_of(record))))
    return f"\n{text}".replace("\n", _SET_OFF) if text else ""


def _several_lines(record: logging.LogRecord, text: str, limit: int) -> str:
    return printable_lines(mask_text(_redacted(record, text, limit)))


def _redacted(record: logging.LogRecord, text: str, limit: int) -> str:
    """Return a text, not too long, without the secrets of the process and of the request the line was written in."""
    secrets = secrets_of(record)
    text = SECRETS.cut(text, limit, also=secrets)
    return SECRETS.redact(text, arguments=getattr(record, ABOUT, None) is None, also=secrets)


def shown_fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a line as they may be written: secrets masked, empty ones left out."""
    secrets = secrets_of(record)
    found = {name: _short_value(value, secrets) for name, value in fields_of(record).items()}
    shown = {name: masked(name, value) for name, value in found.items() if value not in ("", None)}
    if not (secrets or SECRETS.known):
        return shown
    return {name: SECRETS.redact_deep(value, also=secrets) for name, value in shown.items()}


def _short_value(value: object, secrets: Sequence[Value]) -> object:
    """Return the value of a field, cut when it is long; a structure that is long is shown as text."""
    # By its very type: what a class of a plugin makes of these may raise wherever it is shown.
    if type(value) in _SIMPLE:
        return value
    text = value if type(value) is str else text_of(value, _DETAIL_LIMIT)
    if len(text) > TEXT_LIMIT:
        return SECRETS.cut(text, TEXT_LIMIT, also=secrets)
    return value if type(value) in _STRUCTURES else text


def _expected(record: logging.LogRecord) -> OstlerError | None:
    error = record.exc_info[1] if record.exc_info else None
    return error if is_expected(error) else None


class TextFormatter(logging.Formatter):
    """One line for people: time, level, logger, message, fields; a traceback or detail below it is set off.

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
        extra = " ".join(f"{printable(name)}={_short(value)}" for name, value in shown.items())
        line = f"{when}{level} {printable(record.name, FIELD_LIMIT)}: {message_of(record)}"
        if extra:
            line = f"{line} [{extra}]"
        line += further_lines(record)
        if not self._priorities:
            return line
        mark = f"<{priority(record.levelno)}>"
        return "\n".join(f"{mark}{_fitting(each)}" for each in line.split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object on a line: `time`, `level`, `logger`, `message`, the fields, `traceback`, `detail`."""

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
            line["fields"] = {name: _cut(value) for name, value in extra.items()}
        if trace := traceback_of(record):
            line["traceback"] = trace
        if detail := detail_of(record):
            line["detail"] = detail
        try:
            text = json.dumps(line, default=text_of, ensure_ascii=False, allow_nan=False)
        except ValueError:  # infinite, or no number: JSON has no word for these
            line["fields"] = {name: _cut(str(value)) for name, value in extra.items()}
            text = json.dumps(line, ensure_ascii=False)
        return printable_json(text)


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
    text = shortened(text_of(value, _DETAIL_LIMIT), FIELD_LIMIT)
    if " " in text or '"' in text or "\n" in text or "=" in text:
        text = json.dumps(text, ensure_ascii=False)
    return printable(text)


def _cut(value: object) -> object:
    return shortened(value, FIELD_LIMIT) if isinstance(value, str) else value


def _fitting(line: str) -> str:
    """Return a line that journald takes for one."""
    if len(line) * 4 <= _STREAM_LINE or len(line.encode("utf-8", "replace")) <= _STREAM_LINE:
        return line
    return line.encode("utf-8", "replace")[: _STREAM_LINE - 3].decode("utf-8", "ignore") + "…"
