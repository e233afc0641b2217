"""What log lines are about: fields of the running request or service, and of one logger."""

from __future__ import annotations

import contextvars
import logging
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any

import msgspec

from ostler.redaction import Value

CARRIER = "ostler_fields"
"""The attribute of a log record that holds the fields an adapter gave it."""

ABOUT = "ostler_about"
"""The attribute of a log record that holds the request it was written in."""

DETAIL = "ostler_detail"
"""The attribute of a log record that holds what it has of further lines."""

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", CARRIER, ABOUT, DETAIL}
_NONE: Mapping[str, object] = MappingProxyType({})
_current: contextvars.ContextVar[Mapping[str, object]] = contextvars.ContextVar("ostler_log_fields", default=_NONE)


class About(msgspec.Struct, frozen=True):
    """The request that a line was written in: fields that it gives each line, and texts that may not stand in any."""

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

    Field names that `logging` keeps for itself (`name`, `args`) are no trouble here.

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
        given.update(given.pop(CARRIER, {}))
        return msg, {**kwargs, "extra": {CARRIER: {**self.fields, **given}}}


def adapter(logger: logging.Logger | logging.LoggerAdapter[logging.Logger], **values: object) -> FieldAdapter:
    """Return a logger whose lines all carry `values`, on top of those of an adapter it is made from."""
    if isinstance(logger, FieldAdapter):
        return FieldAdapter(logger.logger, {**logger.fields, **values})
    if isinstance(logger, logging.LoggerAdapter):
        return FieldAdapter(logger.logger, {**(logger.extra or {}), **values})
    return FieldAdapter(logger, values)


def extra(**values: object) -> dict[str, object]:
    """Return what to pass as `extra` to a plain logger, so that its line carries fields of any names."""
    return {CARRIER: values}


def detail(text: str) -> dict[str, object]:
    """Return what to pass as `extra` to a plain logger so that further lines stand below its message, set off.

    A message itself is one line, and line breaks in it are shown as escapes.
    """
    return {DETAIL: text}


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Return all fields of a line: its request's, the context's, its adapter's, then those of its own `extra`."""
    about: About | None = getattr(record, ABOUT, None)
    found: dict[str, object] = {**(about.fields if about is not None else _NONE), **_current.get()}
    found.update(getattr(record, CARRIER, {}))
    found.update({name: value for name, value in vars(record).items() if name not in _STANDARD})
    return found


def secrets_of(record: logging.LogRecord) -> Sequence[Value]:
    """Return the texts that may not stand in a line, for they are secrets of the request it was written in."""
    about: About | None = getattr(record, ABOUT, None)
    return about.secrets if about is not None else ()
