"""`Parts`: what the requests of one mount share."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Any

from ostler_http.application import AppEnvironment
from ostler_http.ui.login_codes import LoginCodes
from ostler_http.ui.login_limit import LoginLimit
from ostler_http.ui.options import UiOptions
from ostler_http.ui.recent import RecentLog, StateHistory
from ostler_http.ui.rendering import Templates
from ostler_http.ui.roles import MethodRoles
from ostler_http.ui.security import FormTokens
from ostler_http.ui.session_store import SessionStore
from ostler_http.ui.traffic_rates import TrafficSampler

if TYPE_CHECKING:
    from ostler_http.ui.pages import Page
    from ostler_http.ui.plugin_pages import PluginPages

_MAX_NOTICES = 200
_STATUS_AGE = 1.0
"""Seconds for which the status of the daemon is shared by all pages that show it."""


class Parts:
    """What the requests of one mount share. On the loop of its service.

    Args:
        environment: What the application got from its service.
        options: The options of the mount.
        pages: Our pages.
        plugin_pages: Those of plugins.
    """

    def __init__(
        self, environment: AppEnvironment, options: UiOptions, pages: list[Page], plugin_pages: PluginPages
    ) -> None:
        clock = environment.clock
        self.environment = environment
        self.options = options
        self.pages = pages
        self.plugin_pages = plugin_pages
        self.sessions = SessionStore(
            environment.gateway, clock,
            idle=float(options.session_idle), lifetime=float(options.session_lifetime), limit=options.max_sessions,
        )  # fmt: skip
        self.codes = LoginCodes(clock)
        self.limit = LoginLimit(clock, options.login_failures)
        self.form_tokens = FormTokens()
        self.roles = MethodRoles(clock)
        self.templates = Templates()
        self.traffic = TrafficSampler()
        self.history = StateHistory()
        self.recent_log = RecentLog(options.log_lines)
        self.notices = Notices()
        self.stopping = asyncio.Event()
        self.live: Counter[str] = Counter()
        self._status: tuple[float, dict[str, Any]] = (0.0, {})

    async def status(self, client: Any) -> dict[str, Any]:
        """Return the status of the daemon, at most a second old.

        Args:
            client: That of a caller with a role: the status is the same for all of them.
        """
        now = self.environment.clock.monotonic()
        read_at, status = self._status
        if not status or now - read_at > _STATUS_AGE:
            status = await client.call("ostler", "status", {}, timeout=10.0)
            self._status = (now, status)
        return status


class Notices:
    """What is said once on the next page of somebody: how what they asked for has ended. Bounded."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, dict[str, str]] = OrderedDict()

    def put(self, owner: str, kind: str, text: str, hint: str = "") -> None:
        """Say something on the next page of an owner; it replaces what is not said yet."""
        self._waiting[owner] = {"kind": kind, "text": text, "hint": hint}
        while len(self._waiting) > _MAX_NOTICES:
            self._waiting.popitem(last=False)

    def take(self, owner: str) -> dict[str, str] | None:
        """Return what is to be said now."""
        return self._waiting.pop(owner, None)
