"""The mounts of a service: which application a path leads to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from ostler_http.application import Application, AppOptions
from ostler_http.asgi import ASGIApp


class MountKey(msgspec.Struct, frozen=True):
    """What a mount was built from: as long as it is equal, a reload leaves the mount as it is.

    Attributes:
        path: Where it is mounted.
        options: The options of its application, with its name and its filters.
        filters: The options of these filters, in their order.
    """

    path: str
    options: AppOptions
    filters: tuple[object, ...] = ()


class Mount:
    """An application at a path, behind its filters. All methods run on the loop of the service.

    Args:
        key: What it was built from.
        app: The application.
        entry: The application behind its filters; its limits apply before.
    """

    def __init__(self, key: MountKey, app: Application, entry: ASGIApp) -> None:
        self.key = key
        self.path = key.path
        self.root_path = "" if key.path == "/" else key.path
        self.options = key.options
        self.app = app
        self.entry = entry
        self.stopping = asyncio.Event()
        """Set when the service stops or the mount is replaced: long responses are to end."""
        self.is_ended = False
        """Whether its time is up: requests that are still in progress have been cancelled."""
        self._requests: set[asyncio.Task[Any]] = set()
        self._is_idle: asyncio.Event | None = None

    @property
    def in_flight(self) -> int:
        """How many of its requests are in progress."""
        return len(self._requests)

    def enter(self) -> asyncio.Task[Any]:
        """Count a request that begins; return its task, which is the current one."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - uvicorn runs each request in one
        self._requests.add(task)
        return task

    def leave(self, task: asyncio.Task[Any]) -> None:
        """Count a request that has ended."""
        self._requests.discard(task)
        if self._is_idle is not None and not self._requests:
            self._is_idle.set()

    async def stop(self, timeout: float) -> None:
        """Tell its requests that it ends, wait for them, cancel what is left, and stop the application.

        Without that a request could go on for ever behind filters that an operator has changed.

        Args:
            timeout: Seconds to wait for its requests, and at most as many for the application.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        self.stopping.set()
        if self.in_flight:
            self._is_idle = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._is_idle.wait()
            self._cancel_requests()
        left = max(0.1, until - loop.time())
        async with asyncio.timeout(left):
            await self.app.stop(left)

    def _cancel_requests(self) -> None:
        self.is_ended = True
        for task in list(self._requests):
            task.cancel()


class MountTable:
    """The mounts of a service, by path; it does not change, a reload makes another.

    Args:
        mounts: The mounts.
    """

    def __init__(self, mounts: Mapping[str, Mount] | None = None) -> None:
        self._mounts = dict(mounts or {})
        self._depth = max((path.count("/") for path in self._mounts), default=0)

    def __iter__(self) -> Iterator[Mount]:
        return iter(self._mounts.values())

    def get(self, key: MountKey) -> Mount | None:
        """Return the mount that was built from this, None if there is none."""
        found = self._mounts.get(key.path)
        return found if found is not None and found.key == key else None

    def find(self, path: str) -> Mount | None:
        """Return the mount with the longest path that a request's path lies at or below; None if none is."""
        parts = path.split("/", self._depth + 1)
        for length in range(min(len(parts), self._depth + 1), 1, -1):
            if found := self._mounts.get("/".join(parts[:length])):
                return found
        return self._mounts.get("/")
