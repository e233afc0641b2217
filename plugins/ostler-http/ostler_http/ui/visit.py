"""`Visit`: one request of a caller with a role, and what the pages need of it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from markupsafe import Markup
from starlette.requests import Request

from ostler import DeadlineExceeded, OstlerError
from ostler_http.ui.actions import ACTIONS, Action
from ostler_http.ui.roles import is_allowed
from ostler_http.ui.traffic_rates import Traffic, traffic_of

if TYPE_CHECKING:
    from ostler_http.ui.parts import Parts

COOKIE = "ostler-session"
_BUSY = "the daemon is busy: this is read again in a moment; `ostler dump` shows what it is doing"


class Visit:
    """One request. On the loop of its service.

    Args:
        parts: What requests share.
        request: The request.
        caller: Who sends it; has a role.
        owner: Whose its forms and notices are: the session, or the caller of a request without one.
        session_id: The id of the session; empty without one.
    """

    def __init__(self, parts: Parts, request: Request, caller: Any, owner: str, session_id: str) -> None:
        self.parts = parts
        self.request = request
        self.caller = caller
        self.owner = owner
        self.session_id = session_id
        self.base = base_of(request)
        self.client = parts.environment.gateway.client(caller)
        self.csrf = parts.form_tokens.token(owner)
        self._methods: dict[str, dict[str, dict[str, Any]]] = {}

    @property
    def role(self) -> str:
        """The caller's role."""
        return str(self.caller.role)

    async def call(self, method: str, arguments: dict[str, Any] | None = None, *, timeout: float = 10.0) -> Any:
        """Call a method of the daemon with the rights of the caller.

        Raises:
            DeadlineExceeded: It did not answer in time.
            OstlerError: As the method says.
        """
        try:
            return await self.client.call("ostler", method, arguments or {}, timeout=timeout)
        except DeadlineExceeded as error:  # nobody who looks at a page can give it more time
            raise DeadlineExceeded(error.message, hint=_BUSY) from None

    async def status(self) -> dict[str, Any]:
        """Return the status of the daemon, at most a second old.

        What was read for somebody else is only for those who may read it themselves; others are refused by the daemon.
        """
        if self.may_call("status"):
            return await self.parts.status(self.client)
        found: dict[str, Any] = await self.call("status")
        return found

    async def traffic(self) -> Traffic:
        """Return the traffic of the last seconds, from counters that all pages share; see `status`."""
        if not self.may_call("traffic"):
            return traffic_of([await self.call("traffic")])
        return await self.parts.traffic.read(self.client, self.parts.environment.clock.monotonic())

    def may_call(self, method: str) -> bool:
        """Return whether the caller may call a method of the daemon itself, as far as is known."""
        return is_allowed(self.caller.role, self.method("ostler", method).get("role", "nobody"))

    async def learn_methods(self, *topics: str) -> None:
        """Have `may` know the methods of topics."""
        found = await asyncio.gather(*(self.parts.roles.methods(self.client, topic) for topic in topics))
        self._methods.update(zip(topics, found, strict=True))

    def method(self, topic: str, name: str) -> dict[str, Any]:
        """Return what is known of a method; nothing of one that does not exist or was not learned of."""
        return self._methods.get(topic, {}).get(name, {})

    def may(self, name: str) -> bool:
        """Return whether the caller may do one of our actions."""
        return self.allows(ACTIONS[name])

    def allows(self, action: Action) -> bool:
        """Return whether the caller may do an action. The dispatcher decides; this decides what is offered."""
        return is_allowed(self.caller.role, self.method(action.topic, action.method).get("role", "nobody"))

    def button(self, action_name: str, *, label: str = "", about: str = "", **arguments: Any) -> Markup:
        """Return a form with one button; nothing for an action that the caller may not do.

        Args:
            action_name: One of our actions.
            label: Other words for it.
            about: What it is done to, for who does not see what stands beside it.
            arguments: The arguments of the method.
        """
        return self.button_of(action_name, ACTIONS[action_name], label=label, about=about, arguments=arguments)

    def button_of(
        self, action_name: str, action: Action, *, arguments: dict[str, Any], label: str = "", about: str = ""
    ) -> Markup:
        """Return the button of any action; see `button`."""
        if not self.allows(action):
            return Markup("")
        values = {
            "name": action_name, "action": action, "label": label, "about": about, "arguments": arguments,
            "back": path_of(self.request),
        }  # fmt: skip
        return self.parts.templates.part("button.html", "button", {**values, "visit": self})


class Visits:
    """Knows whose a request is.

    Args:
        parts: What requests share.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def of(self, request: Request, *, is_use: bool = True) -> Visit | None:
        """Return the visit of a request; None for a caller who has no role and has not logged in.

        Args:
            request: The request.
            is_use: Whether somebody is there, see `SessionStore.caller`.
        """
        session_id = request.cookies.get(cookie_name(request), "")
        if session_id and (caller := self._parts.sessions.caller(session_id, is_use=is_use)) is not None:
            return Visit(self._parts, request, caller, f"session {session_id}", session_id)
        caller = request.scope.get("ostler.caller")
        if caller is not None and caller.role is not None:
            return Visit(self._parts, request, caller, f"caller {caller.name}", "")
        return None


def base_of(request: Request) -> str:
    """Return the path of the mount without a slash at its end, for the beginnings of links."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def path_of(request: Request) -> str:
    """Return the path and the query of a request, for links back to it. Not by its URL, which has a host in it."""
    query = request.scope["query_string"].decode("ascii", "replace")
    return quote(request.scope["path"], safe="/~") + (f"?{query}" if query else "")


def safe_target(request: Request, wanted: str) -> str:
    """Return where to go after a login or an action: only to a page of this mount, whatever a link or form said."""
    base = base_of(request)
    is_within = wanted.startswith(f"{base}/") and not wanted.startswith("//")
    is_plain = "\\" not in wanted and wanted.isprintable() and wanted.isascii()
    return wanted if is_within and is_plain else f"{base}/"


def cookie_name(request: Request) -> str:
    """Return the name of the cookie. Browsers share cookies among all ports of a host, and so could two daemons."""
    port = request.headers.get("host", "").rpartition(":")[2]
    return f"{COOKIE}-{port if port.isascii() and port.isdecimal() and len(port) < 6 else 'main'}"


async def gathered(**reads: Any) -> dict[str, Any]:
    """Wait for several reads; one that has failed is there as its error, and does not take the others with it."""
    results = await asyncio.gather(*reads.values(), return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, OstlerError):
            raise result
    return dict(zip(reads, results, strict=True))
