"""The application `health`: its paths, and who is told why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from ostler import Field, Seconds
from ostler_http.application import AppEnvironment, Application, AppOptions
from ostler_http.health.checks import Check, Verdict, live, ready, service_ready, started
from ostler_http.health.daemon_health import DaemonHealth, Health
from ostler_http.problems import send_problem

if TYPE_CHECKING:
    from ostler_http.asgi import ASGIApp, Receive, Scope, Send

_ENDPOINTS = {"livez": live, "readyz": ready, "startupz": started}
_HEADERS = {"cache-control": "no-store", "vary": "accept"}


class HealthOptions(AppOptions):
    """The options of a mount with `app = "health"`."""

    timeout: Seconds = Field(
        5, gt=0, le=60, help="After so long without an answer the daemon counts as hanging", reload="live"
    )


class HealthApplication(Application):
    """Answers 200 or 503. Callers with a role are told why, all others only whether.

    It runs on the loop of the HTTP service, and answers while the loop of the daemon hangs.
    """

    Options: ClassVar[type[AppOptions]] = HealthOptions
    needs_role: ClassVar[bool] = False

    def __init__(self, environment: AppEnvironment, options: Any) -> None:
        super().__init__(environment, options)
        self._health = DaemonHealth(environment.gateway, float(options.timeout), environment.clock)

    def build(self) -> ASGIApp:
        """See `Application.build`."""
        return self._serve

    async def stop(self, timeout: float) -> None:
        """See `Application.stop`."""
        self._health.stop()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix(scope.get("root_path", "")).strip("/")
        endpoint, _, topic = path.partition("/")
        if scope["type"] != "http" or endpoint not in _ENDPOINTS or (topic and endpoint != "readyz"):
            await send_problem(scope, send, 404, "available: livez, readyz, readyz/SERVICE, startupz")
            return
        if scope["method"] not in ("GET", "HEAD"):
            await send_problem(scope, send, 405, "health is read with GET", [(b"allow", b"GET, HEAD")])
            return
        health = await self._health.read()
        request = Request(scope)
        response = self._respond(request, health, endpoint, topic)
        await response(scope, receive, send)

    def _respond(self, request: Request, health: Health, endpoint: str, topic: str) -> Response:
        caller = request.scope["ostler.caller"]
        verdict = service_ready(health, topic) if topic else _ENDPOINTS[endpoint](health)
        is_known = caller.role is not None
        if verdict is None:
            # Who has no role is not told which services there are.
            text = f"service {topic} not found on this host\n" if is_known else "not ok\n"
            return PlainTextResponse(text, 404 if is_known else 503, headers=_HEADERS)
        status = 200 if verdict.ok else 503
        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse(_document(verdict, show_checks=is_known), status, headers=_HEADERS)
        wants_all = "verbose" in request.query_params
        lines = [_line(check) for check in verdict.checks if wants_all or not check.ok] if is_known else []
        return PlainTextResponse("\n".join([*lines, _word(verdict), ""]), status, headers=_HEADERS)


def _word(verdict: Verdict) -> str:
    return "ok" if verdict.ok else "not ok"


def _line(check: Check) -> str:
    sign = "+" if check.ok else "-" if check.matters else "!"
    why = f": {check.why}" if check.why else ""
    return f"[{sign}]{check.name} {'ok' if check.ok else 'not ok'}{why}".replace("\n", " ")


def _document(verdict: Verdict, *, show_checks: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"status": _word(verdict)}
    if show_checks:
        found["checks"] = [
            {"name": check.name, "ok": check.ok, "decides": check.matters, "why": check.why} for check in verdict.checks
        ]
    return found
