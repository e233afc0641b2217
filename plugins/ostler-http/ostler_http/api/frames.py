"""Streams to a client, frame by frame: as server-sent events, or as lines of JSON (NDJSON)."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NamedTuple

from ostler import Busy, DeadlineExceeded, Draining, OstlerError, format_seconds
from ostler_http.api.json_text import to_json
from ostler_http.api.problems import HttpError, problem_of, problem_status
from ostler_http.api.request import EVENT_STREAM, LINES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ostler_http.api.request import Request

HEAD_TIMEOUT = 1.0
"""Seconds without a frame after which the head of the response is sent: from then on an error is a frame."""
_RETRY_AFTER = 5.0
"""Seconds after which who could not open a stream may try again."""
_RETRY_MILLISECONDS = 2000
"""How long a browser waits before it connects again."""


class Frame(NamedTuple):
    """One frame of a stream: its kind (`item`, `event`, `end`, `error`…), its value, and an id to continue after."""

    kind: str
    value: Any
    id: str = ""


def format_of(request: Request, default: str = "", *, over: str = "") -> str:
    """Return the media type of the stream that a client wants by `Accept`.

    Args:
        request: The request.
        default: What is returned if it wants none.
        over: The media type that it gets instead of a stream, if there is one: it may want that more.
    """
    return request.accepts(EVENT_STREAM, LINES, over=over) or default


def stream_headers(kind: str) -> list[tuple[bytes, bytes]]:
    """Return the headers of a stream of a media type."""
    return [
        (b"content-type", kind.encode()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"x-accel-buffering", b"no"),  # nginx passes on what comes at once
    ]


def encode_event(frame: Frame) -> bytes:
    """Return a frame as a server-sent event."""
    head = f"id: {frame.id}\n" if frame.id else ""
    # JSON has no raw line breaks: one line of data is enough.
    return b"%sevent: %s\ndata: %s\n\n" % (head.encode(), frame.kind.encode(), to_json(frame.value))


def encode_line(frame: Frame) -> bytes:
    """Return a frame as a line of JSON: an object with the kind as its key, and the id if there is one."""
    value: dict[str, Any] = {frame.kind: frame.value}
    if frame.id:
        value["id"] = frame.id
    return to_json(value) + b"\n"


class StreamSender:
    """Sends the streams of an application, and ends them when it stops. On its loop.

    Args:
        limit: How many streams may be open at once.
        caller_limit: How many of them one caller may have.
        keepalive: Seconds without a frame after which a comment (an empty line in NDJSON) is sent.
    """

    def __init__(self, limit: int, caller_limit: int, keepalive: float) -> None:
        self._limit = limit
        self._caller_limit = caller_limit
        self._counts: Counter[str] = Counter()
        self._keepalive = keepalive
        self._tasks: set[asyncio.Task[Any]] = set()
        self._is_stopping = False
        self._stop_watch: asyncio.Task[None] | None = None

    @property
    def open_count(self) -> int:
        """How many streams are open."""
        return len(self._tasks)

    def stop(self) -> None:
        """End all streams: their clients are told, and may connect again."""
        self._is_stopping = True
        if self._stop_watch is not None:
            self._stop_watch.cancel()
        for task in list(self._tasks):
            task.cancel()

    async def send(
        self, request: Request, kind: str, frames: AsyncGenerator[Frame, None], *, timeout: float | None = None
    ) -> None:
        """Send frames until they end, the client leaves, or the application stops.

        An error within the first second and before the first frame is raised: it has a status. A later one is a frame.

        Args:
            request: The request.
            kind: The media type, `text/event-stream` or `application/x-ndjson`.
            frames: The frames; closed in the end.
            timeout: Seconds after which the stream ends, for frames that have no deadline themselves.

        Raises:
            Busy: Too many streams are open.
            HttpError: This caller has too many of them.
            OstlerError: What failed before the first frame.
            ClientGone: The client has left.
        """
        async with aclosing(frames):
            if request.method == "HEAD":  # the headers of a stream, which is not begun
                await request.send({"type": "http.response.start", "status": 200, "headers": stream_headers(kind)})
                await request.send({"type": "http.response.body", "body": b""})
                return
            self._check_limits(request)
            task = asyncio.current_task()
            assert task is not None  # noqa: S101 - handlers run in tasks
            self._tasks.add(task)
            self._counts[request.caller.name] += 1
            self._watch_stop(request)
            stream = _OpenStream(request, kind, self._keepalive)
            try:
                await request.until_gone(stream.run(frames, timeout), at_once=True)
            except asyncio.CancelledError:
                if not self._is_stopping:
                    raise
                task.uncancel()
                await stream.finish()
            finally:
                self._tasks.discard(task)
                self._release(request.caller.name)

    def _check_limits(self, request: Request) -> None:
        if len(self._tasks) >= self._limit:
            raise Busy(
                f"{self._limit} streams are open, which is the limit of this mount",
                hint="close some of them, or raise `max_streams` of the mount",
                retry_after=_RETRY_AFTER,
            )
        if self._counts[request.caller.name] >= self._caller_limit:
            error = Busy(
                f"{request.caller.name} has {self._caller_limit} streams open, which is the limit for one caller",
                hint="close some of them, or raise `max_streams_per_caller` of the mount",
                retry_after=_RETRY_AFTER,
            )
            raise HttpError(429, error)

    def _release(self, name: str) -> None:
        self._counts[name] -= 1
        if not self._counts[name]:
            del self._counts[name]

    def _watch_stop(self, request: Request) -> None:
        """End all streams when the server says that it stops, or that another application takes this one's place."""
        stopping = request.scope.get("ostler.stopping")
        if stopping is None or self._stop_watch is not None:
            return

        async def watch() -> None:
            await stopping.wait()
            self._stop_watch = None
            self.stop()

        self._stop_watch = asyncio.get_running_loop().create_task(watch())


def _encode(kind: str, frame: Frame) -> bytes:
    return encode_event(frame) if kind == EVENT_STREAM else encode_line(frame)


class _OpenStream:
    """One stream that is being sent."""

    def __init__(self, request: Request, kind: str, keepalive: float) -> None:
        self._request = request
        self._kind = kind
        self._keepalive = keepalive
        self._is_idle = True
        self._is_sending = False
        self._timer: asyncio.TimerHandle | None = None
        self._ping_task: asyncio.Task[None] | None = None
        self._begun: asyncio.Task[None] | None = None

    async def run(self, frames: AsyncIterator[Frame], timeout: float | None) -> None:
        self._timer = asyncio.get_running_loop().call_later(HEAD_TIMEOUT, self._begin)
        try:
            await self._send_frames(frames, timeout)
        except OstlerError as error:
            if self._begun is None:
                raise
            status = problem_status(error, is_known=True)
            await self._begun
            await self._send(_encode(self._kind, Frame("error", problem_of(error, status, self._request.request_id))))
        else:
            await self._begin()
        finally:
            self._stop_tasks()
        await self._request.send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_frames(self, frames: AsyncIterator[Frame], timeout: float | None) -> None:
        try:
            async with asyncio.timeout(timeout):
                async for frame in frames:
                    await self._begin()
                    await self._send(_encode(self._kind, frame))
        except TimeoutError:
            if timeout is None:
                raise
            text = f"the stream has ended after {format_seconds(timeout)}, as Request-Timeout says"
            raise DeadlineExceeded(text, hint="connect again") from None

    async def finish(self) -> None:
        """Tell the client that the server ends the stream, so that it does not take it for complete.

        Raises:
            Draining: Nothing of it was sent yet.
        """
        if self._begun is None:
            raise Draining("the HTTP service is stopping", hint="connect again", retry_after=1.0)
        frame = Frame("stopping", {"detail": "the HTTP service is stopping; connect again"})
        body = _encode(self._kind, frame)
        await self._request.send({"type": "http.response.body", "body": body, "more_body": False})

    def _begin(self) -> asyncio.Task[None]:
        """Have the head of the response sent, once; return what does so."""
        if self._begun is None:
            self._begun = asyncio.get_running_loop().create_task(self._send_head())
            self._begun.add_done_callback(_retrieve)
        return self._begun

    async def _send_head(self) -> None:
        headers = stream_headers(self._kind)
        await self._request.send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._kind == EVENT_STREAM:
            await self._send(b"retry: %d\n\n" % _RETRY_MILLISECONDS)
        self._schedule_ping()

    async def _send(self, data: bytes) -> None:
        self._is_idle, self._is_sending = False, True
        await self._request.send({"type": "http.response.body", "body": data, "more_body": True})
        self._is_sending = False

    def _schedule_ping(self) -> None:
        self._cancel_timer()
        self._timer = asyncio.get_running_loop().call_later(self._keepalive, self._ping)

    def _ping(self) -> None:
        if self._is_idle and not self._is_sending:
            beat = b":\n\n" if self._kind == EVENT_STREAM else b"\n"
            self._ping_task = asyncio.get_running_loop().create_task(self._send(beat))
            self._ping_task.add_done_callback(_retrieve)
        self._is_idle = True
        self._schedule_ping()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _stop_tasks(self) -> None:
        self._cancel_timer()
        for task in (self._ping_task, self._begun):
            if task is not None:
                task.cancel()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take the error of a task: the client has left, which the stream learns by itself."""
    if not task.cancelled():
        task.exception()


async def ended(items: AsyncGenerator[Any, None], kind: str) -> AsyncGenerator[Frame, None]:
    """Yield the items of a stream as numbered frames, and a frame `end` that says how many there were.

    Args:
        items: The items; closed in the end.
        kind: What each of them is.
    """
    count = 0
    async with aclosing(items):
        async for item in items:
            count += 1
            yield Frame(kind, item, str(count))
    yield Frame("end", {"count": count})
