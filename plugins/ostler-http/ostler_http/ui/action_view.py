"""Requests that do something: a button was pressed, or a question answered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ostler import InvalidInput, NotPermitted, OstlerError
from ostler_http.ui.actions import ACTIONS, Action, filled
from ostler_http.ui.forms import read_form
from ostler_http.ui.login_views import safe_target
from ostler_http.ui.page_view import to_login
from ostler_http.ui.responses import error_page, page_values, redirect, status_of
from ostler_http.ui.security import is_same_origin
from ostler_http.ui.visit import Visit, Visits

if TYPE_CHECKING:
    from ostler_http.ui.parts import Parts

_PREFIX = "arg."
_NOT_OURS = "the request did not come from a page of this session; nothing was done"


class ActionView:
    """Answers `POST /do`.

    Args:
        parts: What requests share.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._visits = Visits(parts)

    async def do(self, request: Request) -> Response:
        """Do what a form says, ask first, or refuse."""
        visit = self._visits.of(request)
        if visit is None:
            return to_login(request, is_page=False)
        try:
            form = await read_form(request)
            if not (
                is_same_origin(request.headers) and self._parts.form_tokens.matches(visit.owner, form.get("csrf", ""))
            ):
                raise NotPermitted(_NOT_OURS, hint="go back, load the page again, and repeat it")
            return await self._do(visit, form)
        except OstlerError as error:
            return await error_page(visit, error)

    async def _do(self, visit: Visit, form: dict[str, str]) -> Response:
        name = form.get("action", "")
        action = ACTIONS.get(name) or await self._parts.plugin_pages.action(visit, name)
        await visit.learn_methods("ostler", action.topic)
        if not visit.allows(action):
            needed = visit.method(action.topic, action.method).get("role", "another role")
            raise NotPermitted(f"{action.label} needs {needed}, {visit.caller.name} has {visit.role}")
        given = {key.removeprefix(_PREFIX): value for key, value in form.items() if key.startswith(_PREFIX)}
        back = safe_target(visit.request, form.get("back", ""))
        if action.asks and form.get("confirmed") != "yes":
            return await self._ask(visit, name, action, given, back)
        try:
            return await self._carry_out(visit, action, given, back)
        except OstlerError as error:
            if action.asks:
                return await self._ask(visit, name, action, given, back, error)
            self._parts.notices.put(visit.csrf, "bad", error.message, error.hint)
            return redirect(back)

    async def _carry_out(self, visit: Visit, action: Action, given: dict[str, str], back: str) -> Response:
        arguments = _arguments(action, given)
        if action.submit:
            operation = await visit.client.submit(action.topic, action.method, arguments, lenient=True)
            return redirect(f"{visit.base}/operations/{operation}")
        if action.cast:
            await visit.client.cast(action.topic, action.method, arguments, lenient=True)
            self._parts.notices.put(visit.csrf, *self._begun(action, given))
            return redirect(back)
        result = await visit.client.call(action.topic, action.method, arguments, timeout=action.timeout, lenient=True)
        kind, text = _verdict(action, given, result)
        self._parts.notices.put(visit.csrf, kind, text)
        return redirect(back)

    def _begun(self, action: Action, given: Mapping[str, str]) -> tuple[str, str]:
        """Return what is said of an action whose end nobody waits for."""
        text, environment = filled(action.done, given), self._parts.environment
        if given.get("topic") == environment.topic and given.get("on_host", "") in ("", environment.host):
            return "warn", f"{text}. This page is part of it, and ends with it."
        return "good", text

    async def _ask(
        self,
        visit: Visit,
        name: str,
        action: Action,
        given: dict[str, str],
        back: str,
        error: OstlerError | None = None,
    ) -> Response:
        asked = {field.name for field in action.fields}
        values = await page_values(visit, action.label.rstrip("…"), "")
        values.update(
            name=name, action=action, back=back, error=error, question=filled(action.question, given),
            kept={key: value for key, value in given.items() if key not in asked}, given=given,
        )  # fmt: skip
        html = visit.parts.templates.page("question.html", values)
        return HTMLResponse(html, status_code=status_of(error) if error else 200)


def _arguments(action: Action, given: dict[str, str]) -> dict[str, Any]:
    """Return the arguments of the method: what was left empty is not sent, what is a flag is there or not.

    Raises:
        InvalidInput: Something that is required was left empty.
    """
    arguments: dict[str, Any] = dict(given)
    for field in action.fields:
        text = given.get(field.name, "").strip()
        if field.kind == "flag":
            arguments[field.name] = field.name in given
        elif text:
            arguments[field.name] = text
        elif field.required:
            raise InvalidInput(f"{field.label or field.name} is required")
        else:
            arguments.pop(field.name, None)
    return arguments


def _verdict(action: Action, given: dict[str, str], result: Any) -> tuple[str, str]:
    """Return how an action has ended, and how that is said."""
    text = filled(action.done, given) or f"{action.label.rstrip('…')}: done"
    if isinstance(result, dict) and isinstance(result.get("summary"), str):  # of a reload
        return ("good" if result.get("ok") else "bad"), result["summary"]
    if isinstance(result, list) and result and all(isinstance(item, str) for item in result):
        return "warn", f"{text}; still running: {', '.join(result[:10])}"
    return "good", text
