"""Login with a token or a one-time code, and logout."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ostler import NotPermitted, format_seconds
from ostler_http.ui.forms import read_form
from ostler_http.ui.responses import redirect
from ostler_http.ui.security import is_same_origin
from ostler_http.ui.visit import Visits, base_of, cookie_name

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
        """Return the form; who has a role already goes on."""
        target = safe_target(request, request.query_params.get("next", ""))
        if self._visits.of(request, is_use=False) is not None:
            return redirect(target)
        return self._form(request, target)

    async def log_in(self, request: Request) -> Response:
        """Begin a session."""
        form = await read_form(request)
        target = safe_target(request, form.get("next", ""))
        address = request.client.host if request.client else "unix"
        if wait := self._parts.limit.seconds_to_wait(address):
            text = f"Too many logins from {address} have failed. Try again in {format_seconds(wait, units=1)}."
            return self._form(request, target, text, 429, {"retry-after": f"{wait:.0f}"})
        if not self._is_ours(request, form):
            return self._form(request, target, _STALE, 403)
        try:
            session_id, caller = self._open(form.get("secret", "").strip(), address)
        except NotPermitted:
            self._parts.limit.record_failure(address)
            self._parts.environment.log.warning("login from %s was refused", address)
            return self._form(request, target, _REFUSED, 403)
        self._parts.environment.log.info("%s has logged in from %s", caller.name, address)
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

    def _open(self, secret: str, address: str) -> tuple[str, Any]:
        if not secret:
            raise NotPermitted("a token is needed")
        if (peer := self._parts.codes.redeem(secret)) is not None:
            return self._parts.sessions.open_for_user(peer)
        return self._parts.sessions.open_with_token(secret, origin=address)

    def _is_ours(self, request: Request, form: dict[str, str]) -> bool:
        owner = request.cookies.get(_login_cookie(request), "")
        is_known = bool(owner) and self._parts.form_tokens.matches(f"login {owner}", form.get("csrf", ""))
        return is_known and is_same_origin(request.headers)

    def _form(
        self, request: Request, target: str, problem: str = "", status: int = 200, headers: dict[str, str] | None = None
    ) -> Response:
        owner = secrets.token_urlsafe(16)
        values = {
            "base": base_of(request), "title": "Log in", "host": self._parts.environment.host, "problem": problem,
            "next": target, "csrf": self._parts.form_tokens.token(f"login {owner}"),
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


def safe_target(request: Request, wanted: str) -> str:
    """Return where to go after a login: only to a page of this mount, whatever the link said."""
    base = base_of(request)
    is_within = wanted.startswith(f"{base}/") and not wanted.startswith("//")
    is_plain = "\\" not in wanted and wanted.isprintable() and wanted.isascii()
    return wanted if is_within and is_plain else f"{base}/"


def _login_cookie(request: Request) -> str:
    return f"{cookie_name(request)}-login"


def _cookie_path(request: Request) -> str:
    return f"{base_of(request)}/"
