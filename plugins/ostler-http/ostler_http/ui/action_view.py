"""Requests that do something: a button was pressed, or a question answered.

The question is a page of its own that is got by its address, so that the way back leads to it and loading it again
does nothing. Its form has a number that is used once: sent twice, it is done once.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ostler import InvalidInput, NotPermitted, OstlerError
from ostler_http.api.problems import status_of
from ostler_http.ui.actions import ACTIONS, Action, filled
from ostler_http.ui.forms import read_form
from ostler_http.ui.page_view import to_login
from ostler_http.ui.responses import error_page, message_page, page_values, redirect
from ostler_http.ui.security import is_same_origin
from ostler_http.ui.visit import Visit, Visits, safe_target

if TYPE_CHECKING:
    from ostler_http.ui.parts import Parts

_PREFIX = "arg."
_NOT_OURS = "the request did not come from a page of this session; nothing was done"
_ENDED = "The session has ended: nothing was done. Log in, and repeat it."


class _Asked(NamedTuple):
    """What is to be done, to what, and where to go afterwards."""

    name: str
    action: Action
    given: dict[str, str]
    back: str


class ActionView:
    """Answers `GET /ask` and `POST /do`.

    Args:
        parts: What requests share.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._visits = Visits(parts)

    async def ask(self, request: Request) -> Response:
        """Return the question that stands before an action."""
        visit = self._visits.of(request)
        if visit is None:
            return to_login(self._parts, request)
        try:
            asked = await self._asked(visit, dict(request.query_params))
            if not asked.action.asks:
                raise InvalidInput(f"{asked.action.label} asks nothing", hint="press its button")
            return await self._question(visit, asked)
        except OstlerError as error:
            return await error_page(visit, error)

    async def do(self, request: Request) -> Response:
        """Do what a form says, ask first, or refuse."""
        visit = self._visits.of(request)
        if visit is None:
            return message_page(self._parts, request, 401, "Not done", _ENDED)
        try:
            form = await read_form(request)
            if not (
                is_same_origin(request.headers) and self._parts.form_tokens.matches(visit.owner, form.get("csrf", ""))
            ):
                raise NotPermitted(_NOT_OURS, hint="go back, load the page again, and repeat it")
            asked = await self._asked(visit, form)
        except OstlerError as error:
            return await error_page(visit, error, is_action=True)
        if asked.action.asks and form.get("confirmed") != "yes":
            return await self._question(visit, asked)
        try:
            return await self._carry_out(visit, asked, form.get("once", ""))
        except OstlerError as error:
            if asked.action.asks:
                return await self._question(visit, asked, error)
            self._parts.notices.put(visit.csrf, "bad", error.message, error.hint)
            return redirect(asked.back)

    async def _asked(self, visit: Visit, form: Mapping[str, str]) -> _Asked:
        """Return what a form or an address asks for.

        Raises:
            NotPermitted: The visitor may not do it.
            NotFound: There is no such action.
        """
        name = form.get("action", "")
        action = ACTIONS.get(name) or await self._parts.plugin_pages.action(visit, name)
        await visit.learn_methods("ostler", action.topic)
        if not visit.allows(action):
            needed = visit.method(action.topic, action.method).get("role", "another role")
            raise NotPermitted(f"{action.label} needs {needed}, {visit.caller.name} has {visit.role}")
        given = {key.removeprefix(_PREFIX): value for key, value in form.items() if key.startswith(_PREFIX)}
        return _Asked(name, action, given, safe_target(visit.request, form.get("back", "")))

    async def _carry_out(self, visit: Visit, asked: _Asked, once: str) -> Response:
        _, action, given, back = asked
        arguments = _arguments(action, given)
        request_id = self._parts.form_tokens.request_id(visit.owner, once) if once else ""
        if action.submit:
            operation = await visit.client.submit(
                action.topic, action.method, arguments, lenient=True, request_id=request_id
            )
            return redirect(f"{visit.base}/operations/{quote(operation, safe='')}?back={quote(back, safe='/')}")
        options: dict[str, Any] = {"lenient": True, "request_id": request_id, "deduplicate": bool(request_id)}
        if action.cast:
            await visit.client.cast(action.topic, action.method, arguments, **options)
            self._parts.notices.put(visit.csrf, *self._begun(action, given))
            return redirect(back)
        result = await visit.client.call(action.topic, action.method, arguments, timeout=action.timeout, **options)
        kind, text = _verdict(action, given, result)
        self._parts.notices.put(visit.csrf, kind, text)
        return redirect(back)

    def _begun(self, action: Action, given: Mapping[str, str]) -> tuple[str, str]:
        """Return what is said of an action whose end nobody waits for."""
        text, environment = filled(action.done, given), self._parts.environment
        if given.get("topic") == environment.topic and given.get("on_host", "") in ("", environment.host):
            return "warn", f"{text}. This page is part of it, and ends with it."
        return "good", text

    async def _question(self, visit: Visit, asked: _Asked, error: OstlerError | None = None) -> Response:
        name, action, given, back = asked
        fields = {field.name for field in action.fields}
        values = await page_values(visit, action.label.rstrip("…"), "")
        values.update(
            name=name, action=action, back=back, error=error, question=filled(action.question, given),
            kept={key: value for key, value in given.items() if key not in fields}, given=given,
            once=secrets.token_hex(16),
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
