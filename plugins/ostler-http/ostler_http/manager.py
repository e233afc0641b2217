"""`HttpManager`: a service that listens for HTTP and mounts applications at paths."""

from __future__ import annotations

from typing import Any

from ostler import Field, Manager, ManagerOptions
from ostler_http.application import APP_KIND, FILTER_KIND, PAGE_KIND, Filter


class HttpOptions(ManagerOptions):
    """The options of a service with `manager = "http"`."""

    listen: list[str] = Field(
        ["127.0.0.1:0"],
        help="Where it listens: `HOST:PORT` (0: a random port), `[IPv6]:PORT`, `unix:/path`, `systemd:NAME`",
    )
    apps: dict[str, dict[str, Any]] = Field({}, help="The mounts: path to application, filters and options")


class HttpManager(Manager[HttpOptions]):
    """Serves applications over HTTP."""

    Options = HttpOptions
    rpc_version = "1.0"
    extension_kinds = {APP_KIND: object, FILTER_KIND: Filter, PAGE_KIND: object}
