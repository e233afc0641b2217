"""How requests end: answered, failed or abandoned, each counted, audited and traced once."""

from __future__ import annotations

import asyncio
import copy
import logging
from contextlib import nullcontext

from ostler import fork
from ostler.bounds import MESSAGE_LIMIT, text_of, type_name_of
from ostler.clock import Clock
from ostler.errors import CallCancelled, Draining, InternalError, OstlerError, is_a, is_expected, to_wire
from ostler.messaging.context import serving
from ostler.messaging.envelope import CAST, FANOUT
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.watch import Audit, Tracer
from ostler.redaction import SECRETS, Value

_log = logging.getLogger(__name__)
_LONGEST = MESSAGE_LIMIT - 100
_WHOLE = 2**31
"""Characters that no text has: it is cut where no secret is cut in two."""
"""Where a sentence is cut, so that it need not be cut again on its way out."""


class Endings:
    """Ends requests. On the loop's thread only.

    Args:
        clock: The source of time.
    """

    def __init__(self, clock: Clock) -> None:
        self.audit: Audit | None = None
        self.tracer: Tracer | None = None
        self.clock = clock

    def settle(self, call: Call, packed: bytes) -> None:
        """Give the caller the result; the answer has been claimed for it."""
        call.endpoint.replies += 1
        call.reply(packed)
        self.over(call, None)

    def fail(self, call: Call, raised: BaseException) -> None:
        """Tell the caller, or the log when nobody waits for the answer."""
        if is_a(raised, asyncio.CancelledError) and call.settled:
            return
        if is_a(raised, asyncio.CancelledError) and call.context.cancelled:
            # We cancelled it, with its server: no fault of the method, whose traceback would be news.
            raised = Draining(f"the daemon stopped before {call.where} had ended", topic=call.request.topic)
        error = self._told(call, raised)
        if call.claim():
            call.endpoint.errors[type_name_of(error)] += 1
            call.fail(error)
            self.over(call, error)
        elif call.request.flags & (CAST | FANOUT):
            call.endpoint.errors[type_name_of(error)] += 1
            self.over(call, error)
            if is_expected(raised):
                with serving(call.context):
                    _log.warning("%s, which was cast, failed: %s", call.where, error, extra=_extra(call))

    def abandoned(self, call: Call, error: BaseException | None) -> None:
        """Count the end of work that nobody waits for: it was cast, or its caller has gone."""
        if error is None or is_expected(error):
            found = error
        elif is_a(error, asyncio.CancelledError):
            found = CallCancelled(f"the caller of {call.where} has gone", request_id=call.request.request_id)
        else:  # its traceback is in the log
            found = InternalError(f"{call.where} failed with {type_name_of(error)}", method=call.where)
        self.over(call, None if found is None else hidden(call, found))

    def _told(self, call: Call, raised: BaseException) -> OstlerError:
        """Return what the caller is told; the request is answered whatever a plugin's class of errors does."""
        try:
            error = hidden(call, raised if is_expected(raised) else self.internal(call, raised))
            if type(error).__module__ != OstlerError.__module__:
                to_wire(error)
        except BaseException as wrong:  # noqa: BLE001 - a property of it, `__reduce__`, a metaclass
            fork.leave_if_child(wrong)
            return hidden(call, self.internal(call, wrong))
        return error

    def internal(self, call: Call, raised: BaseException) -> InternalError:
        """Keep the traceback in the log and return what the caller may know."""
        # The line is one of the request: it carries its trace, and none of its secrets.
        with serving(call.context) if hasattr(call, "context") else nullcontext():
            _log.error(
                "%s failed (request %s of %s)", call.where, call.request.request_id, call.peer.name,
                exc_info=raised, extra=_extra(call),
            )  # fmt: skip
        secrets = call.context.secrets if hasattr(call, "context") else ()
        text = f"{type_name_of(raised)}: {said}" if (said := _said(raised, secrets)) else type_name_of(raised)
        return InternalError(
            f"{call.where} failed with {text}",
            hint=f"its traceback is in the daemon's log, request {call.request.request_id}",
            topic=call.request.topic, method=call.request.method, request_id=call.request.request_id,
        )  # fmt: skip

    def over(self, call: Call, error: OstlerError | None) -> None:
        """Count the end of a request, once: of a call with its answer, of a cast with its work."""
        call.over = True
        if call.secrets:
            SECRETS.leave(call.secrets)
            call.secrets = ()
        if call.admitted:
            stats = call.method.stats
            ended_at = self.clock.monotonic() if call.ended_at is None else call.ended_at
            stats.took(ended_at - call.arrived_at)
            stats.errors += error is not None
        if self.audit is not None and (error is not None or call.method.exposure.changes):
            self.audit.record(call, error)
        if self.tracer is not None:
            if call.traced:
                self.tracer.end(call, error)
            elif error is not None:
                self.tracer.refused(call, error)


def hidden(call: Call, error: OstlerError) -> OstlerError:
    """Return the error without the secrets of the request, and no longer than it may be."""
    secrets = call.context.secrets if hasattr(call, "context") else ()
    error = _shortened(error, secrets)
    if not secrets and not SECRETS.known:
        return error
    from ostler.messaging.secret import hide_in_error

    return hide_in_error(error, secrets)


def _shortened(error: OstlerError, secrets: tuple[Value, ...]) -> OstlerError:
    """Return an error whose texts are not too long: going through them would hold up the loop."""
    texts: tuple[object, ...] = (error.message, error.hint)
    if all(isinstance(text, str) and len(text) <= MESSAGE_LIMIT for text in texts):
        return error
    short = copy.copy(error)
    # A plugin may have put anything in their place.
    short.message, short.hint = (
        SECRETS.cut(text, _LONGEST, also=secrets) if isinstance(text, str) else text_of(text) for text in texts
    )
    short.args = (short.message,)
    return short


def _said(raised: BaseException, secrets: tuple[Value, ...]) -> str:
    return SECRETS.cut(text_of(raised, _WHOLE), MESSAGE_LIMIT // 2, also=secrets)


def _extra(call: Call) -> dict[str, object]:
    request = call.request
    return {"request_id": request.request_id, "topic": request.topic, "method": request.method, "uid": call.peer.uid}
