"""What the global options chose: which daemon, how to show results, how to reach it."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, Unpack

from ostler.errors import InvalidInput

if TYPE_CHECKING:
    from ostler.cli.remote import Remote
    from ostler.config.paths import Paths
    from ostler.messaging.call_options import CallKeywords

DEFAULT_TIMEOUT = 60.0
"""Seconds that a call may take when neither `--timeout` nor the verb says otherwise."""


class Calls(Protocol):
    """The calls of `ostler.Client`, and of what its `on` returns."""

    def on(self, **options: Unpack[CallKeywords]) -> Calls:
        """Return a view of the client that makes its calls with these options; see `ostler.Client.on`."""
        ...

    def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method and return its result; see `ostler.Client.call`."""
        ...

    def cast(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Hand over a request and return when a server has accepted it; see `ostler.Client.cast`."""
        ...

    def stream(self, topic: str, method: str, /, **arguments: Any) -> Iterator[Any]:
        """Return what a method yields, item by item; see `ostler.Client.stream`."""
        ...


class ConnectedClient(Calls, Protocol):
    """The part of `ostler.Client` that verbs use; tests put a fake in its place."""

    def __enter__(self) -> Self:
        """Return the client itself."""
        ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None, /
    ) -> None:
        """Close the client; calls under way are cancelled on the server."""
        ...

    def events(self, pattern: str) -> Iterator[Any]:
        """Follow the events that fit a pattern; see `ostler.Client.events`."""
        ...


Connect = Callable[["str | Remote | None", float, bool], ConnectedClient]
"""Makes a client from where the daemon is (a root, an address, None for the default places), the time-out of a call in
seconds, and leniency."""


def connect(where: str | Remote | None, timeout: float, lenient: bool) -> ConnectedClient:
    """Return a client of the daemon below a root or at an address; nothing but the client is imported."""
    from ostler.messaging.client import Client

    if where is None or isinstance(where, str):
        return Client(root=where, timeout=timeout, lenient=lenient)
    return Client(
        where.address,
        server_key=where.server_key or None,
        secret_key=where.secret_key,
        timeout=timeout,
        lenient=lenient,
    )


@dataclass(frozen=True, kw_only=True)
class Session:
    """One run of the command.

    Attributes:
        root: The value of `--root` or `OSTLER_ROOT`, None without either.
        remote: The daemon that is meant by its address, None when it is not.
        trust_owner: Whether files are believed whoever they belong to.
        json: Whether results are wanted as JSON.
        timeout: The value of `--timeout` in seconds, None when it was not given.
        connect: Makes a client.
        environ: The environment.
        now: Tells the wall time, by which ages are shown.
    """

    root: str | None = None
    json: bool = False
    timeout: float | None = None
    connect: Connect = connect
    environ: Mapping[str, str] = field(default_factory=dict)
    now: Callable[[], float] = time.time
    remote: Remote | None = None
    trust_owner: bool = False

    def paths(self) -> Paths:
        """Return the places of the daemon that is meant.

        Raises:
            InvalidInput: It is meant by its address: its files may be anywhere.
        """
        from ostler.config.paths import Paths

        if self.remote is not None:
            raise InvalidInput(
                f"this needs the files of the daemon, and {self.remote.address} is but its address",
                hint="run it on that host, or leave `--address` (OSTLER_ADDRESS) out",
            )
        found = Paths.find(self.root, self.environ)
        if self.trust_owner:
            from msgspec.structs import replace

            return replace(found, trust_owner=True)
        return found


_current: contextvars.ContextVar[Session] = contextvars.ContextVar("ostler_session")


def current() -> Session:
    """Return the session of this run of the command; outside of one, that of the bare environment."""
    found = _current.get(None)
    if found is None:
        import os

        return Session(root=os.environ.get("OSTLER_ROOT") or None, environ=os.environ)
    return found


@contextmanager
def using(session: Session) -> Iterator[Session]:
    """Make `session` the current one inside the block."""
    token = _current.set(session)
    try:
        yield session
    finally:
        _current.reset(token)
