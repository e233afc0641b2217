"""`HttpServer`: the listeners, connections and mounts of one service, changed as a whole."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, cast

import msgspec

from ostler import Clock, ConfigurationError, Conflict, Gateway, Metrics, ServiceClient, ServiceError, error_line
from ostler_http.addresses import ListenAddress, parse_address
from ostler_http.application import AppEnvironment, Application, AppOptions, FilterEnvironment
from ostler_http.asgi import ASGIApp, WSGIApp
from ostler_http.callers import Callers
from ostler_http.options import HttpOptions, mounted_apps, named_filters
from ostler_http.references import resolve_app, resolve_filter
from ostler_http.server.connections import Connections
from ostler_http.server.counters import Counters
from ostler_http.server.listener import Listener, open_sockets
from ostler_http.server.mounts import Mount, MountKey, MountTable
from ostler_http.server.requests import RequestHandler
from ostler_http.server.thread_pool import ThreadPool
from ostler_http.server.wsgi import WsgiAdapter

_START_TIMEOUT = 60.0
ListenerKey = tuple[ListenAddress, int]


class ServerContext(msgspec.Struct, frozen=True, kw_only=True):
    """What a server gets from its service.

    Attributes:
        topic: The service.
        host: The name of this host.
        gateway: The gateway of the daemon.
        client: The client of the service.
        log: The logger of the service.
        clock: The source of time.
        metrics: The metrics of the service.
        apps: The registered applications.
        filters: The registered filters.
        pages: The registered pages.
        sockets: The sockets that systemd has handed over.
    """

    topic: str
    host: str
    gateway: Gateway
    client: ServiceClient
    log: logging.LoggerAdapter[logging.Logger]
    clock: Clock
    metrics: Metrics
    apps: Mapping[str, Any] = {}
    filters: Mapping[str, Any] = {}
    pages: Mapping[str, Any] = {}
    sockets: Mapping[str, int] = {}


class HttpServer:
    """All that one service serves. All methods run on its loop.

    Args:
        context: What it gets from its service.
    """

    def __init__(self, context: ServerContext) -> None:
        self.counters = Counters(context.metrics)
        self.pool = ThreadPool(f"{context.topic}-wsgi", 0, 0)
        self._context = context
        self._callers = Callers(context.gateway, self.counters, context.clock.monotonic)
        self._handler = RequestHandler(self._callers, self.counters, context.log)
        self._connections: Connections | None = None
        self._listeners: dict[ListenerKey, list[Listener]] = {}
        self._app_names: dict[str, str] = {}
        self._is_tls = False
        self._stop_timeout = 0.0
        self._retired: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def urls(self) -> list[str]:
        """Return the addresses that it listens on, as clients write them."""
        return [each.url(is_tls=self._is_tls) for listeners in self._listeners.values() for each in listeners]

    def mounts(self) -> list[Mount]:
        """Return what is mounted."""
        return list(self._handler.mounts)

    def connection_count(self) -> int:
        """Return how many connections there are."""
        return len(self._connections) if self._connections is not None else 0

    async def apply(self, options: HttpOptions, tls: ssl.SSLContext | None) -> None:
        """Serve as the options say, from nothing or in place of what was served: all of it, or nothing.

        What is new is opened and started before what is old ends; connections stay. Mounts whose options are as they
        were stay as well; requests to those that end have `stop_timeout` for their rest.

        Args:
            options: The options.
            tls: The context for addresses with a port; None for none.

        Raises:
            ServiceError: An address cannot be listened on, or an application could not be started.
            Conflict: It is being stopped.
            ConfigurationError: A name leads to no application or filter.
        """
        connections = self._connections
        if connections is None:  # one that is empty is to stay as well: the listeners have it
            connections = Connections(self._handler, options.limits, self.counters)
        async with contextlib.AsyncExitStack() as undo:
            table = await self._make_table(options, undo)
            if self._is_stopped:
                raise Conflict(f"{self._context.topic} is being stopped", topic=self._context.topic)
            opened = self._open_listeners(options, connections, undo)
            undo.pop_all()
        self._connections = connections
        connections.set_limits(options.limits)
        connections.tls, self._is_tls = tls, tls is not None
        self._callers.failures.limit = options.limits.failed_logins
        self.pool.resize(options.wsgi_threads, options.wsgi_queue)
        self._stop_timeout = options.stop_timeout
        self._replace_mounts(table)
        self._replace_listeners(opened)
        for listener in (each for listeners in opened.values() for each in listeners):
            listener.set_mode(int(options.unix_mode, 8))

    # Mounts ---------------------------------------------------------------------------------------------------------

    async def _make_table(self, options: HttpOptions, undo: contextlib.AsyncExitStack) -> MountTable:
        mounts = {}
        for path, app in mounted_apps(options).items():
            key = MountKey(path, app, self._filter_options(app, options))
            mount = self._handler.mounts.get(key)
            if mount is None:
                mount = await self._start_mount(key)
                undo.push_async_callback(self._stop_quietly, mount, 0.1)
            mounts[path] = mount
        return MountTable(mounts)

    def _filter_options(self, app: AppOptions, options: HttpOptions) -> tuple[object, ...]:
        named = named_filters(options)
        return tuple((name, named.get(name)) for name in app.filters)

    async def _start_mount(self, key: MountKey) -> Mount:
        reference = key.options.app
        try:
            resolved = resolve_app(reference, self._context.apps)
            app = resolved.create(self._app_environment(key.path), key.options)
            entry = self._wrap(key, app, self._entry_of(app, key.options), needs_role=resolved.needs_role)
            mount = Mount(key, app, entry)
            async with asyncio.timeout(_START_TIMEOUT):
                await app.start()
        except (Exception, SystemExit) as error:
            raise ServiceError(
                f"the application {reference} at {key.path} could not be started: {error_line(error)}",
                hint="`ostler check` shows what of its options is not valid; the log has where it failed",
                mount=key.path,
            ) from error
        return mount

    def _app_environment(self, path: str) -> AppEnvironment:
        context = self._context
        return AppEnvironment(
            topic=context.topic, host=context.host, mount=path, gateway=context.gateway, client=context.client,
            log=context.log, clock=context.clock, pages=context.pages, apps=MappingProxyType(self._app_names),
        )  # fmt: skip

    def _entry_of(self, app: Application, options: AppOptions) -> ASGIApp:
        built = app.build()
        if app.interface == "asgi":
            return cast(ASGIApp, built)
        timeout = options.response_timeout
        return WsgiAdapter(cast(WSGIApp, built), self.pool, self.counters, self._context.log, timeout)

    def _wrap(self, key: MountKey, app: Application, entry: ASGIApp, *, needs_role: bool) -> ASGIApp:
        for item in reversed(key.filters):
            name, options = cast("tuple[str, Any]", item)
            cls = resolve_filter((options.filter if options is not None else "") or name, self._context.filters)
            environment = FilterEnvironment(
                topic=self._context.topic, mount=key.path, needs_role=needs_role and app.needs_role,
                options=options if options is not None else cls.Options(), log=self._context.log,
                clock=self._context.clock, count=self.counters.refuse,
            )  # fmt: skip
            entry = cls(environment).wrap(entry)
        return entry

    def _replace_mounts(self, table: MountTable) -> None:
        kept, before = set(table), list(self._handler.mounts)
        self._handler.mounts = table
        self._app_names.clear()
        self._app_names.update({mount.path: mount.options.app for mount in table})
        for mount in before:
            if mount not in kept:
                task = asyncio.get_running_loop().create_task(self._stop_quietly(mount, self._stop_timeout))
                self._retired.add(task)
                task.add_done_callback(self._retired.discard)

    async def _stop_quietly(self, mount: Mount, timeout: float) -> None:
        try:
            await mount.stop(timeout)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - code of a plugin; the others are stopped nevertheless
            log = self._context.log
            log.error("%s at %s failed when it was stopped: %s", mount.options.app, mount.path, error_line(error))

    # Listeners ------------------------------------------------------------------------------------------------------

    def _open_listeners(
        self, options: HttpOptions, connections: Connections, undo: contextlib.AsyncExitStack
    ) -> dict[ListenerKey, list[Listener]]:
        """Open what is not open yet, and return all listeners by what the configuration names."""
        wanted = _listener_keys(options)
        found: dict[ListenerKey, list[Listener]] = {}
        for key in wanted:
            known = self._listeners.get(key)
            if known is not None and all(listener.is_current for listener in known):
                found[key] = known
                continue
            self._make_room(key[0], wanted, connections, undo)
            sockets = open_sockets(key[0], self._context.sockets, int(options.unix_mode, 8))
            found[key] = [Listener(key[0], each, connections.accept) for each in sockets]
            for listener in found[key]:
                undo.callback(listener.close)
                self._check_plain_text(listener, options)
        return found

    def _check_plain_text(self, listener: Listener, options: HttpOptions) -> None:
        """Raise when tokens would cross the network; of sockets of systemd the address is known only now."""
        if options.tls is None and not options.plain_text and not listener.bound.is_local:
            raise ConfigurationError(
                f"{listener.address} listens on {listener.bound}, which other hosts can reach; tokens would be sent in "
                "plain text",
                hint="add `tls`, or set `plain_text = true` if the network is trusted or a proxy has TLS",
            )

    def _make_room(
        self, address: ListenAddress, wanted: list[ListenerKey], connections: Connections,
        undo: contextlib.AsyncExitStack,
    ) -> None:  # fmt: skip
        """Close listeners that are to end and are in the way, as `127.0.0.1:80` is of `0.0.0.0:80`."""
        for key, listeners in self._listeners.items():
            for listener in listeners if key not in wanted else ():
                if listener.is_open and listener.bound.overlaps(address):
                    undo.callback(self._reopen, key, listener.bound, connections)
                    listener.close()

    def _reopen(self, key: ListenerKey, bound: ListenAddress, connections: Connections) -> None:
        again = [Listener(key[0], each, connections.accept) for each in open_sockets(bound, {}, 0o600)]
        for listener in again:
            listener.start()
        self._listeners[key] = again

    def _replace_listeners(self, wanted: dict[ListenerKey, list[Listener]]) -> None:
        before = self._listeners
        self._listeners = wanted
        for key, listeners in wanted.items():
            for listener in listeners if before.get(key) is not listeners else ():
                listener.start()
        for key, listeners in before.items():
            for listener in listeners if wanted.get(key) is not listeners else ():
                listener.close()

    # End ------------------------------------------------------------------------------------------------------------

    def close_now(self) -> None:
        """Close all listeners and connections without waiting for anything; also after a stop that took too long."""
        self._is_stopped = True
        self._replace_listeners({})
        if self._connections is not None:
            self._connections.cut()

    async def stop(self, timeout: float) -> int:
        """Stop accepting, tell WebSockets and event streams, wait for requests in progress, stop the applications.

        Args:
            timeout: Seconds until what is left is cut.

        Returns:
            How many connections were cut.
        """
        self._is_stopped = True
        self._replace_listeners({})
        for mount in self._handler.mounts:
            mount.stopping.set()
        cut = await self._connections.close(timeout) if self._connections is not None else 0
        self.pool.resize(0)
        mounts = list(self._handler.mounts)
        self._handler.mounts = MountTable()
        await asyncio.gather(*(self._stop_quietly(mount, 0.5) for mount in mounts), *self._retired)
        return cut


def _listener_keys(options: HttpOptions) -> list[ListenerKey]:
    """Return what is to be listened on; several of one random port are told apart by a number."""
    keys: list[ListenerKey] = []
    for text in options.listen:
        try:
            address = parse_address(text)
        except ValueError as error:
            raise ConfigurationError(f"listen: {error}") from None
        keys.append((address, sum(1 for known, _ in keys if known == address)))
    return keys
