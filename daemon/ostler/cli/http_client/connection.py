"""One connection to a server: a request and its response at a time, within bounds of time and size.

The server may be hostile, slow or not a server of ours: every wait ends, and no more is kept than the limits say.
"""

from __future__ import annotations

import http.client
import io
import select
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from ostler.cli.http_client.address import HttpDaemon, is_loopback
from ostler.errors import (
    ConnectionLost,
    DaemonNotRunning,
    DeadlineExceeded,
    InvalidInput,
    MalformedMessage,
    MessageTooLarge,
    MessagingError,
    NotPermitted,
    OstlerError,
)
from ostler.messaging.wire.client_errors import lost_call_error, no_reply_error, silent_server_error
from ostler.messaging.wire.envelope import MAX_MESSAGE_SIZE

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

MAX_BODY_SIZE = 2 * MAX_MESSAGE_SIZE
"""The most bytes of a response, or of a line of one: base64 and escapes make values longer than messages are."""
_CONNECT_TIMEOUT = 10.0
"""Seconds for a connection with its TLS handshake, unless the request has less."""
_SILENCE_LIMIT = 60.0
"""Seconds without a byte after which the server of a stream counts as gone; it sends at least an empty line each 15 s
(`keepalive` of the mount)."""
_DEADLINE_GRACE = 1.0
"""Seconds beyond a deadline within which the server's own error may arrive; it is more precise than ours."""
_END_TIMEOUT = 1.0
"""Seconds for the end of a response whose last line has come."""
_READ_SIZE = 65536
_ALERT = "ALERT"
"""What the reason of an OpenSSL error has that the peer sent."""


_LONGEST_WAIT = 1.0
"""Seconds after which a wait begins again: a Ctrl-C in the moment before a system call does not end that call."""
_SHORTEST_WAIT = 0.001
"""Seconds: a socket whose time-out is 0 does not wait at all."""


class Wait:
    """How long to wait for the server: until a deadline, and for a sign of life.

    Args:
        where: `topic.method`, for messages.
        timeout: Seconds until the deadline, None for none.
        is_stream: Whether the response is a stream: something comes from time to time in any case.
        is_item: Whether the deadline is that of an item.
    """

    def __init__(self, where: str, timeout: float | None, *, is_stream: bool = False, is_item: bool = False) -> None:
        self.where = where
        self.is_stream = is_stream
        self.timeout = timeout
        self._is_item = is_item
        self._deadline: float | None = None
        self.restart()

    def restart(self) -> None:
        """Begin the time again, for the next item of a stream."""
        self._deadline = None if self.timeout is None else time.monotonic() + self.timeout + _DEADLINE_GRACE

    def left(self) -> float | None:
        """Return the seconds that are left, None for no limit.

        Raises:
            DeadlineExceeded: There are none.
        """
        if self._deadline is None:
            return None
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self._late_error()
        return left

    def check(self) -> None:
        """Refuse a request that would be late before it is sent.

        Raises:
            DeadlineExceeded: It has no time.
        """
        if self.timeout is not None and self.timeout <= 0:
            raise DeadlineExceeded(f"the deadline of {self.where} had passed before it started")

    def next_pause(self) -> float | None:
        """Return the seconds to wait for the next bytes; raises as `left`."""
        left = self.left()
        if not self.is_stream:
            return left
        return _SILENCE_LIMIT if left is None else min(left, _SILENCE_LIMIT)

    def timeout_error(self) -> OstlerError:
        """Return the error of a wait in which nothing has come."""
        if self._deadline is not None and self._deadline <= time.monotonic():
            return self._late_error()
        return silent_server_error(self.where, _SILENCE_LIMIT)

    def _late_error(self) -> OstlerError:
        return no_reply_error(self.where, self.timeout, item=self._is_item)


class HttpConnection:
    """A connection to the server of a daemon. One thread at a time.

    Args:
        daemon: The daemon.
        tls: Checks the server's certificate; None for plain HTTP.
        wait: How long the first request may take.

    Raises:
        DaemonNotRunning: Nothing listens there.
        MessagingError: The server is not the one that is meant, or speaks no TLS.
    """

    def __init__(self, daemon: HttpDaemon, tls: ssl.SSLContext | None, wait: Wait) -> None:
        self._daemon = daemon
        self.wait = wait
        self._socket = _connect(daemon, tls, wait)
        self._has_answered = False
        self._http = http.client.HTTPConnection(daemon.host, daemon.port)
        self._http.default_port = 443 if tls is not None else 80
        # It is given only what it uses of a socket: the waits are ours.
        self._http.sock = cast("socket.socket", _TimedSocket(self))

    @property
    def is_closed(self) -> bool:
        """Whether it was closed from this side."""
        return self._socket.fileno() < 0

    def is_alive(self) -> bool:
        """Return whether it can carry another request; what comes without being asked for is its end."""
        return not select.select([self._socket], [], [], 0)[0]

    def send(self, path: str, headers: Mapping[str, str], body: bytes | None, wait: Wait) -> HttpResponse:
        """Send a request, and return its response, of which the head has come.

        Args:
            path: The path with its query.
            headers: The headers.
            body: The body of a POST; None for a GET.
            wait: How long to wait for the response.

        Raises:
            OstlerError: There was none; the connection is closed then.
        """
        # A stream without a deadline begins at once nevertheless.
        self.wait = wait if wait.timeout is not None else Wait(wait.where, _SILENCE_LIMIT)
        with self.guard():
            self._http.putrequest("GET" if body is None else "POST", path)
            for name, value in headers.items():
                self._http.putheader(name, value)
            if body is not None:
                self._http.putheader("Content-Length", str(len(body)))
            try:
                self._http.endheaders(body)
            except (BrokenPipeError, ConnectionResetError, ssl.SSLEOFError):
                pass  # refused before all of it was sent: the response says why
            response = HttpResponse(self, self._http.getresponse())
        self._has_answered = True
        self.wait = wait
        return response

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Make errors of Ostler of what goes wrong inside, Ctrl-C included, and close the connection then."""
        try:
            yield
        except (http.client.HTTPException, OSError, ValueError) as error:
            self.close()
            raise self._error_of(error) from error
        except BaseException:
            self.close()
            raise

    def _error_of(self, error: Exception) -> OstlerError:
        if isinstance(error, ssl.SSLError) and _ALERT in (error.reason or ""):
            return _refused_error(self._daemon, error)
        if isinstance(error, http.client.IncompleteRead | OSError):
            lost = lost_call_error(self.wait.where, ConnectionLost(str(error)))
            if self._daemon.certificate is not None and not self._has_answered:
                # With TLS 1.3 a certificate is refused after the handshake, and many servers do not say so.
                lost.hint = "the server may not accept the certificate of --certificate"
            return lost
        return MalformedMessage(
            f"{self._daemon.address} sent no valid HTTP response: {str(error) or type(error).__name__}",
            hint="check the address",
            reason="http",
        )

    def close(self) -> None:
        """Close it: the server ends what it does for a request in progress. May be called twice."""
        self._socket.close()

    # ---------------------------------------------------------------- what `http.client` uses

    def receive_into(self, buffer: Buffer) -> int:
        """Receive what has come, waiting for it as long as the current request may take."""
        pause = self.wait.next_pause()
        ends_at = None if pause is None else time.monotonic() + pause
        while True:
            left = _LONGEST_WAIT if ends_at is None else ends_at - time.monotonic()
            self._socket.settimeout(min(max(left, _SHORTEST_WAIT), _LONGEST_WAIT))
            try:
                return self._socket.recv_into(buffer)
            except TimeoutError:
                if ends_at is not None and ends_at <= time.monotonic():
                    raise self.wait.timeout_error() from None

    def send_all(self, data: Any) -> None:
        """Send all of it, as long as the current request may take."""
        self._socket.settimeout(self.wait.next_pause())
        try:
            self._socket.sendall(data)
        except TimeoutError:
            raise self.wait.timeout_error() from None


class HttpResponse:
    """The response of a server: its head has come, its body is read here.

    Args:
        connection: The connection.
        response: The response of `http.client`.
    """

    def __init__(self, connection: HttpConnection, response: http.client.HTTPResponse) -> None:
        self.connection = connection
        self.status = response.status
        self.headers = response.headers
        self._response = response
        self._buffer = bytearray()
        self._is_ended = False

    @property
    def media_type(self) -> str:
        """The media type of the body, in lower case and without parameters."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def is_reusable(self) -> bool:
        """Whether the connection can carry another request: all of this response was read."""
        return self._is_ended and not self._response.will_close

    def read(self, limit: int = MAX_BODY_SIZE) -> bytes:
        """Return the whole body.

        Raises:
            MessageTooLarge: It has more bytes than the limit.
            OstlerError: It did not come, or not all of it.
        """
        while self._read_more():
            if len(self._buffer) > limit:
                raise self._too_large("the answer", limit)
        return bytes(self._buffer)

    def read_lines(self) -> list[bytes] | None:
        """Wait for the next lines that are not empty, and return them; None at the end.

        Raises:
            MessageTooLarge: One is longer than the limit.
            OstlerError: They did not come, or the last one is not complete.
        """
        while True:
            mark = self._buffer.rfind(b"\n")
            if mark >= 0:
                lines = [line for line in bytes(self._buffer[:mark]).split(b"\n") if line.strip()]
                del self._buffer[: mark + 1]
                if lines:
                    return lines
            if len(self._buffer) > MAX_BODY_SIZE:
                raise self._too_large("a line", MAX_BODY_SIZE)
            if not self._read_more():
                return None

    def finish(self) -> None:
        """Read the end of a body whose last line has come, so that the connection can be used again; else close it."""
        self.connection.wait = Wait(self.connection.wait.where, _END_TIMEOUT)
        try:
            if self._read_more():
                self.connection.close()
        except OstlerError:
            pass  # the connection is closed, and all that matters has come

    def close(self) -> None:
        """Close the connection, unless all of the response was read."""
        if not self._is_ended:
            self.connection.close()

    def _read_more(self) -> bool:
        """Read what has come into the buffer; return whether there was something."""
        with self.connection.guard():
            piece = self._response.read1(_READ_SIZE)
            if not piece:
                if self._response.length:  # fewer bytes than the header promised
                    raise ConnectionResetError("the response ended early")
                self._is_ended = True
                self._response.close()  # the connection goes on
            self._buffer += piece
            return bool(piece)

    def _too_large(self, what: str, limit: int) -> MessageTooLarge:
        self.connection.close()
        where = self.connection.wait.where
        return MessageTooLarge(
            f"{what} from {where} has more than {limit} bytes and was not read",
            hint="ask for less at once", method=where, limit=limit,
        )  # fmt: skip


class _TimedSocket:
    """What `http.client` uses of a socket, with our waits; the socket itself is closed by the connection alone."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self.sendall = connection.send_all

    def makefile(self, *_arguments: Any) -> io.BufferedReader:
        return io.BufferedReader(_Reader(self._connection), _READ_SIZE)

    def close(self) -> None:
        pass


class _Reader(io.RawIOBase):
    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        return self._connection.receive_into(buffer)


def tls_context(daemon: HttpDaemon) -> ssl.SSLContext | None:
    """Return what checks the server's certificate, and has the client's own; None for a plain address.

    Raises:
        InvalidInput: A file cannot be used.
    """
    if not daemon.is_tls:
        return None
    with _file_errors(daemon.ca_file, "certificates of authorities"):
        context = ssl.create_default_context(cafile=daemon.ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if daemon.certificate is not None:
        with _file_errors(daemon.certificate, "a certificate and its key", daemon.certificate_key):
            # The password keeps OpenSSL from asking for one on the terminal.
            context.load_cert_chain(daemon.certificate, daemon.certificate_key, password="")
    return context


@contextmanager
def _file_errors(file: Path | None, content: str, more: Path | None = None) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        named = " and ".join(str(each) for each in (file, more) if each is not None)
        why = _reason(error)
        raise InvalidInput(f"cannot use {named}: {why}", hint=f"it must have {content}, in PEM") from None


def _connect(daemon: HttpDaemon, tls: ssl.SSLContext | None, wait: Wait) -> socket.socket:
    left = wait.left()
    limit = _CONNECT_TIMEOUT if left is None else min(left, _CONNECT_TIMEOUT)
    try:
        opened = socket.create_connection((daemon.host, daemon.port), limit)
    except (OSError, UnicodeError) as error:
        raise _unreachable_error(daemon, error) from None
    try:
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            _check_loopback(daemon, opened)
            return opened
        return tls.wrap_socket(opened, server_hostname=daemon.host)
    except OSError as error:
        opened.close()
        raise _tls_error(daemon, error) from None
    except BaseException:
        opened.close()
        raise


def _check_loopback(daemon: HttpDaemon, opened: socket.socket) -> None:
    """Refuse a name that means another host after all: nothing was sent yet."""
    peer = opened.getpeername()[0]
    if not is_loopback(peer):
        raise NotPermitted(
            f"{daemon.host} is {peer}, which is not this host, and {daemon.address} is not encrypted",
            hint="use https://",
        )


def _unreachable_error(daemon: HttpDaemon, error: Exception) -> DaemonNotRunning:
    return DaemonNotRunning(
        f"cannot connect to {daemon.address}: {_reason(error)}",
        hint="check the address, and on that host `ostler http address`",
    )


def _tls_error(daemon: HttpDaemon, error: OSError) -> MessagingError:
    if isinstance(error, ssl.SSLCertVerificationError):
        return MessagingError(
            f"the certificate of {daemon.address} is not trusted: {error.verify_message.rstrip('.') or _reason(error)}",
            hint="--ca-file FILE names the certificates of the authority that has signed it", reason="certificate",
        )  # fmt: skip
    if isinstance(error, ssl.SSLError) and _ALERT in (error.reason or ""):
        return _refused_error(daemon, error)
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return MessagingError(
            f"there is no TLS with {daemon.address}: {_reason(error)}", hint="check scheme and port", reason="tls"
        )
    return _unreachable_error(daemon, error)


def _refused_error(daemon: HttpDaemon, error: ssl.SSLError) -> NotPermitted:
    """Return the error of a server that said in TLS why it talks no further: a certificate of the client, mostly."""
    return NotPermitted(
        f"{daemon.address} refused the connection: {_reason(error)}", hint="check --certificate and --certificate-key"
    )


def _reason(error: Exception) -> str:
    """Return why the system, or OpenSSL, refused something, in a few words."""
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
