"""Calls between managers of one daemon: straight through the dispatcher, with the semantics of the wire."""

from __future__ import annotations

import asyncio
import itertools
import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from ostler.aio import Inbox, waiting_for
from ostler.errors import CallCancelled, DeadlineExceeded, OstlerError, from_wire, to_wire
from ostler.messaging.call_options import DEFAULT_OPTIONS
from ostler.messaging.context import Progress, current_context
from ostler.messaging.envelope import FANOUT, VERSION, Request, encode_arguments, encode_value
from ostler.messaging.events import Publisher
from ostler.messaging.pausing import pause
from ostler.messaging.routing import Repeat, Router
from ostler.messaging.rpc.call import Call
from ostler.messaging.rpc.core import Ask, allowed, decode_result
from ostler.messaging.rpc.dispatcher import Dispatcher
from ostler.messaging.rpc.incoming import DEFAULT_CREDIT
from ostler.messaging.rpc.retry import Attempts, Retry
from ostler.messaging.service_client import ServiceClient
from ostler.messaging.tracing import outgoing_trace
from ostler.messaging.versions import Upgrades
from ostler.types import LOCAL_PEER, Json

if TYPE_CHECKING:
    from ostler.messaging.async_item_stream import AsyncItemStream
    from ostler.messaging.item_stream import ItemStream
    from ostler.messaging.local_streams import LocalStreams

_QUICK = 0.02
"""Real seconds after which an answer is no longer quick: from then on the thread that waits is replaced in its pool."""
_RECHECK = 0.25
_GRACE = 1.0
"""Real seconds beyond a deadline after which a waiting thread helps itself: a loop that hangs must not hold it."""


class LocalServiceClient(ServiceClient):
    """What a manager is handed to reach other services of this daemon.

    Args:
        dispatcher: Where the services are.
        inbox: Brings requests from threads to the loop.
        publisher: What events are published with; None when there is none.
        topic: The topic of the service this is for; events are published under it.
        timeout: Deadline in seconds of a call that names none and is not made inside a request.
        upgrades: Knows which versions may be used; one that knows nothing by default.
        router: Knows the other daemons; one that knows none by default.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        inbox: Inbox,
        publisher: Publisher | None = None,
        *,
        topic: str,
        timeout: float | None = 60.0,
        upgrades: Upgrades | None = None,
        router: Router | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._inbox = inbox
        self._publisher = publisher
        self._topic = topic
        self._timeout = timeout
        self.options = DEFAULT_OPTIONS
        self._upgrades = upgrades or Upgrades(dispatcher.clock)
        self.router = router or Router(dispatcher.host, dispatcher.registry.is_open)
        self._numbers = itertools.count(1)
        self._local_streams: LocalStreams | None = None

    @property
    def upgrades(self) -> Upgrades:
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
            router=self.router,
        )

    def _streams(self) -> LocalStreams:
        if self._local_streams is None:
            from ostler.messaging.local_streams import LocalStreams

            self._local_streams = LocalStreams(self._dispatcher, self._inbox, self._topic)
        return self._local_streams

    def publish(self, event: str, payload: Json = None, *, topic: str | None = None) -> None:
        """See `ServiceClient.publish`."""
        if self._publisher is not None:
            self._publisher.publish(topic or self._topic, event, payload)

    def ask(self, ask: Ask, retry: Retry | None = None) -> Any:
        """See `ServiceClient.ask`."""
        if retry is None:
            return self._ask(ask)
        not_on_a_loop(ask, "`acall`, `acast` or `afanout`")
        attempts, repeat = self._attempts(ask, retry)
        return attempts.run(lambda timeout: self._ask(ask._replace(timeout=timeout), repeat), _pause)

    async def aask(self, ask: Ask, retry: Retry | None = None) -> Any:
        """See `ServiceClient.aask`."""
        if retry is None:
            return await self._aask(ask)
        attempts, repeat = self._attempts(ask, retry)
        return await attempts.arun(lambda timeout: self._aask(ask._replace(timeout=timeout), repeat), asyncio.sleep)

    def ask_stream(self, ask: Ask, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """See `ServiceClient.ask_stream`."""
        if self.router.here(ask):
            return self._streams().stream(ask, credit)
        from ostler.messaging.elsewhere import stream_from_thread

        return stream_from_thread(self.router, self._inbox, ask, credit)

    def ask_astream(self, ask: Ask, credit: int = DEFAULT_CREDIT) -> AsyncItemStream:
        """See `ServiceClient.ask_astream`."""
        if self.router.here(ask):
            return self._streams().astream(ask, credit)
        return self.router.stream(ask, credit)

    def _attempts(self, ask: Ask, retry: Retry) -> tuple[Attempts, Repeat]:
        context = current_context()
        attempts = Attempts(retry, self._dispatcher.clock, allowed(context, ask.timeout, self._timeout))
        # Another host keeps its answer under this id: nobody else, and no other run of this daemon, may come to it.
        inside = context.request_id if context is not None and context.request_id else self._topic
        return attempts, Repeat(f"{inside}.{os.urandom(16).hex()}-{next(self._numbers)}")

    # ---------------------------------------------------------------- from a thread

    def _ask(self, ask: Ask, repeat: Repeat | None = None) -> Any:
        not_on_a_loop(ask, "`acall`, `acast` or `afanout`")
        if not self.router.here(ask):
            return self._ask_elsewhere(ask, repeat)
        arrived = threading.Event()
        call = self._request(ask, arrived.set, repeat)
        self._inbox.post(partial(self._dispatcher.dispatch, call))
        forget = self._follow(call)
        try:
            if not arrived.wait(_QUICK):
                with waiting_for((ask.topic, ask.host)):
                    while not arrived.wait(_RECHECK):
                        self._check_hung(call)
        except BaseException:
            self._inbox.post(partial(self._give_up, call))
            raise
        finally:
            forget()
        return call.outcome(ask)

    def _ask_elsewhere(self, ask: Ask, repeat: Repeat | None) -> Any:
        from ostler.messaging.elsewhere import from_thread

        timeout = allowed(current_context(), ask.timeout, self._timeout)
        return from_thread(self._inbox, self._elsewhere(ask, repeat), timeout, f"{ask.topic}.{ask.method}")

    def _check_hung(self, call: LocalCall) -> None:
        if call.until is not None and self._dispatcher.clock.monotonic() > call.until + _GRACE:
            raise DeadlineExceeded(
                f"no answer from {call.where} in time, not even that it is late: the daemon's loop hangs",
                hint="see `ostler dump`",
                method=call.where,
            )

    # ---------------------------------------------------------------- on the loop

    async def _aask(self, ask: Ask, repeat: Repeat | None = None) -> Any:
        return await (self._aask_here(ask, repeat) if self.router.here(ask) else self._elsewhere(ask, repeat))

    async def _elsewhere(self, ask: Ask, repeat: Repeat | None) -> Any:
        if not ask.flags & FANOUT:
            return await self.router.ask(ask, repeat)
        reached = int(await self._aask_here(ask)) if self._dispatcher.registry.is_open(ask.topic) else 0
        return reached + await self.router.fan_out(ask)

    async def _aask_here(self, ask: Ask, repeat: Repeat | None = None) -> Any:
        arrived = asyncio.Event()
        call = self._request(ask, arrived.set, repeat)
        forget = self._follow(call)
        try:
            self._dispatcher.dispatch(call)
            if not call.arrived:
                await arrived.wait()
        except BaseException:
            self._give_up(call)
            raise
        finally:
            forget()
        return call.outcome(ask)

    # ---------------------------------------------------------------- both

    def _request(self, ask: Ask, arrived: Callable[[], None], repeat: Repeat | None) -> LocalCall:
        number = next(self._numbers)
        context = current_context()
        timeout = allowed(context, ask.timeout, self._timeout)
        inside = context.request_id if context is not None and context.request_id else self._topic
        request_id = repeat.request_id if repeat is not None else f"{inside}.{number}"
        where = f"{ask.topic}.{ask.method}"
        packed = encode_arguments(ask.arguments, where)
        request = Request(
            VERSION, number, ask.topic, ask.method, msgspec.Raw(packed), timeout,
            request_id, ask.flags, ask.host or "", ask.version, outgoing_trace(context),
        )  # fmt: skip
        until = None if timeout is None else self._dispatcher.clock.monotonic() + timeout
        call = LocalCall(request, arrived, until)
        call.parent = context
        return call

    def _follow(self, call: LocalCall) -> Callable[[], None]:
        """Stop the call when the request that is being served is taken back."""
        context = current_context()
        if context is None:
            return _nothing
        return context.on_cancel(lambda: self._inbox.post(partial(self._give_up, call)))

    def _give_up(self, call: LocalCall) -> None:
        if not call.arrived and call.begun_here:
            self._dispatcher.cancel(call, CallCancelled(f"{call.where} was cancelled with the request that called it"))


class LocalCall(Call):
    """A request from within the daemon."""

    __slots__ = ("_error", "_packed", "_reached", "_told", "arrived", "parent", "until")

    def __init__(self, request: Request, told: Callable[[], None], until: float | None) -> None:
        super().__init__(request, LOCAL_PEER)
        self.until = until
        self.arrived = False
        self._told = told
        self._packed: bytes | None = None
        self._reached = 0
        self._error: OstlerError | None = None

    @property
    def begun_here(self) -> bool:
        """Whether the dispatcher has taken it; before that there is nothing to cancel."""
        return hasattr(self, "method")

    def outcome(self, ask: Ask) -> Any:
        """Return the result, or raise the error; never the very objects that the method returned or raised."""
        if self._error is not None:
            raise from_wire(to_wire(self._error))
        if self._packed is None:
            return self._reached
        return decode_result(self._packed, ask.kind, self.where)

    def pack(self, result: object) -> bytes:
        """See `Call.pack`."""
        return encode_value(result, f"the result of {self.where}")

    def reply(self, packed: bytes) -> None:
        """See `Call.reply`."""
        self._packed = packed
        self._arrive()

    def fail(self, error: OstlerError) -> None:
        """See `Call.fail`."""
        self._error = error
        self._arrive()

    def accepted(self, reached: int) -> None:
        """See `Call.accepted`."""
        self._reached = reached
        self._arrive()

    def advance(self, progress: Progress) -> None:
        """Let progress be: nobody in this daemon listens to it."""

    def _arrive(self) -> None:
        self.arrived = True
        self._told()


def not_on_a_loop(ask: Ask, instead: str) -> None:
    """Refuse to block a loop.

    Args:
        ask: What was asked.
        instead: What is to be used there.

    Raises:
        RuntimeError: This thread runs one.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(
        f"{ask.topic}.{ask.method} was asked for on the loop's thread, which that would block; use {instead} there"
    )


def _pause(wait: float) -> None:
    with waiting_for("the next try"):
        pause(wait, current_context())


def _nothing() -> None:
    """Stand in for what undoes nothing."""
