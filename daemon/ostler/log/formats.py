"""How log lines look: text for people, JSON for programs."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from ostler.bounds import MESSAGE_LIMIT, TEXT_LIMIT, safe_str
from ostler.errors import OstlerError, error_line, is_expected
from ostler.log.fields import DETAIL_ATTRIBUTE, REQUEST_ATTRIBUTE, fields_of, secrets_of
from ostler.log.masking import mask_field, mask_text
from ostler.log.message_ids import MESSAGE_IDS
from ostler.printable import printable, printable_json, printable_lines, truncate_with_length
from ostler.redaction import SECRETS, Value

_SIMPLE = {bool, int, float, type(None)}
_STRUCTURES = {dict, list, tuple, set, frozenset}
_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m"}
_RESET_COLOUR = "\x1b[0m"
MAX_FIELD_LENGTH = 2048
_MAX_TRACEBACK_LENGTH = 64_000
_MAX_DETAIL_LENGTH = 4_000_000
"""The most characters of what somebody else may have written: what is cut off is said."""
_CONTINUATION = "\n    "
"""Begins each further line of a record: no line of it can be taken for a record of its own."""
_MAX_LINE_BYTES = 40_000
"""Bytes of a line on a stream that journald reads: of a longer one it makes several records, the rest a forged one."""


def format_message(record: logging.LogRecord) -> str:
    """Return the message as one line, with an expected error that came as `exc_info` added; never raises.

    Line breaks and whatever else a name that somebody chose may hold are escapes in it: nothing can forge a line, move
    the cursor or hide. What is of several lines by intent is a `detail`, see `ostler.log.detail`.

    Arguments that do not fit the message are a slip of its author; what there is is shown then.
    """
    try:
        text = str.__str__(record.getMessage())  # whatever a class derived from `str` makes of its methods
    except BaseException:  # noqa: BLE001 - a __str__ of a plugin can raise anything
        text = f"{safe_str(record.msg, MESSAGE_LIMIT)} (its arguments do not match)"
    error = _expected_error(record)
    if error is not None and safe_str(error.message) not in text:
        text = f"{text}: {error_line(error)}" if text else error_line(error)
    return printable(mask_text(_redact_and_cut(record, text, MESSAGE_LIMIT)))


def format_record_traceback(record: logging.LogRecord) -> str:
    """Return the traceback of an unexpected error, empty for none and for errors that were expected."""
    if not record.exc_info or record.exc_info[0] is None or _expected_error(record) is not None:
        return ""
    # The stock formatter caches this text in the record; other handlers may rely on that.
    if not record.exc_text:
        record.exc_text = _format_exception(record)
    return _format_lines(record, record.exc_text, _MAX_TRACEBACK_LENGTH)


def _format_exception(record: logging.LogRecord) -> str:
    """Return the traceback of a record's error; of one that cannot be shown, the error alone."""
    from ostler.log.tracebacks import format_traceback  # an idle daemon has none to show

    _, error, trace = record.exc_info or (None, None, None)
    secrets = secrets_of(record)
    if error is None:
        return ""
    try:
        return format_traceback(
            error, trace, lambda text: SECRETS.redact_and_cut(text, MESSAGE_LIMIT, extra_values=secrets)
        )
    except BaseException:  # noqa: BLE001 - the source of a plugin cannot be read, the stack is full
        return error_line(error)


def format_detail(record: logging.LogRecord) -> str:
    """Return what a record has of further lines by intent, escaped line by line; empty for none."""
    return _format_lines(
        record, safe_str(getattr(record, DETAIL_ATTRIBUTE, ""), _MAX_DETAIL_LENGTH), _MAX_DETAIL_LENGTH
    )


def format_continuation(record: logging.LogRecord) -> str:
    """Return a record's detail and traceback as they stand below its line: each of their lines is set off."""
    text = "\n".join(filter(None, (format_detail(record), format_record_traceback(record))))
    return f"\n{text}".replace("\n", _CONTINUATION) if text else ""


def _format_lines(record: logging.LogRecord, text: str, limit: int) -> str:
    return printable_lines(mask_text(_redact_and_cut(record, text, limit)))


def _redact_and_cut(record: logging.LogRecord, text: str, limit: int) -> str:
    """Return a text, not too long, without the secrets of the process and of the request the line was written in."""
    secrets = secrets_of(record)
    text = SECRETS.redact_and_cut(text, limit, extra_values=secrets)
    return SECRETS.redact(text, arguments=getattr(record, REQUEST_ATTRIBUTE, None) is None, extra_values=secrets)


def format_fields(record: logging.LogRecord) -> dict[str, object]:
    """Return the fields of a line as they may be written: secrets masked, empty ones left out."""
    secrets = secrets_of(record)
    found = {name: _shorten_value(value, secrets) for name, value in fields_of(record).items()}
    shown = {name: mask_field(name, value) for name, value in found.items() if value not in ("", None)}
    return {name: SECRETS.redact_deep(value, extra_values=secrets) for name, value in shown.items()}


def _shorten_value(value: object, secrets: Sequence[Value]) -> object:
    """Return the value of a field, cut when it is long; a structure that is long is shown as text."""
    # By its very type: what a class of a plugin makes of these may raise wherever it is shown.
    if type(value) in _SIMPLE:
        return value
    text = value if type(value) is str else safe_str(value, _MAX_DETAIL_LENGTH)
    if len(text) > TEXT_LIMIT:
        return SECRETS.redact_and_cut(text, TEXT_LIMIT, extra_values=secrets)
    return value if type(value) in _STRUCTURES else text


def _expected_error(record: logging.LogRecord) -> OstlerError | None:
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
            level = f"{_COLOURS[record.levelname]}{level}{_RESET_COLOUR}"
        shown = format_fields(record)
        shown.pop("event", None)  # it is for programs; the message says the same
        extra = " ".join(f"{printable(name)}={_shorten_text(value)}" for name, value in shown.items())
        line = f"{when}{level} {printable(record.name, MAX_FIELD_LENGTH)}: {format_message(record)}"
        if extra:
            line = f"{line} [{extra}]"
        line += format_continuation(record)
        if not self._priorities:
            return line
        mark = f"<{syslog_priority(record.levelno)}>"
        return "\n".join(f"{mark}{_limit_line(each)}" for each in line.split("\n"))


class JsonFormatter(logging.Formatter):
    """One JSON object on a line: `time`, `level`, `logger`, `message`, the fields, `traceback`, `detail`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, Any] = {
            "time": _local_time(record.created, record.msecs),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": format_message(record),
        }
        extra = format_fields(record)
        if message_id := MESSAGE_IDS.get(str(extra.get("event"))):
            line["message_id"] = message_id
        if extra:
            line["fields"] = {name: _shorten_structure(value) for name, value in extra.items()}
        if trace := format_record_traceback(record):
            line["traceback"] = trace
        if detail := format_detail(record):
            line["detail"] = detail
        try:
            text = json.dumps(line, default=safe_str, ensure_ascii=False, allow_nan=False)
        except ValueError:  # infinite, or no number: JSON has no word for these
            line["fields"] = {name: _shorten_structure(str(value)) for name, value in extra.items()}
            text = json.dumps(line, ensure_ascii=False)
        return printable_json(text)


def syslog_priority(level: int) -> int:
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


def _shorten_text(value: object) -> str:
    text = truncate_with_length(safe_str(value, _MAX_DETAIL_LENGTH), MAX_FIELD_LENGTH)
    if " " in text or '"' in text or "\n" in text or "=" in text:
        text = json.dumps(text, ensure_ascii=False)
    return printable(text)


def _shorten_structure(value: object) -> object:
    return truncate_with_length(value, MAX_FIELD_LENGTH) if isinstance(value, str) else value


def _limit_line(line: str) -> str:
    """Return a line that journald takes for one."""
    if len(line) * 4 <= _MAX_LINE_BYTES or len(line.encode("utf-8", "replace")) <= _MAX_LINE_BYTES:
        return line
    return line.encode("utf-8", "replace")[: _MAX_LINE_BYTES - 3].decode("utf-8", "ignore") + "…"
