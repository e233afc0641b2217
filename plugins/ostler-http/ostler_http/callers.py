"""Finds out who sent a request: by a bearer token, a client certificate, or the user of a unix socket."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import msgspec

from ostler import Caller, Gateway, NotPermitted, OstlerError
from ostler_http.asgi import Scope
from ostler_http.server.connection import HttpConnection
from ostler_http.server.counters import Counters

_WINDOW = 60.0
_MAX_ADDRESSES = 10_000


class AuthError(msgspec.Struct, frozen=True):
    """Why what a request was sent with says nothing of who sent it: `scope["ostler.auth_error"]`.

    Attributes:
        status: 401, 403, 429 or 503.
        detail: A sentence for the client, without its secret.
        retry_after: Seconds after which it may try again; 0 for no such time.
    """

    status: int
    detail: str
    retry_after: int = 0


class FailureLimit:
    """Counts failed authentications by address, and says when there were too many.

    Args:
        now: Returns seconds of a clock that is never set.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self.limit = 20
        self._now = now
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._failures)

    def blocked_for(self, address: str) -> float:
        """Return for how many seconds attempts of an address are refused; 0 for not at all."""
        began, count = self._failures.get(address, (0.0, 0))
        left = began + _WINDOW - self._now()
        return left if count >= self.limit and left > 0 else 0.0

    def add(self, address: str) -> None:
        """Count a failure."""
        now = self._now()
        began, count = self._failures.pop(address, (now, 0))
        self._failures[address] = (began, count + 1) if now - began < _WINDOW else (now, 1)
        if len(self._failures) > _MAX_ADDRESSES:
            self._failures.popitem(last=False)


class Callers:
    """Says who sent requests. On the loop of the service.

    A bearer token decides before a certificate, and that before the user of a unix socket: what a request says of
    itself is narrower than what its connection says.

    Args:
        gateway: The gateway of the daemon.
        counters: Counts refused attempts.
        now: Returns seconds of a clock that is never set.
    """

    def __init__(self, gateway: Gateway, counters: Counters, now: Callable[[], float]) -> None:
        self.failures = FailureLimit(now)
        self._gateway = gateway
        self._counters = counters

    def __call__(self, connection: HttpConnection, scope: Scope, authorization: bytes) -> None:
        """Set `ostler.caller` of the scope, and `ostler.auth_error` when what it was sent with is not valid."""
        peer = connection.peer
        try:
            if authorization:
                scope["ostler.caller"] = self._by_token(peer.client, authorization)
            elif connection.certificate:
                if _is_of_another_site(scope):
                    self._counters.refuse("cross_site")
                    raise _Rejected(AuthError(403, "a page of another site must not use the certificate of a browser"))
                scope["ostler.caller"] = self._gateway.caller_of_certificate(connection.certificate)
            elif peer.kind == "unix":
                scope["ostler.caller"] = self._gateway.caller_of_user(peer.uid, peer.gid, peer.pid)
            else:
                scope["ostler.caller"] = self._gateway.anonymous
        except _Rejected as rejected:
            scope["ostler.caller"], scope["ostler.auth_error"] = self._gateway.anonymous, rejected.error
        except NotPermitted as error:
            scope["ostler.caller"] = self._gateway.anonymous
            scope["ostler.auth_error"] = AuthError(401, error.message)

    def _by_token(self, address: str, authorization: bytes) -> Caller:
        if blocked := self.failures.blocked_for(address):
            self._counters.refuse("failed_logins")
            raise _Rejected(AuthError(429, "too many failed authentications from this address", int(blocked) + 1))
        scheme, _, secret = authorization.partition(b" ")
        if scheme.lower() != b"bearer" or not secret.strip().isascii():
            self.failures.add(address)
            raise _Rejected(AuthError(401, "only bearer tokens are accepted: `Authorization: Bearer TOKEN`"))
        try:
            return self._gateway.caller_of_token(secret.strip().decode("ascii"), origin=address)
        except NotPermitted:
            self.failures.add(address)
            text = "the token is unknown, expired or revoked; `ostler token new` makes one"
            raise _Rejected(AuthError(401, text)) from None
        except OstlerError as error:
            raise _Rejected(AuthError(503, f"tokens cannot be read now: {error.message}", 5)) from None


def _is_of_another_site(scope: Scope) -> bool:
    """Return whether a page of another site has made a browser send a request, with the certificate that it has."""
    headers = dict(scope["headers"])
    origin: bytes | None = headers.get(b"origin")
    return origin is not None and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower()


class _Rejected(Exception):
    """Raised when a token is not valid."""

    def __init__(self, error: AuthError) -> None:
        super().__init__(error.detail)
        self.error = error
