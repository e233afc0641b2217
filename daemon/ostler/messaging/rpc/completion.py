"""Completes requests: answered, failed or abandoned, each counted once; and the observers that are notified of it."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Protocol

from ostler import fork
from ostler.bounds import MESSAGE_LIMIT, safe_str, type_name
from ostler.clock import Clock
from ostler.errors import Cancelled, Draining, InternalError, OstlerError, is_a, is_expected, to_wire
from ostler.messaging.rpc.call import Call
from ostler.messaging.wire.envelope import CAST, FANOUT
from ostler.messaging.wire.request_context import serving
from ostler.redaction import SECRETS, TOKEN_MARK, Value

if TYPE_CHECKING:
    from ostler.messaging.rpc.call import Call
    from ostler.types import Peer


class AuditObserver(Protocol):
    """Records who did what. On the loop's thread; must not block and must not raise."""

    def record(self, call: Call, error: OstlerError | None) -> None:
        """Record a request that was refused, or one that changes something and has completed.

        A call has ended when its caller was answered, a cast when its work was done.

        Args:
            call: The request. `call.method` is there only when it was found (`call.is_resolved` says so).
            error: What it ended with; None when it was done.
        """
        ...

    def record_refusal(self, peer: Peer, topic: str, method: str, error: OstlerError) -> None:
        """Record that a peer was refused before there was a request: a connection, or a subscription to events.

        Args:
            peer: Who; of a key that is not known, its name is where it came from.
            topic: What it is filed under.
            method: What was wanted: `connect`, `subscribe`.
            error: Why not.
        """
        ...


class RequestTracer(Protocol):
    """Follows requests through this process. On the loop's thread; must not block and must not raise."""

    def begin(self, call: Call) -> AbstractContextManager[None]:
        """Record that a request is about to be run; may put another `trace` into its context.

        Returns:
            What the work is begun inside of: context variables that are set there go along with it.
        """
        ...

    def end(self, call: Call, error: OstlerError | None) -> None:
        """Record that it has ended, as `AuditObserver.record` counts ends; only after `begin`."""
        ...

    def refused(self, call: Call, error: OstlerError) -> None:
        """Record that a request was refused before it was to be run; see `AuditObserver.record` for what it has."""
        ...


class DispatcherHooks(NamedTuple):
    """Who is notified of requests, and who takes part in them. On the loop's thread.

    Attributes:
        audit: Records who did what; None without an audit log.
        tracer: Follows requests through this process; None without a tracer.
        on_fanout: Called with topic, method and request id of each accepted fanout; None for nobody.
        relay: Makes a request that is for other hosts one to `ostler.relay`, and returns whether it was; None without
            peers.
    """

    audit: AuditObserver | None = None
    tracer: RequestTracer | None = None
    on_fanout: Callable[[str, str, str], None] | None = None
    relay: Callable[[Call], bool] | None = None


_log = logging.getLogger(__name__)
_MAX_TEXT_LENGTH = MESSAGE_LIMIT - 100
_NO_LIMIT = 2**31
"""Characters that no text has: it is cut where no secret is cut in two."""
"""Where a sentence is cut, so that it need not be cut again on its way out."""


class CallCompletion:
    """Ends requests. On the loop's thread only.

    Args:
        clock: The source of time.
        audit: Records who did what; None without an audit log.
        tracer: Follows requests through this process; None without a tracer.
    """

    def __init__(self, clock: Clock, audit: AuditObserver | None = None, tracer: RequestTracer | None = None) -> None:
        self.audit = audit
        self.tracer = tracer
        self.clock = clock

    def resolve(self, call: Call, packed: bytes) -> None:
        """Give the caller the result; the answer has been claimed for it."""
        call.endpoint.replies += 1
        call.send_reply(packed)
        self.record(call, None)

    def fail(self, call: Call, raised: BaseException) -> None:
        """Send the error to the caller, or log it when nobody waits for the answer."""
        if is_a(raised, asyncio.CancelledError) and call.is_answered:
            return
        if is_a(raised, asyncio.CancelledError) and call.context.cancelled:
            # The daemon cancelled it on shutdown: this is not a fault of the method, and needs no traceback.
            raised = Draining(f"the daemon stopped before {call.full_name} had completed", topic=call.request.topic)
        error = self._reported_error(call, raised)
        if call.claim_reply():
            call.endpoint.count_error(error)
            call.send_error(error)
            self.record(call, error)
        elif call.request.flags & (CAST | FANOUT):
            call.endpoint.count_error(error)
            self.record(call, error)
            if is_expected(raised):
                with serving(call.context):
                    _log.warning("cast of %s failed: %s", call.full_name, error, extra=_log_fields(call))

    def record_abandoned(self, call: Call, error: BaseException | None) -> None:
        """Count the end of work that nobody waits for: it was cast, or its caller has gone."""
        if error is None or is_expected(error):
            found = error
        elif is_a(error, asyncio.CancelledError):
            found = Cancelled(f"the caller of {call.full_name} has disconnected", request_id=call.request.request_id)
        else:  # its traceback is in the log
            found = InternalError(f"{call.full_name} failed with {type_name(error)}", method=call.full_name)
        self.record(call, None if found is None else redact_error(call, found))

    def _reported_error(self, call: Call, raised: BaseException) -> OstlerError:
        """Return the error for the caller; the request is answered whatever a plugin's error class does."""
        try:
            error = redact_error(call, raised if is_expected(raised) else self.log_internal_error(call, raised))
            if type(error).__module__ != OstlerError.__module__:
                to_wire(error)
        except BaseException as wrong:  # noqa: BLE001 - a property of it, `__reduce__`, a metaclass
            fork.exit_if_child(wrong)
            return redact_error(call, self.log_internal_error(call, wrong))
        return error

    def log_internal_error(self, call: Call, raised: BaseException) -> InternalError:
        """Log the traceback and return an error for the caller."""
        # The line belongs to the request: it carries its trace, and none of its secrets.
        with serving(call.context):
            _log.error(
                "%s failed (request %s of %s)", call.full_name, call.request.request_id, call.peer.name,
                exc_info=raised, extra=_log_fields(call),
            )  # fmt: skip
        secrets = call.context.secrets
        text = f"{type_name(raised)}: {said}" if (said := _redacted_text(raised, secrets)) else type_name(raised)
        return InternalError(
            f"{call.full_name} failed with {text}",
            hint=f"its traceback is in the daemon's log, request {call.request.request_id}",
            topic=call.request.topic, method=call.request.method, request_id=call.request.request_id,
        )  # fmt: skip

    def record(self, call: Call, error: OstlerError | None) -> None:
        """Count the end of a request, once: of a call with its answer, of a cast with its work."""
        call.is_recorded = True
        if call.secrets:
            SECRETS.remove_arguments(call.secrets)
            call.secrets = ()
        if call.is_admitted:
            stats = call.method.stats
            ended_at = self.clock.monotonic() if call.ended_at is None else call.ended_at
            stats.record_latency(ended_at - call.arrived_at)
            if call.context.trace:
                stats.record_trace(ended_at - call.arrived_at, call.context.trace, self.clock.wall())
            stats.errors += error is not None
        if self.audit is not None and call.is_audited and (error is not None or call.method.exposure.changes):
            self.audit.record(call, error)
        if self.tracer is not None:
            if call.is_traced:
                self.tracer.end(call, error)
            elif error is not None:
                self.tracer.refused(call, error)


def redact_error(call: Call, error: OstlerError) -> OstlerError:
    """Return the error without the secrets of the request, and no longer than it may be."""
    secrets = call.context.secrets
    error = _shorten(error, secrets)
    if not (secrets or SECRETS.has_values or _may_have_token(error)):
        return error
    from ostler.messaging.access.secret_arguments import redact_in_error  # only where there are secrets

    return redact_in_error(error, secrets)


def _may_have_token(error: OstlerError) -> bool:
    """Return whether a token may be in an error: a flood of refusals must not cost the search in each of them."""
    for value in (error.message, error.hint, *error.details.values()):
        if type(value) is str:
            if TOKEN_MARK in value:
                return True
        elif value is not None and type(value) not in (int, float, bool):
            return True
    return False


def _shorten(error: OstlerError, secrets: tuple[Value, ...]) -> OstlerError:
    """Return an error whose texts are not too long: going through them would hold up the loop."""
    texts: tuple[object, ...] = (error.message, error.hint)
    if all(isinstance(text, str) and len(text) <= MESSAGE_LIMIT for text in texts):
        return error
    short = copy.copy(error)
    # A plugin may have put anything in their place.
    short.message, short.hint = (
        SECRETS.redact_and_cut(text, _MAX_TEXT_LENGTH, extra_values=secrets)
        if isinstance(text, str)
        else safe_str(text)
        for text in texts
    )
    short.args = (short.message,)
    return short


def _redacted_text(raised: BaseException, secrets: tuple[Value, ...]) -> str:
    return SECRETS.redact_and_cut(safe_str(raised, _NO_LIMIT), MESSAGE_LIMIT // 2, extra_values=secrets)


def _log_fields(call: Call) -> dict[str, object]:
    request = call.request
    return {"request_id": request.request_id, "topic": request.topic, "method": request.method, "uid": call.peer.uid}
