"""Decides what becomes of a request: refused, run on the loop, or run in the service's threads."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler.aio import Inbox
from ostler.clock import Clock
from ostler.errors import (
    Busy,
    CallCancelled,
    Conflict,
    DeadlineExceeded,
    Draining,
    InternalError,
    NotPermitted,
    OstlerError,
    TargetNotFound,
)
from ostler.messaging.access import Access
from ostler.messaging.context import Context, enter, serving
from ostler.messaging.envelope import CAST, FANOUT, LENIENT, PROGRESS, STREAM, Request
from ostler.messaging.policy import NOBODY, Policy
from ostler.messaging.rpc import eager
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.endpoint import Endpoint, Method
from ostler.messaging.rpc.sweeper import Sweeper
from ostler.messaging.rpc.watch import Audit, Tracer
from ostler.messaging.target import did_you_mean
from ostler.messaging.tracing import valid
from ostler.types import CONTROL_TOPIC, LOCAL_PEER, ROLE_ORDER, MethodDescription

if TYPE_CHECKING:
    from ostler.messaging.rpc.streams import Streams

_log = logging.getLogger(__name__)


_ASK = "an administrator gives {} in [access]"

_UNREACHED = (TargetNotFound, Draining, Busy)
"""A fanout is for whoever can be reached; these say that this service could not."""


_MOST_LEFT_OUT = 256
_QUICK = 60e-6
"""Seconds within which a method of a thread usually ends that the loop waits for."""


class Patience:
    """Whether it is worth to wait: after a wait in vain the next ones are left out, twice as many each time."""

    def __init__(self) -> None:
        self._left_out = 0
        self._penalty = 1

    def left(self) -> bool:
        """Return whether to wait this time."""
        if self._left_out:
            self._left_out -= 1
            return False
        return True

    def learn(self, *, came: bool) -> None:
        """Take note of how it went."""
        self._penalty = 1 if came else min(2 * self._penalty, _MOST_LEFT_OUT)
        self._left_out = 0 if came else self._penalty


class DispatcherLimits(NamedTuple):
    """How many requests may be under way at once in the whole daemon; the topic `ostler` is not counted."""

    max_in_flight: int = 10_000
    max_streams: int = 1000
    max_streams_per_peer: int = 100


class Dispatcher:
    """Brings requests to the methods they name. On the loop's thread only.

    Args:
        access: Who may do what; a reload puts another in its place.
        clock: The source of time.
        inbox: Brings results from threads to the loop.
        host: The host that this daemon is.
        limits: What is refused as busy.
    """

    def __init__(
        self, access: Access, clock: Clock, inbox: Inbox, *, host: str, limits: DispatcherLimits | None = None
    ) -> None:
        self.access = access
        self.host = host
        self.limits = limits or DispatcherLimits()
        self.on_fanout: Callable[[str, str, str], None] | None = None
        """Told topic, method and request id of each fanout that was accepted."""
        self.audit: Audit | None = None
        self.tracer: Tracer | None = None
        self.bad_traces = 0
        """How many requests came with a trace that is none."""
        self._policy = Policy()
        self.streams: Streams | None = None
        """The open streams; None until there has been one."""
        self.clock = clock
        self._inbox = inbox
        self._endpoints: dict[str, Endpoint] = {}
        self._under_way: dict[Call, None] = {}
        self._reserved = 0
        self._in_threads = 0
        self._quick = 0
        self._patience = Patience()
        self._sweeper = Sweeper(clock, self._sweep)
        self._loop: asyncio.AbstractEventLoop | None = None

    # ---------------------------------------------------------------- endpoints

    def add_endpoint(self, endpoint: Endpoint) -> None:
        """Open a topic.

        Raises:
            Conflict: The topic is open already.
        """
        if endpoint.topic in self._endpoints:
            raise Conflict(f"the topic {endpoint.topic} is open already", topic=endpoint.topic)
        self._endpoints[endpoint.topic] = endpoint
        self._apply(endpoint)

    def set_policy(self, policy: Policy) -> None:
        """Put other roles into force, for every call that comes from now on, over connections that stand as well."""
        if policy.rules == self._policy.rules:
            return
        self._policy = policy
        for endpoint in self._endpoints.values():
            self._apply(endpoint)

    def _apply(self, endpoint: Endpoint) -> None:
        for change in endpoint.apply(self._policy):
            if change.opens:
                text = "[access.methods] opens %s to the role %s; its author asks for %s"
                _log.warning(text, change.where, change.needs, change.asked)
            else:
                _log.info("[access.methods] keeps %s for %s instead of %s", change.where, change.needs, change.asked)

    def remove_endpoint(self, topic: str) -> None:
        """Close a topic; what is under way goes on, and its callers are answered."""
        self._endpoints.pop(topic, None)

    def set_draining(self, topic: str, why: str) -> None:
        """Refuse new requests for a topic from now on; with an empty `why`, take them again."""
        if (endpoint := self._endpoints.get(topic)) is not None:
            endpoint.draining = why
            if why and self.streams is not None:
                self.streams.drain(topic, why, self.cancel)

    def describe(self, topic: str, *, schema: bool = False) -> list[MethodDescription]:
        """Return what a topic offers, with JSON Schemas if they are wanted.

        Raises:
            TargetNotFound: There is no such topic here.
        """
        return self._endpoint(topic).describe(schema=schema)

    def endpoints(self) -> list[Endpoint]:
        """Return what is open, by topic."""
        return [endpoint for _, endpoint in sorted(self._endpoints.items())]

    def method_at(self, topic: str, name: str) -> Method | None:
        """Return a method that is offered, None when there is none of that name."""
        endpoint = self._endpoints.get(topic)
        return endpoint.methods.get(name) if endpoint is not None else None

    def is_open(self, topic: str) -> bool:
        """Return whether a topic is open here. Any thread."""
        return topic in self._endpoints

    def topics(self) -> list[str]:
        """Return the open topics, sorted."""
        return sorted(self._endpoints)

    def stats(self) -> dict[str, dict[str, Any]]:
        """Return the counters of each topic; see `Endpoint.stats`."""
        return {topic: endpoint.stats() for topic, endpoint in sorted(self._endpoints.items())}

    def in_flight(self, topic: str) -> int:
        """Return how many requests of a topic have not ended, threads whose caller has left included."""
        endpoint = self._endpoints.get(topic)
        return endpoint.in_flight if endpoint is not None else 0

    def no_threads_at_work(self) -> bool:
        """Return whether no request is in a thread now, or waits for one."""
        return not self._in_threads

    def await_quick(self) -> None:
        """Wait a moment for methods in threads that are known to be quick, if some have just begun.

        To go to sleep and be woken costs the loop several times as much as they do.
        """
        if self._quick:
            self._quick = 0
            if self._patience.left():
                self._patience.learn(came=self._inbox.wait(_QUICK))

    # ---------------------------------------------------------------- the way in

    def dispatch(self, call: Call) -> None:
        """Run or refuse a request. Never raises; the call is told."""
        try:
            call.endpoint = endpoint = self._admit(call)
            call.method = method = endpoint.method(call.request.method)
            self._permit(call, endpoint, method)
            call.admitted = True
            flags = call.request.flags
            values, named = method.signature.decode(call.request.arguments, lenient=bool(flags & LENIENT))
            if call.parent is not None:
                call.context.inherit(call.parent)
            if method.signature.secrets:
                call.context.secrets += method.signature.secrets_in(values, named)
            if self.tracer is not None:
                self._begin_traced(self.tracer, call, values, named)
            elif flags or not method.is_async:
                self._begin_slowly(call, values, named)
            else:
                self._begin_async(call, method.call(call.context, *values, **named))
        except OstlerError as error:
            self._refuse(call, error)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not take the server down
            self._refuse(call, self._internal(call, error))

    def _begin_traced(self, tracer: Tracer, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        call.traced = True
        with tracer.begin(call):
            if call.request.flags or not call.method.is_async:
                self._begin_slowly(call, values, named)
            else:
                self._begin_async(call, call.method.call(call.context, *values, **named))

    def _admit(self, call: Call) -> Endpoint:
        """Make the context of a request, and find who is to serve it."""
        request = call.request
        call.arrived_at = now = self.clock.monotonic()
        role = self.access.role_of(call.peer)
        if role is None:
            raise self._stranger(call)
        deadline = None
        if request.timeout is not None:
            if request.timeout <= 0:
                raise DeadlineExceeded(f"the deadline of {call.where} had passed before it began")
            deadline = now + request.timeout
        call.context = Context(
            request.topic, request.method, request_id=request.request_id, peer=call.peer, role=role,
            deadline=deadline, clock=self.clock, on_progress=call.advance if request.flags & PROGRESS else None,
        )  # fmt: skip
        if request.trace:
            call.context.trace = self._checked(request.trace)
        endpoint = self._endpoints.get(request.topic)
        if endpoint is None or request.host or request.version or endpoint.draining:
            endpoint = self._find(request)
        return endpoint

    def _checked(self, trace: str) -> str:
        """Return a `traceparent`, empty for what is none: it is counted, and is no reason to refuse the work."""
        if valid(trace):
            return trace
        self.bad_traces += 1
        return ""

    def _stranger(self, call: Call) -> NotPermitted:
        """Return the refusal of a peer without a role; it names the role it lacks, where the method is known."""
        topic, name, who = call.request.topic, call.request.method, call.peer.name
        endpoint = self._endpoints.get(topic)
        method = endpoint.methods.get(name) if endpoint is not None else None
        needs = method.needs if method is not None else ""
        what = f"{topic}.{name} needs the role {needs}, {who} has no role here" if needs else f"{who} has no role here"
        hint = _ASK.format(needs or "roles")
        return NotPermitted(what, hint=hint, uid=call.peer.uid, topic=topic, method=name, needs=needs)

    def _find(self, request: Request) -> Endpoint:
        if request.host and request.host != self.host:
            raise TargetNotFound(
                f"this daemon is {self.host}, the request is for {request.topic} on {request.host}",
                hint="ask the daemon on that host",
                topic=request.topic, host=request.host, here=self.host,
            )  # fmt: skip
        endpoint = self._endpoint(request.topic)
        if endpoint.draining:
            raise Draining(
                f"{request.topic} takes no new work: {endpoint.draining}", topic=request.topic, why=endpoint.draining
            )
        endpoint.check_version(request.version, request.method)
        return endpoint

    def _endpoint(self, topic: str) -> Endpoint:
        found = self._endpoints.get(topic)
        if found is None:
            raise TargetNotFound(
                f"there is no service {topic!r} on {self.host}",
                hint=did_you_mean(topic, self._endpoints),
                topic=topic,
                host=self.host,
            )
        return found

    def _permit(self, call: Call, endpoint: Endpoint, method: Method) -> None:
        role = call.context.role
        if ROLE_ORDER[role] < method.rank and call.peer is not LOCAL_PEER:
            raise _not_permitted(call, method)
        if endpoint.topic != CONTROL_TOPIC and len(self._under_way) - self._reserved >= self.limits.max_in_flight:
            raise Busy(
                f"this daemon has {self.limits.max_in_flight} requests under way and takes no more",
                hint="try again in a second",
                retry_after=1.0, limit=self.limits.max_in_flight,
            )  # fmt: skip
        endpoint.requests += 1
        method.stats.requests += 1

    def _refuse(self, call: Call, error: OstlerError) -> None:
        endpoint = self._endpoints.get(call.request.topic)
        if endpoint is not None:
            endpoint.refused += 1
            endpoint.errors[type(error).__name__] += 1
            method = endpoint.methods.get(call.request.method)
            if method is not None and not call.admitted:
                method.stats.refused += 1
        error = _hidden(call, error)
        call.settled = True
        self._over(call, error)
        no_such_method = endpoint is not None and isinstance(error, TargetNotFound)
        if call.request.flags & FANOUT and isinstance(error, _UNREACHED) and not no_such_method:
            call.accepted(0)
        else:
            call.fail(error)

    # ---------------------------------------------------------------- the work

    def _begin_slowly(self, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Begin what is not a plain call of a method on the loop."""
        if call.request.flags & STREAM or call.method.signature.streams:
            self._begin_stream(call, values, named)
            return
        if call.request.flags & (CAST | FANOUT):
            # Nobody waits for the result; the deadline was for the acceptance.
            call.context.deadline = None
        if not call.method.is_async:
            self._begin_in_pool(call, values, named)
            self._accept(call)
            return
        self._accept(call)
        self._begin_async(call, call.method.call(call.context, *values, **named))

    def _begin_stream(self, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        from ostler.messaging.rpc.streams import Desk, Streams, check_pattern

        check_pattern(call)
        if self.streams is None:
            wanted = self._sweeper.wanted
            desk = Desk(self._register, self._pool_ended, self._begin_async, wanted, self._inbox, self.clock)
            self.streams = Streams(desk)
        limits = self.limits
        self.streams.begin(
            call, call.method.call(call.context, *values, **named), limits.max_streams, limits.max_streams_per_peer
        )

    def _accept(self, call: Call) -> None:
        if not call.request.flags & (CAST | FANOUT):
            return
        call.settled = True
        call.endpoint.replies += 1
        call.accepted(1)
        if call.request.flags & FANOUT and self.on_fanout is not None:
            self.on_fanout(call.request.topic, call.request.method, call.request.request_id)

    def _over(self, call: Call, error: OstlerError | None) -> None:
        """Count the end of a request, once: of a call with its answer, of a cast with its work."""
        call.over = True
        if call.admitted:
            stats = call.method.stats
            stats.took(self.clock.monotonic() - call.arrived_at)
            stats.errors += error is not None
        if self.audit is not None and (error is not None or call.method.exposure.changes):
            self.audit.record(call, error)
        if self.tracer is not None:
            if call.traced:
                self.tracer.end(call, error)
            elif error is not None:
                self.tracer.refused(call, error)

    def _begin_async(self, call: Call, work: Any) -> None:
        call.begun = True
        call.at_end = self._async_ended
        task = eager.start(work, self._loop or self._find_loop(), call)
        if task is not None:
            call.task = task
            self._register(call)

    def _find_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _begin_in_pool(self, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        method = call.method

        def work() -> bytes | None:
            call.check_wanted()
            enter(call.context)  # in a copy of the context variables that is this job's own
            began = monotonic()
            result = method.call(call.context, *values, **named)
            method.stats.ran(monotonic() - began)
            return None if call.settled else call.pack(result)

        def done(packed: bytes | None, error: BaseException | None) -> None:
            self._inbox.post(partial(self._pool_ended, call, packed, error))

        assert call.endpoint.pool is not None  # noqa: S101 - an endpoint without one has no `def` methods
        self._quick += method.stats.usual < _QUICK
        call.endpoint.pool.submit(work, done, label=method.where, client=call.peer)
        self._register(call)

    def _register(self, call: Call) -> None:
        call.endpoint.in_flight += 1
        call.method.stats.in_flight += 1
        self._reserved += call.endpoint.topic == CONTROL_TOPIC
        self._in_threads += not call.method.is_async
        self._under_way[call] = None
        call.registered()
        if call.context.deadline is not None:
            self._sweeper.wanted(call.context.deadline)

    def _unregister(self, call: Call) -> None:
        call.endpoint.in_flight -= 1
        call.method.stats.in_flight -= 1
        self._reserved -= call.endpoint.topic == CONTROL_TOPIC
        self._in_threads -= not call.method.is_async
        self._under_way.pop(call, None)
        call.ended()

    # ---------------------------------------------------------------- the way out

    def _async_ended(self, call: Call, result: Any, error: BaseException | None) -> None:
        if call.task is not None:
            self._unregister(call)
        if error is not None:
            self._fail(call, error)
        elif not call.settled:
            try:
                packed = call.pack(result)
            except OstlerError as unfit:
                self._fail(call, unfit)
            else:
                self._settle(call, packed)
        if not call.over:
            self._abandoned(call, error)

    def _pool_ended(self, call: Call, packed: bytes | None, error: BaseException | None) -> None:
        self._unregister(call)
        if error is not None:
            self._fail(call, error)
        elif not call.settled and packed is not None:
            self._settle(call, packed)
        if not call.over:
            self._abandoned(call, error)

    def _abandoned(self, call: Call, error: BaseException | None) -> None:
        """Count the end of work that nobody waits for: it was cast, or its caller has gone."""
        if error is None or isinstance(error, OstlerError):
            found = error
        elif isinstance(error, asyncio.CancelledError):
            found = CallCancelled(f"the caller of {call.where} has gone", request_id=call.request.request_id)
        else:  # its traceback is in the log
            found = InternalError(f"{call.where} failed with {type(error).__name__}", method=call.where)
        self._over(call, None if found is None else _hidden(call, found))

    def _settle(self, call: Call, packed: bytes) -> None:
        call.settled = True
        call.endpoint.replies += 1
        call.reply(packed)
        self._over(call, None)

    def _fail(self, call: Call, raised: BaseException) -> None:
        """Tell the caller, or the log when nobody waits for the answer."""
        if isinstance(raised, OstlerError):
            error = raised
        elif isinstance(raised, asyncio.CancelledError) and call.settled:
            return
        else:
            error = self._internal(call, raised)
        error = _hidden(call, error)
        if not call.settled:
            call.settled = True
            call.endpoint.errors[type(error).__name__] += 1
            call.fail(error)
            self._over(call, error)
        elif call.request.flags & (CAST | FANOUT):
            call.endpoint.errors[type(error).__name__] += 1
            self._over(call, error)
            if isinstance(raised, OstlerError):
                with serving(call.context):
                    _log.warning("%s, which was cast, failed: %s", call.where, error, extra=_extra(call))

    def _internal(self, call: Call, raised: BaseException) -> InternalError:
        """Keep the traceback in the log and return what the caller may know."""
        # The line is one of the request: it carries its trace, and none of its secrets.
        with serving(call.context) if hasattr(call, "context") else nullcontext():
            _log.error(
                "%s failed (request %s of %s)", call.where, call.request.request_id, call.peer.name,
                exc_info=raised, extra=_extra(call),
            )  # fmt: skip
        text = f"{type(raised).__name__}: {raised}" if str(raised) else type(raised).__name__
        return InternalError(
            f"{call.where} failed with {text}",
            hint=f"its traceback is in the daemon's log, request {call.request.request_id}",
            topic=call.request.topic, method=call.request.method, request_id=call.request.request_id,
        )  # fmt: skip

    # ---------------------------------------------------------------- ends that are not the work's own

    def cancel(self, call: Call, error: OstlerError | None = None) -> None:
        """End a request before its time: the caller is answered at once, the work is asked to stop."""
        if not call.settled:
            call.settled = True
            error = error or CallCancelled(f"{call.where} was cancelled", request_id=call.request.request_id)
            call.endpoint.errors[type(error).__name__] += 1
            call.fail(error)
            self._over(call, error)
        call.stop()

    def close(self) -> None:
        """Cancel what is under way and sweep no more."""
        for call in list(self._under_way):
            self.cancel(call, Draining(f"the daemon stopped before {call.where} had ended", topic=call.request.topic))
        self._sweeper.cancel()

    def _sweep(self, now: float) -> float | None:
        earliest = None
        for call in list(self._under_way):
            deadline = call.context.deadline
            if call.settled or deadline is None:
                continue
            if deadline <= now:
                self.cancel(call, _late(call))
            elif earliest is None or deadline < earliest:
                earliest = deadline
        return earliest


def _not_permitted(call: Call, method: Method) -> NotPermitted:
    role, needs = call.context.role, method.needs
    if needs == NOBODY:
        what, hint = f"{method.where} is closed here to everybody", "an administrator has closed it in [access.methods]"
    else:
        what, hint = f"{method.where} needs the role {needs}, {call.peer.name} has {role}", _ASK.format(needs)
    return NotPermitted(what, hint=hint, method=method.where, needs=needs, has=str(role))


def _late(call: Call) -> DeadlineExceeded:
    begun = "did not end" if call.begun else "had not begun"
    if call.begun and call.request.flags & STREAM:
        begun = "gave no item"
    return DeadlineExceeded(
        f"{call.where} {begun} within {call.request.timeout:g} s",
        hint="give it more time, or see with `ostler dump` what it waits for",
        topic=call.request.topic,
        method=call.request.method,
        timeout=call.request.timeout,
    )


def _hidden(call: Call, error: OstlerError) -> OstlerError:
    """Return the error without the secrets of the request."""
    if not hasattr(call, "context") or not call.context.secrets:
        return error
    from ostler.messaging.secret import hide_in_error

    return hide_in_error(error, call.context.secrets)


def _extra(call: Call) -> dict[str, object]:
    request = call.request
    return {"request_id": request.request_id, "topic": request.topic, "method": request.method, "uid": call.peer.uid}
