"""HTTP services: applications mounted at paths, each behind filters.

    application         the contracts `Application` and `Filter`, and what an application gets
    asgi                names of the types of ASGI and WSGI
    manager             the service; `commands` is `ostler http …`, `plugin` has the hooks
    api, ui, metrics, health   the bundled applications; each knows the contracts and nothing else of this package

The names below are for authors of applications and filters.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ostler_http.application import (
        AppEnvironment,
        Application,
        AppOptions,
        Filter,
        FilterEnvironment,
        FilterOptions,
    )
    from ostler_http.asgi import ASGIApp, Message, Receive, Scope, Send, WSGIApp

_EXPORTS = {
    "ASGIApp": "asgi",
    "AppEnvironment": "application",
    "AppOptions": "application",
    "Application": "application",
    "Filter": "application",
    "FilterEnvironment": "application",
    "FilterOptions": "application",
    "Message": "asgi",
    "Receive": "asgi",
    "Scope": "asgi",
    "Send": "asgi",
    "WSGIApp": "asgi",
}

__all__ = [
    "ASGIApp", "AppEnvironment", "AppOptions", "Application", "Filter", "FilterEnvironment", "FilterOptions", "Message",
    "Receive", "Scope", "Send", "WSGIApp",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    # On first use: the daemon imports this package to discover plugins, even if no service of it runs.
    module = _EXPORTS.get(name)
    if module is None:
        raise AttributeError(f"module 'ostler_http' has no attribute {name!r}")
    return getattr(import_module(f"ostler_http.{module}"), name)
