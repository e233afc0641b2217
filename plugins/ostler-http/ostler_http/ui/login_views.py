"""Login with a token or a one-time code, and logout."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ostler import NotPermitted, Peer, format_seconds
from ostler_http.ui.forms import read_form
from ostler_http.ui.responses import redirect
from ostler_http.ui.security import is_same_origin
from ostler_http.ui.visit import Visit, Visits, base_of, cookie_name, safe_target

if TYPE_CHECKING:
    from ostler_http.ui.parts import Parts

_REFUSED = "This token or code is not known, has expired or was revoked."
_STALE = "This form was too old. Try again."


class LoginViews:
    """Answers `/login` and `/logout`.

    Args:
        parts: What requests share.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._visits = Visits(parts)

    async def show(self, request: Request) -> Response:
        """Return the form. Who has a role already goes on to the page that is asked for, if there is one.

        Without one it may be a login link, for another role: its code is in the fragment, which only the script sees.
        """
        wanted = request.query_params.get("next", "")
        target, visit = safe_target(request, wanted), self._visits.of(request, is_use=False)
        if visit is not None and wanted:
            return redirect(target)
        return self._form(request, target, visit=visit)

    async def log_in(self, request: Request) -> Response:
        """Begin a session."""
        form = await read_form(request)
        target = safe_target(request, form.get("next", ""))
        address = request.client.host if request.client else "unix"
        if not self._is_ours(request, form):
            return self._form(request, target, _STALE, 403)
        secret = form.get("secret", "").strip()
        peer = self._parts.codes.redeem(secret)
        # Whoever has a code is let in: so nobody who shares the address can lock an operator of this host out.
        if peer is None and (wait := self._parts.limit.seconds_to_wait(address)):
            return self._must_wait(request, target, address, wait)
        try:
            session_id, caller = self._open(peer, secret, address)
        except NotPermitted:
            self._parts.limit.record_failure(address)
            self._parts.environment.log.warning("login from %s was refused", address)
            return self._form(request, target, _REFUSED, 403)
        self._parts.environment.log.info("%s has logged in from %s", caller.name, address)
        self._parts.sessions.close(request.cookies.get(cookie_name(request), ""))  # the one that this one replaces
        response = redirect(target)
        self._set_cookie(request, response, cookie_name(request), session_id)
        response.delete_cookie(_login_cookie(request), path=_cookie_path(request))
        return response

    async def log_out(self, request: Request) -> Response:
        """End a session."""
        form, visit = await read_form(request), self._visits.of(request)
        response = redirect(f"{base_of(request)}/login")
        if visit is None:
            return response
        if not (is_same_origin(request.headers) and self._parts.form_tokens.matches(visit.owner, form.get("csrf", ""))):
            return redirect(f"{base_of(request)}/")
        self._parts.sessions.close(visit.session_id)
        response.delete_cookie(cookie_name(request), path=_cookie_path(request))
        return response

    def _must_wait(self, request: Request, target: str, address: str, wait: float) -> Response:
        text = (
            f"Too many logins from {address} have failed. Try again in {format_seconds(wait, units=1)}, or with a "
            "link of `ostler http login-link`."
        )
        return self._form(request, target, text, 429, headers={"retry-after": f"{math.ceil(wait)}"})

    def _open(self, peer: Peer | None, secret: str, address: str) -> tuple[str, Any]:
        if peer is not None:
            return self._parts.sessions.open_for_user(peer)
        if not secret:
            raise NotPermitted("a token is needed")
        return self._parts.sessions.open_with_token(secret, origin=address)

    def _is_ours(self, request: Request, form: dict[str, str]) -> bool:
        owner = request.cookies.get(_login_cookie(request), "")
        is_known = bool(owner) and self._parts.form_tokens.matches(f"login {owner}", form.get("csrf", ""))
        return is_known and is_same_origin(request.headers)

    def _form(
        self,
        request: Request,
        target: str,
        problem: str = "",
        status: int = 200,
        *,
        headers: dict[str, str] | None = None,
        visit: Visit | None = None,
    ) -> Response:
        # The same for all forms of a browser: the one in another tab stays valid.
        owner = request.cookies.get(_login_cookie(request), "")[:64] or secrets.token_urlsafe(16)
        values = {
            "base": base_of(request), "title": "Log in", "host": self._parts.environment.host, "problem": problem,
            "next": target, "csrf": self._parts.form_tokens.token(f"login {owner}"), "caller": visit and visit.caller,
        }  # fmt: skip
        html = self._parts.templates.page("login.html", values)
        response = HTMLResponse(html, status_code=status, headers=headers)
        self._set_cookie(request, response, _login_cookie(request), owner)
        return response

    def _set_cookie(self, request: Request, response: Response, name: str, value: str) -> None:
        response.set_cookie(
            name, value,
            path=_cookie_path(request), httponly=True, samesite="strict", secure=request.scope["scheme"] == "https",
        )  # fmt: skip


def _login_cookie(request: Request) -> str:
    return f"{cookie_name(request)}-login"


def _cookie_path(request: Request) -> str:
    return f"{base_of(request)}/"
