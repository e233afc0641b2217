"""Calls, casts, fanouts, streams and submits: `/topics/{topic}/methods/{method}…`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import msgspec

from ostler import InvalidArguments, InvalidInput, MethodNotFound, OstlerError, ServiceNotFound, WrongCallKind
from ostler_http.api.frames import Frame, ended, format_of
from ostler_http.api.idempotency import idempotency_id, refuse_key
from ostler_http.api.interfaces import Method
from ostler_http.api.operations import wait_for_end
from ostler_http.api.preferences import read_preferences
from ostler_http.api.problems import HttpError
from ostler_http.api.request import EVENT_STREAM, JSON_TYPE, LINES, given_twice
from ostler_http.api.responses import Response, json_response

if TYPE_CHECKING:
    from ostler_http.api.context import ApiContext
    from ostler_http.api.request import Request
    from ostler_http.api.routes import Routes

_STREAMS = {"stream": True, "call": False}
"""Whether it is asked for as one that yields, by the kind of method that the client expects."""
_UNKNOWN_METHOD = {"method": "", "changes": True, "streams": False, "durable": False}
METHOD_PATH = "/topics/{topic}/methods/{method}"


class MethodHandlers:
    """Serves the exposed methods of all topics.

    Args:
        context: What the handlers share.
    """

    def __init__(self, context: ApiContext) -> None:
        self._context = context

    def add_to(self, routes: Routes) -> None:
        """Add the paths."""
        routes.add("GET", METHOD_PATH, self.read)
        routes.add("POST", METHOD_PATH, self.call)
        routes.add("POST", f"{METHOD_PATH}/cast", self.cast)
        routes.add("POST", f"{METHOD_PATH}/fanout", self.fanout)
        routes.add("POST", f"{METHOD_PATH}/submit", self.submit)

    async def read(self, request: Request) -> Response | None:
        """Serve `GET`: a method that changes nothing, with the arguments in the query."""
        if request.has_body:
            text = "a GET has its arguments in the query, and not in a body"
            raise HttpError(400, InvalidInput(text, hint="use POST, or the query"))
        hosts = [value for name, value in request.query_items() if name == "host"]
        if len(hosts) > 1:
            raise given_twice("host")
        host = hosts[0] if hosts else ""
        try:
            method = await self._method(request, host)
        except ServiceNotFound:
            # It may be no host at all, but an argument.
            if not host or not (await self._method(request, "")).has_host:
                raise
            method = await self._method(request, "")
        if method.changes or method.has_host:
            why = "may change something" if method.changes else "has an argument `host`, which here is the host asked"
            error = InvalidInput(f"{_full_name(request)} {why}", hint="use POST", reason="method")
            raise HttpError(405, error, allow="POST")
        return await self._run(request, method, _query_arguments(request, method), host, lenient=True)

    async def call(self, request: Request) -> Response | None:
        """Serve `POST`: a call that is waited for, or with `Prefer: respond-async` an operation."""
        if read_preferences(request).respond_async:
            return await self.submit(request)
        host = request.query("host").get("host", "")
        arguments = await request.arguments()
        method = await self._method(request, host)
        return await self._run(request, method, _from_json(arguments, method), host, lenient=_is_lenient(request))

    async def _run(
        self, request: Request, method: Method, arguments: dict[str, Any], host: str, *, lenient: bool = False
    ) -> Response | None:
        # Asked for as the client expects: of the other kind it is refused by the daemon, which knows what it is by now.
        streams = _STREAMS.get(read_preferences(request).call_kind, method.streams)
        if streams and method.changes:
            refuse_key(request, "a method that yields")
        refused = LINES if streams and not method.streams else ""  # whatever Accept says, as there are no items
        kind = format_of(request, refused, over="" if streams else JSON_TYPE)
        if kind:
            frames = self._item_frames if streams else self._progress_frames
            await self._context.streams.send(request, kind, frames(request, arguments, host, lenient))
            return None
        if streams:
            raise _stream_only(request)
        result = await request.until_gone(self._result(request, arguments, host, lenient=lenient))
        return json_response(result)

    def _result(
        self, request: Request, arguments: dict[str, Any], host: str, *, lenient: bool, on_progress: Any = None
    ) -> Awaitable[Any]:
        context, parameters = self._context, request.parameters
        key = idempotency_id(request)
        work: Awaitable[Any] = context.client(request).call(
            parameters["topic"], parameters["method"], arguments, host=host or None,
            timeout=request.timeout(context.timeout), request_id=key or request.request_id, trace=request.trace,
            lenient=lenient, deduplicate=bool(key), on_progress=on_progress, version=read_preferences(request).version,
        )  # fmt: skip
        return work

    # ---------------------------------------------------------------- streams

    def _item_frames(
        self, request: Request, arguments: dict[str, Any], host: str, lenient: bool
    ) -> AsyncGenerator[Frame, None]:
        """Return the items that a method yields, as frames; the deadline, if there is one, is that of each item."""
        return ended(self._items(request, arguments, host, lenient=lenient), "item")

    def _items(
        self, request: Request, arguments: dict[str, Any], host: str, *, lenient: bool
    ) -> AsyncGenerator[Any, None]:
        parameters = request.parameters
        items: AsyncGenerator[Any, None] = self._context.client(request).stream(
            parameters["topic"], parameters["method"], arguments, host=host or None, timeout=request.timeout(None),
            request_id=request.request_id, trace=request.trace, lenient=lenient,
            version=read_preferences(request).version,
        )  # fmt: skip
        return items

    async def _progress_frames(
        self, request: Request, arguments: dict[str, Any], host: str, lenient: bool
    ) -> AsyncGenerator[Frame, None]:
        """Yield the progress of a call, and then its result."""
        reports: asyncio.Queue[Any] = asyncio.Queue()
        work = self._result(request, arguments, host, lenient=lenient, on_progress=reports.put_nowait)
        call = asyncio.ensure_future(work)

        def end(done: asyncio.Future[Any]) -> None:
            if not done.cancelled():
                done.exception()  # taken, should nobody read to the end
            reports.put_nowait(None)

        call.add_done_callback(end)
        try:
            while (report := await reports.get()) is not None:
                yield Frame("progress", {"done": report.done, "total": report.total, "text": report.text})
            yield Frame("result", call.result())
        finally:
            call.cancel()

    # ---------------------------------------------------------------- work that is not waited for

    async def cast(self, request: Request) -> Response:
        """Serve `POST …/cast`: return when a service has accepted the request."""
        host = request.query("host").get("host", "")
        arguments = _from_json(await request.arguments(), await self._method(request, host))
        key = idempotency_id(request)
        work = self._context.client(request).cast(
            request.parameters["topic"], request.parameters["method"], arguments, host=host or None,
            timeout=request.timeout(self._context.timeout), request_id=key or request.request_id,
            trace=request.trace, deduplicate=bool(key), lenient=_is_lenient(request),
            version=read_preferences(request).version,
        )  # fmt: skip
        return json_response({"accepted": await request.until_gone(work)}, 202)

    async def fanout(self, request: Request) -> Response:
        """Serve `POST …/fanout`: have every service on the topic run the method, on all hosts."""
        request.query()
        refuse_key(request, "a fanout")
        arguments = _from_json(await request.arguments(), await self._method(request, ""))
        work = self._context.client(request).fanout(
            request.parameters["topic"], request.parameters["method"], arguments,
            timeout=request.timeout(self._context.timeout), request_id=request.request_id, trace=request.trace,
            lenient=_is_lenient(request), version=read_preferences(request).version,
        )  # fmt: skip
        return json_response({"accepted": await request.until_gone(work)}, 202)

    async def submit(self, request: Request) -> Response:
        """Serve `POST …/submit`: store the request as an operation; the header Location says where it is.

        202, or 200 when it was waited for (`Prefer: wait`) and has ended; in both the body is the operation.
        """
        query = request.query("host", "time_limit")
        host, context = query.get("host", ""), self._context
        arguments = _from_json(await request.arguments(), await self._method(request, host))
        work = context.client(request).submit(
            request.parameters["topic"], request.parameters["method"], arguments, host=host or None,
            timeout=request.timeout(context.timeout), request_id=idempotency_id(request), trace=request.trace,
            time_limit=_time_limit(query), lenient=_is_lenient(request), version=read_preferences(request).version,
        )  # fmt: skip
        operation = await request.until_gone(work)
        where = f"{request.scope.get('root_path', '')}/operations/{quote(operation, safe='')}"
        headers = {"location": f"{where}?{urlencode({'host': host})}" if host else where}
        preferences = read_preferences(request)
        headers |= preferences.applied()
        shown, has_ended = await self._show_operation(request, operation, host, preferences.wait)
        return json_response(shown, 200 if has_ended else 202, headers)

    async def _show_operation(self, request: Request, operation: str, host: str, wait: int) -> tuple[Any, bool]:
        """Return an operation that was submitted, and whether it was waited for and has ended."""
        context = self._context
        try:
            if wait:
                return await wait_for_end(context, request, operation, host, wait)
            status = await context.control(request, "operation.show", {"operation": operation}, host=host)
            return await context.shown(request, "operation.show", status), False
        except OstlerError:  # it is stored, and that is what was asked for
            return {"id": operation}, False

    async def _method(self, request: Request, host: str) -> Method:
        interface = await self._context.interface(request, request.parameters["topic"], host)
        try:
            return interface.method(request.parameters["method"])
        except MethodNotFound:
            if request.method != "POST":
                raise
            return Method(_UNKNOWN_METHOD)  # the daemon says what is wrong with it: it may exist and not be exposed


def _from_json(arguments: dict[str, Any], method: Method) -> dict[str, Any]:
    return arguments if method.from_json is None else _with_bytes(arguments, method)


def _query_arguments(request: Request, method: Method) -> dict[str, Any]:
    """Return the arguments in a query; one that is a list may come several times, or once as JSON."""
    given: dict[str, list[str]] = {}
    for name, value in request.query_items():
        if name != "host":
            given.setdefault(name, []).append(value)
    found: dict[str, Any] = {}
    for name, values in given.items():
        if name in method.lists:
            found[name] = values if len(values) > 1 or not _is_json_list(values[0]) else values[0]
        elif len(values) > 1:
            raise given_twice(name)
        else:
            found[name] = values[0]
    return _from_json(found, method)


def _is_json_list(text: str) -> bool:
    if not text.startswith("["):
        return False
    try:
        return isinstance(msgspec.json.decode(text), list)
    except (msgspec.DecodeError, RecursionError):
        return False


def _with_bytes(arguments: dict[str, Any], method: Method) -> dict[str, Any]:
    try:
        changed: dict[str, Any] = method.from_json(arguments)  # type: ignore[misc]  # asked for only if there is one
    except InvalidArguments as error:
        name = f"{method.description['topic']}.{method.name}"
        raise InvalidArguments(f"an argument of {name}: {error.message}", hint=error.hint, method=name) from None
    return changed


def _is_lenient(request: Request) -> bool:
    """Return whether texts may stand for numbers, booleans and structures, as on a command line."""
    return read_preferences(request).lenient


def _time_limit(query: dict[str, str]) -> float | None:
    if (text := query.get("time_limit")) is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.0 < seconds < 10 * 366 * 86400.0:
        error = InvalidInput("`time_limit` must be a number of seconds above 0", hint="write 3600")
        raise HttpError(400, error)
    return seconds


def _full_name(request: Request) -> str:
    return f"{request.parameters['topic']}.{request.parameters['method']}"


def _stream_only(request: Request) -> HttpError:
    error = WrongCallKind(
        f"{_full_name(request)} yields items one after another",
        hint=f"ask for them with Accept: {LINES}, or Accept: {EVENT_STREAM}",
    )
    return HttpError(406, error)
