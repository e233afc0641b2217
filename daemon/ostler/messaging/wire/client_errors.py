"""The errors that a client creates itself, for calls whose server did not answer in time or has gone."""

from __future__ import annotations

from ostler.errors import ConnectionLost, DeadlineExceeded, MalformedMessage, MessageTooLarge, OstlerError
from ostler.time_text import format_duration, format_seconds

FORK_REASON = "fork"
"""The `reason` of the error of a call from before a fork, in the child."""


def no_reply_error(where: str, timeout: float | None, *, item: bool = False) -> DeadlineExceeded:
    """Return the error of a call that had no answer in time, or of a stream that had no item."""
    return DeadlineExceeded(
        f"no {'item' if item else 'answer'} from {where} within {format_seconds(timeout or 0)}",
        hint="increase the timeout, or use `ostler dump` to see what the daemon is waiting for",
        method=where,
        timeout=timeout,
    )


def silent_server_error(where: str, seconds: float) -> ConnectionLost:
    """Return the error of a call about which the server has sent nothing for so long."""
    return ConnectionLost(
        f"no response from {where} for {format_duration(seconds)}; it may or may not have been executed",
        hint="see `systemctl status ostler` and the daemon's log",
        method=where,
        silent=seconds,
    )


def lost_call_error(where: str, error: OstlerError) -> OstlerError:
    """Return the error of a call whose server has gone."""
    if not isinstance(error, ConnectionLost):
        return error
    if error.reason == FORK_REASON:
        return error
    if error.reason == "large":
        return MessageTooLarge(
            f"no answer from {where}: {error.message}", hint=error.hint, method=where, **_size_details(error)
        )
    return ConnectionLost(
        f"lost the connection to the daemon while {where} was in progress; it may or may not have been executed",
        hint="see `systemctl status ostler` and the daemon's log",
        method=where,
    )


def forked_client_error() -> ConnectionLost:
    """Return the error of what was started before a fork, in the forked process."""
    return ConnectionLost(
        "this was started before the process was forked and belongs to the other process",
        hint="make calls, streams and subscriptions in the process that uses them",
        reason=FORK_REASON,
    )


def _size_details(error: OstlerError) -> dict[str, object]:
    return {name: error.details.get(name) for name in ("size", "limit")}


def undecodable_reply_error(where: str, error: OstlerError) -> OstlerError:
    """Return the error of an answer that is no message of ours, or has more elements than this client decodes."""
    if isinstance(error, MessageTooLarge):
        most = error.details.get("max_elements")
        return MessageTooLarge(
            f"the answer from {where} has more than {most} elements and was not decoded",
            hint="ask for less at once, or give the client a larger `max_elements`",
            method=where, size=error.details.get("size"), max_elements=most,
        )  # fmt: skip
    return MalformedMessage(
        f"invalid answer from {where}: {error.message}",
        hint="client and daemon may have different versions",
        method=where, reason=error.reason,
    )  # fmt: skip
