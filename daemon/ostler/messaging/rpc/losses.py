"""The errors that a client makes by itself, of calls whose server said nothing in time, or nothing any more."""

from __future__ import annotations

from ostler.errors import BadEnvelope, ConnectionLost, DeadlineExceeded, MessageTooLarge, OstlerError

FORKED = "fork"
"""The `reason` of what was begun before a fork, in the child."""


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
    if error.facts.get("reason") == FORKED:
        return error
    if error.facts.get("reason") == "large":
        return MessageTooLarge(f"{where} has no answer: {error.message}", hint=error.hint, method=where, **_size(error))
    return ConnectionLost(
        f"the daemon went away while {where} was under way; it may or may not have been done",
        hint="see `systemctl status ostler` and the daemon's log",
        method=where,
    )


def of_other_process() -> ConnectionLost:
    """Return the error of what was begun before a fork, in the process that was forked."""
    return ConnectionLost(
        "this was begun before the process was forked, and belongs to the other process",
        hint="make calls, streams and subscriptions in the process that uses them",
        reason=FORKED,
    )


def _size(error: OstlerError) -> dict[str, object]:
    return {name: error.facts.get(name) for name in ("size", "limit")}


def unusable(where: str, error: OstlerError) -> OstlerError:
    """Return the error of an answer that is no message of ours, or has more elements than this client decodes."""
    if isinstance(error, MessageTooLarge):
        most = error.facts.get("max_elements")
        return MessageTooLarge(
            f"the answer of {where} has more than {most} elements and was not decoded",
            hint="ask for less at once, or give the client a larger `max_elements`",
            method=where, size=error.facts.get("size"), max_elements=most,
        )  # fmt: skip
    return BadEnvelope(
        f"the answer of {where} cannot be understood: {error.message}",
        hint="client and daemon may be of different versions",
        method=where, reason=error.facts.get("reason"),
    )  # fmt: skip
