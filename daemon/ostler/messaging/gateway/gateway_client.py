"""The requests of one caller that came by a gateway, from any loop."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from ostler.bounds import NAME_LIMIT
from ostler.errors import InvalidInput
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT
from ostler.messaging.wire.envelope import LENIENT, SUBMIT
from ostler.messaging.wire.request import CAST_FLAGS, FANOUT_FLAGS, CallRequest, ProgressCallback
from ostler.messaging.wire.request_context import is_valid_traceparent, trace_context

if TYPE_CHECKING:
    from ostler.messaging.clients.async_client import AsyncClient
    from ostler.messaging.events.async_event_stream import AsyncEventStream
    from ostler.messaging.gateway.caller import Caller
    from ostler.messaging.gateway.gateway import Gateway


class GatewayClient:
    """Makes requests as a caller, with its role, its limits and its name in the audit log.

    Used on any loop of the daemon's process; neither that loop nor the daemon's is ever blocked. A request whose await
    is cancelled is cancelled in the daemon as well. Making one costs next to nothing: all clients of a caller share one
    link on each loop. Results are plain values (dict, list, str, int, bytes …).

    The options are the same for all requests: `host` is the service's host (None for this one, or one that has such a
    service); `timeout` is in seconds (None for the daemon's `call_timeout`; of a stream, for no limit to the wait for
    an item); `request_id` is the id that log lines, events and the audit log carry (empty to have one made); `trace` is
    a W3C `traceparent` (one that is not valid is ignored); `lenient` says whether texts may stand for numbers, booleans
    and structures; `version` is the version of the methods that the service must have.

    Every method raises what the request ended with: `NotPermitted`, `ServiceNotFound`, `Busy`, `DeadlineExceeded` and
    all others of `OstlerError`; `ConnectionLost` and `DaemonNotRunning` when the daemon stops.

    Args:
        gateway: The gateway.
        caller: Who makes the requests.
    """

    __slots__ = ("_gateway", "caller")

    def __init__(self, gateway: Gateway, caller: Caller) -> None:
        self._gateway = gateway
        self.caller = caller

    async def call(  # noqa: PLR0913 - each is a word of its own
        self,
        topic: str,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        host: str | None = None,
        timeout: float | None = None,
        request_id: str = "",
        trace: str = "",
        lenient: bool = False,
        version: str = "",
        deduplicate: bool = False,
        on_progress: ProgressCallback | None = None,
        result_type: Any = None,
    ) -> Any:
        """Call a method and return its result.

        Args:
            topic: The service's topic.
            method: The method.
            arguments: Its arguments by name.
            host: See the class.
            timeout: See the class.
            request_id: See the class.
            trace: See the class.
            lenient: See the class.
            version: See the class.
            deduplicate: Whether a request that this caller made before with the same `request_id` is not run again: its
                result is returned, also while it is in progress.
            on_progress: Called on this loop with each progress report of the method.
            result_type: What the result is decoded to; None for plain values.

        Raises:
            InvalidInput: `deduplicate` without a `request_id`, or one that is too long.
            OstlerError: See the class.
        """
        request = CallRequest(
            topic, method, arguments or {}, host, timeout, result_type, on_progress, LENIENT if lenient else 0, version,
            None, request_id,
        )  # fmt: skip
        return await self._send(request, trace, deduplicate=deduplicate)

    async def cast(  # noqa: PLR0913 - each is a word of its own
        self,
        topic: str,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        host: str | None = None,
        timeout: float | None = None,
        request_id: str = "",
        trace: str = "",
        lenient: bool = False,
        version: str = "",
        deduplicate: bool = False,
    ) -> int:
        """Have a method run; return when a service has accepted it: how many have, which is 1.

        Arguments and errors as in `call`; `timeout` is for the acceptance.
        """
        flags = CAST_FLAGS | (LENIENT if lenient else 0)
        request = CallRequest(
            topic, method, arguments or {}, host, timeout, None, None, flags, version, None, request_id
        )
        return int(await self._send(request, trace, deduplicate=deduplicate))

    async def fanout(
        self,
        topic: str,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
        request_id: str = "",
        trace: str = "",
        lenient: bool = False,
        version: str = "",
    ) -> int:
        """Have every service on a topic run a method; return how many have accepted it. Errors as in `call`."""
        flags = FANOUT_FLAGS | (LENIENT if lenient else 0)
        request = CallRequest(
            topic, method, arguments or {}, None, timeout, None, None, flags, version, None, request_id
        )
        return int(await self._send(request, trace))

    async def submit(  # noqa: PLR0913 - each is a word of its own
        self,
        topic: str,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        host: str | None = None,
        timeout: float | None = None,
        request_id: str = "",
        trace: str = "",
        lenient: bool = False,
        version: str = "",
        time_limit: float | None = None,
    ) -> str:
        """Have a request stored as an operation; return its id when it is stored.

        A second one of this caller with the same `request_id` is the same operation. `ostler.operation.show`, `watch`
        and `cancel` take the id. `time_limit` is the seconds in which it must end. Errors as in `call`.
        """
        flags = SUBMIT | (LENIENT if lenient else 0)
        request = CallRequest(
            topic, method, arguments or {}, host, timeout, None, None, flags, version, time_limit, request_id
        )
        status = await self._send(request, trace, deduplicate=True)
        return str(status["id"])

    async def stream(  # noqa: PLR0913 - each is a word of its own
        self,
        topic: str,
        method: str,
        arguments: Mapping[str, Any] | None = None,
        *,
        host: str | None = None,
        timeout: float | None = None,
        request_id: str = "",
        trace: str = "",
        lenient: bool = False,
        version: str = "",
        credit: int = DEFAULT_CREDIT,
    ) -> AsyncGenerator[Any, None]:
        """Yield what a method yields; it is asked for with the first item.

        The method makes `credit` items ahead of the reader at most. `aclose`, and cancelling the task that reads, end
        it. Errors as in `call`, after the items that came before.
        """
        _check_request_id(request_id)
        request = CallRequest(
            topic, method, arguments or {}, host, timeout, None, None, LENIENT if lenient else 0, version, None,
            request_id,
        )  # fmt: skip
        items = self._client().open_stream(request, credit)
        try:
            with _trace_of(trace):
                batch = await items.batch()
            while batch is not None:
                for item in batch:
                    yield item
                batch = await items.batch()
        finally:
            items.close()

    def subscribe(
        self, *prefixes: str, since: Mapping[str, int] | None = None, last: bool = False, refetch: bool = False
    ) -> AsyncEventStream:
        """Return the events that match, for `async for`; a `Gap` stands for those that this caller has missed.

        `await` the stream (or enter it with `async with`) to know that the subscription stands: everything published
        after that is seen. `aclose` or `close` ends it.

        Args:
            prefixes: `topic`, `topic.host` or `topic.host.name`, with `*` for any run of characters; none for all.
            since: Topic to the number of the last event of it that was seen: what came after that comes first, from
                the journal where the topic has one; of other topics a `Gap` says what was missed.
            last: Whether the last event of each key comes first; not together with `since`.
            refetch: Whether the events of a gap are fetched from the journal, where it has them.

        Raises:
            NotPermitted: When it is awaited or iterated: the caller has no role.
        """
        return self._client().events(*prefixes, since=since, last=last, refetch=refetch)

    async def _send(self, request: CallRequest, trace: str, *, deduplicate: bool = False) -> Any:
        _check_request_id(request.request_id)
        client = self._client()
        with _trace_of(trace):
            if not deduplicate:
                return await client.send_request(request)
            if not request.request_id and not request.flags & SUBMIT:
                raise InvalidInput("a request is deduplicated by its id, but it has none", hint="give a `request_id`")
            return await client.send_attempt(request, request.request_id or os.urandom(16).hex())

    def _client(self) -> AsyncClient:
        return self._gateway.connection(self.caller.peer)


def _check_request_id(request_id: str) -> None:
    if len(request_id) > NAME_LIMIT:
        raise InvalidInput(f"the id of a request has {len(request_id)} characters, it must have {NAME_LIMIT} at most")


def _trace_of(trace: str) -> AbstractContextManager[None]:
    return trace_context(trace) if trace and is_valid_traceparent(trace) else nullcontext()
