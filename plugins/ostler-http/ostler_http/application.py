"""`Application` and `Filter`, the contracts of what a service mounts, and what they get.

To add an application, derive a class from `Application`, return it or its import path from the hook
`ostler_extensions` under `("http.app", NAME)`, and name it in the table of a mount: `[services.web.apps."/path"]`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Literal

import msgspec

from ostler import Clock, Field, Gateway, OptionsModel, Seconds, ServiceClient, Size
from ostler_http.asgi import ASGIApp, WSGIApp

APP_KIND = "http.app"
"""The kind of extension of applications."""
FILTER_KIND = "http.filter"
"""The kind of extension of filters."""
PAGE_KIND = "http.page"
"""The kind of extension of pages of the web page, for the application `ui`."""


class AppOptions(OptionsModel):
    """The options that every mount has; an application's own are fields of a subclass, named `Options` in it."""

    app: str = Field(help="Registered name of the application, or its import path `package.module:name`", reload="live")
    filters: list[str] = Field(
        ["auth"],
        help="The filters that a request passes before the application, in this order: registered names, import paths, "
        "or names of `[services.TOPIC.filters]`",
        reload="live",
    )
    max_body_size: Size = Field("1MiB", help="Most bytes of the body of a request; more is refused (413)")
    response_timeout: Seconds = Field(
        60,
        ge=0,
        help="Time until the application must have begun its response, else 504, and of WSGI applications also between "
        "two parts of it; 0 for no limit",
    )


class AppEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What an application gets from its service.

    Args:
        topic: The service.
        host: The name of this host.
        mount: The path where it is mounted, `/v1`; `/` for the root.
        gateway: Sends requests of callers into the daemon, with their rights; any thread and loop.
        client: Sends requests with the rights of the daemon itself: only for what everybody may know.
        log: A logger that adds the service and the mount to each line.
        clock: The source of time.
        pages: The extensions of the kind `http.page`, by name.
        apps: All mounts of this service: path to the name of the application.
    """

    topic: str
    host: str
    mount: str
    gateway: Gateway
    client: ServiceClient
    log: logging.LoggerAdapter[logging.Logger]
    clock: Clock
    pages: Mapping[str, Any] = {}
    apps: Mapping[str, str] = {}


class Application(ABC):
    """What a service mounts at a path. It lives as long as its table in the configuration is unchanged.

    The server has set `scope["ostler.caller"]` (a `Caller`; its role is None when nobody is known),
    `scope["ostler.request_id"]` and `scope["ostler.trace"]` before filters and applications see a request.

    Attributes:
        Options: The options of its table, a subclass of `AppOptions`.
        interface: What `build` returns: `asgi` or `wsgi`.
        needs_role: Whether the filter `auth` refuses callers without a role.
    """

    Options: ClassVar[type[AppOptions]] = AppOptions
    interface: ClassVar[Literal["asgi", "wsgi"]] = "asgi"
    needs_role: ClassVar[bool] = True

    def __init__(self, environment: AppEnvironment, options: Any) -> None:
        self.environment = environment
        self.options = options

    @abstractmethod
    def build(self) -> ASGIApp | WSGIApp:
        """Return the callable that is mounted. Called once, on the loop of the service, before `start`.

        Its requests have the mount in `scope["root_path"]` (`SCRIPT_NAME` for WSGI); a WSGI application is called on
        threads of the service's pool.
        """

    async def start(self) -> None:
        """Prepare for requests; called once, on the loop of the service. An error fails the start or the reload."""

    async def stop(self, timeout: float) -> None:
        """Release what `start` took; called once, on the loop of the service, when no request is left or time is up.

        Args:
            timeout: Seconds that are left.
        """


class FilterOptions(OptionsModel):
    """The options of a table in `[services.TOPIC.filters]`; a filter's own are fields of its subclass `Options`."""

    filter: str = Field(
        "", help="Registered name of the filter, or its import path; by default the name of the table", reload="live"
    )


class FilterEnvironment(msgspec.Struct, frozen=True, kw_only=True):
    """What a filter gets from its service.

    Args:
        topic: The service.
        mount: The path of the mount that it stands before.
        needs_role: Whether the application of the mount needs a role, see `Application.needs_role`.
        options: The options of its table, of its `Options`; the defaults without a table.
        log: A logger that adds the service to each line.
        clock: The source of time.
        count: Counts what the filter refuses under a short name, such as `unauthenticated`.
    """

    topic: str
    mount: str
    needs_role: bool
    options: Any
    log: logging.LoggerAdapter[logging.Logger]
    clock: Clock
    count: Callable[[str], None] = lambda _: None


class Filter(ABC):
    """Stands before the application of a mount and sees its requests first; one object for each mount.

    Attributes:
        Options: The options of its table, a subclass of `FilterOptions`.
    """

    Options: ClassVar[type[FilterOptions]] = FilterOptions

    def __init__(self, environment: FilterEnvironment) -> None:
        self.environment = environment

    @abstractmethod
    def wrap(self, app: ASGIApp) -> ASGIApp:
        """Return an application that does this filter's work and calls `app` for what it lets through.

        Called once, on the loop of the service. What it returns runs there as well and must not block.
        """
