"""Fields of log lines: those of the running request or service, and of one logger."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import msgspec

from ostler.redaction import Value

FIELDS_ATTRIBUTE = "ostler_fields"
"""The attribute of a log record that holds the fields an adapter gave it."""

REQUEST_ATTRIBUTE = "ostler_about"
"""The attribute of a log record that holds the request it was written in."""

DETAIL_ATTRIBUTE = "ostler_detail"
"""The attribute of a log record that holds what it has of further lines."""

_STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    FIELDS_ATTRIBUTE,
    REQUEST_ATTRIBUTE,
    DETAIL_ATTRIBUTE,
}
_NO_FIELDS: Mapping[str, object] = MappingProxyType({})
_current: contextvars.ContextVar[Mapping[str, object]] = contextvars.ContextVar("ostler_log_fields", default=_NO_FIELDS)


class LogFields(msgspec.Struct, frozen=True):
    """The request that a line was written in: fields that it gives each line, and texts that must not appear in any."""

    fields: Mapping[str, object]
    secrets: Sequence[Value] = ()


@contextmanager
def fields(**values: object) -> Iterator[None]:
    """Give every log line of this thread or task these fields inside the block, whichever logger it comes from."""
    token = _current.set({**_current.get(), **values})
    try:
        yield
    finally:
        _current.reset(token)


class FieldAdapter(logging.LoggerAdapter[logging.Logger]):
    """A logger whose lines all carry some fields; what a single call brings in `extra` is added.

    Field names that `logging` reserves (`name`, `args`) may be used here.

    Args:
        logger: Where the lines go.
        values: The fields.
    """

    def __init__(self, logger: logging.Logger, values: Mapping[str, object]) -> None:
        super().__init__(logger, values)
        self.fields: Mapping[str, object] = values

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Put the fields where the formatters find them."""
        given = dict(kwargs.get("extra") or {})
        given.update(given.pop(FIELDS_ATTRIBUTE, {}))
        return msg, {**kwargs, "extra": {FIELDS_ATTRIBUTE: {**self.fields, **given}}}


def adapter(logger: logging.Logger | logging.LoggerAdapter[logging.Logger], **values: object) -> FieldAdapter:
    """Return a logger whose lines all carry `values`, on top of those of an adapter it is made from."""
    if isinstance(logger, FieldAdapter):
        return FieldAdapter(logger.logger, {**logger.fields, **values})
    if isinstance(logger, logging.LoggerAdapter):
        return FieldAdapter(logger.logger, {**(logger.extra or {}), **values})
    return FieldAdapter(logger, values)


def extra(**values: object) -> dict[str, object]:
    """Return what to pass as `extra` to a plain logger, so that its line carries fields of any names."""
    return {FIELDS_ATTRIBUTE: values}


def detail(text: str) -> dict[str, object]:
    """Return what to pass as `extra` to a plain logger so that further lines stand below its message, set off.

    A message itself is one line, and line breaks in it are shown as escapes.
    """
    return {DETAIL_ATTRIBUTE: text}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return all fields of a line: its request's, the context's, its adapter's, then those of its own `extra`."""
    about: LogFields | None = getattr(record, REQUEST_ATTRIBUTE, None)
    found: dict[str, object] = {**(about.fields if about is not None else _NO_FIELDS), **_current.get()}
    found.update(getattr(record, FIELDS_ATTRIBUTE, {}))
    found.update({name: value for name, value in vars(record).items() if name not in _STANDARD_ATTRIBUTES})
    return found


def secrets_of(record: logging.LogRecord) -> Sequence[Value]:
    """Return the texts that must not appear in a line: the secrets of the request it was written in."""
    about: LogFields | None = getattr(record, REQUEST_ATTRIBUTE, None)
    return about.secrets if about is not None else ()
