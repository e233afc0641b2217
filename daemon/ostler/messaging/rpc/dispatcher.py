"""Decides what becomes of a request: refused, run on the loop, or run in the service's threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from ostler import fork
from ostler.aio import Inbox
from ostler.aio.round_robin import DeficitRoundRobin
from ostler.clock import Clock
from ostler.errors import Busy, CallCancelled, DeadlineExceeded, Draining, OstlerError, TargetNotFound
from ostler.messaging.access import Access
from ostler.messaging.context import Context, enter
from ostler.messaging.envelope import CAST, FANOUT, LENIENT, PROGRESS, STREAM
from ostler.messaging.rpc import eager
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.endings import Endings, hidden
from ostler.messaging.rpc.endpoint import Endpoint, Method
from ostler.messaging.rpc.in_flight import InFlight
from ostler.messaging.rpc.large_results import LARGE, LargeResults
from ostler.messaging.rpc.refusals import late, not_permitted, not_relayed, stranger, undecided
from ostler.messaging.rpc.sweeper import Sweeper
from ostler.messaging.rpc.thread_replies import ThreadReplies
from ostler.messaging.rpc.topics import Topics
from ostler.messaging.rpc.watch import Audit, Tracer
from ostler.messaging.tracing import valid
from ostler.messaging.transport import Admission
from ostler.redaction import SECRETS
from ostler.types import LOCAL_PEER, ROLE_ORDER, Peer, Role

if TYPE_CHECKING:
    from ostler.messaging.rpc.streams import Streams

_TAKEN_WITHIN = 10.0
_UNREACHED = (TargetNotFound, Draining, Busy)
"""A fanout is for whoever can be reached; these say that this service could not."""


class DispatcherLimits(msgspec.Struct, frozen=True):
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
        turns: Shares the loop's time among peers; None to share it among streams alone.
    """

    def __init__(
        self,
        access: Access,
        clock: Clock,
        inbox: Inbox,
        *,
        host: str,
        limits: DispatcherLimits | None = None,
        turns: DeficitRoundRobin | None = None,
    ) -> None:
        self.host = host
        self.registry = Topics(host)
        """The open topics."""
        self._endpoints = self.registry.endpoints_by_topic  # looked up with every request
        self._turns = turns
        self.access = access
        self.limits = limits or DispatcherLimits()
        self.on_fanout: Callable[[str, str, str], None] | None = None
        """Told topic, method and request id of each fanout that was accepted."""
        self.ends = Endings(clock)
        self.relay: Callable[[Call], bool] | None = None
        """Makes a request that is for other hosts one to `ostler.relay`; returns whether it was. None without peers."""
        self.bad_traces = 0
        """How many requests came with a trace that is none."""
        self.streams: Streams | None = None
        """The open streams; None until there has been one."""
        self.clock = clock
        self.thread_replies = ThreadReplies(inbox, clock, self._replied)
        self.inbox = inbox
        self._under_way = InFlight()
        self._in_threads = 0
        self._large = LargeResults()
        self._sweeper = Sweeper(clock, self._sweep)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def audit(self) -> Audit | None:
        """Keeps who did what; None when nobody does."""
        return self.ends.audit

    @audit.setter
    def audit(self, audit: Audit | None) -> None:
        self.ends.audit = audit

    @property
    def tracer(self) -> Tracer | None:
        """Follows requests through this process; None when nobody does."""
        return self.ends.tracer

    @tracer.setter
    def tracer(self, tracer: Tracer | None) -> None:
        self.ends.tracer = tracer

    def set_draining(self, topic: str, why: str) -> None:
        """Do what `Topics.set_draining` does, and end the streams of a topic that drains."""
        self.registry.set_draining(topic, why)
        if why and self.streams is not None:
            self.streams.drain(topic, why, self.cancel)

    def cancel_contexts(self, topic: str) -> None:
        """Tell the requests of a topic that are still under way that they are not wanted any more: it is stopped."""
        for call in list(self._under_way):
            if call.request.topic == topic:
                call.context.cancel()

    def cancel_requests(self, topic: str, why: str) -> None:
        """End the requests of a topic that are still under way: it is taken down, and the daemon goes on."""
        for call in list(self._under_way):
            if call.request.topic == topic:
                error = Draining(f"{topic} was stopped before {call.where} had ended: {why}", topic=topic, why=why)
                self.cancel(call, error)

    def judge_again(self) -> None:
        """End the requests that their callers could not make any more; after who may do what has changed.

        Those are streams and what is relayed, which may go on for long, and work that has not begun. Work that was
        begun is left to end, unless its caller has no role at all any more.
        """
        for call in self._under_way:
            if call.settled and call.begun:
                continue
            if (error := self._refusal(call)) is not None:
                self.cancel(call, error)

    def _refusal(self, call: Call) -> OstlerError | None:
        if call.peer is LOCAL_PEER:
            return None
        method = self.registry.method_at(call.request.topic, call.request.method) or call.method
        role = self.access.role_of(call.peer)
        if self.access.undecided(call.peer):
            return None  # it is judged when the groups of its user are known
        if role is None:
            return stranger(call, method)
        context = call.context
        context.role = role  # what is still to be decided in it goes by this
        if context.relayed is not None and ROLE_ORDER[role] < ROLE_ORDER[context.relayed.role]:
            return not_relayed(call, context.relayed)
        if ROLE_ORDER[role] >= method.rank or (call.begun and not call.request.flags & STREAM):
            return None
        return not_permitted(call, method)

    def knows(self, peer: Peer) -> bool:
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

    def under_way_since(self, moment: float) -> Iterator[Call]:
        """Yield the requests under way that came after a moment of the clock; see `InFlight.since`."""
        return self._under_way.since(moment)

    def no_threads_at_work(self) -> bool:
        """Return whether no request is in a thread now, or waits for one."""
        return not self._in_threads

    def await_quick(self, may_wait: bool = True) -> None:
        """See `ThreadReplies.end_of_batch`."""
        self.thread_replies.end_of_batch(may_wait)

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
                call.secrets = method.signature.secrets_in(values, named)
                call.context.secrets += call.secrets
                if not SECRETS.enter(call.secrets):
                    call.secrets = ()
            if self.ends.tracer is not None:
                self._begin_traced(self.ends.tracer, call, values, named)
            elif flags or not method.is_async:
                self._begin_slowly(call, values, named)
            else:
                self.begin_async(call, method.call(call.context, *values, **named))
        except OstlerError as error:
            self.refuse(call, error)
        except Exception as error:  # noqa: BLE001 - a defect of ours must not take the server down
            self.refuse(call, self.ends.internal(call, error))

    def _begin_traced(self, tracer: Tracer, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        call.traced = True
        with tracer.begin(call):
            if call.request.flags or not call.method.is_async:
                self._begin_slowly(call, values, named)
            else:
                self.begin_async(call, call.method.call(call.context, *values, **named))

    def _admit(self, call: Call) -> Endpoint:
        """Make the context of a request, and find who is to serve it."""
        request = call.request
        call.arrived_at = now = self.clock.monotonic()
        role = self.access.role_of(call.peer)
        if role is None:
            if self.access.undecided(call.peer):
                raise undecided(call)
            raise stranger(call, self.registry.method_at(request.topic, request.method))
        deadline = None
        if request.timeout is not None:
            if request.timeout <= 0:
                raise DeadlineExceeded(f"the deadline of {call.where} had passed before it began")
            deadline = now + request.timeout
        call.context = Context(
            request.topic, request.method, request_id=request.request_id, peer=call.peer, role=role,
            deadline=deadline, clock=self.clock, on_progress=call.advance if request.flags & PROGRESS else None,
        )  # fmt: skip
        if role is Role.ADMIN and not call.peer.key:
            call.context.host = self.host
        elif call.peer.key:
            call.context.host = self.access.host_of(call.peer)
        if request.trace:
            call.context.trace = self._checked(request.trace)
        endpoint = self._endpoints.get(request.topic)
        if endpoint is None or request.host or request.version or endpoint.draining or request.flags & FANOUT:
            if self.relay is not None and self.relay(call):
                request = call.request
            endpoint = self.registry.find(request)
        return endpoint

    def _checked(self, trace: str) -> str:
        """Return a `traceparent`, empty for what is none: it is counted, and is no reason to refuse the work."""
        if valid(trace):
            return trace
        self.bad_traces += 1
        return ""

    def _permit(self, call: Call, endpoint: Endpoint, method: Method) -> None:
        role = call.context.role
        if ROLE_ORDER[role] < method.rank and call.peer is not LOCAL_PEER:
            raise undecided(call) if self.access.undecided(call.peer) else not_permitted(call, method)
        self._under_way.check(call, endpoint, self.limits.max_in_flight)
        endpoint.requests += 1
        method.stats.requests += 1

    def refuse(self, call: Call, error: OstlerError) -> None:
        """Tell a caller that its request is not begun, and whoever looks on."""
        endpoint = self._endpoints.get(call.request.topic)
        if endpoint is not None:
            endpoint.refused += 1
            endpoint.errors[type(error).__name__] += 1
            method = endpoint.methods.get(call.request.method)
            if method is not None and not call.admitted:
                method.stats.refused += 1
        error = hidden(call, error)
        call.settled = True
        self.ends.over(call, error)
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
        self.begin_async(call, call.method.call(call.context, *values, **named))

    def _begin_stream(self, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        from ostler.messaging.rpc.streams import Streams, check_pattern

        check_pattern(call)
        if self.streams is None:
            self.streams = Streams(self, self._turns or DeficitRoundRobin())
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

    def begin_async(self, call: Call, work: Any) -> None:
        """Run a coroutine for a call, and answer with what it returns."""
        call.begun = True
        call.at_end = self._async_ended
        task = eager.start(work, self._loop or self._find_loop(), call, self._turns)
        if task is not None:
            call.task = task
            self.register(call)

    def _find_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _begin_in_pool(self, call: Call, values: tuple[Any, ...], named: dict[str, Any]) -> None:
        method = call.method

        def work() -> bytes | None:
            call.check_wanted()
            call.check_room()
            enter(call.context)  # in a copy of the context variables that is this job's own
            began = monotonic()
            result = method.call(call.context, *values, **named)
            if fork.in_child:  # before anything of the daemon's is used, whose locks others may have held at the fork
                fork.leave()
            stats = method.stats
            stats.ran(monotonic() - began)
            if call.settled:
                return None
            if stats.large_results:
                return self._large.pack(call, result)
            packed = call.pack(result)
            if len(packed) > LARGE:
                stats.large_results = True  # the next one waits for its turn
            return packed

        def done(packed: bytes | None, error: BaseException | None) -> None:
            small = packed is None or len(packed) <= LARGE
            if expected and packed is not None and small and self.thread_replies.send(call, packed):
                return
            if packed is None or small:
                self.inbox.post(partial(self.pool_ended, call, packed, error))
                return
            # The thread waits until its large result is taken: the loop would have all memory full of them otherwise.
            taken = threading.Event()
            self.inbox.post(partial(self._pool_ended_large, call, packed, taken))
            taken.wait(_TAKEN_WITHIN)

        pool = method.pool
        assert pool is not None  # noqa: S101 - an endpoint without one has no `def` methods
        expected = self.ends.tracer is None and self.thread_replies.expect(call)
        pool.submit(work, done, label=method.where, client=call.account, connection=call.client, later=expected)
        self.thread_replies.begun(pool, method.stats.usual, later=expected)
        self.register(call)

    def register(self, call: Call) -> None:
        """Count a call as under way, until it has ended."""
        call.endpoint.in_flight += 1
        call.method.stats.in_flight += 1
        self._in_threads += not call.method.is_async
        self._under_way.add(call)
        call.registered()
        if call.context.deadline is not None:
            self._sweeper.wanted(call.context.deadline)

    def sweep_by(self, deadline: float) -> None:
        """See to it that deadlines are looked at then, a moment of the clock."""
        self._sweeper.wanted(deadline)

    def _unregister(self, call: Call) -> None:
        call.endpoint.in_flight -= 1
        call.method.stats.in_flight -= 1
        self._in_threads -= not call.method.is_async
        self._under_way.remove(call)
        call.ended()

    # ---------------------------------------------------------------- the way out

    def _async_ended(self, call: Call, result: Any, error: BaseException | None) -> None:
        if call.task is not None:
            self._unregister(call)
        if error is not None:
            self.ends.fail(call, error)
        elif not call.settled:
            try:
                packed = call.pack(result)
            except Exception as unfit:  # noqa: BLE001 - what is encoded may be a plugin's own, and raise anything
                self.ends.fail(call, unfit)
            else:
                call.settled = True
                self.ends.settle(call, packed)
        if not call.over:
            self.ends.abandoned(call, error)

    def pool_ended(self, call: Call, packed: bytes | None, error: BaseException | None) -> None:
        """Answer a call whose work in a thread has ended, with its result or the error."""
        self._unregister(call)
        if error is not None:
            self.ends.fail(call, error)
        elif packed is not None and call.claim():
            self.ends.settle(call, packed)
        if not call.over:
            self.ends.abandoned(call, error)

    def _pool_ended_large(self, call: Call, packed: bytes, taken: threading.Event) -> None:
        taken.set()
        self.pool_ended(call, packed, None)

    def _replied(self, call: Call) -> None:
        """Take note that a thread has replied by itself."""
        self._unregister(call)
        call.endpoint.replies += 1
        self.ends.over(call, None)

    # ---------------------------------------------------------------- ends that are not the work's own

    def cancel(self, call: Call, error: OstlerError | None = None) -> None:
        """End a request before its time: the caller is answered at once, the work is asked to stop."""
        if call.claim():
            error = error or CallCancelled(f"{call.where} was cancelled", request_id=call.request.request_id)
            call.endpoint.errors[type(error).__name__] += 1
            call.fail(error)
            self.ends.over(call, error)
        call.stop()

    def close(self) -> None:
        """Cancel what is under way and sweep no more."""
        self.thread_replies.close()
        for call in self._under_way:
            self.cancel(call, Draining(f"the daemon stopped before {call.where} had ended", topic=call.request.topic))
        self._sweeper.cancel()

    def _sweep(self, now: float) -> float | None:
        earliest = None
        for call in self._under_way:
            deadline = call.context.deadline
            if call.settled or deadline is None:
                continue
            if deadline <= now:
                self.cancel(call, late(call))
            elif earliest is None or deadline < earliest:
                earliest = deadline
        return earliest
