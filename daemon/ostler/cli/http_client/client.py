"""The client of a daemon that is reached by its REST API, with the call methods of every other client."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, urlencode

import msgspec

import ostler
from ostler.cli.http_client.address import HttpDaemon
from ostler.cli.http_client.connection import HttpConnection, HttpResponse, Wait, tls_context
from ostler.cli.http_client.decoding import decode_json
from ostler.cli.http_client.event_stream import HttpEventStream, write_positions
from ostler.cli.http_client.frames import Frame, lost_response_error, read_frames
from ostler.cli.http_client.problems import response_error
from ostler.clock import SystemClock
from ostler.errors import EncodeError, InvalidInput, MalformedMessage, OstlerError
from ostler.messaging.clients.call_methods import DEFAULT_OPTIONS, SyncCallMethods
from ostler.messaging.clients.client_core import effective_timeout
from ostler.messaging.clients.operation import unknown_operation
from ostler.messaging.clients.retry import Retry, RetryAttempts, interruptible_sleep
from ostler.messaging.clients.stream_buffer import DEFAULT_CREDIT
from ostler.messaging.clients.sync_item_stream import ItemStream
from ostler.messaging.events.event import JournalTopic
from ostler.messaging.wire.envelope import CAST, FANOUT, SUBMIT
from ostler.messaging.wire.request import CallRequest
from ostler.messaging.wire.request_context import Progress, current_context, outgoing_trace
from ostler.types import CONTROL_TOPIC, Json, OperationStatus

_JSON, _LINES = "application/json", "application/x-ndjson"
_MAX_TIMEOUT, _MIN_TIMEOUT = 7 * 86400.0, 0.001
"""Seconds that the API takes as a deadline."""
_MAX_KEY_LENGTH = 255
_EVENTS_TIMEOUT = 10.0
"""Seconds that a subscription may take to be established."""


class HttpClient(SyncCallMethods):
    """Talks to a daemon by its REST API, from a program without a loop.

    It has the methods of `ostler.Client`, with the same results and errors. Ctrl-C and leaving a stream close the
    connection, which ends the work on the server. Nothing is sent twice, unless a `Retry` says so: then all attempts
    have one `Idempotency-Key`.

    Args:
        daemon: The daemon.
        timeout: Deadline in seconds of a call that names none; None for none.
        lenient: Whether texts may stand for numbers, booleans and structures, as on a command line.

    Raises:
        InvalidInput: A file with a token or certificate cannot be used.
    """

    def __init__(self, daemon: HttpDaemon, *, timeout: float | None = 60.0, lenient: bool = False) -> None:
        self.options = DEFAULT_OPTIONS
        self._daemon = daemon
        self._timeout = timeout
        self._lenient = lenient
        self._tls = tls_context(daemon)
        token = daemon.read_token()
        self._headers = {
            "User-Agent": f"ostler/{ostler.__version__}",
            **({"Authorization": f"Bearer {token}"} if token else {}),
        }
        self._lock = threading.Lock()
        self._idle: list[HttpConnection] = []
        self._in_use: set[HttpConnection] = set()
        self._is_closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the streams and close all connections. May be called twice."""
        with self._lock:
            self._is_closed = True
            opened = [*self._idle, *self._in_use]
            self._idle.clear()
            self._in_use.clear()
        for connection in opened:
            connection.close()

    def events(
        self,
        *patterns: str,
        since: int | Mapping[str, int] | None = None,
        last: bool = False,
        refetch: bool = False,
    ) -> HttpEventStream:
        """Subscribe to events; see `ostler.Client.events`.

        Args:
            patterns: Which events; none for all.
            since: Begin with what the journal has from this number on, of each topic; or topic to the number of the
                last event of it that was seen.
            last: Begin with the last event of each key.
            refetch: Missing events are fetched from the journal, where it has them, in any case.

        Raises:
            InvalidInput: `since` and `last` were both given, or `since` is below 1.
            OstlerError: The subscription was refused.
        """
        if last and since is not None:
            raise InvalidInput("a subscription starts with last events or with events since a number, not with both")
        query = [("topic", pattern) for pattern in patterns]
        if since is not None:
            query.append(("since", write_positions(self._positions(since))))
        if last:
            query.append(("last", "true"))
        wait = Wait("ostler.events", min(self._timeout or _EVENTS_TIMEOUT, _EVENTS_TIMEOUT), is_stream=True)
        where = f"{self._daemon.path}/events?{urlencode(query)}"
        return HttpEventStream(self._request(where, {"Accept": _LINES}, None, wait), wait)

    def _positions(self, since: int | Mapping[str, int]) -> Mapping[str, int]:
        if not isinstance(since, int):
            return since
        if since < 1:
            raise InvalidInput(f"events are numbered from 1, {since} is not a valid number")
        if since == 1:
            return {}  # of a topic that is not named everything is sent
        topics = self.on(type=list[JournalTopic]).call(CONTROL_TOPIC, "event_topics")
        return {each.topic: since - 1 for each in topics}

    def send_request(self, request: CallRequest, retry: Retry | None = None) -> Any:
        """See `SyncCallMethods.send_request`."""
        context = current_context()
        timeout = effective_timeout(context, request.timeout, self._timeout)
        if retry is None:
            return self._send_once(request, timeout)
        key = request.request_id or os.urandom(12).hex()
        return RetryAttempts(retry, SystemClock(), timeout).run(
            lambda left: self._send_once(request, left, key), lambda wait: interruptible_sleep(wait, context)
        )

    def open_stream(self, request: CallRequest, credit: int = DEFAULT_CREDIT) -> ItemStream:
        """See `SyncCallMethods.open_stream`."""
        return ItemStream(_HttpItems(self, request))

    def _send_once(self, request: CallRequest, timeout: float | None, key: str = "") -> Any:
        wait = Wait(_full_name(request), timeout)
        if request.flags & SUBMIT:
            return self._submit(request, wait, key)
        if request.flags & CAST:
            verb = "fanout" if request.flags & FANOUT else "cast"
            return self._read_json(self._post(request, wait, verb, key), _AcceptedReply, wait).accepted
        if request.on_progress is None and timeout is not None:
            return self._read_json(self._post(request, wait, "", key), request.result_type, wait)
        # Without a deadline only a stream shows whether the server is still there.
        wait.is_stream = True
        return self._read_result(self._post(request, wait, "", key, kind=_LINES), request, wait)

    def _submit(self, request: CallRequest, wait: Wait, key: str) -> OperationStatus:
        """Store an operation, and return its status; if that cannot be had, what is known of it."""
        made = self._read_json(self._post(request, wait, "submit", key), _OperationReply, wait)
        show = CallRequest(
            CONTROL_TOPIC, "operation.show", {"operation": made.id}, request.host, wait.timeout, OperationStatus
        )
        try:
            found: OperationStatus = self._send_once(show, wait.timeout)
        except OstlerError:
            return unknown_operation(made.id, request.host)
        return found

    def open_lines(self, request: CallRequest, wait: Wait) -> HttpResponse:
        """Ask for the items of a method that yields; return the response, of which the head has come."""
        return self._post(request, wait, "", "", kind=_LINES, preference="call-kind=stream")

    def _post(
        self,
        request: CallRequest,
        wait: Wait,
        verb: str,
        key: str,
        kind: str = _JSON,
        preference: str = "call-kind=call",
    ) -> HttpResponse:
        query: dict[str, Any] = {"host": request.host} if request.host else {}
        if verb == "submit" and request.time_limit is not None:
            query["time_limit"] = request.time_limit
        steps = ["topics", request.topic, "methods", request.method, *([verb] if verb else [])]
        path = "/".join([self._daemon.path, *(quote(step, safe="") for step in steps)])
        preferences = {
            "" if verb else preference,
            "handling=lenient" if self._lenient else "",
            f"version={request.version}" if request.version else "",
        }
        headers = {
            "Accept": kind,
            "Prefer": ", ".join(sorted(filter(None, preferences))),
            **_headers_of(request, wait, key or (request.request_id if verb == "submit" else "")),
        }
        return self._request(f"{path}?{urlencode(query)}" if query else path, headers, _encode(request), wait)

    def _request(self, path: str, headers: Mapping[str, str], body: bytes | None, wait: Wait) -> HttpResponse:
        wait.check()
        connection = self._take_connection(wait)
        response = connection.send(path, {**self._headers, **headers}, body, wait)
        if not 200 <= response.status < 300:
            error = response_error(response, self._daemon, wait.where)
            self.give_back(response)
            raise error
        if response.media_type != headers["Accept"]:
            response.close()
            raise MalformedMessage(
                f"{self._daemon.address} is not the API of Ostler: it answered {response.media_type or 'no type'}",
                hint="give the path of the mount with the application api, such as https://HOST:PORT/v1",
                reason="type",
            )
        return response

    def _take_connection(self, wait: Wait) -> HttpConnection:
        with self._lock:
            while self._idle:
                connection = self._idle.pop()
                if connection.is_alive():
                    self._in_use.add(connection)
                    return connection
                connection.close()
        connection = HttpConnection(self._daemon, self._tls, wait)
        with self._lock:
            self._in_use = {each for each in self._in_use if not each.is_closed} | {connection}
        return connection

    def give_back(self, response: HttpResponse) -> None:
        """Keep the connection of a response for the next request, if it can carry one."""
        with self._lock:
            self._in_use.discard(response.connection)
            if response.is_reusable and not self._is_closed:
                self._idle.append(response.connection)
                return
        response.connection.close()

    def _read_json(self, response: HttpResponse, kind: Any, wait: Wait) -> Any:
        body = response.read()
        self.give_back(response)
        return decode_json(body, kind, wait.where)

    def _read_result(self, response: HttpResponse, request: CallRequest, wait: Wait) -> Any:
        """Read the frames of a call, and return its result; errors of `on_progress` end the call."""
        try:
            for frame in read_frames(response, wait.where):
                if frame.progress is not None and request.on_progress is not None:
                    request.on_progress(Progress(*msgspec.structs.astuple(frame.progress)))
                if frame.result:
                    response.finish()
                    return decode_json(frame.result, request.result_type, wait.where)
            raise lost_response_error(wait.where)
        finally:
            self.give_back(response)


class _HttpItems:
    """The source of an `ItemStream`: a response whose lines are items."""

    def __init__(self, client: HttpClient, request: CallRequest) -> None:
        self._client = client
        self._request = request
        self._wait: Wait
        self._frames: Iterator[Frame]

    def open(self) -> HttpResponse:
        # The timeout is that of each item.
        timeout = effective_timeout(current_context(), self._request.timeout, None)
        self._wait = Wait(_full_name(self._request), timeout, is_stream=True, is_item=True)
        response = self._client.open_lines(self._request, self._wait)
        self._frames = read_frames(response, self._wait.where)
        return response

    def take(self, handle: HttpResponse) -> list[Any] | None:
        self._wait.restart()
        for frame in self._frames:
            if frame.item:
                return [decode_json(frame.item, self._request.result_type, self._wait.where)]
            if frame.end is not None:
                handle.finish()
                self._client.give_back(handle)
                return None
        raise lost_response_error(self._wait.where)

    def close(self, handle: HttpResponse) -> None:
        handle.close()


class _AcceptedReply(msgspec.Struct, frozen=True):
    accepted: int


class _OperationReply(msgspec.Struct, frozen=True):
    id: str


def _full_name(request: CallRequest) -> str:
    return f"{request.topic}.{request.method}"


def _headers_of(request: CallRequest, wait: Wait, key: str) -> dict[str, str]:
    headers = {"Content-Type": _JSON}
    if wait.timeout is not None:
        headers["Request-Timeout"] = f"{min(max(wait.timeout, _MIN_TIMEOUT), _MAX_TIMEOUT):.3f}"
    elif not wait.is_stream:
        headers["Request-Timeout"] = f"{_MAX_TIMEOUT:.0f}"
    if trace := outgoing_trace(current_context()):
        headers["traceparent"] = trace
    if key or request.request_id:
        headers["Idempotency-Key" if key else "X-Request-Id"] = _checked_id(key or request.request_id)
    return headers


def _checked_id(text: str) -> str:
    if len(text) > _MAX_KEY_LENGTH or not (text.isascii() and text.isprintable()):
        raise InvalidInput(
            f"the id of a request over HTTP must have at most {_MAX_KEY_LENGTH} printable ASCII characters",
            hint="choose another id",
        )
    return text


def _encode(request: CallRequest) -> bytes:
    arguments: Mapping[str, Json] = request.arguments
    try:
        return msgspec.json.encode(arguments)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise EncodeError(
            f"an argument of {_full_name(request)} cannot be encoded: {error}", method=_full_name(request)
        ) from error
