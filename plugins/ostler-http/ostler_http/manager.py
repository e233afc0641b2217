"""`HttpManager`: a service that listens for HTTP and mounts applications at paths."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ostler import (
    Context,
    Manager,
    ManagerOptions,
    OstlerError,
    ServiceError,
    ValidationContext,
    exposed,
    format_seconds,
)
from ostler_http.api_types import HttpMount, HttpStatus
from ostler_http.application import APP_KIND, FILTER_KIND, PAGE_KIND, Filter
from ostler_http.options import Faults, HttpOptions, check_addresses, check_parts, options_for

if TYPE_CHECKING:
    import ssl

    from ostler_http.server.http_server import HttpServer
    from ostler_http.server.loop_thread import LoopThread

_APPLY_TIMEOUT = 120.0
_ANSWER_TIMEOUT = 5.0
_STOP_MARGIN = 3.0


class HttpManager(Manager[HttpOptions]):
    """Serves applications over HTTP, on an event loop and threads of its own."""

    Options = HttpOptions
    rpc_version = "1.0"
    extension_kinds = {APP_KIND: object, FILTER_KIND: Filter, PAGE_KIND: object}

    @classmethod
    def options_model(
        cls, table: Mapping[str, Any], extensions: Mapping[str, Mapping[str, Any]]
    ) -> type[ManagerOptions]:
        """Return the options with those of the applications and filters that the table names."""
        return options_for(table, extensions.get(APP_KIND, {}), extensions.get(FILTER_KIND, {}))

    @classmethod
    def validate(cls, options: HttpOptions, others: ValidationContext) -> Iterator[tuple[tuple[str | int, ...], str]]:
        """Find applications and filters that do not exist, and addresses and certificates that cannot be used."""
        faults = Faults()
        check_parts(options, others, faults)
        services = {topic: found for topic, found in others.services.items() if isinstance(found, HttpOptions)}
        check_addresses(others.topic, options, services, faults)
        if options.tls is not None:
            from ostler_http.tls import tls_faults  # ssl, 10 ms and 3 MiB: not for a service without TLS

            for option, what in tls_faults(options.tls):
                faults.add(("tls", option), what)
        yield from faults.found

    _server: HttpServer | None = None
    _thread: LoopThread | None = None

    def init_host_with_rpc(self) -> None:
        """Start the loop, the applications and the listeners: from now on requests are answered."""
        from ostler_http.server.http_server import HttpServer, ServerContext  # the server library, 7 MiB
        from ostler_http.server.loop_thread import LoopThread

        self._thread = LoopThread(f"{self.topic}-http")
        self._thread.start()
        context = ServerContext(
            topic=self.topic, host=self.host, gateway=self.gateway, client=self.client, log=self.log, clock=self.clock,
            metrics=self.metrics, apps=self.extensions.get(APP_KIND, {}), filters=self.extensions.get(FILTER_KIND, {}),
            pages=self.extensions.get(PAGE_KIND, {}), sockets=self.daemon.sockets,
        )  # fmt: skip
        self._server = HttpServer(context)
        self._thread.on_end = self._server.close_now
        self._apply()

    def reset(self) -> None:
        """Put other options in effect: addresses, certificates, mounts, filters, limits and the size of the pool.

        Certificates are read again in any case. No connection is dropped; what cannot be put in effect leaves all as
        it was, and fails the reload.
        """
        if self._server is not None:
            self._apply()

    def _apply(self) -> None:
        assert self._server is not None and self._thread is not None  # noqa: S101, PT018 - set by the only callers
        before = self._server.urls()
        self._thread.call(self._server.apply(self.options, self._make_tls_context()), _APPLY_TIMEOUT)
        self.listen_addresses = after = self._server.urls()
        if after != before:
            self.log.info("listening on %s", ", ".join(after))
            self.client.publish("listening", {"addresses": [*after]})

    def _make_tls_context(self) -> ssl.SSLContext | None:
        if self.options.tls is None:
            return None
        from ostler_http.tls import TlsFault, make_context  # ssl: not for a service without TLS

        try:
            return make_context(self.options.tls)
        except TlsFault as fault:
            what = f"TLS of {self.topic} cannot be set up: {fault.option}: {fault}"
            raise ServiceError(what, hint="see [services.TOPIC.tls]", topic=self.topic) from None

    def is_working(self, timeout: float = _ANSWER_TIMEOUT) -> bool:
        """Return whether the loop of the service turns.

        Args:
            timeout: Seconds to wait for it.
        """
        if self._server is None or self._thread is None:
            return True
        try:
            self._thread.call(_answer(), timeout)
        except TimeoutError:
            raise ServiceError(
                f"the event loop of {self.topic} has not responded for {format_seconds(timeout)}",
                hint="an application blocks it; `ostler dump` shows where",
            ) from None
        return True

    def problems(self) -> list[str]:
        """Return whether the threads for WSGI applications hang."""
        if self._server is None or not (overdue := self._server.pool.overdue()):
            return []
        what = f"{overdue} of {self._server.pool.size} threads for WSGI applications of {self.topic} hang"
        return [f"{what}; `ostler reload` replaces them"]

    def cleanup_host(self) -> None:
        """Stop: listeners first, then WebSockets and event streams are told, then requests have `stop_timeout`."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        self.listen_addresses = ()
        if thread is None:
            return
        if server is not None:
            timeout = self.options.stop_timeout
            with contextlib.suppress(TimeoutError, OstlerError):
                if cut := thread.call(server.stop(timeout), timeout + _STOP_MARGIN):
                    self.log.warning("%d connections were cut after %s", cut, format_seconds(timeout))
        thread.stop(_STOP_MARGIN)

    @exposed(role="viewer", changes=False)
    def http_status(self, ctx: Context) -> HttpStatus:
        """Return where the service listens, what it has mounted, and what it has refused."""
        server = self._server
        if server is None:
            return HttpStatus(topic=self.topic, host=self.host)
        counters = server.counters
        return HttpStatus(
            topic=self.topic,
            host=self.host,
            addresses=server.urls(),
            mounts=[
                HttpMount(mount.path, mount.options.app, list(mount.options.filters), mount.in_flight)
                for mount in server.mounts()
            ],
            connections=server.connection_count(),
            accepted=counters.connections,
            requests=counters.requests,
            responses={f"{digit}xx": count for digit, count in sorted(counters.responses.items()) if digit},
            refused=dict(sorted(counters.refused.items())),
            wsgi_threads=server.pool.running(),
            wsgi_overdue=server.pool.overdue(),
            wsgi_limit=server.pool.size,
        )

    @exposed(role="viewer")
    def login_link(self, ctx: Context) -> str:
        """Return a link to the web page that logs a browser in once, within five minutes, as the local user who asks.

        Raises:
            NotPermitted: The caller is no user of this host.
            NotFound: The service has no web page, or no address for a browser.
        """
        server, thread = self._server, self._thread
        if server is None or thread is None:
            raise ServiceError(f"{self.topic} does not listen yet", hint="try again", topic=self.topic)
        from ostler_http.login_link import make_login_link  # rarely asked for

        async def make() -> str:
            return make_login_link(server.mounts(), server.urls(), ctx.peer)

        return thread.call(make(), _ANSWER_TIMEOUT)


async def _answer() -> None:
    """Show that the loop turns."""
