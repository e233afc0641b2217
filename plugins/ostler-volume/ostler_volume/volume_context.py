"""The objects that all operations on volumes share."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ostler import DriverNotReady, Drivers, DriverState, Json
from ostler_volume.backend_capacity import BackendCapacity
from ostler_volume.errors import NotSupported, UnknownBackend
from ostler_volume.records import Records
from ostler_volume.volume_locks import VolumeLocks


class VolumeContext(msgspec.Struct, frozen=True, kw_only=True):
    """Records, drivers and the rest, shared by the operations of one service.

    `notify` publishes an event, `report_change` is `ManagerEnvironment.report_change`. `unrecorded` has, for each
    backend, the files without a record and their sizes: they are not changed, but use space and names.
    """

    topic: str
    host: str
    records: Records
    drivers: Drivers
    locks: VolumeLocks
    log: logging.LoggerAdapter[logging.Logger]
    notify: Callable[[str, Json], None]
    capacity: BackendCapacity
    report_change: Callable[[str, str, bool], None] = lambda *_: None
    unrecorded: dict[str, dict[str, int]] = {}

    def ready_driver(self, name: str, feature: str = "") -> Any:
        """Return the driver of a backend that is ready.

        Args:
            name: The backend.
            feature: The required feature, empty for none.

        Raises:
            UnknownBackend: The backend was not found.
            DriverNotReady: It is not ready now.
            NotSupported: It does not offer the feature.
        """
        if name not in self.drivers:
            known = ", ".join(sorted(self.drivers)) or "none"
            raise UnknownBackend(
                f"backend {name} not found",
                hint=f"available: {known}; a backend is a table [services.{self.topic}.drivers.NAME]",
                backend=name,
            )
        status = self.drivers.status(name)
        if status.state is not DriverState.READY:
            why = f": {status.why}" if status.why else ""
            raise DriverNotReady(
                f"the backend {name} is {status.state}{why}", hint="`ostler status` shows the backends", backend=name
            )
        driver = self.drivers[name]
        if feature and feature not in driver.features:
            raise NotSupported(f"the backend {name} does not offer {feature}", hint="use another backend", backend=name)
        return driver

    def present_driver(self, name: str, feature: str = "") -> Any:
        """Return the result of `backend`, after a check of its identity; call it before work is recorded.

        Raises:
            DriverError: It is not the backend it was, for example because its disk was removed.
            RequestError: See `backend`.
        """
        driver = self.ready_driver(name, feature)
        driver.is_present()
        return driver

    def limit(self, backend: str, driver: Any) -> int:
        """Return the maximum of all promises to the records of a backend in bytes."""
        return self.capacity.limit(backend, driver)
