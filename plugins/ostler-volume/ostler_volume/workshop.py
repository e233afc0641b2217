"""What every operation on volumes works with."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ostler import DriverNotReady, Drivers, DriverState, Json
from ostler_volume.claims import Claims
from ostler_volume.errors import NotSupported, UnknownBackend
from ostler_volume.records import Records
from ostler_volume.room import Rooms


class Workshop(msgspec.Struct, frozen=True, kw_only=True):
    """Records, drivers and the rest, shared by the operations of one service.

    `tell` publishes an event, `changed` is `ManagerEnvironment.report_change`. `unknown` holds, for each backend, the
    files without a record as they were last seen, with their sizes: nobody's volumes, which are left alone, but take up
    room and names.
    """

    topic: str
    host: str
    records: Records
    drivers: Drivers
    claims: Claims
    log: logging.LoggerAdapter[logging.Logger]
    tell: Callable[[str, Json], None]
    rooms: Rooms
    changed: Callable[[str, str, bool], None] = lambda *_: None
    unknown: dict[str, dict[str, int]] = {}

    def backend(self, name: str, feature: str = "") -> Any:
        """Return the driver of a backend that is ready.

        Args:
            name: The backend.
            feature: What it must offer.

        Raises:
            UnknownBackend: There is none of that name.
            DriverNotReady: It is not ready now.
            NotSupported: It does not offer the feature.
        """
        if name not in self.drivers:
            known = ", ".join(sorted(self.drivers)) or "none"
            raise UnknownBackend(
                f"there is no backend {name}",
                hint=f"the backends are: {known}; one is a table [services.{self.topic}.drivers.NAME]",
                backend=name,
            )
        status = self.drivers.status(name)
        if status.state is not DriverState.READY:
            why = f": {status.why}" if status.why else ""
            raise DriverNotReady(
                f"the backend {name} is {status.state}{why}", hint="`ostler status` shows it", backend=name
            )
        driver = self.drivers[name]
        if feature and feature not in driver.features:
            raise NotSupported(f"the backend {name} does not offer {feature}", hint="use another backend", backend=name)
        return driver

    def working(self, name: str, feature: str = "") -> Any:
        """Return what `backend` returns, if the backend is the one it was: before a record says that work has begun.

        Raises:
            DriverError: It is not: its disk was taken away, for instance.
            RequestError: See `backend`.
        """
        driver = self.backend(name, feature)
        driver.is_present()
        return driver

    def limit(self, backend: str, driver: Any) -> int:
        """Return how many bytes may be promised to the records of a backend in all."""
        return self.rooms.limit(backend, driver)
