"""Errors of a driver's process: their type, their text and their traceback go to the daemon; no class is imported."""

from __future__ import annotations

import builtins
import sys
import traceback
from typing import Any

from ostler.bounds import TEXT_LIMIT, bound_details, safe_str, truncate, type_name
from ostler.driver.process.messages import Failure
from ostler.errors import DriverError, WireError, error_line, from_wire, is_expected, to_wire

_TRACEBACK_LIMIT = 20_000
_PLAIN_TYPES = (bool, int, float, str, bytes, type(None))


class RemoteTraceback(Exception):
    """The traceback of an error in a driver's process, as text; the cause of the error that the daemon raises."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f"\nin the process of the driver:\n{self.text}"


def pack_error(error: BaseException) -> Failure:
    """Return an error as it is sent; never raises, whatever a plugin's class does."""
    text = _traceback_text(error)
    kind = type(error)
    if is_expected(error):
        wire = to_wire(error)
        return Failure("", list(wire.names), wire.message, wire.hint, dict(wire.details), [], text)
    arguments = [value if type(value) in _PLAIN_TYPES else safe_str(value, TEXT_LIMIT) for value in _arguments(error)]
    path = f"{kind.__module__}:{kind.__qualname__}"
    return Failure(path, [], error_line(error), "", bound_details({}), _encodable(arguments), text)


def unpack_error(failure: Failure) -> BaseException:
    """Return the error, of the class of its name if that has been imported here, else a `DriverError`."""
    error = _restore(failure)
    if failure.traceback and not is_expected(error):
        error.__cause__ = RemoteTraceback(failure.traceback)
    return error


def _restore(failure: Failure) -> BaseException:
    if failure.names:
        return from_wire(WireError(tuple(failure.names), failure.message, failure.hint, failure.details))
    kind = _find_class(failure.path)
    if kind is not None:
        try:
            error = kind.__new__(kind, *failure.arguments)
            str(error)
        except Exception:  # noqa: BLE001 - a class with a constructor of its own
            error = None
        if isinstance(error, BaseException):
            return error
    unknown = DriverError(failure.message)
    unknown.__cause__ = RemoteTraceback(failure.traceback)
    return unknown


def _find_class(path: str) -> type[BaseException] | None:
    module, _, name = path.partition(":")
    found: Any = builtins if module == "builtins" else sys.modules.get(module)
    for part in name.split("."):
        found = vars(found).get(part) if hasattr(found, "__dict__") else None
    return found if isinstance(found, type) and issubclass(found, BaseException) else None


def _traceback_text(error: BaseException) -> str:
    try:
        text = "".join(traceback.format_exception(error))
    except Exception as failed:  # noqa: BLE001 - a plugin's `__str__` may raise anything
        text = f"{type_name(error)} (its traceback could not be formatted: {type_name(failed)})"
    return safe_str(truncate(text, _TRACEBACK_LIMIT), _TRACEBACK_LIMIT)


def _arguments(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, OSError) and error.errno is not None:
        names = [error.filename] + ([None, error.filename2] if error.filename2 is not None else [])
        return (error.errno, error.strerror, *(names if error.filename is not None else []))
    return BaseException.__getattribute__(error, "args")  # type: ignore[no-any-return]


def _encodable(values: list[Any]) -> list[Any]:
    return [
        safe_str(value, TEXT_LIMIT)
        if isinstance(value, str) or (isinstance(value, int) and abs(value) >= 2**63)
        else value
        for value in values
    ]
