"""What keeps other pages from acting through a browser: headers of all responses, and proof that a form is ours."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import urlsplit

from ostler_http.asgi import ASGIApp, Message, Receive, Scope, Send

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
# "no-referrer" would have browsers send `Origin: null` with forms, which says nothing of where they come from.
_HEADERS = {
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
_ENCODED = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
_NO_STORE = (b"cache-control", b"no-store")


class SecurityHeaders:
    """Adds the headers to every response of an application; pages are not stored unless they say that they may be.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", []), *_ENCODED]
                if not any(name.lower() == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_headers)


class FormTokens:
    """Makes and checks the token in each form, which only a page that was sent to the same caller has.

    The key is of this process: forms of before a restart are refused, with a page that has them again.
    """

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def token(self, owner: str) -> str:
        """Return the token of forms.

        Args:
            owner: Whose forms they are: the id of a session, the name of a caller, or a cookie from before the login.
        """
        return hmac.new(self._key, owner.encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()

    def request_id(self, owner: str, once: str) -> str:
        """Return the id of the request that a form makes: the same one however often the form is sent.

        Args:
            owner: Whose form it is, so that nobody can take the id of another one's request.
            once: The number that the form was sent with.
        """
        return self.token(f"{owner} once {once}")[:32]

    def matches(self, owner: str, token: str) -> bool:
        """Return whether a form has the token of its owner."""
        return hmac.compare_digest(self.token(owner).encode(), token.encode("utf-8", "surrogateescape"))


def is_same_origin(headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from a page of the same host, by what its browser says.

    Browsers send `Origin` with each form. The scheme is not compared: a proxy may have ended TLS.
    """
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return site is not None
    try:
        authority = urlsplit(origin).netloc.lower()
    except ValueError:
        return False
    return authority != "" and authority == headers.get("host", "").lower()
