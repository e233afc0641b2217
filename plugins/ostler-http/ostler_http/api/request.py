"""One request as handlers see it: headers, query and body within bounds, and the client that may leave."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, unquote_to_bytes

import msgspec

from ostler import InvalidArguments, InvalidInput, MessageTooLarge, NotPermitted
from ostler_http.api.problems import HttpError

if TYPE_CHECKING:
    from ostler_http.asgi import Receive, Scope, Send

T = TypeVar("T")
_LOOK_AFTER = 0.05
"""Seconds between two looks at the requests that are not served yet; at the second one their clients are watched."""
_DISCARD_TIMEOUT = 1.0
"""Seconds that a client has to send the rest of a body that nobody wants."""
_MAX_QUERY_FIELDS = 100
_MAX_TIMEOUT = 7 * 86400.0
"""The most seconds that a client may give a request."""
_LEAST_TIMEOUT = 0.001
"""Seconds that a step of a request still gets whose time is over: it says so by its own error."""
_DECIMAL = re.compile(rb"[0-9]{1,9}(\.[0-9]{0,9})?|\.[0-9]{1,9}")
_decode_json = msgspec.json.Decoder().decode
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
"""What a body has that may contain a number which no message can carry."""
JSON_TYPE = "application/json"
EVENT_STREAM = "text/event-stream"
LINES = "application/x-ndjson"


class ClientGone(Exception):
    """Raised in a handler whose client has closed the connection: nobody reads an answer."""


class BodyLimits(msgspec.Struct, frozen=True):
    """How large a body may be, in bytes, and how deeply its lists and objects may be nested."""

    size: int = 1024 * 1024
    depth: int = 64


class Departures:
    """Looks whether clients have left whose requests take longer than a moment. On one loop.

    A task for each request, or a timer, would cost more than most requests do.
    """

    def __init__(self) -> None:
        self._new: set[Request] = set()
        self._old: set[Request] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, request: Request) -> None:
        """Look after a request that is not served at once."""
        self._new.add(request)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_AFTER, self._look)

    def discard(self, request: Request) -> None:
        """Forget a request that has been served."""
        self._new.discard(request)
        self._old.discard(request)

    def _look(self) -> None:
        self._timer = None
        for request in self._old:
            request.watch()
        self._old, self._new = self._new, set()
        if self._old:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_AFTER, self._look)


class Request:
    """One request. On the loop that serves it.

    Args:
        scope: The scope; the server has put the caller and the ids into it.
        receive: Returns the next message of the client.
        send: Sends a message to it.
        limits: What its body may be.
        departures: Looks whether clients of slow requests have left.

    Attributes:
        headers: The headers; what came on several lines is joined with commas (RFC 9110).
        parameters: The parameters of the path.
    """

    __slots__ = (
        "_began", "_departures", "_is_read", "_limits", "_query", "_seconds", "_task", "_watch", "caller", "headers",
        "is_gone", "method", "parameters", "path", "receive", "request_id", "scope", "send", "trace",
    )  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: BodyLimits, departures: Departures) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.caller: Any = scope.get("ostler.caller")
        self.request_id: str = scope.get("ostler.request_id", "")
        self.trace: str = scope.get("ostler.trace", "")
        self.method: str = scope["method"]
        root: str = scope.get("root_path", "")
        path: str = scope["path"]
        self.path = path[len(root) :] if root and path.startswith(root) else path
        self.headers = _join_headers(scope["headers"])
        self.parameters: dict[str, str] = {}
        self.is_gone = False
        self._limits = limits
        self._is_read = False
        self._query: list[tuple[str, str]] | None = None
        self._departures = departures
        self._task: asyncio.Task[Any] | None = None
        self._watch: asyncio.Task[None] | None = None
        self._began = -1.0
        self._seconds: float | None = None

    @property
    def parts(self) -> list[str]:
        """The parts of the path below the mount; one that has a slash has it as `%2F` in the address."""
        raw: bytes = self.scope.get("raw_path") or b""
        if b"%" not in raw or b"%2F" not in raw.upper():
            return self.path.strip("/").split("/")
        depth = self.scope.get("root_path", "").count("/")
        below = b"/".join(raw.split(b"/")[depth + 1 :]).strip(b"/")
        return [unquote_to_bytes(part).decode() for part in below.split(b"/")]

    # ---------------------------------------------------------------- headers

    def header(self, name: bytes) -> str:
        """Return a header, empty when it is not there."""
        return self.headers.get(name, b"").decode("latin-1")

    def accepts(self, *kinds: str, over: str = "") -> str:
        """Return the media type that the client likes best, of those that it names in `Accept`; the first of equals.

        Args:
            kinds: The media types.
            over: Another one that it gets otherwise: only what it likes as much or more is returned.

        Returns:
            The media type; empty if it names none of them, or excludes them (`q=0`).
        """
        named = self.headers.get(b"accept")
        if named is None:
            return ""
        return _choose_kind(named, kinds, over)

    def timeout(self, default: float | None) -> float | None:
        """Return the seconds that are left of those that this request may take, by its header `Request-Timeout`.

        They are counted from the first time that they are asked for, so that all steps of a request share them.

        Args:
            default: The seconds without the header; None for no limit.

        Raises:
            HttpError: The header is not a number of seconds.
        """
        now = asyncio.get_running_loop().time()
        if self._began < 0:
            self._began = now
            self._seconds = _read_timeout(self.headers.get(b"request-timeout"))
        seconds = default if self._seconds is None else self._seconds
        return None if seconds is None else max(_LEAST_TIMEOUT, self._began + seconds - now)

    # ---------------------------------------------------------------- query

    def query(self, *known: str) -> dict[str, str]:
        """Return the query.

        Args:
            known: The names that are accepted.

        Raises:
            HttpError: It is not valid, has a name that is not known, or one of them twice.
        """
        found: dict[str, str] = {}
        for name, value in self.query_items():
            if name not in known:
                expected = f"it takes: {', '.join(known)}" if known else "it takes none"
                raise _bad_request(f"{self.path} takes no query parameter {name[:60]!r}", expected)
            if name in found:
                raise given_twice(name)
            found[name] = value
        return found

    def query_items(self) -> list[tuple[str, str]]:
        """Return names and values of the query, in their order.

        Raises:
            HttpError: It is not valid.
        """
        if self._query is None:
            self._query = _parse_query(self.scope.get("query_string", b""))
        return self._query

    def number(self, query: dict[str, str], name: str, default: int, most: int) -> int:
        """Return a count that the query gives.

        Raises:
            HttpError: It is not a whole number from 1 to the most.
        """
        text = query.get(name)
        if text is None:
            return default
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
            raise _bad_request(f"`{name}` must be a whole number from 1 to {most}", f"leave it out for {default}")
        return int(text)

    # ---------------------------------------------------------------- body

    async def arguments(self) -> dict[str, Any]:
        """Return the body: a JSON object, empty without a body.

        Raises:
            HttpError: It is not JSON (400), too large (413), or of another type (415).
            ClientGone: The client has left.
        """
        self._check_headers_of_body()
        body = await self._read_body()
        if not body:
            return {}
        try:
            found = _decode_json(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _bad_request(f"the body is not valid JSON: {error}", "send an object with the arguments") from None
        if not isinstance(found, dict):
            raise _bad_request("the body must be a JSON object", 'send the arguments by name: {"size": 10}')
        most = self._limits.depth
        # Nothing is nested more deeply than there are opening brackets.
        if body.count(b"[") + body.count(b"{") > most and not _is_within(found, most):
            raise _bad_request(f"the body is nested more than {most} levels deep", "send it flatter")
        if _LONG_NUMBER.search(body) is not None and not _fits_64_bits(found):
            text = "a whole number in the body has more than 64 bits"
            raise HttpError(422, InvalidArguments(text, hint="send it as a text"))
        return found

    def _check_headers_of_body(self) -> None:
        kind = self.headers.get(b"content-type")
        if kind is not None:
            media = kind.partition(b";")[0].strip().lower()
            if media != b"application/json":
                error = InvalidInput(f"bodies must be {JSON_TYPE}", hint=f"set Content-Type: {JSON_TYPE}")
                raise HttpError(415, error, accept=JSON_TYPE)
        if self.headers.get(b"content-encoding", b"identity").lower() != b"identity":
            error = InvalidInput("compressed bodies are not accepted", hint="leave Content-Encoding out")
            raise HttpError(415, error, accept_encoding="identity")
        length = self.headers.get(b"content-length", b"")
        if length.isdigit() and int(length[:20]) > self._limits.size:
            raise self._too_large()

    @property
    def has_body(self) -> bool:
        """Whether the client says that it sends a body."""
        return self.headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in self.headers

    async def discard_body(self) -> None:
        """Read what nobody has read of the body, within its bounds.

        A server closes the connection when a response ends before its request; the client may then see a broken
        connection, and not the response.
        """
        if self._is_read or not self.has_body:
            return
        try:
            async with asyncio.timeout(_DISCARD_TIMEOUT):
                await self._read_body()
        except (TimeoutError, HttpError):
            return

    async def _read_body(self) -> bytes:
        self._is_read = True
        pieces, size = [], 0
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                self.is_gone = True
                raise ClientGone
            piece: bytes = message.get("body", b"")
            if size := size + len(piece):
                pieces.append(piece)
            if size > self._limits.size:
                raise self._too_large()
            if not message.get("more_body", False):
                return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _too_large(self) -> HttpError:
        limit = self._limits.size
        error = MessageTooLarge(
            f"the body is larger than {limit} bytes",
            hint="send less, or raise `max_body_size` of the mount",
            limit=limit,
        )
        return HttpError(413, error)

    # ---------------------------------------------------------------- the client that leaves

    async def until_gone(self, work: Awaitable[T], *, at_once: bool = False) -> T:
        """Await some work for as long as the client is there; when it leaves, the work is cancelled.

        Args:
            work: The work; the body has been read.
            at_once: Whether to look from the beginning: for what takes long.

        Raises:
            ClientGone: The client has left.
        """
        if self._task is not None:  # within a stream, which looks already
            return await work
        self._task = asyncio.current_task()
        if at_once:
            self.watch()
        else:
            self._departures.add(self)
        try:
            return await work
        except asyncio.CancelledError:
            if not self.is_gone or self._task is None:
                raise
            self._task.uncancel()
            raise ClientGone from None
        finally:
            self._task = None
            self._departures.discard(self)
            if self._watch is not None:
                self._watch.cancel()
                self._watch = None

    def watch(self) -> None:
        """Cancel the work as soon as the client leaves; from now on until it is done."""
        if self._task is not None and self._watch is None:
            self._watch = asyncio.get_running_loop().create_task(self._cancel_when_gone(self._task))

    async def _cancel_when_gone(self, task: asyncio.Task[Any]) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass
        if self._task is task:
            self.is_gone = True
            task.cancel()

    # ---------------------------------------------------------------- who

    @property
    def is_known(self) -> bool:
        """Whether the caller has said who it is; its role may be None all the same."""
        return self.caller is not None and self.caller.name != "anonymous"

    def check_origin(self) -> None:
        """Refuse what a page of another origin sends with the certificate of a browser's user, who knows nothing of it.

        Raises:
            HttpError: It is such a request.
        """
        origin = self.headers.get(b"origin")
        # A token is never sent by itself.
        if origin is None or self.method in ("GET", "HEAD") or self.caller.name.startswith("token:"):
            return
        if origin.partition(b"://")[2] != self.headers.get(b"host"):
            error = NotPermitted(
                "a page of another origin sent this request with a client certificate or over a unix socket",
                hint="let pages of other origins send a token",
            )
            raise HttpError(403, error)

    def check_role(self) -> None:
        """Refuse a caller without a role.

        Raises:
            NotPermitted: It has none.
        """
        if self.caller is not None and self.caller.role is not None:
            return
        if (error := self.scope.get("ostler.auth_error")) is not None:
            wait = {"retry_after": str(error.retry_after)} if error.retry_after else {}
            raise HttpError(error.status, NotPermitted(error.detail, hint="see `ostler token list`"), **wait)
        if self.is_known:
            raise NotPermitted(
                f"{self.caller.name} has no role on this host", hint="an administrator grants roles in [access]"
            )
        raise NotPermitted(
            "nobody is known by this request", hint="send a token: Authorization: Bearer …; see `ostler token new`"
        )


def _join_headers(pairs: Sequence[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    joined: dict[bytes, bytes] = {}
    for name, value in pairs:
        joined[name] = b"%s, %s" % (joined[name], value) if name in joined else value
    return joined


@lru_cache(maxsize=64)  # clients of one kind send the same one, each time
def _choose_kind(accept: bytes, kinds: tuple[str, ...], over: str) -> str:
    weights = _read_weights(accept.lower())
    best = max(kinds, key=lambda kind: weights.get(kind.encode(), 0.0))
    weight = weights.get(best.encode(), 0.0)
    return best if weight > 0 and weight >= weights.get(over.encode(), 0.0) else ""


def _read_weights(accept: bytes) -> dict[bytes, float]:
    """Return the media types in `Accept`, each with its weight: 1 without one, or with one that cannot be read."""
    found = {}
    for part in accept.split(b","):
        kind, *parameters = (each.strip() for each in part.split(b";"))
        weight = next((each[2:] for each in parameters if each.startswith(b"q=")), b"1")
        found[kind] = float(weight) if _DECIMAL.fullmatch(weight) else 1.0
    return found


def _read_timeout(text: bytes | None) -> float | None:
    if text is None:
        return None
    seconds = float(text) if _DECIMAL.fullmatch(text.strip()) else 0.0
    if not 0.0 < seconds <= _MAX_TIMEOUT:
        raise _bad_request(
            f"Request-Timeout must be a number of seconds above 0, at most {_MAX_TIMEOUT:.0f}", "write 30 or 0.5"
        )
    return seconds


def given_twice(name: str) -> HttpError:
    """Return the error of a query that gives a name twice which is no list."""
    return _bad_request(f"the query gives {name[:60]!r} more than once", "give it once")


def _parse_query(raw: bytes) -> list[tuple[str, str]]:
    if not raw:
        return []
    try:
        text = raw.decode("ascii")
        if "%" not in text and "+" not in text and text.count("&") < _MAX_QUERY_FIELDS:
            parts = (part.partition("=") for part in text.split("&") if part)
            return [(name, value) for name, _, value in parts]
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError:  # UnicodeDecodeError is one
        text = f"the query cannot be read: it has more than {_MAX_QUERY_FIELDS} parameters, or is not UTF-8"
        raise _bad_request(text, "write name=value, joined with &, percent-encoded") from None


def _bad_request(message: str, hint: str) -> HttpError:
    return HttpError(400, InvalidInput(message, hint=hint))


def _is_within(value: Any, depth: int) -> bool:
    """Return whether lists and objects are nested so deeply at most; level by level, without recursion."""
    level = [value]
    for _ in range(depth + 1):
        inner = []
        for each in level:
            if isinstance(each, dict):
                inner += [item for item in each.values() if isinstance(item, dict | list)]
            elif isinstance(each, list):
                inner += [item for item in each if isinstance(item, dict | list)]
        if not inner:
            return True
        level = inner
    return False


def _fits_64_bits(value: Any) -> bool:
    """Return whether all whole numbers in a value can be sent; the value is not nested deeply."""
    if isinstance(value, dict):
        return all(map(_fits_64_bits, value.values()))
    if isinstance(value, list):
        return all(map(_fits_64_bits, value))
    return not isinstance(value, int) or -(2**63) <= value < 2**64
