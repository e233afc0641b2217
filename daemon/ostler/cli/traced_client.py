"""Reports the calls of a command on stderr, for `--verbose`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ostler.cli.output import warn
from ostler.errors import OstlerError


class TracedClient:
    """A client, or a view of one, whose calls are reported with their time and result.

    Args:
        client: The underlying client or view.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        """Return anything else of the underlying client."""
        return getattr(self._client, name)

    def on(self, **options: Any) -> TracedClient:
        """Return a traced view."""
        return TracedClient(self._client.on(**options))

    def call(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Call a method; arguments are not reported, for they may be secret."""
        return _traced(f"call {topic}.{method}", lambda: self._client.call(topic, method, **arguments))

    def cast(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Send a request."""
        return _traced(f"cast {topic}.{method}", lambda: self._client.cast(topic, method, **arguments))

    def submit(self, topic: str, method: str, /, **arguments: Any) -> Any:
        """Submit an operation."""
        return _traced(f"submit {topic}.{method}", lambda: self._client.submit(topic, method, **arguments))

    def stream(self, topic: str, method: str, /, **arguments: Any) -> Iterator[Any]:
        """Call a streaming method."""
        warn(f"stream {topic}.{method}")
        items: Iterator[Any] = self._client.stream(topic, method, **arguments)
        return items


def _traced(what: str, run: Any) -> Any:
    started = time.perf_counter()
    try:
        found = run()
    except OstlerError as error:
        warn(f"{what}: {type(error).__name__} after {_milliseconds(started)}")
        raise
    warn(f"{what}: {_milliseconds(started)}")
    return found


def _milliseconds(started: float) -> str:
    return f"{(time.perf_counter() - started) * 1e3:.1f} ms"
