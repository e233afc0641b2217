"""Decides how a request is handled: refused, run on the loop, or run in the service's threads."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from ostler import fork
from ostler.aio import LoopQueue
from ostler.aio.round_robin import DeficitRoundRobin
from ostler.clock import Clock
from ostler.errors import (
    Busy,
    Cancelled,
    DeadlineExceeded,
    Draining,
    FeatureNotSupported,
    OstlerError,
    ServiceNotFound,
)
from ostler.messaging.access.roles import Access
from ostler.messaging.rpc import eager_start
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.completion import CallCompletion, DispatcherHooks, RequestTracer, redact_error
from ostler.messaging.rpc.durable_calls import DurableCalls, check_operation_kind
from ostler.messaging.rpc.endpoint import Endpoint, Method, count_name
from ostler.messaging.rpc.errors import (
    check_frozen,
    deadline_error,
    groups_pending_error,
    no_role_error,
    relay_not_permitted_error,
    role_too_low_error,
)
from ostler.messaging.rpc.in_flight import DeadlineTimer, InFlight
from ostler.messaging.rpc.thread_replies import LARGE_RESULT_SIZE, LargeResults, ThreadReplies
from ostler.messaging.rpc.topic_registry import TopicRegistry
from ostler.messaging.wire.envelope import CAST, FANOUT, LENIENT, STREAM, SUBMIT
from ostler.messaging.wire.request_context import is_valid_traceparent, set_current_context
from ostler.messaging.wire.transport import Admission
from ostler.redaction import SECRETS
from ostler.types import CONTROL_TOPIC, LOCAL_PEER, ROLE_ORDER, Peer, Role

if TYPE_CHECKING:
    from ostler.messaging.rpc.server_streams import ServerStreams

_DELIVERY_TIMEOUT = 10.0
_UNREACHABLE_ERRORS = (ServiceNotFound, Draining, Busy)
"""A fanout is for every service that can take it; these errors say that this one could not."""


class DispatcherLimits(msgspec.Struct, frozen=True):
    """How many requests may be in progress at once in the whole daemon; the topic `ostler` is not counted."""

    max_in_flight: int = 10_000
    max_streams: int = 1000
    max_streams_per_peer: int = 100


class Dispatcher:
    """Runs the methods that requests name. On the loop's thread only.

    Args:
        access: Who may do what; `apply` puts another in its place.
        clock: The source of time.
        inbox: Brings results from threads to the loop.
        host: The host that this daemon is.
        limits: What is refused as busy; `apply` puts others in force.
        turns: Shares the loop's time among peers; None to share it among streams alone.
        registry: The open topics; None for an empty registry.
        hooks: Who looks on, and who takes part; None for nobody.
    """

    def __init__(
        self,
        access: Access,
        clock: Clock,
        inbox: LoopQueue,
        *,
        host: str,
        limits: DispatcherLimits | None = None,
        turns: DeficitRoundRobin | None = None,
        registry: TopicRegistry | None = None,
        hooks: DispatcherHooks | None = None,
    ) -> None:
        hooks = hooks or DispatcherHooks()
        self.host = host
        self.registry = registry or TopicRegistry(host)
        """The open topics."""
        self._endpoints = self.registry.endpoints_by_topic  # looked up with every request
        self._turns = turns
        self.access = access
        self.limits = limits or DispatcherLimits()
        self.completion = CallCompletion(clock, hooks.audit, hooks.tracer)
        self.invalid_traces = 0
        """How many requests came with a trace that is none."""
        self.stray_refusals: Counter[tuple[str, str]] = Counter()
        """Requests that found no open topic, by topic (empty for one that this daemon does not have) and error."""
        self.streams: ServerStreams | None = None
        """The open streams; None until there has been one."""
        self.clock = clock
        self.thread_replies = ThreadReplies(inbox, clock, self._on_thread_reply)
        self.inbox = inbox
        self._operations: DurableCalls | None = None
        self._on_fanout = hooks.on_fanout
        self._relay = hooks.relay
        self._in_flight = InFlight()
        self._in_threads = 0
        self._large_results = LargeResults()
        self._deadline_timer = DeadlineTimer(clock, self._check_deadlines)
        self._loop: asyncio.AbstractEventLoop | None = None

    def apply(self, access: Access, limits: DispatcherLimits) -> None:
        """Put other rules and limits in force, as a reload does; see `cancel_unauthorised` for what is in progress."""
        self.access = access
        self.limits = limits

    def record_refusal(self, peer: Peer, what: str, error: OstlerError) -> None:
        """Have the audit log record that a peer was refused before its first request; see `AuditObserver`.

        Args:
            peer: Who.
            what: What was wanted: `connect`, `subscribe`.
            error: Why not.
        """
        if self.completion.audit is not None:
            self.completion.audit.record_refusal(peer, CONTROL_TOPIC, what, error)

    def set_draining(self, topic: str, reason: str, returns_after: float | None = None) -> None:
        """Do what `TopicRegistry.set_draining` does, and end the streams of a topic that drains."""
        self.registry.set_draining(topic, reason, returns_after)
        if reason and self.streams is not None:
            self.streams.drain(topic, reason, self.cancel)

    def cancel_contexts(self, topic: str) -> None:
        """Mark the requests of a topic that are still in progress as cancelled: it is being stopped."""
        for call in list(self._in_flight):
            if call.request.topic == topic:
                call.context.cancel()

    def cancel_requests(self, topic: str, reason: str) -> None:
        """Fail the requests of a topic that are still in progress: it is stopped while the daemon continues."""
        for call in list(self._in_flight):
            if call.request.topic == topic:
                error = Draining(
                    f"{topic} was stopped before {call.full_name} had completed: {reason}", topic=topic, why=reason
                )
                self.cancel(call, error)

    def cancel_unauthorised(self) -> None:
        """Fail the requests that their callers are no longer allowed to make, after the access rules have changed.

        These are streams and relayed requests, which may last long, and work that has not started. Work
        that has started may complete, unless its caller has no role left.
        """
        for call in self._in_flight:
            if call.is_answered and call.is_started:
                continue
            if (error := self._access_error(call)) is not None:
                self.cancel(call, error)

    def _access_error(self, call: Call) -> OstlerError | None:
        if call.peer is LOCAL_PEER:
            return None
        method = self.registry.find_method(call.request.topic, call.request.method) or call.method
        role = self.access.role_of(call.peer)
        if self.access.is_pending(call.peer):
            return None  # it is judged when the groups of its user are known
        if role is None:
            return no_role_error(call, method)
        context = call.context
        context.role = role  # what is still to be decided in it goes by this
        if context.relayed is not None and ROLE_ORDER[role] < ROLE_ORDER[context.relayed.role]:
            return relay_not_permitted_error(call, context.relayed)
        if ROLE_ORDER[role] >= method.role_rank or (call.is_started and not call.request.flags & STREAM):
            return None
        return role_too_low_error(call, method)

    def is_authorised(self, peer: Peer) -> bool:
        """Return whether a peer has any role."""
        return self.access.role_of(peer) is not None

    @property
    def admission(self) -> Admission:
        """Who may connect, as `access` says at the moment."""
        return Access.admission(lambda: self.access)

    def resume_streams(self, client: object) -> None:
        """Go on with the streams of a connection for which nothing waits any more."""
        if self.streams is not None:
            self.streams.resume(client)

    def endpoints(self) -> list[Endpoint]:
        """Return what is open, by topic; what their callers have been told is counted."""
        self.thread_replies.collect()
        return self.registry.endpoints()

    def in_flight(self, topic: str) -> int:
        """Return how many requests of a topic have not ended, threads whose caller has left included."""
        self.thread_replies.collect()
        return self.registry.in_flight(topic)

    def stats(self) -> dict[str, dict[str, Any]]:
        """Return the counters of each topic; see `Endpoint.stats`."""
        self.thread_replies.collect()
        return self.registry.stats()

    def in_flight_since(self, moment: float) -> Iterator[Call]:
        """Yield the requests in progress that came after a moment of the clock; see `InFlight.since`."""
        return self._in_flight.since(moment)

    def is_pool_idle(self) -> bool:
        """Return whether no request is in a thread now, or waits for one."""
        return not self._in_threads

    def spin_for_threads(self, may_wait: bool = True) -> None:
        """See `ThreadReplies.on_batch_end`."""
        self.thread_replies.on_batch_end(may_wait)

    # ---------------------------------------------------------------- the way in

    def dispatch(self, call: Call) -> None:
        """Run or refuse a request. Never raises; the call is told."""
        try:
            call.endpoint = endpoint = self._admit(call)
            call.method = method = endpoint.get_method(call.request.method)
            call.is_resolved = True
            self._check_permission(call, endpoint, method)
            call.is_admitted = True
            flags = call.request.flags
            values, named = method.signature.decode(call.request.arguments, lenient=bool(flags & LENIENT))
            if call.parent is not None:
                call.context.inherit(call.parent)
            if method.signature.secrets:
                call.secrets = method.signature.extract_secrets(values, named)
                call.context.secrets += call.secrets
                if not SECRETS.add_arguments(call.secrets):
                    call.secrets = ()
            if self.completion.tracer is not None:
                self._start_traced(self.completion.tracer, call, values, named)
            elif flags or not method.starts_at_once:
                self._start_other(call, values, named)
            else:
                self.begin_async(call, method.function(call.context, *values, **named))
        except OstlerError as error:
            self.refuse(call, error)
        except Exception as error:  # noqa: BLE001 - a bug in the daemon must not stop the server
            self.refuse(call, self.completion.log_internal_error(call, error))

    def _start_traced(self, tracer: RequestTracer, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        call.is_traced = True
        with tracer.begin(call):
            if call.request.flags or not call.method.starts_at_once:
                self._start_other(call, values, named)
            else:
                self.begin_async(call, call.method.function(call.context, *values, **named))

    def _admit(self, call: Call) -> Endpoint:
        """Complete the context of a request, and find who is to serve it."""
        request, context = call.request, call.context
        call.arrived_at = now = self.clock.monotonic()
        role = self.access.role_of(call.peer)
        if role is None:
            if self.access.is_pending(call.peer):
                raise groups_pending_error(call)
            raise no_role_error(call, self.registry.find_method(request.topic, request.method))
        if request.timeout is not None:
            if request.timeout <= 0:
                raise DeadlineExceeded(f"the deadline of {call.full_name} had passed before it started")
            context.deadline = now + request.timeout
        context.role = role
        if role is Role.ADMIN and not call.peer.key:
            context.host = self.host
        elif call.peer.key:
            context.host = self.access.host_of(call.peer)
        if request.trace:
            context.trace = self._valid_trace(request.trace)
        endpoint = self._endpoints.get(request.topic)
        if endpoint is None or request.host or request.version or endpoint.refuses_work or request.flags & FANOUT:
            if self._relay is not None and self._relay(call):
                request = call.request
            endpoint = self.registry.find(request)
            check_frozen(call, endpoint)
        return endpoint

    def _valid_trace(self, trace: str) -> str:
        """Return a `traceparent`, empty for what is none: it is counted, and is no reason to refuse the work."""
        if is_valid_traceparent(trace):
            return trace
        self.invalid_traces += 1
        return ""

    def _check_permission(self, call: Call, endpoint: Endpoint, method: Method) -> None:
        role = call.context.role
        if ROLE_ORDER[role] < method.role_rank and call.peer is not LOCAL_PEER:
            raise groups_pending_error(call) if self.access.is_pending(call.peer) else role_too_low_error(call, method)
        if call.operation is None:  # an attempt is not refused: callers who wait for it may be what fills the limit
            self._in_flight.check_limits(call, endpoint, self.limits.max_in_flight)
        endpoint.requests += 1
        method.stats.requests += 1

    def refuse(self, call: Call, error: OstlerError) -> None:
        """Refuse a request that was not started, and notify the observers."""
        endpoint = self._endpoints.get(call.request.topic)
        if endpoint is not None:
            endpoint.refused += 1
            endpoint.count_error(error)
            count_name(endpoint.refusals, type(error).__name__)
            method = endpoint.methods.get(call.request.method)
            if method is not None and not call.is_admitted:
                method.stats.refused += 1
        else:
            topic = call.request.topic
            self.stray_refusals[topic if self.registry.is_configured(topic) else "", type(error).__name__] += 1
        error = redact_error(call, error)
        call.is_answered = True
        self.completion.record(call, error)
        for_other_host = endpoint is not None and isinstance(error, ServiceNotFound)
        if call.request.flags & FANOUT and isinstance(error, _UNREACHABLE_ERRORS) and not for_other_host:
            call.send_accepted(0)
        else:
            call.send_error(error)

    # ---------------------------------------------------------------- the work

    def _start_other(self, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        """Begin what is not a plain call of a method on the loop."""
        if call.request.flags & SUBMIT or call.method.exposure.durable is not None:
            if call.operation is None:
                self._start_operation(call)
                return
            call.operation.set_caller(call.context)
            call.method = call.operation.method_to_run(call.method)
        if call.request.flags & STREAM or call.method.signature.is_streaming:
            self._start_stream(call, values, named)
            return
        if call.request.flags & (CAST | FANOUT):
            # Nobody waits for the result; the deadline was for the acceptance.
            call.context.deadline = None
        if not call.method.is_async:
            self._start_in_pool(call, values, named)
            self.send_accepted(call)
            return
        self.send_accepted(call)
        self.begin_async(call, call.method.function(call.context, *values, **named))

    def _start_stream(self, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        from ostler.messaging.rpc.server_streams import ServerStreams, check_call_kind  # 1 ms: only for streams

        check_call_kind(call)
        if self.streams is None:
            # One without anybody in it is shared as well, and is false.
            self.streams = ServerStreams(self, self._turns if self._turns is not None else DeficitRoundRobin())
        limits = self.limits
        self.streams.start(
            call, call.method.function(call.context, *values, **named), limits.max_streams, limits.max_streams_per_peer
        )

    def _start_operation(self, call: Call) -> None:
        """Have a request stored as an operation; a plain call then waits for its end.

        Raises:
            WrongCallKind: The method yields.
            NotSupported: Nothing stores operations here.
        """
        check_operation_kind(call)
        if self._operations is None:
            raise FeatureNotSupported(
                f"{call.full_name} cannot be submitted: operations are not available on this topic",
                method=call.full_name,
            )
        self.begin_async(call, self._operations.accept(call))

    def set_operations(self, operations: DurableCalls) -> None:
        """Have operations stored from now on. A step of the start: they need the services, which need this."""
        self._operations = operations

    def send_accepted(self, call: Call) -> None:
        """Tell the caller of a cast or fanout that it was accepted; nothing for any other request."""
        if not call.request.flags & (CAST | FANOUT):
            return
        call.is_answered = True
        call.endpoint.replies += 1
        call.send_accepted(1)
        if call.request.flags & FANOUT and self._on_fanout is not None:
            self._on_fanout(call.request.topic, call.request.method, call.request.request_id)

    def begin_async(self, call: Call, work: Any) -> None:
        """Run a coroutine for a call, and answer with what it returns."""
        call.is_started = True
        call.on_done = self._on_async_done
        task = eager_start.start_eagerly(work, self._loop or self._find_loop(), call, self._turns)
        if task is not None:
            call.task = task
            self.register(call)

    def _find_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _start_in_pool(self, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        method = call.method

        def work() -> bytes | None:
            call.raise_if_cancelled()
            call.check_memory()
            set_current_context(call.context)  # in a copy of the context variables that is this job's own
            began = monotonic()
            result = method.function(call.context, *values, **named)
            if fork.in_child:  # before anything of the daemon's is used, whose locks others may have held at the fork
                fork.exit_child()
            stats = method.stats
            stats.record_run(monotonic() - began)
            if call.is_answered:
                return None
            if stats.has_large_results:
                return self._large_results.pack(call, result)
            packed = call.pack(result)
            if len(packed) > LARGE_RESULT_SIZE:
                stats.has_large_results = True  # the next one waits for its turn
            return packed

        def done(packed: bytes | None, error: BaseException | None) -> None:
            small = packed is None or len(packed) <= LARGE_RESULT_SIZE
            if expected and packed is not None and small and self.thread_replies.send(call, packed):
                return
            if packed is None or small:
                self.inbox.post(partial(self.pool_ended, call, packed, error))
                return
            # The thread waits until its large result is taken: the loop would have all memory full of them otherwise.
            taken = threading.Event()
            self.inbox.post(partial(self._on_large_pool_done, call, packed, taken))
            taken.wait(_DELIVERY_TIMEOUT)

        pool = method.pool
        assert pool is not None  # noqa: S101 - an endpoint without one has no `def` methods
        expected = self.completion.tracer is None and self.thread_replies.enable_for(call)
        pool.submit(
            work, done, label=method.full_name, client=call.account, connection=call.client, defer_wake=expected
        )
        self.thread_replies.on_job_submitted(pool, method.stats.typical_seconds, wakes_later=expected)
        self.register(call)

    def register(self, call: Call) -> None:
        """Count a call as in progress, until it has ended."""
        call.endpoint.in_flight += 1
        call.method.stats.in_flight += 1
        self._in_threads += not call.method.is_async
        self._in_flight.add(call)
        call.on_registered()
        if call.context.deadline is not None:
            self._deadline_timer.schedule(call.context.deadline)

    def sweep_by(self, deadline: float) -> None:
        """Make sure that deadlines are checked at this moment of the clock."""
        self._deadline_timer.schedule(deadline)

    def _unregister(self, call: Call) -> None:
        call.endpoint.in_flight -= 1
        call.method.stats.in_flight -= 1
        self._in_threads -= not call.method.is_async
        self._in_flight.remove(call)
        if call.context.end_callbacks is not None:
            call.context.end()
        call.on_ended()

    # ---------------------------------------------------------------- the way out

    def _on_async_done(self, call: Call, result: Any, error: BaseException | None) -> None:
        if call.task is not None:
            self._unregister(call)
        elif call.context.end_callbacks is not None:
            call.context.end()
        if error is not None:
            self.completion.fail(call, error)
        elif not call.is_answered:
            try:
                packed = call.pack(result)
            except Exception as unfit:  # noqa: BLE001 - what is encoded may be a plugin's own, and raise anything
                self.completion.fail(call, unfit)
            else:
                call.is_answered = True
                self.completion.resolve(call, packed)
        if not call.is_recorded:
            self.completion.record_abandoned(call, error)

    def pool_ended(self, call: Call, packed: bytes | None, error: BaseException | None) -> None:
        """Answer a call whose work in a thread has ended, with its result or the error."""
        self._unregister(call)
        if error is not None:
            self.completion.fail(call, error)
        elif packed is not None and call.claim_reply():
            self.completion.resolve(call, packed)
        if not call.is_recorded:
            self.completion.record_abandoned(call, error)

    def _on_large_pool_done(self, call: Call, packed: bytes, taken: threading.Event) -> None:
        taken.set()
        self.pool_ended(call, packed, None)

    def _on_thread_reply(self, call: Call) -> None:
        """Record that a thread has replied by itself."""
        self._unregister(call)
        call.endpoint.replies += 1
        self.completion.record(call, None)

    # ---------------------------------------------------------------- ends that are not the work's own

    def cancel(self, call: Call, error: OstlerError | None = None) -> None:
        """End a request early: the caller is answered at once, the work is asked to stop."""
        if call.claim_reply():
            error = error or Cancelled(f"{call.full_name} was cancelled", request_id=call.request.request_id)
            call.endpoint.count_error(error)
            call.send_error(error)
            self.completion.record(call, error)
        call.stop()

    def close(self) -> None:
        """Cancel what is in progress and stop checking deadlines."""
        self.thread_replies.close()
        for call in self._in_flight:
            self.cancel(
                call, Draining(f"the daemon stopped before {call.full_name} had completed", topic=call.request.topic)
            )
        self._deadline_timer.cancel()

    def _check_deadlines(self, now: float) -> float | None:
        earliest = None
        for call in self._in_flight:
            deadline = call.context.deadline
            if call.is_answered or deadline is None:
                continue
            if deadline <= now:
                self.cancel(call, deadline_error(call))
            elif earliest is None or deadline < earliest:
                earliest = deadline
        return earliest
