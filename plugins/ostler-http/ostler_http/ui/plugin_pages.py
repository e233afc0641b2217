"""Pages that plugins bring: extensions of the kind `http.page`.

A page is a class with plain attributes and one method; it imports nothing of this package:

    class LampPage:
        title = "Lamps"
        manager = "lamp"                       # shown for the services of this manager
        actions = {
            "switch": {"label": "Switch…", "method": "switch", "fields": {"on": {"kind": "flag"}}},
        }

        async def render(self, request, client):
            lamps = await client.call(request["topic"], "list_lamps", {})
            rows = [{"cells": [lamp["name"]], "actions": [["switch", {"lamp": lamp["name"]}]]} for lamp in lamps]
            return {"sections": [{"title": "Lamps", "table": {"columns": ["Name"], "rows": rows}}]}

The page says what is there; how it looks, what is escaped, and who may press a button is decided here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from ostler import ContractError, DeadlineExceeded, InternalError, NotFound, OstlerError, format_seconds
from ostler_http.ui.actions import Action, Field
from ostler_http.ui.filters import plain
from ostler_http.ui.pages import Page

if TYPE_CHECKING:
    from ostler_http.ui.visit import Visit

_RENDER_TIMEOUT = 15.0
"""Seconds in which a page has to say what it shows."""
_MAX_ROWS = 200
"""Rows of a table that are shown: it is sent again whenever one has changed."""
_FEW_ROWS = 20
"""Rows that are found without a filter."""


class PluginPages:
    """The pages of plugins.

    One that is not as it has to be is left out and named in the log; it takes nothing with it.

    Args:
        pages: The extensions, by name.
        log: Where faults of pages go.
    """

    def __init__(self, pages: Mapping[str, Any], log: logging.LoggerAdapter[logging.Logger]) -> None:
        self._pages: dict[str, Any] = {}
        self._actions: dict[str, dict[str, Action]] = {}
        for name, declared in sorted(pages.items()):
            try:
                page = declared() if inspect.isclass(declared) else declared
                self._actions[name] = page_actions(page)
                _check(page)
            except Exception as error:  # noqa: BLE001 - a plugin's code may raise anything
                log.warning("the page %s cannot be used: %s: %s", name, type(error).__name__, error)
            else:
                self._pages[name] = page

    async def menu(self, visit: Visit) -> list[dict[str, str]]:
        """Return the pages that have something to show: there is a service of their manager."""
        try:
            services = (await visit.status())["services"]
        except OstlerError:
            return []
        managers = {service["manager"] for service in services if service["state"] != "gone"}
        return [
            {"name": name, "title": str(page.title)}
            for name, page in self._pages.items()
            if not getattr(page, "manager", "") or page.manager in managers
        ]

    async def topics(self, visit: Visit, name: str) -> list[str]:
        """Return the topics that a page can be of, those of this host first.

        Raises:
            NotFound: There is no such page.
        """
        manager = getattr(self._page(name), "manager", "")
        services = (await visit.status())["services"]
        found = [one for one in services if one["manager"] == manager and one["state"] != "gone"]
        return list(dict.fromkeys(one["topic"] for one in sorted(found, key=lambda one: not one["here"])))

    async def action(self, visit: Visit, name: str) -> Action:
        """Return an action of a page, for one of the topics that the page can be of.

        Args:
            visit: Who asks.
            name: The page, the topic and the action: `volumes/volume/create`.

        Raises:
            NotFound: There is no such action.
        """
        page, _, rest = name.partition("/")
        topic, _, word = rest.rpartition("/")
        action = self._actions.get(page, {}).get(word)
        if action is None or (not action.topic and topic not in await self.topics(visit, page)):
            raise NotFound(f"there is no action {name!r}", hint="load the page again")
        return msgspec.structs.replace(action, topic=action.topic or topic)

    async def render(self, visit: Visit, name: str, topic: str) -> dict[str, Any]:
        """Return what a page shows, with its buttons.

        Raises:
            NotFound: There is no such page.
            InternalError: The page has failed.
            OstlerError: The page says so.
        """
        page = self._page(name)
        request = {
            "topic": topic, "host": visit.parts.environment.host, "role": visit.role,
            "query": dict(visit.request.query_params),
        }  # fmt: skip
        try:
            async with asyncio.timeout(_RENDER_TIMEOUT):
                description = await page.render(request, visit.client)
            return {
                "page": page,
                "sections": list(description.get("sections", [])),
                "top": description.get("actions", []),
            }
        except OstlerError:
            raise
        except TimeoutError:
            what = f"the page {name} was not ready in {format_seconds(_RENDER_TIMEOUT)}"
            raise DeadlineExceeded(what, hint="one of the services that it asks does not answer") from None
        except Exception as error:
            visit.parts.environment.log.exception("the page %s has failed", name)
            raise InternalError(f"the page {name} has failed: {type(error).__name__}", hint="see the log") from error

    def actions(self, name: str) -> Mapping[str, Action]:
        """Return the actions of a page."""
        return self._actions.get(name, {})

    def _page(self, name: str) -> Any:
        if name not in self._pages:
            raise NotFound(f"there is no page {name!r}", hint="a plugin provides it under `http.page`")
        return self._pages[name]


def _check(page: Any) -> None:
    """Check what a page must have.

    Raises:
        ContractError: It lacks its title, or a method that says what it shows.
    """
    if not isinstance(getattr(page, "title", None), str):
        raise ContractError("it has no `title`, which must be a text")
    if not inspect.iscoroutinefunction(getattr(page, "render", None)):
        raise ContractError("it has no `async def render(self, request, client)`")


def page_actions(page: Any) -> dict[str, Action]:
    """Return the actions that a page declares: a label, a method, and what is asked first."""
    found = {}
    for name, declared in getattr(page, "actions", {}).items():
        facts = dict(declared)
        fields = [msgspec.convert({"name": field, **about}, Field) for field, about in facts.pop("fields", {}).items()]
        found[name] = msgspec.convert({"topic": "", **facts, "fields": []}, Action)
        found[name] = msgspec.structs.replace(found[name], fields=fields)
    return found


class PluginPage(Page):
    """A page of a plugin, as it describes itself."""

    path = "/pages/{name}"
    title = "Page"
    template = "plugin_page.html"
    in_menu = False

    async def load(self, visit: Visit) -> dict[str, Any]:
        """Return the sections of the page, for the topic that was asked for or the first one."""
        name, pages = visit.request.path_params["name"], visit.parts.plugin_pages
        topics = await pages.topics(visit, name)
        topic = visit.request.query_params.get("topic", "") or (topics[0] if topics else "")
        if topic not in topics:
            raise NotFound(f"service {topic} for this page not found", hint="see the page Services")
        shown = await pages.render(visit, name, topic)
        wanted = visit.request.query_params.get("q", "").strip()
        await visit.learn_methods(topic)

        def button(word: str, arguments: dict[str, Any] | None = None, *, about: str = "") -> Any:
            action = pages.actions(name).get(word)
            if action is None:
                raise InternalError(f"the page {name} has no action {word!r}")
            full = msgspec.structs.replace(action, topic=action.topic or topic)
            return visit.button_of(f"{name}/{topic}/{word}", full, arguments=arguments or {}, about=about)

        return {
            **shown,
            "sections": [_filtered(section, wanted) for section in shown["sections"]],
            "is_long": any(len(_rows(section)) > _FEW_ROWS for section in shown["sections"]),
            "q": wanted,
            "title": str(shown["page"].title),
            "topic": topic,
            "topics": topics,
            "button": button,
            "name": name,
            "max_rows": _MAX_ROWS,
        }


def _rows(section: Mapping[str, Any]) -> list[Any]:
    """Return the rows of a section's table; none without one."""
    return list((section.get("table") or {}).get("rows") or [])


def _filtered(section: Mapping[str, Any], wanted: str) -> Mapping[str, Any]:
    """Return a section with the rows of its table that have a text in one of their cells."""
    if not wanted or not section.get("table"):
        return section
    rows = [row for row in _rows(section) if any(wanted.lower() in _text_of(cell) for cell in row["cells"])]
    return {**section, "table": {**section["table"], "rows": rows, "empty": f"No row has {wanted} in it."}}


def _text_of(cell: Any) -> str:
    value = cell.get("value", "") if isinstance(cell, Mapping) else cell
    return plain(value).lower()
