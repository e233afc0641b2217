"""The session: which daemon, how to reach it and how to show results, from the global options."""

from __future__ import annotations

import contextvars
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, Unpack

from ostler.cli.global_options import DEFAULT_OUTPUT, OutputOptions
from ostler.errors import InvalidInput

if TYPE_CHECKING:
    from ostler.cli.remote_daemon import AnyRemoteDaemon
    from ostler.config.paths import Paths
    from ostler.messaging.clients.call_methods import CallKeywords

DEFAULT_TIMEOUT = 60.0
"""Time-out of a call in seconds, unless `--timeout` or the command sets another."""


class ClientProtocol(Protocol):
    """The call methods of `ostler.Client` and of the views that its `on` returns."""

    def on(self, **options: Unpack[CallKeywords]) -> ClientProtocol:
        """Return a view of the client that uses these options; see `ostler.Client.on`."""
        ...

    def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method and return its result; see `ostler.Client.call`."""
        ...

    def cast(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Send a request and return when a server has accepted it; see `ostler.Client.cast`."""
        ...

    def stream(self, topic: str, method: str, /, **arguments: Any) -> Iterator[Any]:
        """Return an iterator over the items of a streaming method; see `ostler.Client.stream`."""
        ...


class ConnectedClient(ClientProtocol, Protocol):
    """The part of `ostler.Client` that commands use; tests replace it by a fake."""

    def __enter__(self) -> Self:
        """Return the client itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> None:
        """Close the client; calls in progress are cancelled on the server."""
        ...

    def events(self, pattern: str) -> Iterator[Any]:
        """Follow the events that match a pattern; see `ostler.Client.events`."""
        ...


ClientFactory = Callable[["str | AnyRemoteDaemon | None", float, bool], ConnectedClient]
"""Creates a client from the place of the daemon (a root, an address, None for the default), the time-out of a call in
seconds, and leniency."""


def open_client(where: str | AnyRemoteDaemon | None, timeout: float, lenient: bool) -> ConnectedClient:
    """Return a client of the daemon below a root or at an address; nothing but the client is imported."""
    if where is not None and not isinstance(where, str):
        return _open_remote_client(where, timeout, lenient)
    from ostler.messaging.clients.sync_client import Client  # 20 ms: not for `ostler run`

    return Client(root=where, timeout=timeout, lenient=lenient)


def _open_remote_client(where: AnyRemoteDaemon, timeout: float, lenient: bool) -> ConnectedClient:
    from ostler.cli.remote_daemon import RemoteDaemon  # 2 ms: only with an address

    if not isinstance(where, RemoteDaemon):
        from ostler.cli.http_client.client import HttpClient  # 40 ms: only for https://

        return HttpClient(where, timeout=timeout, lenient=lenient)
    from ostler.messaging.clients.sync_client import Client  # 20 ms: not for https://

    return Client(
        where.address,
        server_key=where.server_key or None,
        secret_key=where.secret_key,
        timeout=timeout,
        lenient=lenient,
    )


@dataclass(frozen=True, kw_only=True)
class Invocation:
    """One run of the command.

    Attributes:
        root: The value of `--root` or `OSTLER_ROOT`, None without either.
        remote: The daemon given by its address, None without an address.
        trust_owner: Whether files of other users are accepted.
        json: Whether to show results for programs, as JSON unless `output` says YAML.
        output: How to show results.
        timeout: The value of `--timeout` in seconds, None if not given.
        connect: Creates a client.
        environ: The environment.
        now: Returns the wall time, from which ages are computed.
        sleep: Waits for seconds, between two outputs of `--watch`.
    """

    root: str | None = None
    json: bool = False
    timeout: float | None = None
    connect: ClientFactory = open_client
    environ: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], float] = time.time
    remote: AnyRemoteDaemon | None = None
    trust_owner: bool = False
    output: OutputOptions = DEFAULT_OUTPUT
    sleep: Callable[[float], None] = time.sleep

    def paths(self) -> Paths:
        """Return the paths of the daemon.

        Raises:
            InvalidInput: The daemon was given by its address: its files may be on another host.
        """
        from ostler.config.paths import Paths  # 15 ms, msgspec included: not for `--help`

        if self.remote is not None:
            raise InvalidInput(
                f"this command needs the files of the daemon, and {self.remote.address} is only its address",
                hint="run it on that host, or omit `--address` (OSTLER_ADDRESS)",
            )
        found = Paths.find(self.root, self.environ)
        if self.trust_owner:
            from msgspec.structs import replace  # as `Paths`

            return replace(found, trust_owner=True)
        return found


_current_invocation: contextvars.ContextVar[Invocation] = contextvars.ContextVar("ostler_session")


def current_invocation() -> Invocation:
    """Return the session of this run of the command; outside of a run, a session of the environment alone."""
    found = _current_invocation.get(None)
    if found is None:
        return Invocation(root=os.environ.get("OSTLER_ROOT") or None, environ=os.environ)
    return found


@contextmanager
def use_invocation(session: Invocation) -> Iterator[Invocation]:
    """Make `session` the current one inside the block."""
    token = _current_invocation.set(session)
    try:
        yield session
    finally:
        _current_invocation.reset(token)
