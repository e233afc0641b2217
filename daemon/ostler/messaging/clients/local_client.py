"""Calls between managers of one daemon: directly through the dispatcher, with the semantics of the wire."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from ostler.aio import LoopQueue, waiting_for
from ostler.aio.actor import current_actor
from ostler.clock import Clock
from ostler.errors import Cancelled, DeadlineExceeded, OstlerError, from_wire, is_expected, to_wire
from ostler.messaging.clients.call_methods import DEFAULT_OPTIONS, ServiceClient
from ostler.messaging.clients.client_core import decode_result, effective_timeout
from ostler.messaging.clients.retry import Retry, RetryAttempts, RetryState, interruptible_sleep, noop
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT
from ostler.messaging.events import Publisher
from ostler.messaging.interface.versions import VersionRegistry
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.dispatcher import Dispatcher
from ostler.messaging.wire.envelope import (
    CAST,
    FANOUT,
    PROTOCOL_VERSION,
    SUBMIT,
    Request,
    encode_arguments,
    encode_value,
)
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import Context, Progress, current_context, outgoing_trace
from ostler.types import LOCAL_PEER, Json

if TYPE_CHECKING:
    from ostler.messaging.clients.async_item_stream import AsyncItemStream
    from ostler.messaging.clients.local_item_stream import LocalStreams
    from ostler.messaging.clients.sync_item_stream import ItemStream

_UNAWAITED = CAST | FANOUT | SUBMIT
"""The kinds of requests whose work is not awaited."""
FIRST_WAIT = 0.02
"""Real seconds after which an answer is no longer quick: from then on the thread that waits is replaced in its pool."""
RECHECK_INTERVAL = 0.25
DEADLINE_GRACE = 1.0
"""Real seconds beyond a deadline after which a waiting thread gives up: a loop that hangs must not block it."""
_REMOTE_DEADLINE_GRACE = 2.0
"""The same for what is done on another host."""


class RequestRouter(Protocol):
    """Brings requests to services on other hosts. On the loop's thread, except for `is_local`."""

    def is_local(self, request: CallRequest, /) -> bool:
        """Return whether this daemon itself is to serve a request, or to refuse it. Any thread."""
        ...

    async def send_request(self, request: CallRequest, retry_state: RetryState | None = None, /) -> Any:
        """Have another daemon serve a request, and return its result.

        Args:
            request: The request.
            retry_state: The state that its attempts share; None for a request that is sent once.
        """
        ...

    async def fan_out(self, request: CallRequest, /) -> int:
        """Bring a fanout to all members on other hosts that can be reached; return how many accepted it."""
        ...

    async def wait_reachable(self, request: CallRequest, /) -> CallRequest:
        """Wait until it is known whether a host can serve a request; return it with what is left of its time."""
        ...

    def open_stream(self, request: CallRequest, credit: int, /) -> AsyncItemStream:
        """Return what a method on another host yields; never waits."""
        ...


class LocalServiceClient(ServiceClient):
    """The client with which a manager reaches other services of this daemon.

    Args:
        dispatcher: Where the services are.
        inbox: Brings requests from threads to the loop.
        publisher: What events are published with; None when there is none.
        topic: The topic of the service this is for; events are published under it.
        timeout: Deadline in seconds of a call that names none and is not made inside a request.
        upgrades: Knows which versions may be used; one that knows nothing by default.
        router: Knows the other daemons; None for a client that knows none.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        inbox: LoopQueue,
        publisher: Publisher | None = None,
        *,
        topic: str,
        timeout: float | None = 60.0,
        upgrades: VersionRegistry | None = None,
        router: RequestRouter | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._inbox = inbox
        self._publisher = publisher
        self._topic = topic
        self._timeout = timeout
        self.options = DEFAULT_OPTIONS
        self._upgrades = upgrades or VersionRegistry(dispatcher.clock)
        self._router = router
        self._numbers = itertools.count(1)
        self._local_streams: LocalStreams | None = None

    @property
    def upgrades(self) -> VersionRegistry:
        """See `ServiceClient.upgrades`."""
        return self._upgrades

    def for_topic(self, topic: str) -> LocalServiceClient:
        """Return a client for another service of the same daemon."""
        return LocalServiceClient(
            self._dispatcher,
            self._inbox,
            self._publisher,
            topic=topic,
            timeout=self._timeout,
            upgrades=self.upgrades,
            router=self._router,
        )

    def _streams(self) -> LocalStreams:
        if self._local_streams is None:
            from ostler.messaging.clients.local_item_stream import LocalStreams  # 1 ms: only for streams

            self._local_streams = LocalStreams(self._dispatcher, self._inbox, self._topic)
        return self._local_streams

    def publish(self, event: str, payload: Json = None, *, topic: str | None = None) -> None:
        """See `ServiceClient.publish`."""
        if self._publisher is not None:
            self._publisher.publish(topic or self._topic, event, payload)

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """See `ServiceClient.send_request`."""
        if retry is None:
            return self._send(request)
        raise_if_on_loop(request, "`acall`, `acast` or `afanout`")
        attempts, repeat = self._make_attempts(request, retry)
        return attempts.run(lambda timeout: self._send(request._replace(timeout=timeout), repeat), _pause)

    async def asend_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """See `ServiceClient.asend_request`."""
        if retry is None:
            return await self._asend(request)
        attempts, repeat = self._make_attempts(request, retry)
        return await attempts.arun(
            lambda timeout: self._asend(request._replace(timeout=timeout), repeat), asyncio.sleep
        )

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """See `ServiceClient.open_stream`."""
        router = self._router_for(request)
        streams = self._streams()
        return streams.stream(request, credit) if router is None else streams.remote_stream(router, request, credit)

    def open_astream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """See `ServiceClient.open_astream`."""
        router = self._router_for(request)
        return self._streams().astream(request, credit) if router is None else router.open_stream(request, credit)

    def _router_for(self, request: CallRequest) -> RequestRouter | None:
        """Return what brings a request to another host, None for one that stays in this daemon."""
        router = self._router
        return None if router is None or router.is_local(request) else router

    def _make_attempts(self, request: CallRequest, retry: Retry) -> tuple[RetryAttempts, RetryState]:
        context = current_context()
        attempts = RetryAttempts(
            retry, self._dispatcher.clock, effective_timeout(context, request.timeout, self._timeout)
        )
        # Another host keeps its answer under this id: nobody else, and no other run of this daemon, may come to it.
        own_id = f"{id_prefix(context, self._topic)}.{os.urandom(16).hex()}-{next(self._numbers)}"
        return attempts, RetryState(request.request_id or own_id)

    # ---------------------------------------------------------------- from a thread

    def _send(self, request: CallRequest, repeat: RetryState | None = None) -> Any:
        raise_if_on_loop(request, "`acall`, `acast` or `afanout`")
        router = self._router_for(request)
        if router is not None:
            return self._send_remote(router, request, repeat)
        arrived = threading.Event()
        call = self._make_call(request, arrived.set, repeat)
        self._inbox.post(partial(self._dispatcher.dispatch, call))
        forget = self._cancel_with_parent(call)
        try:
            if not arrived.wait(FIRST_WAIT):
                with waiting_for((request.topic, request.host)):
                    while not arrived.wait(RECHECK_INTERVAL):
                        self._raise_if_overdue(call)
        except BaseException:
            self._inbox.post(partial(self._abandon, call))
            raise
        finally:
            forget()
        return call.result(request)

    def _send_remote(self, router: RequestRouter, request: CallRequest, repeat: RetryState | None) -> Any:
        timeout = effective_timeout(current_context(), request.timeout, self._timeout)
        return run_from_thread(
            self._inbox, self._asend_remote(router, request, repeat), timeout, f"{request.topic}.{request.method}"
        )

    def _raise_if_overdue(self, call: LocalCall) -> None:
        if call.deadline is not None and self._dispatcher.clock.monotonic() > call.deadline + DEADLINE_GRACE:
            raise blocked_loop_error("answer from", call.full_name)

    # ---------------------------------------------------------------- on the loop

    async def _asend(self, request: CallRequest, repeat: RetryState | None = None) -> Any:
        router = self._router_for(request)
        return await (
            self._asend_local(request, repeat) if router is None else self._asend_remote(router, request, repeat)
        )

    async def _asend_remote(self, router: RequestRouter, request: CallRequest, repeat: RetryState | None) -> Any:
        if not request.flags & FANOUT:
            return await router.send_request(request, repeat)
        reached = int(await self._asend_local(request)) if self._dispatcher.registry.is_open(request.topic) else 0
        return reached + await router.fan_out(request)

    async def _asend_local(self, request: CallRequest, repeat: RetryState | None = None) -> Any:
        arrived = asyncio.Event()
        call = self._make_call(request, arrived.set, repeat)
        forget = self._cancel_with_parent(call)
        try:
            self._dispatcher.dispatch(call)
            if not call.is_done:
                await arrived.wait()
        except BaseException:
            self._abandon(call)
            raise
        finally:
            forget()
        return call.result(request)

    # ---------------------------------------------------------------- both

    def _make_call(self, ask: CallRequest, arrived: Callable[[], None], repeat: RetryState | None) -> LocalCall:
        number = next(self._numbers)
        context = current_context()
        timeout = effective_timeout(context, ask.timeout, self._timeout)
        request_id = repeat.request_id if repeat is not None else f"{id_prefix(context, self._topic)}.{number}"
        where = f"{ask.topic}.{ask.method}"
        packed = encode_arguments(ask.arguments, where)
        request = Request(
            PROTOCOL_VERSION, number, ask.topic, ask.method, msgspec.Raw(packed), timeout,
            request_id, ask.flags, ask.host or "", ask.version, outgoing_trace(context), 0, ask.time_limit,
        )  # fmt: skip
        until = None if timeout is None else self._dispatcher.clock.monotonic() + timeout
        call = LocalCall(request, arrived, until, self._dispatcher.clock)
        call.parent = context
        if context is not None and context.end_callbacks is not None and not ask.flags & _UNAWAITED:
            call.context.caller = current_actor()  # it may hold locks that the call is to wait for
        return call

    def _cancel_with_parent(self, call: LocalCall) -> Callable[[], None]:
        """Stop the call when the request that is being served is cancelled."""
        context = current_context()
        if context is None:
            return noop
        return context.on_cancel(lambda: self._inbox.post(partial(self._abandon, call)))

    def _abandon(self, call: LocalCall) -> None:
        if not call.is_done and call.is_dispatched:
            self._dispatcher.cancel(call, Cancelled(f"{call.full_name} was cancelled with the request that called it"))


class LocalCall(Call):
    """A request from within the daemon."""

    __slots__ = ("_callback", "_error", "_packed", "_reached", "deadline", "is_done", "parent")

    def __init__(self, request: Request, callback: Callable[[], None], deadline: float | None, clock: Clock) -> None:
        super().__init__(request, LOCAL_PEER, clock)
        self.deadline = deadline
        self.is_done = False
        self._callback = callback
        self._packed: bytes | None = None
        self._reached = 0
        self._error: OstlerError | None = None

    @property
    def is_dispatched(self) -> bool:
        """Whether the dispatcher has taken it; before that there is nothing to cancel."""
        return self.is_resolved

    def result(self, request: CallRequest) -> Any:
        """Return the result, or raise the error; never the very objects that the method returned or raised."""
        if self._error is not None:
            raise from_wire(to_wire(self._error))
        if self._packed is None:
            return self._reached
        return decode_result(self._packed, request.result_type, self.full_name)

    def pack(self, result: object) -> bytes:
        """See `Call.pack`."""
        return encode_value(result, f"the result of {self.full_name}")

    def send_reply(self, packed: bytes) -> None:
        """See `Call.reply`."""
        self._packed = packed
        self._finish()

    def send_error(self, error: OstlerError) -> None:
        """See `Call.fail`."""
        self._error = error
        self._finish()

    def send_accepted(self, reached: int) -> None:
        """See `Call.accepted`."""
        self._reached = reached
        self._finish()

    def send_progress(self, progress: Progress) -> None:
        """Ignore progress: no caller in this daemon listens to it."""

    def _finish(self) -> None:
        self.is_done = True
        self._callback()


def id_prefix(context: Context | None, topic: str) -> str:
    """Return what a request id begins with: the id of the request that is served now, else the caller's topic."""
    return context.request_id if context is not None and context.request_id else topic


def run_from_thread(
    loop_queue: LoopQueue, work: Coroutine[Any, Any, Any], timeout: float | None, full_name: str
) -> Any:
    """Run some work on the loop, and wait for it on a thread.

    The work sees the request that is served on this thread: its deadline, its trace, and its end.

    Args:
        loop_queue: The loop's.
        work: The work.
        timeout: Seconds after which it ends by itself; None for no limit.
        full_name: `topic.method`, for messages.

    Raises:
        DeadlineExceeded: The loop did not run it in time.
        Exception: What the work raised.
    """
    future = asyncio.run_coroutine_threadsafe(work, loop_queue.loop)
    try:
        with waiting_for(full_name):
            return future.result(None if timeout is None else timeout + _REMOTE_DEADLINE_GRACE)
    except TimeoutError as error:
        if is_expected(error) or future.done():
            raise
        raise blocked_loop_error("answer from", full_name) from None
    finally:
        future.cancel()


def blocked_loop_error(missing: str, full_name: str) -> DeadlineExceeded:
    """Return the error of a thread that the loop has not even told that the time is over.

    Args:
        missing: What did not come: `answer from` or `item of`.
        full_name: `topic.method`.
    """
    return DeadlineExceeded(
        f"no {missing} {full_name} in time, not even a timeout error: the daemon's event loop is blocked",
        hint="see `ostler dump`",
        method=full_name,
    )


def raise_if_on_loop(request: CallRequest, instead: str) -> None:
    """Refuse to block a loop.

    Args:
        request: What was asked.
        instead: What is to be used there.

    Raises:
        RuntimeError: This thread runs one.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"{request.topic}.{request.method} was called on the event loop's thread and would block it; use "
        f"{instead} there"
    )


def _pause(wait: float) -> None:
    with waiting_for("the next try"):
        interruptible_sleep(wait, current_context())
