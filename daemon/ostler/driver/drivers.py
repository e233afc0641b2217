"""The drivers of one service."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ostler.clock import Clock
from ostler.driver.base import DriverOptions
from ostler.driver.spec import DriverSpec
from ostler.types import DriverStatus


class Drivers(Mapping[str, Any]):
    """The drivers of one service: name to a proxy whose methods run in the driver's own threads."""

    def __init__(
        self,
        specs: Mapping[str, DriverSpec],
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        *,
        on_change: Callable[[str, DriverStatus], None] | None = None,
        on_ready: Callable[[str], None] | None = None,
        chance: random.Random | None = None,
    ) -> None:
        self._specs = specs

    def __getitem__(self, name: str) -> Any:
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def ready(self) -> list[str]:
        """Return the names of the drivers that are ready. Any thread."""
        raise NotImplementedError

    def status(self, name: str) -> DriverStatus:
        """Return the status of a driver. Any thread."""
        raise NotImplementedError

    def statuses(self) -> list[DriverStatus]:
        """Return the status of every driver. Any thread."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin to initialise every driver and return at once."""
        raise NotImplementedError

    async def wait(self, seconds: float) -> list[str]:
        """Wait up to `seconds` for every driver to be ready; return the names of those that are not."""
        raise NotImplementedError

    async def call(self, name: str, method: str, /, *arguments: Any, **named: Any) -> Any:
        """Call a method of a driver from the loop."""
        raise NotImplementedError

    async def reinitialise(self, name: str, options: DriverOptions | None = None) -> DriverStatus:
        """Tear a driver down and build it anew with other options."""
        raise NotImplementedError

    async def stop(self, deadline: float) -> list[str]:
        """Tear every driver down within `deadline` seconds; return the names of those that hang."""
        raise NotImplementedError
