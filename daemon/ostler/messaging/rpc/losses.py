"""The errors that a client makes by itself, of calls whose server said nothing in time, or nothing any more."""

from __future__ import annotations

from ostler.errors import ConnectionLost, DeadlineExceeded, OstlerError


def late(where: str, timeout: float | None, *, item: bool = False) -> DeadlineExceeded:
    """Return the error of a call that had no answer in time, or of a stream that had no item."""
    return DeadlineExceeded(
        f"no {'item' if item else 'answer'} from {where} within {timeout or 0:g} s",
        hint="give it more time, or see with `ostler dump` what the daemon waits for",
        method=where,
        timeout=timeout,
    )


def silent(where: str, seconds: float) -> ConnectionLost:
    """Return the error of a call of which the server has given no sign of life for so long."""
    return ConnectionLost(
        f"no sign of life of {where} for {seconds:.0f} s; it may or may not have been done",
        hint="see `systemctl status ostler` and the daemon's log",
        method=where,
        silent=seconds,
    )


def lost_call(where: str, error: OstlerError) -> OstlerError:
    """Return the error of a call whose server has gone."""
    if not isinstance(error, ConnectionLost):
        return error
    return ConnectionLost(
        f"the daemon went away while {where} was under way; it may or may not have been done",
        hint="see `systemctl status ostler` and the daemon's log",
        method=where,
    )
