"""What `Drivers` is told about one driver."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from ostler.driver.base import Driver, DriverEnvironment, DriverOptions


class DriverSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One driver to be run.

    Args:
        name: Its name in the configuration, `[services.TOPIC.drivers.NAME]`.
        cls: Its class, checked when it was loaded; None, or a base of it, when `build` is a factory that does not say.
        options: Its validated options.
        environment: What it is handed.
        build: Makes the driver, on a thread of its lane; by default `cls(environment)`.
        contract: What a driver is held against whose class is another than `cls`.
    """

    name: str
    cls: type[Driver] | None
    options: DriverOptions
    environment: DriverEnvironment
    build: Callable[[DriverEnvironment], Driver] | None = None
    contract: type[Driver] = Driver
