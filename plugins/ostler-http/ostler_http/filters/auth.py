"""The filter `auth`: lets nobody through without a role."""

from __future__ import annotations

from typing import Literal

from ostler import Caller, Field, Role
from ostler_http.application import Filter, FilterOptions
from ostler_http.asgi import ASGIApp, Receive, Scope, Send
from ostler_http.problems import Header, send_problem

_CHALLENGE = b'Bearer realm="ostler"'
_RANK = {role: rank for rank, role in enumerate((Role.VIEWER, Role.OPERATOR, Role.ADMIN))}


class AuthOptions(FilterOptions):
    """The options of the filter `auth`."""

    role: Literal["viewer", "operator", "admin"] = Field("viewer", help="The least role that is let through")


class AuthFilter(Filter):
    """Refuses callers without a role (401 when nobody is known, 403 else), and tokens that are not valid.

    What a caller may do is decided by the daemon, for each of its requests. An application that needs no role gets all
    requests but those with a token that is not valid.
    """

    Options = AuthOptions

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """See `Filter.wrap`."""
        needed = _RANK[Role(self.environment.options.role)]
        options, count = self.environment.options, self.environment.count
        # Who sets a role wants it of everybody, whatever the application says.
        needs_role = self.environment.needs_role or "role" in options.model_fields_set

        async def check(scope: Scope, receive: Receive, send: Send) -> None:
            if error := scope.get("ostler.auth_error"):
                headers: list[Header] = [(b"www-authenticate", _CHALLENGE + b', error="invalid_token"')]
                if error.status != 401:
                    headers = []
                if error.retry_after:
                    headers = [(b"retry-after", str(error.retry_after).encode())]
                count("unauthenticated")
                await send_problem(scope, send, error.status, error.detail, headers)
                return
            caller: Caller = scope["ostler.caller"]
            if not needs_role or (caller.role is not None and _RANK[caller.role] >= needed):
                await app(scope, receive, send)
                return
            await self._refuse(caller, scope, send)

        return check

    async def _refuse(self, caller: Caller, scope: Scope, send: Send) -> None:
        wanted = self.environment.options.role
        if caller.role is None and caller.name == "anonymous":
            self.environment.count("unauthenticated")
            text = "authentication is needed: send `Authorization: Bearer TOKEN`; `ostler token new` makes a token"
            await send_problem(scope, send, 401, text, [(b"www-authenticate", _CHALLENGE)])
            return
        self.environment.count("forbidden")
        text = f"{caller.name} has {'the role ' + caller.role if caller.role else 'no role'}, {wanted} is needed"
        await send_problem(scope, send, 403, text)
