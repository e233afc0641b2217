"""Errors as problem details (RFC 9457): the name of the error, its facts and its hint, with a status of its kind."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

import ostler
from ostler import OstlerError

PROBLEM_TYPE = "application/problem+json"
_TYPE_PREFIX = "urn:ostler:error:"
_NOT_NAMED = 500
"""The status of an error that neither has one nor has a base that does."""
_MAX_SECONDS = 253_402_300_800.0
"""The first second of the year 10000, which RFC 3339 cannot write."""

STATUS_BY_ERROR: Mapping[str, int] = {
    # What the request asks for.
    "RequestError": 400,
    "InvalidInput": 422,
    "NotFound": 404,
    "DriverNotFound": 404,
    "Conflict": 409,
    "LockTimeout": 409,
    "Deadlock": 409,
    "NoCapacity": 409,
    # How it was asked, and by whom.
    "ServiceNotFound": 404,
    "MethodNotFound": 404,
    "NotExposed": 404,
    "WrongCallKind": 400,
    "InvalidArguments": 422,
    "UnsupportedVersion": 400,
    "MalformedMessage": 400,
    "MessageTooLarge": 413,
    "NotPermitted": 403,
    "Cancelled": 409,
    "ResultExpired": 410,
    # What does not serve it now: try again.
    "Busy": 503,
    "Draining": 503,
    "ServiceFrozen": 503,
    "ServiceDisabled": 503,
    "DaemonNotRunning": 503,
    "DriverNotReady": 503,
    "DriverCircuitOpen": 503,
    "StoreUnavailable": 503,
    "DeadlineExceeded": 504,
    # What is behind the daemon: a device, or another host.
    "DriverError": 502,
    "DriverCrashed": 502,
    "DriverLimitExceeded": 502,
    "DriverStuck": 504,
    "FeatureNotSupported": 501,
    "ConnectionLost": 502,
    # The configuration of this host, which a reload found wrong: fix it and ask again.
    "ConfigurationError": 409,
    "StartRefused": 409,
    "UntrustedOwner": 409,
    # The daemon or a plugin.
    "OstlerError": 500,
    "PluginError": 500,
    "ContractError": 500,
    "ServiceError": 500,
    "StoreError": 500,
    "StoreInUse": 500,
    "StoreCorrupt": 500,
    "SchemaTooNew": 500,
    "MessagingError": 500,
    "OperationInterrupted": 500,
    "EncodeError": 500,
    "InternalError": 500,
    "RemoteError": 500,
}
"""The status of each error of Ostler; errors of plugins have that of their nearest base."""


class HttpError(Exception):
    """Raised when a request is refused with a status that its error does not tell.

    Args:
        status: The status.
        error: The error.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, error: OstlerError, **headers: str) -> None:
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def status_of(error: OstlerError) -> int:
    """Return the status for an error: that of its class, or of the nearest base that has one."""
    for kind in type(error).__mro__:
        if kind.__module__.partition(".")[0] == "ostler" and kind.__name__ in STATUS_BY_ERROR:
            return STATUS_BY_ERROR[kind.__name__]
    return _NOT_NAMED


def name_of(error: OstlerError) -> str:
    """Return the name under which an error travels: its top package and its class, `ostler.NotFound`."""
    kind = type(error)
    if re.fullmatch(r"\w+\.\w+", error.remote_name):  # it comes from another host
        return error.remote_name
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"


def problem_of(error: OstlerError, status: int, request_id: str) -> dict[str, Any]:
    """Return the problem details of an error.

    Args:
        error: The error.
        status: The status of the response.
        request_id: The id of the request that it ended.
    """
    name = name_of(error)
    details = dict(error.details)
    if error.remote_name and details.get("name") == name:
        del details["name"]  # it is that of the error, said already
    return {
        "type": f"{_TYPE_PREFIX}{name}",
        "title": _title(name),
        "status": status,
        "detail": error.message,
        "error": name,
        "bases": _bases_of(error, name),
        "hint": error.hint,
        "details": _with_moments(details),
        "request_id": request_id,
    }


def _bases_of(error: OstlerError, name: str) -> list[str]:
    """Return the names of the errors that an error is one of as well, the nearest first: clients may know these."""
    kinds = (kind for kind in type(error).__mro__ if issubclass(kind, OstlerError) and kind is not OstlerError)
    names = [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in kinds]
    return [each for each in names if each != name]


def problem_headers(error: OstlerError, status: int) -> Iterator[tuple[str, str]]:
    """Yield the headers that an error adds to its response: when to try again, how to say who one is."""
    if status == 401:
        yield "www-authenticate", 'Bearer realm="ostler"'
    if error.retry_after is not None:
        yield "retry-after", str(max(1, math.ceil(error.retry_after)))
    elif status == 503:
        yield "retry-after", "1"


def problem_status(error: OstlerError, *, is_known: bool) -> int:
    """Return the status of a response that an error ends.

    Args:
        error: The error.
        is_known: Whether the caller has said who it is.
    """
    status = status_of(error)
    if status == 403 and not is_known:
        return 401
    # Others are served: this caller is to send less.
    if isinstance(error, ostler.Busy) and error.is_own_share:
        return 429
    return status


def to_rfc3339(moment: object) -> str | None:
    """Return a wall time in seconds since 1970 as RFC 3339 in UTC with milliseconds, None for never.

    It is the notation of `--json`: `2027-01-15T08:00:00.000Z`.
    """
    if not isinstance(moment, int | float) or isinstance(moment, bool) or not 0 < moment < _MAX_SECONDS:
        return None
    seconds, milliseconds = divmod(int(moment * 1000), 1000)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def _title(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name.rpartition(".")[2]).lower()
    return words[:1].upper() + words[1:]


def _with_moments(value: Any) -> Any:
    """Return details with each number called `since` as a moment, as `--json` shows them."""
    if isinstance(value, Mapping):
        return {
            key: to_rfc3339(item) if key == "since" and _is_number(item) else _with_moments(item)
            for key, item in value.items()
        }
    return [_with_moments(item) for item in value] if isinstance(value, list | tuple) else value


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
